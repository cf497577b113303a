//! The socket options and the address of AF_XDP (include/uapi/linux/if_xdp.h).

use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;

use nix::errno::Errno;
use nix::libc;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use super::Mode;

/// How much memory a socket has, in bytes.
const BYTES: NonZeroUsize = NonZeroUsize::new(256 << 10).unwrap();

/// In how large pieces it is divided, in bytes: pages, which every driver takes.
const CHUNK: u32 = 4096;

/// How many entries each ring has: a power of two.
const ENTRIES: u32 = 64;

const _: () = assert!(size_of::<libc::sockaddr_xdp>() == 16);
const _: () = assert!(size_of::<libc::xdp_umem_reg>() == 32);

/// Memory that nothing in this process reads or writes.
#[derive(Debug)]
pub(super) struct Area(NonNull<c_void>);

impl Area {
    pub(super) fn new() -> nix::Result<Self> {
        // SAFETY: a new mapping, wherever the kernel puts it, touches no memory of anybody.
        let start = unsafe {
            mmap_anonymous(None, BYTES, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_PRIVATE)
        }?;
        Ok(Self(start))
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own; the kernel holds its pages by itself as long as it needs them.
        let _ = unsafe { munmap(self.0, BYTES.get()) };
    }
}

pub(super) fn socket() -> nix::Result<OwnedFd> {
    // SAFETY: the call takes numbers alone.
    let number = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    // SAFETY: the kernel has just made this descriptor, and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(Errno::result(number)?) })
}

/// Makes an area the socket's memory (its UMEM).
pub(super) fn register(socket: &OwnedFd, area: &Area) -> nix::Result<()> {
    let registration = libc::xdp_umem_reg {
        addr: area.0.as_ptr().addr() as u64,
        len: BYTES.get() as u64,
        chunk_size: CHUNK,
        headroom: 0,
        flags: 0,
        tx_metadata_len: 0,
    };
    // SAFETY: XDP_UMEM_REG reads one `struct xdp_umem_reg`. Nothing in this process refers to the area's content.
    unsafe { set_option(socket, libc::XDP_UMEM_REG, &registration) }
}

/// Makes the rings without which a socket cannot be bound.
pub(super) fn make_rings(socket: &OwnedFd) -> nix::Result<()> {
    for ring in [libc::XDP_UMEM_FILL_RING, libc::XDP_UMEM_COMPLETION_RING, libc::XDP_RX_RING] {
        // SAFETY: these options read one number.
        unsafe { set_option(socket, ring, &ENTRIES) }?;
    }
    Ok(())
}

pub(super) fn bind(socket: &OwnedFd, ifindex: u32, queue: u32, mode: Mode) -> nix::Result<()> {
    let address = libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        sxdp_flags: match mode {
            Mode::Copy => libc::XDP_COPY,
            Mode::ZeroCopy => libc::XDP_ZEROCOPY,
        },
        sxdp_ifindex: ifindex,
        sxdp_queue_id: queue,
        sxdp_shared_umem_fd: 0,
    };
    // SAFETY: the kernel reads a whole address of the socket's family.
    let result = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_xdp>() as libc::socklen_t,
        )
    };
    Errno::result(result).map(drop)
}

/// # Safety
///
/// `value` must be what the option reads, and what it points to must stay valid as long as the socket uses it.
unsafe fn set_option<T>(socket: &OwnedFd, option: libc::c_int, value: &T) -> nix::Result<()> {
    // SAFETY: the kernel reads no more than the size that it is told; the caller answers for the rest.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_XDP,
            option,
            (&raw const *value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    Errno::result(result).map(drop)
}
