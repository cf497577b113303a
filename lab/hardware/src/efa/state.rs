//! What changes in a device while it runs.

use super::admin_queue::AdminRings;
use super::completion_queue::{CompletionQueue, EventQueue, MAXIMUM_COMPLETION_QUEUES, MAXIMUM_EVENT_QUEUES};
use super::description::{MAXIMUM_ADDRESS_HANDLES, MAXIMUM_DOMAINS};
use super::doorbell;
use super::fabric::Gid;
use super::interrupts::Interrupts;
use super::queue_pair::{MAXIMUM_QUEUE_PAIRS, QueuePair};
use super::region::Regions;
use super::registers::Registers;
use super::statistics::Counters;
use super::table::Table;

/// Where messages can be sent to, by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AddressHandle {
    pub(super) gid: Gid,
    pub(super) domain: u16,
}

/// The state of a device, behind its lock.
pub(super) struct State {
    pub(super) registers: Registers,
    pub(super) rings: AdminRings,
    /// Groups of asynchronous events that the driver wants, one bit for each.
    pub(super) event_groups: u32,
    /// Protection domains; there is nothing to know of one but that it exists.
    pub(super) domains: Table<()>,
    /// Pages of doorbells that programs use, likewise.
    pub(super) doorbell_pages: Table<()>,
    pub(super) regions: Regions,
    pub(super) address_handles: Table<AddressHandle>,
    pub(super) event_queues: Table<EventQueue>,
    pub(super) completion_queues: Table<CompletionQueue>,
    pub(super) queue_pairs: Table<QueuePair>,
    pub(super) interrupts: Interrupts,
    /// What outlives a reset.
    pub(super) lasting: Lasting,
}

/// The part of the state that no reset changes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lasting {
    pub(super) counters: Counters,
    pub(super) interrupts_fired: u64,
    /// Queue pairs that ever were, which tells them apart.
    pub(super) incarnations: u64,
    /// Resets and changes of what events the driver wants: a clock that was set before is not followed.
    pub(super) event_settings: u64,
}

impl State {
    /// The state after power-on.
    pub(super) fn new() -> State {
        State::with(Lasting::default())
    }

    fn with(lasting: Lasting) -> State {
        State {
            registers: Registers::new(),
            rings: AdminRings::default(),
            event_groups: 0,
            domains: Table::new(MAXIMUM_DOMAINS),
            doorbell_pages: Table::new(doorbell::MAXIMUM_PAGES),
            regions: Regions::new(),
            address_handles: Table::new(MAXIMUM_ADDRESS_HANDLES),
            event_queues: Table::new(MAXIMUM_EVENT_QUEUES),
            completion_queues: Table::new(MAXIMUM_COMPLETION_QUEUES),
            queue_pairs: Table::new(MAXIMUM_QUEUE_PAIRS),
            interrupts: Interrupts::default(),
            lasting,
        }
    }

    /// Back to the state after power-on, but for what lasts.
    pub(super) fn reset(&mut self) {
        self.lasting.interrupts_fired += self.interrupts.fired;
        self.lasting.event_settings += 1;
        *self = State::with(self.lasting);
    }

    /// The handle by which queue pairs of a domain name a device.
    pub(super) fn address_handle(&self, gid: Gid, domain: u16) -> Option<u16> {
        let wanted = AddressHandle { gid, domain };
        self.address_handles.iter().find(|(_, handle)| **handle == wanted).map(|(number, _)| number)
    }
}
