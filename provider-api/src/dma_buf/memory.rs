//! The CPU's view of a DMA-buf: a shared mapping that a device may write at any time.
//!
//! Such memory is never lent out as a slice: the compiler may assume that nobody else changes what a
//! `&[u8]` points to. All accesses are volatile copies through raw pointers.

use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// A mapped range of a file, unmapped on drop.
#[derive(Debug)]
pub(crate) struct SharedMemory {
    start: NonNull<u8>,
    length: NonZeroUsize,
}

// SAFETY: the memory is shared with devices and other processes anyway; every access is a volatile copy
// that makes no assumption about who else reads or writes. The mapping belongs to no thread.
unsafe impl Send for SharedMemory {}
// SAFETY: as above; concurrent volatile copies yield torn data at worst, never a broken invariant.
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// Maps the first `length` bytes of `fd`, shared.
    pub(crate) fn map(fd: BorrowedFd<'_>, length: NonZeroUsize, writable: bool) -> nix::Result<Self> {
        let mut protection = ProtFlags::PROT_READ;
        protection.set(ProtFlags::PROT_WRITE, writable);
        // SAFETY: a new mapping at an address of the kernel's choice overlaps no memory in use.
        let start = unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, fd, 0)? };
        Ok(Self { start: start.cast(), length })
    }

    pub(crate) fn length(&self) -> usize {
        self.length.get()
    }

    /// Copies from the mapping. Returns `None`, and copies nothing, if the range is not all inside.
    pub(crate) fn copy_out(&self, offset: usize, destination: &mut [u8]) -> Option<()> {
        let source = self.range(offset, destination.len())?;
        // SAFETY: `range` checked that as many bytes as `destination` has are mapped from `source` on.
        unsafe { volatile_read(source, destination) };
        Some(())
    }

    /// Copies into the mapping, which must be writable. Returns `None`, and copies nothing, if the range
    /// is not all inside.
    pub(crate) fn copy_in(&self, offset: usize, source: &[u8]) -> Option<()> {
        let destination = self.range(offset, source.len())?;
        // SAFETY: `range` checked that as many bytes as `source` has are mapped from `destination` on;
        // the caller holds a write access, which only a writable mapping gives.
        unsafe { volatile_write(destination, source) };
        Some(())
    }

    fn range(&self, offset: usize, length: usize) -> Option<*mut u8> {
        let end = offset.checked_add(length)?;
        // `wrapping_add` needs no proof that the result is inside; the comparison gives it.
        (end <= self.length.get()).then(|| self.start.as_ptr().wrapping_add(offset))
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `map`, and no pointer into it outlives `self`.
        let result = unsafe { munmap(self.start.cast(), self.length.get()) };
        debug_assert!(result.is_ok(), "munmap of our own mapping: {result:?}");
    }
}

const WORD: usize = size_of::<u64>();

/// Reads `destination.len()` bytes from `source`, in words where its alignment allows.
///
/// # Safety
///
/// `source` must be valid for volatile reads of that many bytes.
unsafe fn volatile_read(source: *const u8, destination: &mut [u8]) {
    let head = source.align_offset(WORD).min(destination.len());
    let (first, rest) = destination.split_at_mut(head);
    let (words, last) = rest.as_chunks_mut::<WORD>();
    let tail_start = head + words.len() * WORD;
    for (index, byte) in first.iter_mut().enumerate() {
        // SAFETY: inside the range that the caller vouches for.
        *byte = unsafe { source.add(index).read_volatile() };
    }
    for (index, word) in words.iter_mut().enumerate() {
        // SAFETY: inside the range, and aligned: `head` bytes after `source` a word boundary lies.
        *word = unsafe { source.add(head + index * WORD).cast::<u64>().read_volatile() }.to_ne_bytes();
    }
    for (index, byte) in last.iter_mut().enumerate() {
        // SAFETY: inside the range that the caller vouches for.
        *byte = unsafe { source.add(tail_start + index).read_volatile() };
    }
}

/// Writes `source` to `destination`, in words where its alignment allows.
///
/// # Safety
///
/// `destination` must be valid for volatile writes of that many bytes.
unsafe fn volatile_write(destination: *mut u8, source: &[u8]) {
    let head = destination.align_offset(WORD).min(source.len());
    let (first, rest) = source.split_at(head);
    let (words, last) = rest.as_chunks::<WORD>();
    let tail_start = head + words.len() * WORD;
    for (index, byte) in first.iter().enumerate() {
        // SAFETY: inside the range that the caller vouches for.
        unsafe { destination.add(index).write_volatile(*byte) };
    }
    for (index, word) in words.iter().enumerate() {
        let target = destination.wrapping_add(head + index * WORD).cast::<u64>();
        // SAFETY: inside the range, and aligned: `head` bytes after `destination` a word boundary lies.
        unsafe { target.write_volatile(u64::from_ne_bytes(*word)) };
    }
    for (index, byte) in last.iter().enumerate() {
        // SAFETY: inside the range that the caller vouches for.
        unsafe { destination.add(tail_start + index).write_volatile(*byte) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn copies_any_range_and_nothing_beside_it(
            content in prop::collection::vec(any::<u8>(), 1..100),
            start in 0usize..100,
            length in 0usize..100,
        ) {
            let start = start % content.len();
            let length = length % (content.len() - start + 1);
            let mut read = vec![0; length];
            // SAFETY: `start + length` is within `content`.
            unsafe { volatile_read(content.as_ptr().add(start), &mut read) };
            prop_assert_eq!(&read, &content[start..start + length]);

            let mut written = vec![0xa5; content.len()];
            let mut expected = written.clone();
            expected[start..start + length].copy_from_slice(&read);
            // SAFETY: as above, for `written`, which is as long.
            unsafe { volatile_write(written.as_mut_ptr().add(start), &read) };
            prop_assert_eq!(written, expected);
        }
    }
}
