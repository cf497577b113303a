//! Shared memory as the devices see it: a file mapped once, read and written while others do the same.
//!
//! The only module of the bus with unsafe code. Every access is checked against the length of the
//! mapping, so no address from a guest can reach anything else.

use std::ffi::c_void;
use std::fs::File;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering, fence};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::unistd::{Whence, lseek};

/// A page of the guest, and the grain in which ground truth is told.
pub const PAGE_SIZE: u64 = 4096;

/// What makes two descriptors the same memory: device and inode of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FileIdentity {
    device: u64,
    inode: u64,
}

impl FileIdentity {
    /// Asks the kernel which file this is; also tells its length.
    pub(crate) fn of(file: &File) -> std::io::Result<(FileIdentity, u64)> {
        let metadata = file.metadata()?;
        Ok((FileIdentity { device: metadata.dev(), inode: metadata.ino() }, metadata.len()))
    }
}

/// A file of memory mapped whole and shared into this process.
///
/// Its contents belong to others too (the guest's processors, other devices), so it never lends a
/// reference to them: bytes are copied in and out.
pub struct SharedMemory {
    base: NonNull<u8>,
    length: usize,
    writable: bool,
    file: File,
}

// SAFETY: the mapping lives as long as the value, has no thread affinity, and is only accessed with
// volatile or atomic operations.
unsafe impl Send for SharedMemory {}
// SAFETY: as above; concurrent access is what the memory is for.
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// Maps all of `file`; read-only where the file does not allow more.
    pub(crate) fn map(file: File) -> std::io::Result<SharedMemory> {
        let length = usize::try_from(file.metadata()?.len()).unwrap_or(0);
        let size = NonZeroUsize::new(length).ok_or(Errno::EINVAL)?;
        let attempt = |protection| {
            // SAFETY: a new mapping at an address of the kernel's choice; it replaces nothing.
            unsafe { mmap(None, size, protection, MapFlags::MAP_SHARED, file.as_fd(), 0) }
        };
        let (address, writable) = match attempt(ProtFlags::PROT_READ | ProtFlags::PROT_WRITE) {
            Ok(address) => (address, true),
            Err(Errno::EACCES | Errno::EPERM) => (attempt(ProtFlags::PROT_READ)?, false),
            Err(error) => return Err(error.into()),
        };
        Ok(SharedMemory { base: address.cast(), length, writable, file })
    }

    /// New memory of `size` bytes, for a device that has memory of its own.
    ///
    /// # Errors
    /// What `memfd_create(2)`, `ftruncate(2)` or `mmap(2)` said.
    pub fn create(name: &str, size: u64) -> std::io::Result<SharedMemory> {
        let file = File::from(memfd_create(name, MFdFlags::MFD_CLOEXEC)?);
        file.set_len(size)?;
        SharedMemory::map(file)
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.length as u64
    }

    /// Whether the memory has no bytes (it never has none; for completeness of `len`).
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Whether the file allowed a writable mapping.
    pub fn writable(&self) -> bool {
        self.writable
    }

    /// The file behind the memory, to be handed to whoever shall map it too.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The next part of the memory at or after `offset` that was ever written: holes are skipped
    /// without filling them. `None` when there is no more.
    pub(crate) fn next_data(&self, offset: u64) -> Option<std::ops::Range<u64>> {
        let start = self.next_data_start(offset)?;
        let end = self.seek(start, Whence::SeekHole).unwrap_or(self.len());
        Some(start..end.clamp(start, self.len()))
    }

    /// Where that part begins. Where it ends takes the system as long as it is large.
    pub(super) fn next_data_start(&self, offset: u64) -> Option<u64> {
        if offset >= self.len() {
            return None;
        }
        match self.seek(offset, Whence::SeekData) {
            Ok(start) => Some(start),
            Err(Errno::ENXIO) => None,
            // A file system that cannot tell: treat all of it as written.
            Err(_) => Some(offset),
        }
    }

    fn seek(&self, from: u64, whence: Whence) -> nix::Result<u64> {
        let from = i64::try_from(from).map_err(|_| Errno::EOVERFLOW)?;
        lseek(self.file.as_fd(), from, whence).map(i64::unsigned_abs)
    }

    /// Gives the bytes back to the system: they read as zero, and count as never written.
    ///
    /// # Errors
    /// What `fallocate(2)` said.
    pub(crate) fn discard(&self, range: std::ops::Range<u64>) -> std::io::Result<()> {
        let number = |bytes: u64| i64::try_from(bytes).map_err(|_| Errno::EOVERFLOW);
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let length = range.end.saturating_sub(range.start);
        if length == 0 {
            return Ok(());
        }
        Ok(fallocate(&self.file, flags, number(range.start)?, number(length)?)?)
    }

    fn at(&self, offset: u64, length: usize) -> Option<NonNull<u8>> {
        #[cfg(test)]
        super::work::count(length);
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(length)?;
        if end > self.length {
            return None;
        }
        // SAFETY: `start <= end <= self.length`, so the result stays in the mapping or one past it.
        Some(unsafe { self.base.add(start) })
    }

    /// Copies bytes out. `None` when the range is not within the memory; then nothing was copied.
    #[must_use]
    pub fn read(&self, offset: u64, into: &mut [u8]) -> Option<()> {
        let source = self.at(offset, into.len())?.as_ptr().cast_const();
        let (head, words, tail) = split_at_words(source.addr(), into.len());
        for index in (0..head).chain(into.len() - tail..into.len()) {
            // SAFETY: `index < into.len()`, a range that `at` checked to be in the mapping.
            into[index] = unsafe { source.add(index).read_volatile() };
        }
        for (index, chunk) in into[head..head + words * 8].chunks_exact_mut(8).enumerate() {
            // SAFETY: within the checked range, and `head` made the address a multiple of 8.
            let word = unsafe { source.add(head + index * 8).cast::<u64>().read_volatile() };
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        Some(())
    }

    /// Copies bytes in. `None` when the range is not within the memory or it is read-only; then
    /// nothing was copied.
    #[must_use]
    pub fn write(&self, offset: u64, from: &[u8]) -> Option<()> {
        let target = self.at(offset, from.len()).filter(|_| self.writable)?.as_ptr();
        let (head, words, tail) = split_at_words(target.addr(), from.len());
        for index in (0..head).chain(from.len() - tail..from.len()) {
            // SAFETY: `index < from.len()`, a range that `at` checked to be in the mapping.
            unsafe { target.add(index).write_volatile(from[index]) };
        }
        for (index, chunk) in from[head..head + words * 8].chunks_exact(8).enumerate() {
            let mut word = [0; 8];
            word.copy_from_slice(chunk);
            // SAFETY: within the checked range, and `head` made the address a multiple of 8.
            unsafe { target.add(head + index * 8).cast::<u64>().write_volatile(u64::from_ne_bytes(word)) };
        }
        Some(())
    }

    /// Stores two bytes at once, after everything written before is visible.
    /// `None` when out of range, unaligned or read-only.
    #[must_use]
    pub fn publish_u16(&self, offset: u64, value: u16) -> Option<()> {
        let target = self.at(offset, 2).filter(|_| self.writable)?.as_ptr().cast::<u16>();
        if !target.is_aligned() {
            return None;
        }
        fence(Ordering::Release);
        // SAFETY: in range and aligned; the memory is only accessed atomically or volatile.
        unsafe { AtomicU16::from_ptr(target) }.store(value, Ordering::Release);
        Some(())
    }

    /// Stores four bytes at once, after everything written before is visible.
    /// `None` when out of range, unaligned or read-only.
    #[must_use]
    pub fn publish_u32(&self, offset: u64, value: u32) -> Option<()> {
        let target = self.at(offset, 4).filter(|_| self.writable)?.as_ptr().cast::<u32>();
        if !target.is_aligned() {
            return None;
        }
        fence(Ordering::Release);
        // SAFETY: in range and aligned; the memory is only accessed atomically or volatile.
        unsafe { AtomicU32::from_ptr(target) }.store(value, Ordering::Release);
        Some(())
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `map`, of this length; no reference to it was ever lent.
        let _ = unsafe { munmap(self.base.cast::<c_void>(), self.length) };
    }
}

