//! The refill ring in memory that is shared with the kernel.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::refill::RefillMemory;
use super::uapi::{CopyStatistics, RefillEntry, RefillOffsets};
use crate::shared_memory::{OutOfBounds, SharedMemory};

/// A [`RefillEntry`] in shared memory.
#[repr(C)]
#[derive(Debug)]
struct SharedEntry {
    offset: AtomicU64,
    length: AtomicU32,
    padding: AtomicU32,
}

const _: () = assert!(size_of::<SharedEntry>() == size_of::<RefillEntry>());

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
