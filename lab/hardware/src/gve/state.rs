//! What changes in a NIC while it runs.

use super::interrupts::Interrupts;
use super::receive::{ReceiveCounters, ReceiveQueue};
use super::registers::{Register, Registers, device_status};
use super::rss::Rss;
use super::statistics::{Counters, StatisticsReport};
use super::steering::FlowRules;
use super::transmit::{TransmitCounters, TransmitQueue};
use crate::config::NicConfig;
use crate::control::NicFault;

/// The state of a NIC, behind its lock.
pub(super) struct State {
    pub(super) registers: Registers,
    pub(super) resources_configured: bool,
    pub(super) interrupts: Interrupts,
    pub(super) transmit: Vec<Option<TransmitQueue>>,
    pub(super) receive: Vec<Option<ReceiveQueue>>,
    pub(super) rss: Rss,
    pub(super) rules: FlowRules,
    pub(super) report: Option<StatisticsReport>,
    /// What outlives a reset: the link, the fault and the counters.
    pub(super) lasting: Lasting,
}

/// The part of the state that no reset changes.
#[derive(Clone, Debug)]
pub(super) struct Lasting {
    pub(super) link_up: bool,
    pub(super) fault: NicFault,
    /// Packets that the fault could have hit.
    pub(super) fault_candidates: u64,
    pub(super) counters: Counters,
    pub(super) interrupts_fired: u64,
    /// Counters of queues that were destroyed.
    pub(super) retired_receive: ReceiveCounters,
    pub(super) retired_transmit: TransmitCounters,
}

impl State {
    /// The state after power-on.
    pub(super) fn new(config: &NicConfig) -> State {
        let lasting = Lasting {
            link_up: true,
            fault: NicFault::None,
            fault_candidates: 0,
            counters: Counters::default(),
            interrupts_fired: 0,
            retired_receive: ReceiveCounters::default(),
            retired_transmit: TransmitCounters::default(),
        };
        State::with(config, lasting)
    }

    fn with(config: &NicConfig, lasting: Lasting) -> State {
        let queues = usize::from(config.queue_pairs);
        let mut state = State {
            registers: Registers::new(config.queue_pairs),
            resources_configured: false,
            interrupts: Interrupts::new(queues * 2),
            transmit: Vec::new(),
            receive: Vec::new(),
            rss: Rss::new(config.queue_pairs),
            rules: FlowRules::new(config.flow_rules),
            report: None,
            lasting,
        };
        state.transmit.resize_with(queues, || None);
        state.receive.resize_with(queues, || None);
        state.show_link();
        state
    }

    /// Back to the state after power-on, but for what lasts.
    pub(super) fn reset(&mut self, config: &NicConfig) {
        for queue in std::mem::take(&mut self.receive).into_iter().flatten() {
            self.retire_receive_queue(&queue);
        }
        for queue in std::mem::take(&mut self.transmit).into_iter().flatten() {
            self.retire_transmit_queue(&queue);
        }
        self.lasting.interrupts_fired += self.interrupts.fired;
        *self = State::with(config, self.lasting.clone());
    }

    /// Lets the link be seen in the device status.
    pub(super) fn show_link(&mut self) {
        let link = if self.lasting.link_up { device_status::LINK_UP } else { 0 };
        let others = self.registers.get(Register::DeviceStatus) & !device_status::LINK_UP;
        self.registers.set(Register::DeviceStatus, others | link);
    }

    /// Keeps the counters of a queue that is no more.
    pub(super) fn retire_receive_queue(&mut self, queue: &ReceiveQueue) {
        self.lasting.counters.no_queue += queue.waiting() as u64;
        self.lasting.retired_receive.add(&queue.counters);
    }

    /// Keeps the counters of a queue that is no more.
    pub(super) fn retire_transmit_queue(&mut self, queue: &TransmitQueue) {
        self.lasting.retired_transmit.add(&queue.counters);
    }
}
