//! The ioctl of `/dev/dma_heap/*`, as `linux/dma-heap.h` defines it.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::{ioctl_readwrite, request_code_readwrite};

const IOCTL_BASE: u8 = b'H';

/// `struct dma_heap_allocation_data`.
#[repr(C)]
struct Allocation {
    length: u64,
    fd: u32,
    fd_flags: u32,
    heap_flags: u64,
}

const _: () = {
    assert!(request_code_readwrite!(IOCTL_BASE, 0, size_of::<Allocation>()) == 0xc018_4800);
    assert!(std::mem::offset_of!(Allocation, heap_flags) == 16);
};

ioctl_readwrite!(ioctl_allocate, IOCTL_BASE, 0, Allocation);

/// `DMA_HEAP_IOCTL_ALLOC`: a new DMA-buf for reading and writing.
///
/// The kernel rounds `length` up to pages and checks it against nothing else.
pub(super) fn allocate(heap: BorrowedFd<'_>, length: u64) -> nix::Result<OwnedFd> {
    let fd_flags = (OFlag::O_RDWR | OFlag::O_CLOEXEC).bits().cast_unsigned();
    loop {
        // `fd` must be 0 on entry and is written, so that each attempt needs a fresh argument.
        let mut argument = Allocation { length, fd: 0, fd_flags, heap_flags: 0 };
        // SAFETY: `argument` has the layout asserted above and lives through the call.
        match unsafe { ioctl_allocate(heap.as_raw_fd(), &raw mut argument) } {
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
            // SAFETY: on success the kernel has installed a new descriptor that nobody else owns.
            Ok(_) => return Ok(unsafe { OwnedFd::from_raw_fd(argument.fd.cast_signed()) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use devmem_uapi_check::{Header, layouts};

    #[test]
    fn the_kernel_headers_agree() {
        Header::new("linux/dma-heap.h")
            .value("DMA_HEAP_IOCTL_ALLOC", request_code_readwrite!(IOCTL_BASE, 0, size_of::<Allocation>()))
            .values(layouts! {
                Allocation as "dma_heap_allocation_data" { length = "len", fd, fd_flags, heap_flags }
            })
            .assert();
    }
}
