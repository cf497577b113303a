//! Memory that this process shares with the kernel and with devices.

use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// Memory of this process that the kernel and devices write to as well. It is only touched through atomics and
/// volatile copies.
///
/// It is shared with children made by `fork`, so that the kernel, which holds its pages, and this process keep
/// seeing the same.
#[derive(Debug)]
pub(crate) struct SharedMemory {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the memory is the value's own until it is dropped, and is only accessed atomically or volatilely.
unsafe impl Send for SharedMemory {}
// SAFETY: as above; no access needs the memory to stand still.
unsafe impl Sync for SharedMemory {}

/// A part of shared memory is wanted that it does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OutOfBounds;

impl SharedMemory {
    /// Zeroed memory; with `huge` of huge pages of the default size, of which `length` must be a multiple.
    pub(crate) fn allocate(length: usize, huge: bool) -> Result<Self, Errno> {
        let wanted = NonZeroUsize::new(length).ok_or(Errno::EINVAL)?;
        let flags = if huge { MapFlags::MAP_HUGETLB } else { MapFlags::empty() };
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that is in use.
        let start = unsafe {
            mmap_anonymous(
                None,
                wanted,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_SHARED | flags,
            )?
        };
        Ok(Self { start: start.cast(), length })
    }

    pub(crate) fn address(&self) -> u64 {
        self.start.as_ptr() as u64
    }

    pub(crate) fn length(&self) -> usize {
        self.length
    }

    pub(crate) fn part<T>(&self, offset: usize) -> Result<NonNull<T>, OutOfBounds> {
        let end = offset.checked_add(size_of::<T>()).ok_or(OutOfBounds)?;
        if end > self.length || !offset.is_multiple_of(align_of::<T>()) {
            return Err(OutOfBounds);
        }
        // SAFETY: the offset lies within the mapping, as was just checked.
        Ok(unsafe { self.start.add(offset) }.cast())
    }

    pub(crate) fn u64(&self, offset: usize) -> Result<&AtomicU64, OutOfBounds> {
        // SAFETY: the part is mapped, writable and aligned, lives as long as `self`, and is accessed only
        // atomically by this process.
        self.part(offset).map(|part| unsafe { part.as_ref() })
    }

    /// Copies bytes out while a device may be writing others.
    pub(crate) fn copy_to(&self, offset: usize, bytes: &mut [u8]) -> Result<(), OutOfBounds> {
        let end = offset.checked_add(bytes.len()).ok_or(OutOfBounds)?;
        if end > self.length {
            return Err(OutOfBounds);
        }
        // SAFETY: the range lies within the mapping, as was just checked.
        let source = unsafe { self.start.add(offset) }.as_ptr().cast_const();
        let aligned = source.cast::<u64>().is_aligned();
        let (words, rest) = bytes.as_chunks_mut::<8>();
        let whole = size_of_val(words);
        for (at, word) in words.iter_mut().enumerate() {
            // SAFETY: as above, and the reads of words are aligned.
            *word = unsafe {
                if aligned {
                    source.cast::<u64>().add(at).read_volatile().to_ne_bytes()
                } else {
                    std::array::from_fn(|byte| source.add(at * 8 + byte).read_volatile())
                }
            };
        }
        for (at, byte) in rest.iter_mut().enumerate() {
            // SAFETY: as above.
            *byte = unsafe { source.add(whole + at).read_volatile() };
        }
        Ok(())
    }

    /// Copies bytes in while a device may be reading others.
    #[cfg(any(test, feature = "rdma-core"))]
    pub(crate) fn copy_from(&self, offset: usize, bytes: &[u8]) -> Result<(), OutOfBounds> {
        let end = offset.checked_add(bytes.len()).ok_or(OutOfBounds)?;
        if end > self.length {
            return Err(OutOfBounds);
        }
        // SAFETY: the range lies within the mapping, as was just checked.
        let target = unsafe { self.start.add(offset) }.as_ptr();
        let aligned = target.cast::<u64>().is_aligned();
        let (words, rest) = bytes.as_chunks::<8>();
        let whole = size_of_val(words);
        for (at, word) in words.iter().enumerate() {
            // SAFETY: as above, and the writes of words are aligned.
            unsafe {
                if aligned {
                    target.cast::<u64>().add(at).write_volatile(u64::from_ne_bytes(*word));
                } else {
                    (0..8).for_each(|byte| target.add(at * 8 + byte).write_volatile(word[byte]));
                }
            }
        }
        for (at, byte) in rest.iter().enumerate() {
            // SAFETY: as above.
            unsafe { target.add(whole + at).write_volatile(*byte) };
        }
        Ok(())
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and no reference into it outlives the value. The kernel holds
        // the pages that it still uses.
        let unmapped = unsafe { munmap(self.start.cast(), self.length) };
        debug_assert_eq!(unmapped, Ok(()));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn parts_outside_of_shared_memory_are_refused() {
        let memory = SharedMemory::allocate(4096, false).unwrap();
        memory.u64(4088).unwrap().store(7, Ordering::Relaxed);
        let mut bytes = [0; 11];
        memory.copy_to(4085, &mut bytes).unwrap();
        assert_eq!((bytes[..3].to_vec(), &bytes[3..]), (vec![0; 3], 7u64.to_ne_bytes().as_slice()));
        assert!(
            memory.u64(4092).is_err() && memory.u64(4096).is_err() && memory.u64(usize::MAX - 7).is_err()
        );
        assert!(memory.copy_to(4086, &mut bytes).is_err() && memory.copy_to(usize::MAX, &mut bytes).is_err());
        memory.copy_from(4083, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]).unwrap();
        memory.copy_to(4085, &mut bytes).unwrap();
        assert_eq!(bytes, [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]);
        assert!(memory.copy_from(4086, &bytes).is_err() && memory.copy_from(usize::MAX, &bytes).is_err());
        assert_eq!(SharedMemory::allocate(0, false).unwrap_err(), Errno::EINVAL);
    }
}
