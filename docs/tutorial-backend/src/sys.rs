//! The one system call that this backend adds: `DMA_HEAP_IOCTL_ALLOC` of `linux/dma-heap.h`.

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::libc::{O_CLOEXEC, O_RDWR};

/// `struct dma_heap_allocation_data`.
#[repr(C)]
struct AllocationData {
    len: u64,
    fd: u32,
    fd_flags: u32,
    heap_flags: u64,
}

const _: () = assert!(nix::request_code_readwrite!(b'H', 0, size_of::<AllocationData>()) == 0xc018_4800);

nix::ioctl_readwrite!(dma_heap_alloc, b'H', 0, AllocationData);

/// A new DMA-buf of `len` bytes, which the kernel rounds up to pages and judges in no other way.
///
/// It can be written, and programs that are started do not inherit it.
pub(crate) fn allocate(heap: &File, len: u64) -> nix::Result<OwnedFd> {
    let fd_flags = (O_RDWR | O_CLOEXEC).cast_unsigned();
    let mut data = AllocationData { len, fd: 0, fd_flags, heap_flags: 0 };
    // SAFETY: `data` has the layout that the request number stands for, and lives through the call.
    unsafe { dma_heap_alloc(heap.as_raw_fd(), &raw mut data) }?;
    // SAFETY: on success `fd` is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(data.fd.cast_signed()) })
}
