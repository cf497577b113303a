//! gve, Google's virtual NIC, in its DQO queue format with raw addressing (RDA).
//!
//! Written after the interface that the Linux driver uses (`drivers/net/ethernet/google/gve`:
//! `gve_register.h`, `gve_adminq.h`, `gve_desc_dqo.h`). The parts, in the order in which a driver meets
//! them:
//!
//! | file | what it is |
//! |---|---|
//! | `registers` | BAR 0: status, the admin queue's address and doorbell |
//! | `command`, `admin` | the admin queue: layout of commands, and their execution |
//! | `description` | what the device says of itself, and its packet types |
//! | `descriptors` | layout of what is in the rings |
//! | `transmit` | a transmit queue: segmentation and checksum offload |
//! | `receive` | a receive queue: buffers, header split, coalescing, completions |
//! | `steering`, `rss` | which receive queue a packet goes to |
//! | `interrupts` | notification blocks: masking, pending, moderation |
//! | `statistics` | counters, and the report of them to the driver |
//!
//! BAR 1 holds the MSI-X table, which QEMU keeps; BAR 2 the doorbells.

mod admin;
mod command;
mod description;
mod descriptors;
mod doorbell;
mod interrupts;
mod receive;
mod registers;
mod rss;
mod state;
mod statistics;
mod steering;
mod transmit;

pub(crate) use statistics::NicStatistics;

use std::fmt;
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

use crate::bus::AddressSpace;
use crate::clock::Clock;
use crate::config::NicConfig;
use crate::control::NicFault;
use crate::ethernet::{ETHERNET_HEADER, Frame, MacAddress};
use crate::ground_truth::GroundTruth;
use crate::lock;
use crate::misuse::MisuseLog;
use crate::pci::{Bar, Capability, Device, Identity, MsixCapability, Vectors};
use crate::switch::{Port, Switch};
use interrupts::RetryAt;
use receive::{Arrival, Delivery};
use registers::{Register, device_status, driver_status};
use state::State;
use statistics::{ReceiveQueueStatistics, ReportedCounters, TransmitQueueStatistics};

const BAR_REGISTERS: usize = 0;
const BAR_DOORBELLS: usize = 2;

/// Bytes that a packet on the wire may have beyond the MTU: Ethernet header and two VLAN tags.
const MRU_OVERHEAD: usize = ETHERNET_HEADER + 8;

/// What a gve is for PCI.
pub(crate) fn identity(config: &NicConfig) -> Identity {
    Identity {
        vendor: 0x1ae0,
        device: 0x0042,
        subsystem_vendor: 0x1ae0,
        subsystem: 0x0058,
        class: 0x02_0000,
        // From revision 1 on the admin queue has an address and a length.
        revision: 1,
        bars: [
            Bar::Memory32(0x1000),
            Bar::Memory32(0x2000),
            Bar::Memory32(0x1000),
            Bar::None,
            Bar::None,
            Bar::None,
        ],
        capabilities: vec![Capability::Msix(MsixCapability {
            vectors: vector_count(config) as u16,
            bar: 1,
            table: 0,
            pending: 0x1000,
        })],
        capabilities_at: 0x40,
        registers: Vec::new(),
    }
}

/// One vector for each queue, and the last one for management.
pub(crate) fn vector_count(config: &NicConfig) -> usize {
    usize::from(config.queue_pairs) * 2 + 1
}

/// What a NIC is connected to.
pub(crate) struct Connections {
    pub(crate) memory: Arc<AddressSpace>,
    pub(crate) vectors: Arc<Vectors>,
    pub(crate) switch: Arc<Switch>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) ground_truth: Arc<GroundTruth>,
    pub(crate) misuse: Arc<MisuseLog>,
}

/// A gve NIC.
pub(crate) struct Gve {
    /// Number of the NIC, which is also its port of the switch.
    index: usize,
    name: String,
    config: NicConfig,
    mac: MacAddress,
    memory: Arc<AddressSpace>,
    vectors: Arc<Vectors>,
    switch: Arc<Switch>,
    clock: Arc<Clock>,
    ground_truth: Arc<GroundTruth>,
    misuse: Arc<MisuseLog>,
    /// Never held while frames are given to the switch: they may come to another NIC, whose frames
    /// may come here.
    state: Mutex<State>,
    /// For tasks of the clock.
    this: Weak<Gve>,
}

impl Gve {
    pub(crate) fn new(
        index: usize,
        config: NicConfig,
        mac: MacAddress,
        connections: Connections,
    ) -> Arc<Gve> {
        let Connections { memory, vectors, switch, clock, ground_truth, misuse } = connections;
        Arc::new_cyclic(|this| Gve {
            index,
            name: format!("gve{index}"),
            state: Mutex::new(State::new(&config)),
            config,
            mac,
            memory,
            vectors,
            switch,
            clock,
            ground_truth,
            misuse,
            this: this.clone(),
        })
    }

    /// Sets the link up or down and tells the driver.
    pub(crate) fn set_link(&self, up: bool) {
        let mut state = lock(&self.state);
        state.lasting.link_up = up;
        state.show_link();
        // Management has the vector behind (or, if the driver wants it, before) those of the queues.
        let first = state.interrupts.first_vector;
        self.vectors.signal(if first == 0 { state.interrupts.count() } else { 0 });
    }

