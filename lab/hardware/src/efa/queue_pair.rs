//! Queue pairs: their states, and what was posted to their queues.

use super::command::{CreateQueuePair, ModifyQueuePair, queue_pair_flag};
use super::descriptors::{RECEIVE_SIZE, ReceiveDescriptor, SEND_SIZE};
use crate::bus::{AddressSpace, DeviceMemory, DmaError};

/// Queue pairs that there may be.
pub(super) const MAXIMUM_QUEUE_PAIRS: usize = 256;
/// Entries that a send queue may have.
pub(super) const MAXIMUM_SENDS: u32 = 256;
/// Bytes of a send queue, at most; each has so much room in BAR 2.
pub(super) const SEND_RING_SIZE: u32 = MAXIMUM_SENDS * SEND_SIZE as u32;
/// Descriptors that a receive queue may have.
pub(super) const MAXIMUM_RECEIVES: u32 = 8192;
/// Descriptors that one posted receive may have.
pub(super) const RECEIVE_BUFFERS: u16 = 2;
/// Tries of a sender whose receiver is not ready that go on for ever.
const FOR_EVER: u8 = 7;

/// How a queue pair transports messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    /// Unreliable datagrams: what cannot be delivered is lost.
    UnreliableDatagram,
    /// Scalable reliable datagrams: the sender learns what became of them. RDMA is for these only.
    ReliableDatagram,
}

/// The states of a queue pair, in the order of their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub(super) enum QueuePairState {
    Reset,
    Initialized,
    ReadyToReceive,
    ReadyToSend,
    SendQueueDrained,
    SendQueueError,
    Error,
}

use QueuePairState::*;

impl QueuePairState {
    const ALL: [QueuePairState; 7] =
        [Reset, Initialized, ReadyToReceive, ReadyToSend, SendQueueDrained, SendQueueError, Error];

    fn from_number(number: u32) -> Option<QueuePairState> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }

    fn may_become(self, next: QueuePairState) -> bool {
        match next {
            Reset => true,
            Error => self != Reset,
            Initialized => matches!(self, Reset | Initialized),
            ReadyToReceive => self == Initialized,
            ReadyToSend => {
                matches!(self, ReadyToReceive | ReadyToSend | SendQueueDrained | SendQueueError)
            }
            SendQueueDrained => matches!(self, ReadyToSend | SendQueueDrained),
            SendQueueError => false,
        }
    }

    fn receives(self) -> bool {
        matches!(self, ReadyToReceive | ReadyToSend | SendQueueDrained | SendQueueError)
    }
}

/// A queue pair.
#[derive(Debug)]
pub(super) struct QueuePair {
    /// Tells it from those that had its number before.
    pub(super) incarnation: u64,
    pub(super) domain: u16,
    pub(super) transport: Transport,
    pub(super) doorbell_page: u16,
    pub(super) send_completions: u16,
    pub(super) receive_completions: u16,
    pub(super) state: QueuePairState,
    pub(super) queue_key: u32,
    pub(super) sequence_number: u32,
    pub(super) receiver_retries: u8,
    /// An RDMA write with immediate data takes no posted receive.
    pub(super) unsolicited_writes: bool,
    /// Where the send queue is in BAR 2.
    pub(super) send_ring: u64,
    send_entries: u32,
    sends: Counters,
    /// How often the request at the front was tried in vain.
    tries: u8,
    receive_ring: u64,
    receive_entries: u32,
    receives: Counters,
}

/// What a queue's two sides have counted, modulo 2^16.
#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    posted: u16,
    done: u16,
}

impl Counters {
    fn waiting(self) -> u16 {
        self.posted.wrapping_sub(self.done)
    }

    /// A doorbell told how much was ever posted. False when more would wait than the queue has entries.
    fn post(&mut self, posted: u32, entries: u32) -> bool {
        let new = Counters { posted: posted as u16, ..*self };
        let fits = u32::from(new.waiting()) <= entries;
        if fits {
            *self = new;
        }
        fits
    }
}

/// A posted receive that was taken from its queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PostedReceive {
    pub(super) id: u16,
    pub(super) descriptors: Vec<ReceiveDescriptor>,
}

/// Why no posted receive could be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoReceive {
    /// None is posted.
    Empty,
    /// Its descriptors make no sense.
    Malformed,
    /// The ring that the driver gave is not in memory.
    Memory(DmaError),
}

