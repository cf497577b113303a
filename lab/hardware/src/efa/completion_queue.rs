//! Completion queues, and the event queues that tell a driver which of them to look at.
//!
//! A program that does not want to poll arms its completion queue; the next completion then makes an event. The
//! driver's handler takes events from the event queue and arms that again, after which it may interrupt.

use super::command::{CreateCompletionQueue, CreateEventQueue};
use super::descriptors::Completion;
use super::fields::Structure;
use crate::bus::{AddressSpace, DmaError};

/// Completion queues that there may be.
pub(super) const MAXIMUM_COMPLETION_QUEUES: usize = 512;
/// Entries that a completion queue may have.
pub(super) const MAXIMUM_DEPTH: u16 = 0x8000;
/// Event queues that there may be.
pub(super) const MAXIMUM_EVENT_QUEUES: usize = 16;
/// Entries that an event queue may have: every completion queue has at most one event under way.
pub(super) const MAXIMUM_EVENTS: u16 = 512;
/// Bytes of an event.
const EVENT_SIZE: usize = 16;

/// Bits of the doorbell of a completion queue; the rest of it, a count of armings, does not matter here.
mod doorbell {
    /// How many completions the program has taken.
    pub(super) const CONSUMER: u32 = 0xffff;
    pub(super) const ARM: u32 = 1 << 31;
}

/// A completion queue.
#[derive(Debug)]
pub(super) struct CompletionQueue {
    ring: u64,
    depth: u16,
    entry_size: usize,
    pub(super) event_queue: Option<u16>,
    pub(super) doorbell_page: u16,
    /// Completions of unknown senders carry their address.
    pub(super) with_source_address: bool,
    produced: u32,
    armed: bool,
}

impl CompletionQueue {
    /// A queue as the driver described it.
    ///
    /// # Errors
    /// What cannot be built, in words.
    pub(super) fn new(create: &CreateCompletionQueue) -> Result<CompletionQueue, String> {
        let entry_size = usize::from(create.entry_words) * 4;
        if !matches!(entry_size, 16 | 32) {
            return Err(format!("completions of {entry_size} bytes"));
        }
        if create.with_source_address && entry_size != 32 {
            return Err("completions with a source address that have no room for it".into());
        }
        if !create.depth.is_power_of_two() || create.depth > MAXIMUM_DEPTH {
            return Err(format!("a completion queue of {} entries", create.depth));
        }
        if create.sub_queues != 1 || create.is_virtual || create.wide_request_ids {
            return Err("sub-queues, virtual rings or wide request identifiers, which are not offered".into());
        }
        Ok(CompletionQueue {
            ring: create.ring,
            depth: create.depth,
            entry_size,
            event_queue: create.event_queue,
            doorbell_page: create.doorbell_page,
            with_source_address: create.with_source_address,
            produced: 0,
            armed: false,
        })
    }

    /// Adds a completion. True when the queue was armed: an event is due.
    ///
    /// # Errors
    /// Why the ring could not be written.
    pub(super) fn post(&mut self, completion: &Completion, memory: &AddressSpace) -> Result<bool, DmaError> {
        let depth = u32::from(self.depth);
        let index = self.produced % depth;
        let phase = (self.produced / depth).is_multiple_of(2);
        self.produced = self.produced.wrapping_add(1);
        let bytes = completion.encode(self.entry_size, phase);
        let address = self.ring.wrapping_add(u64::from(index) * self.entry_size as u64);
        publish(memory, address, 0, &bytes)?;
        Ok(std::mem::take(&mut self.armed))
    }

    /// A program wrote to the doorbell. True when it armed the queue and has not seen all completions.
    pub(super) fn doorbell(&mut self, value: u32) -> bool {
        let taken = (value & doorbell::CONSUMER) as u16;
        if value & doorbell::ARM == 0 {
            return false;
        }
        let is_behind = taken != self.produced as u16;
        self.armed = !is_behind;
        is_behind
    }
}

/// An event queue.
#[derive(Debug)]
pub(super) struct EventQueue {
    ring: u64,
    depth: u16,
    pub(super) vector: u8,
    produced: u32,
    armed: bool,
    /// Events that were written since the last interrupt: the driver may not have seen them.
    unsignalled: bool,
}

impl EventQueue {
    /// A queue as the driver described it, where there are so many vectors.
    ///
    /// # Errors
    /// What cannot be built, in words.
    pub(super) fn new(create: &CreateEventQueue, vectors: usize) -> Result<EventQueue, String> {
        if usize::from(create.entry_words) * 4 != EVENT_SIZE {
            return Err(format!("events of {} words", create.entry_words));
        }
        if !create.depth.is_power_of_two() || create.depth > MAXIMUM_EVENTS {
            return Err(format!("an event queue of {} entries", create.depth));
        }
        if usize::from(create.vector) >= vectors {
            return Err(format!("an event queue with vector {} of {vectors}", create.vector));
        }
        if create.events != 1 {
            return Err(format!("an event queue for events {:#x}", create.events));
        }
        Ok(EventQueue {
            ring: create.ring,
            depth: create.depth,
            vector: create.vector,
            produced: 0,
            armed: false,
            unsignalled: false,
        })
    }