    /// Replaces the mistake that the NIC makes.
    pub(crate) fn set_fault(&self, fault: NicFault) {
        let mut state = lock(&self.state);
        state.lasting.fault = fault;
        state.lasting.fault_candidates = 0;
    }

    /// The counters as of now.
    pub(crate) fn statistics(&self) -> NicStatistics {
        let state = lock(&self.state);
        let mut received = state.lasting.retired_receive;
        let mut transmitted = state.lasting.retired_transmit;
        let mut receive_queues = Vec::new();
        for (queue, exists) in state.receive.iter().enumerate() {
            let Some(exists) = exists else { continue };
            received.add(&exists.counters);
            let (waiting, counters) = (exists.waiting(), exists.counters);
            receive_queues.push(ReceiveQueueStatistics { queue, waiting, counters });
        }
        let mut transmit_queues = Vec::new();
        for (queue, exists) in state.transmit.iter().enumerate() {
            let Some(exists) = exists else { continue };
            transmitted.add(&exists.counters);
            transmit_queues.push(TransmitQueueStatistics { queue, counters: exists.counters });
        }
        NicStatistics {
            link_up: state.lasting.link_up,
            counters: state.lasting.counters,
            interrupts: state.lasting.interrupts_fired + state.interrupts.fired,
            flow_rules: state.rules.count(),
            received,
            transmitted,
            receive_queues,
            transmit_queues,
        }
    }

    fn misuse(&self, what: fmt::Arguments<'_>) {
        self.misuse.record(&self.name, what);
    }

    fn trace(&self, what: fmt::Arguments<'_>) {
        self.misuse.trace(&self.name, what);
    }

    fn write_register(&self, offset: u64, from: &[u8]) {
        let mut state = lock(&self.state);
        match state.registers.write(offset, from) {
            Some(Register::DriverStatus) => self.driver_status(&mut state),
            Some(Register::AdminDoorbell) => {
                let producer = state.registers.get(Register::AdminDoorbell);
                self.admin_doorbell(&mut state, producer);
            }
            Some(_) => {}
            None => self.misuse(format_args!("{} bytes written to offset {offset:#x} of BAR 0", from.len())),
        }
    }

    fn driver_status(&self, state: &mut State) {
        let status = state.registers.get(Register::DriverStatus);
        self.trace(format_args!("driver status {status:#x}"));
        if status & driver_status::RESET != 0 {
            state.lasting.counters.resets += 1;
            state.reset(&self.config);
            let device = state.registers.get(Register::DeviceStatus);
            state.registers.set(Register::DeviceStatus, device | device_status::IS_RESET);
        } else if status & driver_status::RUN != 0 {
            let device = state.registers.get(Register::DeviceStatus);
            state.registers.set(Register::DeviceStatus, device & !device_status::IS_RESET);
            // The driver begins to count its commands anew.
            state.registers.set(Register::AdminEventCounter, 0);
        }
    }

    /// Sends what the driver posted. Called from the thread of this function only, so that packets of
    /// one queue stay in order.
    fn transmit(&self, queue: usize, tail: u32) {
        let posted = {
            let mut state = lock(&self.state);
            state.transmit.get_mut(queue).and_then(Option::as_mut).map(|queue| queue.post(tail))
        };
        match posted {
            None => {
                return self.misuse(format_args!("doorbell of transmit queue {queue}, which does not exist"));
            }
            Some(false) => {
                return self.misuse(format_args!("transmit queue {queue} has no descriptor {tail}"));
            }
            Some(true) => {}
        }
        loop {
            let mut state = lock(&self.state);
            let Some(existing) = state.transmit.get_mut(queue).and_then(Option::as_mut) else { return };
            let fetched = existing.fetch(&self.memory);
            let interrupt = existing.interrupt;
            if fetched.completions {
                self.raise(&mut state, interrupt);
            }
            let link_up = state.lasting.link_up;
            if !link_up {
                state.lasting.counters.link_down += fetched.frames.len() as u64;
            }
            drop(state);
            for error in &fetched.errors {
                self.misuse(format_args!("transmit queue {queue}: {error}"));
            }
            if link_up && !fetched.frames.is_empty() {
                self.switch.forward(self.index, fetched.frames);
            }
            if !fetched.more {
                return;
            }
        }
    }

    fn post_buffers(&self, queue: usize, tail: u32) {
        let mut state = lock(&self.state);
        match state.receive.get_mut(queue).and_then(Option::as_mut).map(|queue| queue.post(tail)) {
            None => self.misuse(format_args!("doorbell of receive queue {queue}, which does not exist")),
            Some(false) => self.misuse(format_args!("receive queue {queue} has no buffer {tail}")),
            Some(true) => self.deliver(&mut state, queue),
        }
    }