impl QueuePair {
    /// A queue pair as the driver described it, with the number `number`.
    ///
    /// # Errors
    /// What cannot be built, in words.
    pub(super) fn new(create: &CreateQueuePair, number: u16, incarnation: u64) -> Result<QueuePair, String> {
        let transport = match create.transport {
            1 => Transport::UnreliableDatagram,
            2 => Transport::ReliableDatagram,
            other => return Err(format!("a queue pair with transport {other}")),
        };
        if create.flags & !queue_pair_flag::UNSOLICITED_WRITE_RECEIVE != 0 {
            return Err(format!("a queue pair with flags {:#x}", create.flags));
        }
        let send_entries = create.send_ring_size / SEND_SIZE as u32;
        if create.send_ring_size > SEND_RING_SIZE
            || send_entries < create.send_depth
            || !(send_entries == 0 || send_entries.is_power_of_two())
        {
            let (size, depth) = (create.send_ring_size, create.send_depth);
            return Err(format!("a send queue of {depth} entries in {size} bytes"));
        }
        let receive_entries = create.receive_ring_size / RECEIVE_SIZE as u32;
        if receive_entries > MAXIMUM_RECEIVES
            || receive_entries < create.receive_depth
            || !(receive_entries == 0 || receive_entries.is_power_of_two())
        {
            let (size, depth) = (create.receive_ring_size, create.receive_depth);
            return Err(format!("a receive queue of {depth} entries in {size} bytes"));
        }
        let queue = |number: u32| u16::try_from(number).map_err(|_| format!("completion queue {number}"));
        Ok(QueuePair {
            incarnation,
            domain: create.domain,
            transport,
            doorbell_page: create.doorbell_page,
            send_completions: queue(create.send_completions)?,
            receive_completions: queue(create.receive_completions)?,
            state: Reset,
            queue_key: 0,
            sequence_number: 0,
            receiver_retries: FOR_EVER,
            unsolicited_writes: create.flags & queue_pair_flag::UNSOLICITED_WRITE_RECEIVE != 0,
            send_ring: u64::from(number) * u64::from(SEND_RING_SIZE),
            send_entries,
            sends: Counters::default(),
            tries: 0,
            receive_ring: create.receive_ring,
            receive_entries,
            receives: Counters::default(),
        })
    }

    /// Changes what the driver wants to be changed.
    ///
    /// # Errors
    /// What cannot be, in words; nothing is changed then.
    pub(super) fn modify(&mut self, modify: &ModifyQueuePair) -> Result<(), String> {
        if modify.current_state.is_some_and(|number| QueuePairState::from_number(number) != Some(self.state))
        {
            return Err(format!("a queue pair in state {:?}, not {:?}", self.state, modify.current_state));
        }
        if let Some(number) = modify.state {
            let next = QueuePairState::from_number(number).filter(|next| self.state.may_become(*next));
            let next = next.ok_or_else(|| format!("a queue pair from {:?} to state {number}", self.state))?;
            self.state = next;
            if next == Reset {
                (self.sends, self.receives, self.tries) = Default::default();
            }
        }
        self.queue_key = modify.queue_key.unwrap_or(self.queue_key);
        self.sequence_number = modify.sequence_number.unwrap_or(self.sequence_number);
        self.receiver_retries = modify.receiver_retries.unwrap_or(self.receiver_retries);
        Ok(())
    }

    pub(super) fn receives(&self) -> bool {
        self.state.receives()
    }

    /// A program posted sends: this many it ever did. False when there is no room for so many.
    pub(super) fn post_sends(&mut self, posted: u32) -> bool {
        self.sends.post(posted, self.send_entries)
    }

    /// A program posted descriptors for receives. False when there is no room for so many.
    pub(super) fn post_receives(&mut self, posted: u32) -> bool {
        self.receives.post(posted, self.receive_entries)
    }

    /// The entry at the front of the send queue.
    pub(super) fn next_send(&self, queues: &DeviceMemory) -> Option<[u8; SEND_SIZE]> {
        if self.sends.waiting() == 0 || self.send_entries == 0 {
            return None;
        }
        let index = u64::from(u32::from(self.sends.done) % self.send_entries);
        let mut entry = [0; SEND_SIZE];
        queues.memory().read(self.send_ring + index * SEND_SIZE as u64, &mut entry)?;
        Some(entry)
    }

    /// The entry at the front was executed.
    pub(super) fn send_done(&mut self) {
        self.sends.done = self.sends.done.wrapping_add(1);
        self.tries = 0;
    }

    /// The receiver of the entry at the front was not ready. True when it is to be tried again.
    pub(super) fn tries_again(&mut self) -> bool {
        let again = self.receiver_retries >= FOR_EVER || self.tries < self.receiver_retries;
        self.tries = self.tries.saturating_add(1);
        again
    }