    /// Adds the event that a completion queue has something new. True when the driver is to be interrupted.
    ///
    /// # Errors
    /// Why the ring could not be written.
    pub(super) fn post(&mut self, completion_queue: u16, memory: &AddressSpace) -> Result<bool, DmaError> {
        let depth = u32::from(self.depth);
        let index = self.produced % depth;
        let phase = (self.produced / depth).is_multiple_of(2);
        self.produced = self.produced.wrapping_add(1);
        // The type in bits 8:1 is 0, a completion.
        let event = Structure::new(EVENT_SIZE).u32(0, phase.into()).u16(8, completion_queue).bytes();
        publish(memory, self.ring.wrapping_add(u64::from(index) * EVENT_SIZE as u64), 0, &event)?;
        self.unsignalled = true;
        Ok(self.interrupt_if_armed())
    }

    /// The driver armed the queue. True when it is to be interrupted at once.
    pub(super) fn arm(&mut self) -> bool {
        self.armed = true;
        self.interrupt_if_armed()
    }

    fn interrupt_if_armed(&mut self) -> bool {
        let due = self.armed && self.unsignalled;
        if due {
            (self.armed, self.unsignalled) = (false, false);
        }
        due
    }
}

/// Writes an entry of a ring, and last of all the word at `last`, by which the reader knows that it is new.
pub(super) fn publish(memory: &AddressSpace, at: u64, last: usize, bytes: &[u8]) -> Result<(), DmaError> {
    let (before, rest) = bytes.split_at_checked(last).unwrap_or((bytes, &[]));
    let Some((word, after)) = rest.split_first_chunk::<4>() else { return Ok(()) };
    memory.write(at, before)?;
    memory.write(at.wrapping_add(last as u64 + 4), after)?;
    memory.publish_u32(at.wrapping_add(last as u64), u32::from_ne_bytes(*word))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::descriptors::{CompletionKind, CompletionStatus};
    use super::*;
    use crate::bus::{Bus, PAGE_SIZE, SharedMemory};

    fn memory() -> Arc<AddressSpace> {
        let ram = SharedMemory::create("ram", 4 * PAGE_SIZE).unwrap();
        let space = Bus::new().address_space();
        space.map(0, 4 * PAGE_SIZE, Some((ram.file().try_clone().unwrap(), 0)), true).unwrap();
        space
    }

    fn create() -> CreateCompletionQueue {
        CreateCompletionQueue {
            event_queue: Some(0),
            is_virtual: false,
            entry_words: 4,
            with_source_address: false,
            wide_request_ids: false,
            depth: 2,
            ring: 0x100,
            sub_queues: 1,
            doorbell_page: 0,
        }
    }

    fn completion(id: u16) -> Completion {
        Completion {
            id,
            status: CompletionStatus::Ok,
            operation: 0,
            queue_pair: 0,
            kind: CompletionKind::Send,
        }
    }

    #[test]
    fn the_phase_turns_with_each_pass() {
        let memory = memory();
        let mut queue = CompletionQueue::new(&create()).unwrap();
        let mut phases = Vec::new();
        for id in 0..6u16 {
            assert_eq!(queue.post(&completion(id), &memory), Ok(false));
            let entry = memory.read_array::<16>(0x100 + u64::from(id % 2) * 16).unwrap();
            assert_eq!(entry[..2], id.to_le_bytes());
            phases.push(entry[3] & 1);
        }
        assert_eq!(phases, [1, 1, 0, 0, 1, 1]);
    }

    #[test]
    fn an_armed_queue_makes_one_event() {
        let memory = memory();
        let mut queue = CompletionQueue::new(&create()).unwrap();
        assert!(!queue.doorbell(1 << 31), "nothing to see yet");
        assert_eq!(queue.post(&completion(0), &memory), Ok(true));
        assert_eq!(queue.post(&completion(1), &memory), Ok(false));
        assert!(!queue.doorbell(1), "not armed");
        assert!(queue.doorbell(1 << 31 | 1), "one was not seen");
        assert_eq!(queue.post(&completion(2), &memory), Ok(false), "that was told at once");
        assert!(!queue.doorbell(1 << 31 | 3));
        assert_eq!(queue.post(&completion(3), &memory), Ok(true));
    }

    #[test]
    fn an_event_queue_interrupts_when_it_is_armed() {
        let memory = memory();
        let create = CreateEventQueue { depth: 2, vector: 1, entry_words: 4, ring: 0x200, events: 1 };
        let mut queue = EventQueue::new(&create, 2).unwrap();
        assert_eq!(queue.post(7, &memory), Ok(false));
        assert!(queue.arm(), "an event came before it was armed");
        assert!(!queue.arm());
        assert_eq!(queue.post(8, &memory), Ok(true));
        assert_eq!(queue.post(9, &memory), Ok(false));
        assert_eq!(memory.read_array::<16>(0x200).unwrap()[..10], [0, 0, 0, 0, 0, 0, 0, 0, 9, 0]);
        assert_eq!(memory.read_array::<16>(0x210).unwrap()[..10], [1, 0, 0, 0, 0, 0, 0, 0, 8, 0]);
        assert!(EventQueue::new(&create, 1).is_err(), "no such vector");
    }

    #[test]
    fn what_cannot_be_a_completion_queue() {
        for wrong in [
            CreateCompletionQueue { entry_words: 6, ..create() },
            CreateCompletionQueue { with_source_address: true, ..create() },
            CreateCompletionQueue { depth: 0, ..create() },
            CreateCompletionQueue { depth: 3, ..create() },
            CreateCompletionQueue { sub_queues: 2, ..create() },
            CreateCompletionQueue { is_virtual: true, ..create() },
        ] {
            assert!(CompletionQueue::new(&wrong).is_err(), "{wrong:?}");
        }
        assert!(CompletionQueue::new(&CreateCompletionQueue { depth: MAXIMUM_DEPTH, ..create() }).is_ok());
    }
}