    /// Gives waiting packets to the driver and raises the queue's interrupt once for all of them.
    fn deliver(&self, state: &mut State, queue: usize) {
        let Some(existing) = state.receive.get_mut(queue).and_then(Option::as_mut) else { return };
        let delivery = Delivery { memory: &self.memory, ground_truth: &self.ground_truth, nic: self.index };
        let delivered = existing.deliver(&delivery);
        let interrupt = existing.interrupt;
        if let Some(error) = delivered.failure {
            self.misuse(format_args!("receive queue {queue}: {error}"));
        }
        if delivered.completions {
            self.raise(state, interrupt);
        }
        self.report_statistics(state);
    }

    /// The queue for a packet, and the packet as it shall go there.
    fn steer(&self, state: &mut State, frame: &Arc<Frame>) -> (usize, Arrival) {
        let headers = &frame.headers;
        let hash = state.rss.hash(headers);
        let mut arrival = Arrival { frame: Arc::clone(frame), hash, linear_bytes: 0 };
        let mut queue = state.rss.queue(hash);
        let steered = state.rules.queue(headers);
        if let Some(steered) = steered {
            queue = steered;
            state.lasting.counters.steered += 1;
        }
        let mut every_so_many = |every: u32| {
            state.lasting.fault_candidates += 1;
            every > 0 && state.lasting.fault_candidates.is_multiple_of(every.into())
        };
        match state.lasting.fault {
            NicFault::Linear { bytes, every } if !headers.payload.is_empty() && every_so_many(every) => {
                arrival.linear_bytes = bytes;
            }
            NicFault::Steering { every } if steered.is_some() && every_so_many(every) => {
                queue = 0;
                state.lasting.counters.missteered += 1;
            }
            _ => {}
        }
        (queue.into(), arrival)
    }

    /// Brings the driver's statistics report up to date.
    fn report_statistics(&self, state: &mut State) {
        let Some(report) = state.report.as_mut() else { return };
        let mut receive_queues = Vec::new();
        for (index, queue) in state.receive.iter().enumerate() {
            let Some(queue) = queue else { continue };
            receive_queues.push(ReportedCounters {
                queue: index as u32,
                drops: queue.counters.backlog_drops + queue.counters.dma_errors,
                no_buffer: queue.counters.no_buffer,
                over_mru: queue.counters.too_large,
            });
        }
        if let Err(error) = report.update(&self.memory, receive_queues) {
            self.misuse(format_args!("statistics report: {error}"));
            state.report = None;
        }
    }

    fn interrupt_doorbell(&self, index: usize, value: u32) {
        let mut state = lock(&self.state);
        let retry = state.interrupts.doorbell(index, value, &self.vectors, Instant::now());
        self.retry_later(index, retry);
    }

    /// Asks the clock to look at an interrupt again, if that is needed.
    fn retry_later(&self, index: usize, RetryAt(due): RetryAt) {
        let Some(due) = due else { return };
        let this = self.this.clone();
        self.clock.at(due, move || {
            if let Some(this) = this.upgrade() {
                this.retry_interrupt(index);
            }
        });
    }

    fn retry_interrupt(&self, index: usize) {
        let mut state = lock(&self.state);
        let retry = state.interrupts.retry(index, &self.vectors, Instant::now());
        self.retry_later(index, retry);
    }
}

impl Device for Gve {
    fn read(&self, bar: usize, offset: u64, into: &mut [u8]) {
        match bar {
            BAR_REGISTERS => lock(&self.state).registers.read(offset, into),
            _ => into.fill(0),
        }
    }

    fn write(&self, bar: usize, offset: u64, from: &[u8]) {
        match bar {
            BAR_REGISTERS => self.write_register(offset, from),
            BAR_DOORBELLS => match (<[u8; 4]>::try_from(from), offset % 4) {
                (Ok(value), 0) => self.doorbell((offset / 4) as usize, u32::from_le_bytes(value)),
                _ => self.misuse(format_args!("{} bytes written to offset {offset:#x} of BAR 2", from.len())),
            },
            _ => {}
        }
    }

    fn vectors_changed(&self) {
        for index in 0..self.vectors.count().saturating_sub(1) {
            self.retry_interrupt(index);
        }
    }

    fn reset(&self) {
        self.trace(format_args!("function reset"));
        lock(&self.state).reset(&self.config);
    }
}

impl Port for Gve {
    fn receive(&self, frames: &[Arc<Frame>]) {
        let mut state = lock(&self.state);
        if !state.lasting.link_up {
            state.lasting.counters.link_down += frames.len() as u64;
            return;
        }
        let mut touched = vec![false; state.receive.len()];
        for frame in frames {
            if frame.segment_size.is_none() && frame.bytes.len() > usize::from(self.config.mtu) + MRU_OVERHEAD
            {
                state.lasting.counters.over_mru += 1;
                continue;
            }
            let (queue, arrival) = self.steer(&mut state, frame);
            match state.receive.get_mut(queue).and_then(Option::as_mut) {
                Some(existing) => {
                    existing.enqueue(arrival);
                    touched[queue] = true;
                }
                None => state.lasting.counters.no_queue += 1,
            }
        }
        for queue in (0..touched.len()).filter(|queue| touched[*queue]) {
            self.deliver(&mut state, queue);
        }
    }
}