    /// Takes the next posted receive.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn take_receive(&mut self, memory: &AddressSpace) -> Result<PostedReceive, NoReceive> {
        let mut descriptors = Vec::with_capacity(RECEIVE_BUFFERS.into());
        let waiting = self.receives.waiting().min(RECEIVE_BUFFERS);
        if waiting == 0 || self.receive_entries == 0 {
            return Err(NoReceive::Empty);
        }
        for count in 0..waiting {
            let index = u32::from(self.receives.done.wrapping_add(count)) % self.receive_entries;
            let place = self.receive_ring.wrapping_add(u64::from(index) * RECEIVE_SIZE as u64);
            let bytes = memory.read_array(place).map_err(NoReceive::Memory)?;
            let descriptor = ReceiveDescriptor::parse(&bytes);
            if descriptor.first != descriptors.is_empty() {
                return Err(NoReceive::Malformed);
            }
            descriptors.push(descriptor);
            if descriptor.last {
                self.receives.done = self.receives.done.wrapping_add(count + 1);
                return Ok(PostedReceive { id: descriptors[0].id, descriptors });
            }
        }
        Err(NoReceive::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fields::Structure;
    use super::*;
    use crate::bus::{Bus, PAGE_SIZE, SharedMemory};

    fn create() -> CreateQueuePair {
        CreateQueuePair {
            domain: 0,
            transport: 2,
            flags: 0,
            receive_ring: 0x100,
            send_completions: 0,
            receive_completions: 0,
            send_ring_size: 4 * 64,
            send_depth: 4,
            receive_ring_size: 4 * 16,
            receive_depth: 4,
            doorbell_page: 0,
        }
    }

    fn to(state: u32) -> ModifyQueuePair {
        ModifyQueuePair {
            handle: 0,
            state: Some(state),
            current_state: None,
            queue_key: None,
            sequence_number: None,
            receiver_retries: None,
        }
    }

    #[test]
    fn states_follow_each_other() {
        let mut pair = QueuePair::new(&create(), 3, 0).unwrap();
        assert_eq!(pair.send_ring, 3 * 0x4000);
        assert!(pair.modify(&to(3)).is_err(), "from reset to ready to send");
        for state in [1, 2, 3, 4, 3, 6] {
            pair.modify(&to(state)).unwrap();
            assert_eq!(pair.state as u32, state);
        }
        assert!(pair.modify(&to(3)).is_err() && pair.modify(&to(7)).is_err());
        assert!(pair.modify(&ModifyQueuePair { current_state: Some(3), ..to(0) }).is_err());
        pair.modify(&ModifyQueuePair { queue_key: Some(9), ..to(0) }).unwrap();
        assert_eq!((pair.state, pair.queue_key), (Reset, 9));
    }

    #[test]
    fn no_more_is_posted_than_there_is_room_for() {
        let mut pair = QueuePair::new(&create(), 0, 0).unwrap();
        assert!(pair.post_sends(4));
        assert!(!pair.post_sends(5));
        pair.send_done();
        assert!(pair.post_sends(5));
        assert!(!pair.post_receives(0xffff), "backwards");
    }

    #[test]
    fn receives_of_one_and_of_two_buffers() {
        let ram = SharedMemory::create("ram", PAGE_SIZE).unwrap();
        let memory = Bus::new().address_space();
        memory.map(0, PAGE_SIZE, Some((ram.file().try_clone().unwrap(), 0)), true).unwrap();
        let descriptor = |index: u64, id: u16, flags: u32| {
            let bytes = Structure::new(16).u16(8, id).u16(10, 100).u32(12, flags << 30).bytes();
            memory.write(0x100 + index * 16, &bytes).unwrap();
        };
        let mut pair = QueuePair::new(&create(), 0, 0).unwrap();
        assert_eq!(pair.take_receive(&memory), Err(NoReceive::Empty));
        for (index, id, flags) in [(0, 5, 3), (1, 6, 1), (2, 6, 2), (3, 7, 2)] {
            descriptor(index, id, flags);
        }
        assert!(pair.post_receives(4));
        let taken = pair.take_receive(&memory).unwrap();
        assert_eq!((taken.id, taken.descriptors.len()), (5, 1));
        let taken = pair.take_receive(&memory).unwrap();
        assert_eq!((taken.id, taken.descriptors.len()), (6, 2));
        assert_eq!(pair.take_receive(&memory), Err(NoReceive::Malformed), "it does not begin");
    }

    #[test]
    fn a_receiver_is_tried_as_often_as_was_said() {
        let mut pair = QueuePair::new(&create(), 0, 0).unwrap();
        assert!((0..1000).all(|_| pair.tries_again()), "for ever by default");
        pair.send_done();
        pair.receiver_retries = 2;
        assert_eq!([(); 3].map(|()| pair.tries_again()), [true, true, false]);
    }

    #[test]
    fn what_cannot_be_a_queue_pair() {
        for wrong in [
            CreateQueuePair { transport: 3, ..create() },
            CreateQueuePair { flags: 1, ..create() },
            CreateQueuePair { send_ring_size: SEND_RING_SIZE * 2, ..create() },
            CreateQueuePair { send_depth: 5, ..create() },
            CreateQueuePair { send_ring_size: 5 * 64, ..create() },
            CreateQueuePair { receive_depth: 5, ..create() },
            CreateQueuePair { receive_ring_size: 16 * 16384, ..create() },
            CreateQueuePair { send_completions: 1 << 16, ..create() },
        ] {
            assert!(QueuePair::new(&wrong, 0, 0).is_err(), "{wrong:?}");
        }
    }
}
