//! EFA, Amazon's Elastic Fabric Adapter: an RDMA device, which programs use past the kernel.
//!
//! Written after the interface that the Linux driver uses (`drivers/infiniband/hw/efa`: `efa_regs_defs.h`,
//! `efa_admin_defs.h`, `efa_admin_cmds_defs.h`, `efa_io_defs.h`, which are under GPL-2.0 or BSD-2-Clause). The parts, in
//! the order in which a driver and then a program meet them:
//!
//! | file | what it is |
//! |---|---|
//! | `registers` | the first page of BAR 0 |
//! | `admin_queue` | the rings of commands, of their completions, and of asynchronous events |
//! | `command`, `admin` | commands: their layout, and their execution |
//! | `description` | what the device says of itself |
//! | `region`, `page_list` | memory regions: whose pages they are, and translation |
//! | `queue_pair` | queue pairs: states, and what is posted |
//! | `doorbell` | the other pages of BAR 0 |
//! | `descriptors` | layout of what is in the queues |
//! | `send`, `receive` | the two sides of a message or an RDMA |
//! | `completion_queue`, `interrupts` | completions, events, MSI-X |
//! | `fabric` | the network between devices |
//! | `statistics` | counters, and the reports of them |
//!
//! BAR 1 holds the MSI-X table, which QEMU keeps. BAR 2 is memory, in which programs write what they send.
//!
//! What a driver does wrong is told as misuse. What a program does wrong, which reaches its queues and its page of
//! doorbells without the driver, becomes a completion with an error, or is only counted.

mod admin;
mod admin_queue;
mod command;
mod completion_queue;
mod description;
mod descriptors;
mod doorbell;
mod fabric;
mod fields;
mod interrupts;
mod page_list;
mod queue_pair;
mod receive;
mod region;
mod registers;
mod send;
mod state;
mod statistics;
mod table;
#[cfg(test)]
mod tests;

pub(crate) use fabric::Fabric;
pub(crate) use region::RegionPlace;
pub(crate) use statistics::RdmaStatistics;

use std::fmt;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use crate::bus::{AddressSpace, DeviceMemory};
use crate::clock::Clock;
use crate::config::RdmaConfig;
use crate::ground_truth::GroundTruth;
use crate::lock;
use crate::misuse::MisuseLog;
use crate::pci::{Bar, BarMemory, Capability, Device, Identity, Link, MsixCapability, Vectors};
use description::event_group;
use doorbell::Doorbell;
use fabric::Gid;
use fields::{Fields, Structure};
use queue_pair::{MAXIMUM_QUEUE_PAIRS, SEND_RING_SIZE};
use registers::{Register, device_control, device_status};
use state::State;

const BAR_REGISTERS: usize = 0;
const BAR_QUEUES: usize = 2;
/// Bytes of BAR 2: room for the send queue of every queue pair.
const QUEUES_SIZE: u64 = SEND_RING_SIZE as u64 * MAXIMUM_QUEUE_PAIRS as u64;

/// One vector for management, and one for each event queue that a driver makes for a processor.
const VECTORS: u16 = 17;

/// From one sign of life to the next.
const SIGN_OF_LIFE_INTERVAL: Duration = Duration::from_secs(1);

/// What an EFA is for PCI.
pub(crate) fn identity() -> Identity {
    Identity {
        vendor: 0x1d0f,
        device: 0xefa1,
        subsystem_vendor: 0x1d0f,
        subsystem: 0xefa1,
        // An Ethernet controller, which is what the hardware says too.
        class: 0x02_0000,
        revision: 0,
        bars: [
            Bar::Memory32(doorbell::BAR_SIZE),
            Bar::Memory32(0x1000),
            Bar::Memory64 { size: QUEUES_SIZE, prefetchable: true },
            Bar::None,
            Bar::None,
            Bar::None,
        ],
        capabilities: vec![
            Capability::PciExpress(Link { speed: 4, width: 16 }),
            Capability::Msix(MsixCapability { vectors: VECTORS, bar: 1, table: 0, pending: 0x800 }),
        ],
        capabilities_at: 0x40,
        registers: Vec::new(),
    }
}

/// What a device is connected to.
pub(crate) struct Connections {
    pub(crate) memory: Arc<AddressSpace>,
    pub(crate) vectors: Arc<Vectors>,
    pub(crate) fabric: Arc<Fabric>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) ground_truth: Arc<GroundTruth>,
    pub(crate) misuse: Arc<MisuseLog>,
}

