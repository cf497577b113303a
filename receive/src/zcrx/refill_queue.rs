//! Giving buffers back: the refill ring, and what does not fit into it.

use std::collections::VecDeque;

use super::refill::{RefillMemory, RefillRing};
use super::refill_region::RefillRegion;
use super::uapi::{CopyStatistics, RefillEntry};

/// How many entries may wait for room before the list of them grows.
const WAITING: usize = 1024;

/// The refill ring of a queue, and entries that wait for room in it.
#[derive(Debug)]
pub(crate) struct RefillQueue<M = RefillRegion> {
    ring: RefillRing<M>,
    waiting: VecDeque<RefillEntry>,
}

impl<M: RefillMemory> RefillQueue<M> {
    pub(crate) fn new(memory: M, entries: u32) -> Self {
        Self { ring: RefillRing::new(memory, entries), waiting: VecDeque::with_capacity(WAITING) }
    }

    /// Gives a buffer back with the next [`publish`](Self::publish).
    pub(crate) fn push(&mut self, entry: RefillEntry) {
        if !self.waiting.is_empty() || !self.ring.push(entry) {
            self.waiting.push_back(entry);
        }
    }

    /// Lets the kernel see what was given back. Returns whether all of it found room.
    pub(crate) fn publish(&mut self) -> bool {
        while let Some(&entry) = self.waiting.front() {
            if !self.ring.push(entry) {
                break;
            }
            self.waiting.pop_front();
        }
        self.ring.publish();
        self.waiting.is_empty()
    }

    /// How many entries the kernel has not taken.
    pub(crate) fn not_taken(&self) -> u64 {
        u64::from(self.ring.waiting()) + self.waiting.len() as u64
    }

    /// How many entries the ring has room for.
    pub(crate) fn entries(&self) -> u32 {
        self.ring.entries()
    }
}

impl RefillQueue {
    /// The statistics that the kernel keeps at an offset in the ring's region.
    pub(crate) fn copy_statistics(&self, offset: usize) -> Option<CopyStatistics> {
        self.ring.memory().copy_statistics(offset).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::super::refill::RefillMemory as _;
    use super::super::refill_region::RefillRegion;
    use super::super::uapi::RefillOffsets;
    use super::*;
    use crate::shared_memory::SharedMemory;
    use std::sync::atomic::Ordering;

    #[test]
    fn what_finds_no_room_waits_in_order() {
        let memory = SharedMemory::allocate(4096, false).unwrap();
        let offsets = RefillOffsets { head: 0, tail: 4, entries: 64, ..RefillOffsets::default() };
        let mut queue = RefillQueue::new(RefillRegion::new(memory, offsets, 2).unwrap(), 2);
        for offset in 0..5 {
            queue.push(RefillEntry { offset, ..RefillEntry::default() });
        }
        assert!(!queue.publish());
        assert_eq!((queue.not_taken(), queue.waiting.len()), (5, 3));
        for taken in [2, 4] {
            queue.ring.memory().head().store(taken, Ordering::Release);
            assert_eq!(queue.publish(), taken == 4);
            assert_eq!(queue.ring.memory().tail().load(Ordering::Acquire), 5.min(taken + 2));
        }
    }
}
