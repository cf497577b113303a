//! The refill ring: where a program gives buffers back to the NIC, without a system call.
//!
//! The program writes entries and moves the tail, the kernel takes them and moves the head. An entry must be seen
//! whole by whoever sees the tail behind it, and a place may be written again only when the head has passed it.
//! Both positions count on for ever and wrap around; a place is a position's remainder.

use std::sync::atomic::Ordering;

use super::uapi::RefillEntry;

/// A position that both sides read.
pub(crate) trait Position {
    /// Reads it.
    fn load(&self, ordering: Ordering) -> u32;
    /// Writes it.
    fn store(&self, position: u32, ordering: Ordering);
}

impl Position for std::sync::atomic::AtomicU32 {
    fn load(&self, ordering: Ordering) -> u32 {
        self.load(ordering)
    }

    fn store(&self, position: u32, ordering: Ordering) {
        self.store(position, ordering);
    }
}

/// The memory of a refill ring.
pub(crate) trait RefillMemory {
    /// Its positions.
    type Position: Position;
    /// How far the kernel has taken entries.
    fn head(&self) -> &Self::Position;
    /// How far the program has written entries.
    fn tail(&self) -> &Self::Position;
    /// Writes the entry at a place below the number of entries.
    fn write(&self, place: u32, entry: RefillEntry);
}

/// The program's side of a refill ring. There must be one for a ring, as only one side may move the tail.
#[derive(Debug)]
pub(crate) struct RefillRing<M> {
    memory: M,
    entries: u32,
    /// How far entries are written; the tail that the kernel sees is moved by [`publish`](Self::publish).
    written: u32,
    /// The head when it was last looked at: the kernel only moves it on.
    seen_head: u32,
}

impl<M: RefillMemory> RefillRing<M> {
    /// A ring that is empty. `entries` is a power of two.
    pub(crate) fn new(memory: M, entries: u32) -> Self {
        debug_assert!(entries.is_power_of_two(), "the kernel rounds the number of entries up to one");
        // The kernel reads only the head that it stores, and nobody has stored a tail yet.
        let (written, seen_head) =
            (memory.tail().load(Ordering::Relaxed), memory.head().load(Ordering::Acquire));
        Self { memory, entries, written, seen_head }
    }

    /// Writes an entry, which the kernel sees after the next [`publish`](Self::publish). Returns false if the ring
    /// is full.
    pub(crate) fn push(&mut self, entry: RefillEntry) -> bool {
        if self.written.wrapping_sub(self.seen_head) >= self.entries {
            // Pairs with the kernel's release of the head: it has read the entries before.
            self.seen_head = self.memory.head().load(Ordering::Acquire);
            if self.written.wrapping_sub(self.seen_head) >= self.entries {
                return false;
            }
        }
        self.memory.write(self.written & (self.entries - 1), entry);
        self.written = self.written.wrapping_add(1);
        true
    }

    /// Lets the kernel see what was written.
    pub(crate) fn publish(&self) {
        // Pairs with the kernel's acquire of the tail: the entries are written before.
        self.memory.tail().store(self.written, Ordering::Release);
    }

    /// How many entries it has.
    pub(crate) fn entries(&self) -> u32 {
        self.entries
    }

    /// How many entries the kernel has not taken yet.
    pub(crate) fn waiting(&self) -> u32 {
        self.written.wrapping_sub(self.memory.head().load(Ordering::Acquire))
    }