/// An EFA.
pub(crate) struct Efa {
    index: usize,
    name: String,
    config: RdmaConfig,
    gid: Gid,
    /// What is in BAR 2.
    queues: Arc<DeviceMemory>,
    memory: Arc<AddressSpace>,
    vectors: Arc<Vectors>,
    fabric: Arc<Fabric>,
    clock: Arc<Clock>,
    ground_truth: Arc<GroundTruth>,
    misuse: Arc<MisuseLog>,
    started: Instant,
    /// Held by whoever executes requests of send queues, or commands; never while holding the state of any device.
    sending: Mutex<()>,
    /// Never held while another device is asked for something.
    state: Mutex<State>,
    /// For tasks of the clock.
    this: Weak<Efa>,
}

impl Efa {
    /// A device of this number.
    ///
    /// # Errors
    /// What the system said when it refused memory for the queues.
    pub(crate) fn new(
        index: usize,
        config: RdmaConfig,
        connections: Connections,
    ) -> std::io::Result<Arc<Efa>> {
        let Connections { memory, vectors, fabric, clock, ground_truth, misuse } = connections;
        let name = format!("efa{index}");
        let queues = memory.bus().device_memory(&name, QUEUES_SIZE)?;
        let device = Arc::new_cyclic(|this| Efa {
            index,
            name,
            config,
            gid: gid(index),
            queues,
            memory,
            vectors,
            fabric,
            clock,
            ground_truth,
            misuse,
            started: Instant::now(),
            sending: Mutex::default(),
            state: Mutex::new(State::new()),
            this: this.clone(),
        });
        device.fabric.attach(device.gid, Arc::downgrade(&device));
        Ok(device)
    }

    /// How many interrupt vectors a device has.
    pub(crate) fn vector_count() -> usize {
        VECTORS.into()
    }

    /// The counters as of now.
    pub(crate) fn statistics(&self) -> RdmaStatistics {
        let state = lock(&self.state);
        RdmaStatistics {
            counters: state.lasting.counters,
            interrupts: state.lasting.interrupts_fired + state.interrupts.fired,
            regions: state.regions.count(),
            queue_pairs: state.queue_pairs.count(),
            completion_queues: state.completion_queues.count(),
        }
    }

    /// Where the memory of every region is.
    pub(crate) fn regions(&self) -> Vec<RegionPlace> {
        lock(&self.state).regions.places(&self.memory)
    }

    fn misuse(&self, what: fmt::Arguments<'_>) {
        self.misuse.record(&self.name, what);
    }

    fn trace(&self, what: fmt::Arguments<'_>) {
        self.misuse.trace(&self.name, what);
    }

    fn write_register(&self, offset: u64, value: u32) {
        let _in_order = lock(&self.sending);
        let mut state = lock(&self.state);
        match state.registers.write(offset, value) {
            Some(Register::AdminDoorbell) => self.admin_doorbell(&mut state),
            Some(Register::ReadRequest) => self.answer_read(&state, value),
            Some(Register::DeviceControl) => self.device_control(&mut state, value),
            Some(Register::EventQueueDoorbell) => self.event_queue_doorbell(&mut state, value),
            Some(_) => {}
            None => self.misuse(format_args!("{value:#x} written to offset {offset:#x} of BAR 0")),
        }
    }

    /// The driver asked for the value of a register.
    fn answer_read(&self, state: &State, request: u32) {
        let (number, offset) = (request as u16, (request >> 16) as u16);
        let Some(value) = state.registers.answer(offset.into()) else {
            return self.misuse(format_args!("request to read register {offset:#x}"));
        };
        let place = state.registers.address(Register::ReadAnswerLow, Register::ReadAnswerHigh);
        // The request's number comes last: by it the driver knows the answer.
        let answer = Structure::new(8).u16(0, number).u16(2, offset).u32(4, value).bytes();
        if let Err(error) = completion_queue::publish(&self.memory, place, 0, &answer) {
            self.misuse(format_args!("answer to a request to read: {error}"));
        }
    }

    fn device_control(&self, state: &mut State, value: u32) {
        self.trace(format_args!("device control {value:#x}"));
        let status = if value & device_control::RESET != 0 {
            state.lasting.counters.resets += 1;
            state.reset();
            device_status::READY | device_status::RESET_IN_PROGRESS
        } else {
            device_status::READY | device_status::RESET_FINISHED
        };
        state.registers.set(Register::DeviceStatus, status);
    }

    fn event_queue_doorbell(&self, state: &mut State, value: u32) {
        let number = value as u16;
        let Some(queue) = state.event_queues.get_mut(number) else {
            return self.misuse(format_args!("doorbell of event queue {number}, which does not exist"));
        };
        if value & 1 << 31 != 0 && queue.arm() {
            let vector = queue.vector;
            state.interrupts.raise(vector, &self.vectors);
        }
    }

