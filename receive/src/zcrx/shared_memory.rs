//! Memory that this process shares with the kernel and with devices.

use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use super::refill::RefillMemory;
use super::uapi::{CopyStatistics, RefillEntry, RefillOffsets};

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

/// A [`RefillEntry`] in shared memory.
#[repr(C)]
#[derive(Debug)]
struct SharedEntry {
    offset: AtomicU64,
    length: AtomicU32,
    padding: AtomicU32,
}

const _: () = assert!(size_of::<SharedEntry>() == size_of::<RefillEntry>());

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

    fn part<T>(&self, offset: usize) -> Result<NonNull<T>, OutOfBounds> {
        let end = offset.checked_add(size_of::<T>()).ok_or(OutOfBounds)?;
        if end > self.length || !offset.is_multiple_of(align_of::<T>()) {
            return Err(OutOfBounds);
        }
        // SAFETY: the offset lies within the mapping, as was just checked.
        Ok(unsafe { self.start.add(offset) }.cast())
    }

    fn u64(&self, offset: usize) -> Result<&AtomicU64, OutOfBounds> {
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
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and no reference into it outlives the value. The kernel holds
        // the pages that it still uses.
        let unmapped = unsafe { munmap(self.start.cast(), self.length) };
        debug_assert_eq!(unmapped, Ok(()));
    }
}

/// The refill ring in memory that is shared with the kernel.
#[derive(Debug)]
pub(crate) struct RefillRegion {
    memory: SharedMemory,
    head: NonNull<AtomicU32>,
    tail: NonNull<AtomicU32>,
    entries: NonNull<SharedEntry>,
    count: u32,
}

// SAFETY: the pointers lead into the memory that the value owns, which may be sent and shared.
unsafe impl Send for RefillRegion {}
// SAFETY: as above.
unsafe impl Sync for RefillRegion {}

impl RefillRegion {
    /// The ring of `count` entries, a power of two, at the places that the kernel said.
    pub(crate) fn new(memory: SharedMemory, offsets: RefillOffsets, count: u32) -> Result<Self, OutOfBounds> {
        let head = memory.part(offsets.head as usize)?;
        let tail = memory.part(offsets.tail as usize)?;
        let first = offsets.entries as usize;
        let entries = memory.part(first)?;
        let bytes = (count as usize).checked_mul(size_of::<SharedEntry>()).ok_or(OutOfBounds)?;
        if !count.is_power_of_two() || first.checked_add(bytes).is_none_or(|end| end > memory.length()) {
            return Err(OutOfBounds);
        }
        Ok(Self { memory, head, tail, entries, count })
    }

    /// The statistics that the kernel keeps at an offset.
    pub(crate) fn copy_statistics(&self, offset: usize) -> Result<CopyStatistics, OutOfBounds> {
        Ok(CopyStatistics {
            count: self.memory.u64(offset)?.load(Ordering::Relaxed),
            bytes: self.memory.u64(offset + size_of::<u64>())?.load(Ordering::Relaxed),
        })
    }
}

impl RefillMemory for RefillRegion {
    type Position = AtomicU32;

    fn head(&self) -> &AtomicU32 {
        // SAFETY: a part of the memory that `self` owns, which is accessed only atomically.
        unsafe { self.head.as_ref() }
    }

    fn tail(&self) -> &AtomicU32 {
        // SAFETY: as above.
        unsafe { self.tail.as_ref() }
    }

    fn write(&self, place: u32, entry: RefillEntry) {
        // SAFETY: all entries lie within the memory, as was checked when this was made, and the place is held to
        // their number.
        let shared = unsafe { self.entries.add((place & (self.count - 1)) as usize).as_ref() };
        shared.offset.store(entry.offset, Ordering::Relaxed);
        shared.length.store(entry.length, Ordering::Relaxed);
        shared.padding.store(entry.padding, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
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
        assert_eq!(SharedMemory::allocate(0, false).unwrap_err(), Errno::EINVAL);
    }

    #[test]
    fn a_refill_ring_outside_of_its_region_is_refused() {
        let region =
            |offsets, count| RefillRegion::new(SharedMemory::allocate(4096, false).unwrap(), offsets, count);
        let offsets = RefillOffsets { head: 0, tail: 4, entries: 64, ..RefillOffsets::default() };
        let ring = region(offsets, 128).unwrap();
        ring.write(1, RefillEntry { offset: 3, length: 4, padding: 0 });
        assert_eq!(ring.memory.u64(64 + 16).unwrap().load(Ordering::Relaxed), 3);
        assert!(
            region(offsets, 256).is_err() && region(offsets, 3).is_err() && region(offsets, 1 << 31).is_err()
        );
        for wrong in [
            RefillOffsets { head: 4094, ..offsets },
            RefillOffsets { tail: 2, ..offsets },
            RefillOffsets { entries: 4092, ..offsets },
            RefillOffsets { entries: !7, ..offsets },
        ] {
            assert!(region(wrong, 1).is_err(), "{wrong:?}");
        }
    }
}
