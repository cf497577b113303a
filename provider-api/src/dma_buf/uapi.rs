//! The ioctls of a DMA-buf file, as `linux/dma-buf.h` defines them.
//!
//! Source: `include/uapi/linux/dma-buf.h` and `drivers/dma-buf/dma-buf.c` of Linux 7.2.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::{ioctl_readwrite, ioctl_write_ptr, request_code_readwrite, request_code_write};

/// The file system magic of every DMA-buf: "DMAB" (`include/uapi/linux/magic.h`).
pub(crate) const DMA_BUF_MAGIC: u64 = 0x444d_4142;

/// The longest name with its terminating zero (`DMA_BUF_NAME_LEN`).
pub(crate) const NAME_CAPACITY: usize = 32;

/// `DMA_BUF_SYNC_READ`: the CPU reads, or fences of writers are meant.
pub(crate) const SYNC_READ: u64 = 1;
/// `DMA_BUF_SYNC_WRITE`: the CPU writes, or fences of readers and writers are meant.
pub(crate) const SYNC_WRITE: u64 = 2;
/// `DMA_BUF_SYNC_END`: the access is over; without it, it begins.
pub(crate) const SYNC_END: u64 = 4;

const IOCTL_BASE: u8 = b'b';

/// `struct dma_buf_sync`.
#[repr(C)]
struct Sync {
    flags: u64,
}

/// `struct dma_buf_export_sync_file` and `struct dma_buf_import_sync_file`.
#[repr(C)]
struct SyncFileRequest {
    flags: u32,
    fd: i32,
}

const _: () = {
    assert!(request_code_write!(IOCTL_BASE, 0, size_of::<Sync>()) == 0x4008_6200);
    assert!(request_code_write!(IOCTL_BASE, 1, size_of::<u64>()) == 0x4008_6201);
    assert!(request_code_readwrite!(IOCTL_BASE, 2, size_of::<SyncFileRequest>()) == 0xc008_6202);
    assert!(request_code_write!(IOCTL_BASE, 3, size_of::<SyncFileRequest>()) == 0x4008_6203);
    assert!(std::mem::offset_of!(SyncFileRequest, fd) == 4);
};

ioctl_write_ptr!(ioctl_sync, IOCTL_BASE, 0, Sync);
ioctl_write_ptr!(ioctl_set_name, IOCTL_BASE, 1, u64);
ioctl_readwrite!(ioctl_export_sync_file, IOCTL_BASE, 2, SyncFileRequest);
ioctl_write_ptr!(ioctl_import_sync_file, IOCTL_BASE, 3, SyncFileRequest);

/// Repeats a call that a signal interrupted or that the kernel asks to repeat.
///
/// `DMA_BUF_IOCTL_SYNC` returns `EAGAIN` and `EINTR` while it waits for fences.
fn repeat(mut call: impl FnMut() -> nix::Result<i32>) -> nix::Result<()> {
    loop {
        match call() {
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            result => return result.map(drop),
        }
    }
}

/// `DMA_BUF_IOCTL_SYNC`: begins or ends an access of the CPU.
pub(crate) fn sync(fd: BorrowedFd<'_>, flags: u64) -> nix::Result<()> {
    let argument = Sync { flags };
    // SAFETY: the kernel only reads `argument`, which has the layout asserted above.
    repeat(|| unsafe { ioctl_sync(fd.as_raw_fd(), &raw const argument) })
}

/// `DMA_BUF_SET_NAME`: names the buffer. The kernel refuses more than 31 bytes.
pub(crate) fn set_name(fd: BorrowedFd<'_>, name: &CStr) -> nix::Result<()> {
    // The request number of `DMA_BUF_SET_NAME_B` says u64, but its argument is the string itself.
    let argument = name.as_ptr().cast::<u64>();
    // SAFETY: the kernel copies a zero-terminated string from the pointer, which `name` is; it never
    // reads a u64 from it, so that its alignment does not matter.
    repeat(|| unsafe { ioctl_set_name(fd.as_raw_fd(), argument) })
}

/// `DMA_BUF_IOCTL_EXPORT_SYNC_FILE`: the buffer's fences as one sync_file.
pub(crate) fn export_sync_file(fd: BorrowedFd<'_>, flags: u64) -> nix::Result<OwnedFd> {
    let mut argument = SyncFileRequest { flags: flags as u32, fd: -1 };
    // SAFETY: `argument` has the layout asserted above and lives through the call.
    repeat(|| unsafe { ioctl_export_sync_file(fd.as_raw_fd(), &raw mut argument) })?;
    // SAFETY: on success the kernel has installed a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(argument.fd) })
}

/// `DMA_BUF_IOCTL_IMPORT_SYNC_FILE`: adds the fences of a sync_file to the buffer.
pub(crate) fn import_sync_file(fd: BorrowedFd<'_>, flags: u64, sync_file: RawFd) -> nix::Result<()> {
    let argument = SyncFileRequest { flags: flags as u32, fd: sync_file };
    // SAFETY: the kernel only reads `argument`, which has the layout asserted above.
    repeat(|| unsafe { ioctl_import_sync_file(fd.as_raw_fd(), &raw const argument) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use devmem_uapi_check::{Header, layouts};

    #[test]
    fn the_kernel_headers_agree() {
        let sync_file = layouts! {
            SyncFileRequest as "dma_buf_export_sync_file" { flags, fd }
            SyncFileRequest as "dma_buf_import_sync_file" { flags, fd }
        };
        Header::new("linux/dma-buf.h")
            .value("DMA_BUF_NAME_LEN", NAME_CAPACITY as u64)
            .value("DMA_BUF_SYNC_READ", SYNC_READ)
            .value("DMA_BUF_SYNC_WRITE", SYNC_WRITE)
            .value("DMA_BUF_SYNC_END", SYNC_END)
            .value("DMA_BUF_IOCTL_SYNC", request_code_write!(IOCTL_BASE, 0, size_of::<Sync>()))
            .value("DMA_BUF_SET_NAME_B", request_code_write!(IOCTL_BASE, 1, size_of::<u64>()))
            .value(
                "DMA_BUF_IOCTL_EXPORT_SYNC_FILE",
                request_code_readwrite!(IOCTL_BASE, 2, size_of::<SyncFileRequest>()),
            )
            .value(
                "DMA_BUF_IOCTL_IMPORT_SYNC_FILE",
                request_code_write!(IOCTL_BASE, 3, size_of::<SyncFileRequest>()),
            )
            .values(layouts! { Sync as "dma_buf_sync" { flags } })
            .values(sync_file)
            .assert();
        Header::new("linux/magic.h").value("DMA_BUF_MAGIC", DMA_BUF_MAGIC).assert();
    }
}
