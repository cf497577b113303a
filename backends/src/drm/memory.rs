//! Mappings of device memory that are reached without the risk of a signal.
//!
//! Touching a mapping of memory that is gone, or that finds no room in a full device, ends a process with `SIGBUS`.
//! Here the kernel touches it, as the source of a `write()` or the target of a `read()`, and answers `EFAULT` instead.

use std::fs::File;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// A mapped range, unmapped on drop.
#[derive(Debug)]
struct Range {
    start: NonNull<u8>,
    length: NonZeroUsize,
}

// SAFETY: the range belongs to no thread, and nothing here reads or writes it other than through the kernel or by
// volatile stores.
unsafe impl Send for Range {}
// SAFETY: as above.
unsafe impl Sync for Range {}

impl Range {
    fn map(fd: BorrowedFd<'_>, offset: u64, length: usize, protection: ProtFlags) -> nix::Result<Self> {
        let length = NonZeroUsize::new(length).ok_or(Errno::EINVAL)?;
        let offset = i64::try_from(offset).map_err(|_| Errno::EINVAL)?;
        // SAFETY: a new mapping at an address of the kernel's choice overlaps no memory in use.
        let start = unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, fd, offset)? };
        Ok(Self { start: start.cast(), length })
    }
}

impl Drop for Range {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `map`, and no pointer into it outlives `self`.
        let result = unsafe { munmap(self.start.cast(), self.length.get()) };
        debug_assert!(result.is_ok(), "munmap of our own mapping: {result:?}");
    }
}

/// A part of a buffer, readable through the kernel.
#[derive(Debug)]
pub(crate) struct View(Range);

impl View {
    /// Maps `length` bytes of a DMA-buf or a DRM file from `offset` on.
    pub(crate) fn map(fd: BorrowedFd<'_>, offset: u64, length: usize) -> nix::Result<Self> {
        Range::map(fd, offset, length, ProtFlags::PROT_READ).map(Self)
    }

    /// Reads the first word. The driver brings the page, with most drivers the whole buffer, to where it belongs;
    /// and what a peer wrote earlier arrives before the answer does, as PCI Express orders a read behind the posted
    /// writes that are under way to the same device (PCI Express Base Specification, 2.4.1).
    ///
    /// `EFAULT` if there is no memory behind the mapping.
    pub(crate) fn read_back(&self) -> nix::Result<()> {
        let sink = sink()?;
        let length = size_of::<u64>().min(self.0.length.get());
        // SAFETY: the kernel reads `length` bytes that are inside the mapping, and fails where they cannot be read.
        let written = unsafe { nix::libc::pwrite(sink.as_raw_fd(), self.0.start.as_ptr().cast(), length, 0) };
        Errno::result(written).map(drop)
    }
}

/// Where words are copied to that nobody wants: a file of one page in memory.
fn sink() -> nix::Result<BorrowedFd<'static>> {
    static SINK: OnceLock<File> = OnceLock::new();
    if SINK.get().is_none() {
        let fd: OwnedFd = memfd_create(c"devmem read-back", MFdFlags::MFD_CLOEXEC)?;
        // Another thread may have been faster; its file serves as well.
        let _ = SINK.set(fd.into());
    }
    SINK.get().map(AsFd::as_fd).ok_or(Errno::EBADF)
}

/// A page of which a store acts on the device, and which cannot be read.
#[derive(Debug)]
pub(crate) struct BarrierPage(Range);

impl BarrierPage {
    /// Maps a page of a DRM file, write-only.
    pub(crate) fn map(fd: BorrowedFd<'_>, offset: u64, length: usize) -> nix::Result<Self> {
        Range::map(fd, offset, length, ProtFlags::PROT_WRITE).map(Self)
    }

    /// Stores a word.
    pub(crate) fn store(&self) {
        // SAFETY: a page is aligned and longer than a word. Its driver maps a page of memory in its place when the
        // device is gone, so that the store always has a target.
        unsafe { self.0.start.as_ptr().cast::<u32>().write_volatile(0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_gone_is_an_error_and_no_signal() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        let view = View::map(file.as_fd(), 0, 4096).unwrap();
        view.read_back().unwrap();
        file.set_len(0).unwrap();
        assert_eq!(view.read_back(), Err(Errno::EFAULT));
    }

    #[test]
    fn a_store_reaches_the_page() {
        use std::os::unix::fs::FileExt;
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[0xff; 4096], 0).unwrap();
        BarrierPage::map(file.as_fd(), 0, 4096).unwrap().store();
        let mut start = [0; 8];
        file.read_exact_at(&mut start, 0).unwrap();
        assert_eq!(start, [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    }
}
