//! The socket interface of devmem TCP, as the kernel defines it.
//!
//! Sources: `include/uapi/linux/uio.h` (`struct dmabuf_cmsg`, `struct dmabuf_token`),
//! `include/uapi/asm-generic/socket.h`, `include/linux/socket.h` (`MSG_SOCK_DEVMEM`, which is in no exported
//! header) and `net/core/sock.c` (`sock_devmem_dontneed()`) of Linux 7.2.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::sys::socket::MsgFlags;

/// Asks `recvmsg()` for device memory.
pub(crate) const MSG_SOCK_DEVMEM: libc::c_int = 0x0200_0000;

/// The kernel-internal error number that `recvmsg()` returns if not even one message fits into the control
/// buffer (`ETOOSMALL`, `include/linux/errno.h`). The C library has no name for it.
pub const ETOOSMALL: i32 = 525;

/// The most ranges that one `SO_DEVMEM_DONTNEED` takes (`MAX_DONTNEED_TOKENS`).
pub const RELEASE_RANGES: usize = 128;

/// The most fragments that one `SO_DEVMEM_DONTNEED` releases (`MAX_DONTNEED_FRAGS`); the kernel stops there
/// without an error.
pub const RELEASE_FRAGMENTS: usize = 1024;

/// `struct dmabuf_cmsg`: one piece of payload.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DmabufMessage {
    /// Where the piece begins in the DMA-buf, in bytes.
    pub fragment_offset: u64,
    /// How long it is, in bytes.
    pub fragment_size: u32,
    /// What gives it back.
    pub fragment_token: u32,
    /// The binding that it arrived through.
    pub dmabuf_id: u32,
    /// Zero today.
    pub flags: u32,
}

/// `struct dmabuf_token`: a range of tokens.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenRange {
    /// The first token.
    pub start: u32,
    /// How many.
    pub count: u32,
}

/// `struct cmsghdr` for 64-bit kernels; the payload follows at [`CONTROL_HEADER`].
#[repr(C)]
struct ControlHeader {
    length: usize,
    level: i32,
    kind: i32,
}

/// The size of a control message's header, in bytes.
pub(crate) const CONTROL_HEADER: usize = size_of::<ControlHeader>();

/// What control messages are aligned to, in bytes (`CMSG_ALIGN`).
pub(crate) const CONTROL_ALIGNMENT: usize = size_of::<usize>();

/// The space of one [`DmabufMessage`] in the control buffer, in bytes (`CMSG_SPACE`).
pub const MESSAGE_SPACE: usize =
    CONTROL_HEADER + size_of::<DmabufMessage>().next_multiple_of(CONTROL_ALIGNMENT);

const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<DmabufMessage>() == 24);
    assert!(offset_of!(DmabufMessage, fragment_size) == 8);
    assert!(offset_of!(DmabufMessage, fragment_token) == 12);
    assert!(offset_of!(DmabufMessage, dmabuf_id) == 16);
    assert!(offset_of!(DmabufMessage, flags) == 20);
    assert!(size_of::<TokenRange>() == 8);
    assert!(size_of::<ControlHeader>() == size_of::<libc::cmsghdr>());
    assert!(CONTROL_ALIGNMENT != 8 || MESSAGE_SPACE == 40);
};

/// What `recvmsg()` returned.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Received {
    /// Payload bytes, in device memory and in `linear` together.
    pub(crate) bytes: usize,
    /// How much of the control buffer holds messages, in bytes.
    pub(crate) control_length: usize,
    /// What the kernel says of the call, such as that control messages were cut off.
    pub(crate) flags: MsgFlags,
}

/// `recvmsg()`; device memory is asked for with [`MSG_SOCK_DEVMEM`].
///
/// The length of `linear` also limits how much is received into device memory. On failure the error number
/// is returned raw: [`ETOOSMALL`] has no name.
pub(crate) fn receive_message(
    socket: BorrowedFd<'_>,
    linear: &mut [u8],
    control: &mut [u64],
    flags: libc::c_int,
) -> Result<Received, i32> {
    let mut vector = libc::iovec { iov_base: linear.as_mut_ptr().cast(), iov_len: linear.len() };
    // SAFETY: all-zero is a valid msghdr: null pointers with zero lengths.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(control) as _;
    // SAFETY: the header points to one vector over `linear` and to the whole of `control`, which are
    // borrowed exclusively for the call; the kernel writes at most the lengths given.
    let bytes = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) };
    match usize::try_from(bytes) {
        Ok(bytes) => {
            #[allow(clippy::unnecessary_cast, reason = "some C libraries have a narrower type")]
            let length = header.msg_controllen as usize;
            // The kernel never returns more than it was given room for; a length beyond would be used to
            // slice, so that it is held to the buffer all the same.
            let control_length = length.min(size_of_val(control));
            Ok(Received { bytes, control_length, flags: MsgFlags::from_bits_retain(header.msg_flags) })
        }
        Err(_) => Err(nix::errno::Errno::last_raw()),
    }
}

/// `setsockopt(SO_DEVMEM_DONTNEED)`: gives fragments back. Returns how many the kernel released.
pub(crate) fn release_tokens(socket: BorrowedFd<'_>, ranges: &[TokenRange]) -> Result<usize, i32> {
    // SAFETY: a TokenRange is eight bytes without padding, and a u8 has no alignment.
    let bytes = unsafe { std::slice::from_raw_parts(ranges.as_ptr().cast(), size_of_val(ranges)) };
    release_bytes(socket, bytes)
}

/// As [`release_tokens`], with the option's value of any length.
pub(crate) fn release_bytes(socket: BorrowedFd<'_>, value: &[u8]) -> Result<usize, i32> {
    let Ok(length) = libc::socklen_t::try_from(value.len()) else { return Err(libc::EINVAL) };
    // SAFETY: the pointer and the length describe `value`, which the kernel only reads.
    let released = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_DEVMEM_DONTNEED,
            value.as_ptr().cast(),
            length,
        )
    };
    usize::try_from(released).map_err(|_| nix::errno::Errno::last_raw())
}

/// The control buffer as bytes, for the parser.
pub(crate) fn control_bytes(control: &[u64], length: usize) -> &[u8] {
    let capacity = size_of_val(control);
    // SAFETY: any u64 is eight valid bytes, a u8 has no alignment, and the length is held to the slice.
    unsafe { std::slice::from_raw_parts(control.as_ptr().cast(), length.min(capacity)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use devmem_uapi_check::{Header, layouts};

    #[test]
    fn the_kernel_headers_agree() {
        Header::new("linux/uio.h")
            .values(layouts! {
                DmabufMessage as "dmabuf_cmsg" {
                    fragment_offset = "frag_offset", fragment_size = "frag_size",
                    fragment_token = "frag_token", dmabuf_id, flags
                }
                TokenRange as "dmabuf_token" { start = "token_start", count = "token_count" }
            })
            .assert();
        Header::new("asm/socket.h")
            .value("SO_DEVMEM_DONTNEED", libc::SO_DEVMEM_DONTNEED)
            .value("SO_DEVMEM_LINEAR", libc::SO_DEVMEM_LINEAR)
            .value("SO_DEVMEM_DMABUF", libc::SO_DEVMEM_DMABUF)
            .value("SCM_DEVMEM_LINEAR", libc::SCM_DEVMEM_LINEAR)
            .value("SCM_DEVMEM_DMABUF", libc::SCM_DEVMEM_DMABUF)
            .assert();
    }
}