/// Bytes before the first multiple of 8, whole words after it, and bytes that remain.
fn split_at_words(address: usize, length: usize) -> (usize, usize, usize) {
    let head = (address.wrapping_neg() & 7).min(length);
    let words = (length - head) / 8;
    (head, words, length - head - words * 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_at_every_alignment() {
        let memory = SharedMemory::create("copies", 8192).unwrap();
        let pattern: Vec<u8> = (0..64).map(|byte| byte as u8 ^ 0x5a).collect();
        for start in 0..9 {
            for length in 0..40 {
                let offset = 4096 - 8 + start;
                memory.write(offset, &pattern[..length]).unwrap();
                let mut back = vec![0; length];
                memory.read(offset, &mut back).unwrap();
                assert_eq!(back, pattern[..length], "at {offset}, {length} bytes");
            }
        }
    }

    #[test]
    fn refuses_what_is_outside() {
        let memory = SharedMemory::create("bounds", 4096).unwrap();
        assert!(memory.write(4095, &[1, 2]).is_none());
        assert!(memory.write(u64::MAX, &[1]).is_none());
        assert!(memory.read(4096, &mut [0]).is_none());
        assert!(memory.read(4096, &mut []).is_some());
        assert!(memory.publish_u16(4095, 1).is_none());
        assert!(memory.publish_u32(2, 1).is_none(), "unaligned");
        assert!(memory.publish_u32(4092, 1).is_some());
    }

    #[test]
    fn holes_are_not_data() {
        let memory = SharedMemory::create("holes", 64 * PAGE_SIZE).unwrap();
        assert_eq!(memory.next_data(0), None);
        memory.write(10 * PAGE_SIZE + 5, &[1]).unwrap();
        assert_eq!(memory.next_data(0), Some(10 * PAGE_SIZE..11 * PAGE_SIZE));
        assert_eq!(memory.next_data(11 * PAGE_SIZE), None);
        memory.discard(8 * PAGE_SIZE..20 * PAGE_SIZE).unwrap();
        assert_eq!(memory.next_data(0), None);
        let mut byte = [9];
        memory.read(10 * PAGE_SIZE + 5, &mut byte).unwrap();
        assert_eq!(byte, [0]);
        assert!(memory.discard(0..u64::MAX).is_err());
    }
}