    /// The memory.
    pub(crate) fn memory(&self) -> &M {
        &self.memory
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::RefCell;
    use std::sync::atomic::AtomicU32;

    struct Memory {
        head: AtomicU32,
        tail: AtomicU32,
        entries: RefCell<Vec<RefillEntry>>,
    }

    impl RefillMemory for Memory {
        type Position = AtomicU32;

        fn head(&self) -> &AtomicU32 {
            &self.head
        }

        fn tail(&self) -> &AtomicU32 {
            &self.tail
        }

        fn write(&self, place: u32, entry: RefillEntry) {
            self.entries.borrow_mut()[place as usize] = entry;
        }
    }

    fn ring(entries: u32, position: u32) -> RefillRing<Memory> {
        let memory = Memory {
            head: AtomicU32::new(position),
            tail: AtomicU32::new(position),
            entries: RefCell::new(vec![RefillEntry::default(); entries as usize]),
        };
        RefillRing::new(memory, entries)
    }

    fn entry(number: u64) -> RefillEntry {
        RefillEntry { offset: number, length: 1, padding: 0 }
    }

    /// The kernel's side.
    fn take(ring: &RefillRing<Memory>, count: u32) -> Vec<u64> {
        let memory = ring.memory();
        let head = memory.head.load(Ordering::Relaxed);
        let available = memory.tail.load(Ordering::Acquire).wrapping_sub(head);
        let count = count.min(available);
        let taken = (0..count).map(|number| {
            let place = head.wrapping_add(number) & (ring.entries() - 1);
            memory.entries.borrow()[place as usize].offset
        });
        let taken = taken.collect();
        memory.head.store(head.wrapping_add(count), Ordering::Release);
        taken
    }

    #[test]
    fn what_is_not_published_is_not_seen() {
        let mut ring = ring(4, 0);
        assert!(ring.push(entry(1)));
        assert!(take(&ring, 4).is_empty());
        ring.publish();
        assert_eq!((take(&ring, 4), ring.waiting()), (vec![1], 0));
    }

    #[test]
    fn a_full_ring_refuses_until_the_kernel_takes_some() {
        let mut ring = ring(2, u32::MAX);
        assert!(ring.push(entry(1)) && ring.push(entry(2)) && !ring.push(entry(3)));
        ring.publish();
        assert_eq!(take(&ring, 1), [1]);
        assert!(ring.push(entry(3)) && !ring.push(entry(4)));
        ring.publish();
        assert_eq!(take(&ring, 9), [2, 3]);
    }

    proptest! {
        #[test]
        fn every_entry_arrives_once_and_in_order(
            position: u32,
            exponent in 0u32..4,
            steps in prop::collection::vec((0u32..20, 0u32..20), 1..50),
        ) {
            let mut ring = ring(1 << exponent, position);
            let (mut next, mut seen) = (0, Vec::new());
            for (pushes, takes) in steps {
                for _ in 0..pushes {
                    next += u64::from(ring.push(entry(next)));
                }
                ring.publish();
                seen.extend(take(&ring, takes));
                prop_assert!(ring.waiting() <= ring.entries());
            }
            seen.extend(take(&ring, u32::MAX));
            prop_assert_eq!(seen, (0..next).collect::<Vec<_>>());
        }
    }
}

/// Every order in which the two sides may see each other's writes.
#[cfg(test)]
mod every_order {
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicU32;
    use loom::thread;

    impl Position for AtomicU32 {
        fn load(&self, ordering: Ordering) -> u32 {
            self.load(ordering)
        }

        fn store(&self, position: u32, ordering: Ordering) {
            self.store(position, ordering);
        }
    }

    const ENTRIES: u32 = 2;

    /// Loom fails if an entry is written while the other side may be reading it.
    struct Memory {
        head: AtomicU32,
        tail: AtomicU32,
        entries: [UnsafeCell<u64>; ENTRIES as usize],
    }

    // SAFETY: what is tested here; loom checks each access of an entry.
    unsafe impl Sync for Memory {}

    impl RefillMemory for Arc<Memory> {
        type Position = AtomicU32;

        fn head(&self) -> &AtomicU32 {
            &self.head
        }

        fn tail(&self) -> &AtomicU32 {
            &self.tail
        }

        fn write(&self, place: u32, entry: RefillEntry) {
            // SAFETY: loom checks that nobody else accesses the entry.
            self.entries[place as usize].with_mut(|cell| unsafe { *cell = entry.offset });
        }
    }

    /// The kernel's side, as `io_zcrx_ring_refill()` does it.
    fn take_all(memory: &Memory) -> Vec<u64> {
        let mut head = memory.head.load(Ordering::Relaxed);
        let tail = memory.tail.load(Ordering::Acquire);
        let mut taken = Vec::new();
        while head != tail {
            // SAFETY: as above.
            taken.push(memory.entries[(head % ENTRIES) as usize].with(|cell| unsafe { *cell }));
            head = head.wrapping_add(1);
        }
        memory.head.store(head, Ordering::Release);
        taken
    }

    #[test]
    fn entries_are_seen_whole_and_once() {
        loom::model(|| {
            let memory = Arc::new(Memory {
                head: AtomicU32::new(u32::MAX),
                tail: AtomicU32::new(u32::MAX),
                entries: [UnsafeCell::new(0), UnsafeCell::new(0)],
            });
            let mut ring = RefillRing::new(memory.clone(), ENTRIES);
            let kernel = {
                let memory = memory.clone();
                thread::spawn(move || [take_all(&memory), take_all(&memory)].concat())
            };
            let mut pushed = Vec::new();
            for number in 1..=3 {
                if ring.push(RefillEntry { offset: number, ..RefillEntry::default() }) {
                    pushed.push(number);
                }
                ring.publish();
            }
            let mut seen = kernel.join().expect("the other side does not panic");
            seen.extend(take_all(&memory));
            assert_eq!(seen, pushed);
        });
    }
}