    /// A program wrote to its page of doorbells.
    fn ring(&self, offset: u64, value: u32) {
        let known = Doorbell::at(offset).filter(|(page, doorbell)| {
            let state = lock(&self.state);
            let owner = match *doorbell {
                Doorbell::Send(pair) | Doorbell::Receive(pair) => {
                    state.queue_pairs.get(pair).map(|pair| pair.doorbell_page)
                }
                Doorbell::Completion(queue) => {
                    state.completion_queues.get(queue).map(|queue| queue.doorbell_page)
                }
            };
            owner == Some(*page)
        });
        match known {
            Some((_, Doorbell::Send(pair))) => self.send_doorbell(pair, value),
            Some((_, Doorbell::Receive(pair))) => self.receive_doorbell(pair, value),
            Some((_, Doorbell::Completion(queue))) => {
                let mut state = lock(&self.state);
                let Some(existing) = state.completion_queues.get_mut(queue) else { return };
                let (event_queue, is_due) = (existing.event_queue, existing.doorbell(value));
                if is_due {
                    self.event(&mut state, event_queue, queue);
                }
            }
            None => self.bad_doorbell(offset, value),
        }
    }

    fn receive_doorbell(&self, number: u16, posted: u32) {
        let mut state = lock(&self.state);
        let Some(pair) = state.queue_pairs.get_mut(number) else { return };
        if !pair.post_receives(posted) {
            state.lasting.counters.bad_doorbells += 1;
            return self.trace(format_args!("queue pair {number}: no room for {posted} receives"));
        }
        if pair.state == queue_pair::QueuePairState::Error {
            self.flush_receives(&mut state, number);
        }
    }

    fn bad_doorbell(&self, offset: u64, value: u32) {
        lock(&self.state).lasting.counters.bad_doorbells += 1;
        self.trace(format_args!("doorbell at {offset:#x} of BAR 0, where there is no queue: {value:#x}"));
    }

    /// The driver told which events it wants: from now on, or no more, it gets signs of life.
    fn begin_signs_of_life(&self, state: &mut State) {
        state.lasting.event_settings += 1;
        self.sign_of_life(state);
    }

    fn sign_of_life(&self, state: &mut State) {
        if state.event_groups & 1 << event_group::KEEP_ALIVE == 0 {
            return;
        }
        let milliseconds = self.started.elapsed().as_millis() as u64;
        let State { rings, registers, .. } = state;
        match rings.notify(registers, &self.memory, event_group::KEEP_ALIVE, milliseconds) {
            Ok(true) => {
                let vector = state.registers.get(Register::AsyncEventCapabilities) >> 24;
                self.interrupt_management(state, vector as u8);
            }
            Ok(false) => {}
            Err(error) => return self.misuse(format_args!("asynchronous event: {error}")),
        }
        let (this, setting) = (self.this.clone(), state.lasting.event_settings);
        self.clock.at(Instant::now() + SIGN_OF_LIFE_INTERVAL, move || {
            let Some(this) = this.upgrade() else { return };
            let mut state = lock(&this.state);
            if state.lasting.event_settings == setting {
                this.sign_of_life(&mut state);
            }
        });
    }
}

/// The address of a device: link-local, with the same bytes as the stations of other NICs.
fn gid(index: usize) -> Gid {
    let [high, low] = (index as u16).to_be_bytes();
    [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0x00, 0x64, 0x6d, 0xff, 0xfe, 0xfa, high, low]
}

impl Device for Efa {
    /// There is nothing to be read in the registers: see `registers`.
    fn read(&self, bar: usize, offset: u64, into: &mut [u8]) {
        into.fill(0);
        if bar == BAR_REGISTERS {
            self.misuse(format_args!("{} bytes read from offset {offset:#x} of BAR 0", into.len()));
        }
    }

    fn write(&self, bar: usize, offset: u64, from: &[u8]) {
        if bar != BAR_REGISTERS {
            return;
        }
        let is_word = from.len() == 4 && offset.is_multiple_of(4);
        match (is_word, offset < doorbell::PAGE) {
            (true, true) => self.write_register(offset, Fields(from).u32(0)),
            (true, false) => self.ring(offset, Fields(from).u32(0)),
            (false, true) => {
                self.misuse(format_args!("{} bytes written to offset {offset:#x} of BAR 0", from.len()));
            }
            (false, false) => self.bad_doorbell(offset, Fields(from).u32(0)),
        }
    }

    fn memory(&self) -> Vec<BarMemory> {
        vec![BarMemory { bar: BAR_QUEUES, range: 0..QUEUES_SIZE, memory: Arc::clone(&self.queues) }]
    }

    fn vectors_changed(&self) {
        lock(&self.state).interrupts.retry(&self.vectors);
    }

    fn reset(&self) {
        self.trace(format_args!("function reset"));
        lock(&self.state).reset();
    }
}
