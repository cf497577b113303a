//! The microcontroller (GuC) to which `xe` hands contexts: its firmware's side of the protocol, as far as the
//! driver needs it. Nothing of the firmware is executed; loading it starts what is here.
//!
//! Requests come by scratch registers until the driver has set up the two buffers of `channel`, and by these
//! after that. Either way the driver rings a doorbell register. Contexts are registered once, switched on and
//! off, and scheduled whenever the driver has written commands into their ring.

mod channel;
mod firmware;
mod registers;

pub(super) use firmware::firmware;
pub(super) use registers::{DMA_CONTROL, DOORBELL, HUC_STATUS, SCRATCH, STATUS, WOPCM_OFFSET, WOPCM_SIZE};

use std::collections::BTreeMap;

use super::addressing::{Address, Addressing};
use super::engine::{Class, EngineIdentity};
use super::memory::Fault;
use super::registers::{Registers, frequency};
use channel::{Channel, Message};
use registers::{DMA_START, HUC_ACCEPTED, STATUS_IN_RESET, STATUS_READY};

/// The GuC among the engines that interrupt.
pub(super) const GUC: EngineIdentity = EngineIdentity { class: Class::Other, instance: 0, base: 0xc000 };
/// GUC_INTR_GUC2HOST.
pub(super) const TO_HOST: u16 = 1 << 15;

/// Requests, and events that the GuC tells of (`guc_actions_abi.h`).
mod action {
    pub(super) const SELF_CONFIGURE: u32 = 0x0508;
    pub(super) const SCHEDULE_CONTEXT: u32 = 0x1000;
    pub(super) const SCHEDULE_CONTEXT_MODE_SET: u32 = 0x1001;
    pub(super) const SCHEDULE_CONTEXT_MODE_DONE: u32 = 0x1002;
    pub(super) const POWER_REQUEST: u32 = 0x3003;
    pub(super) const AUTHENTICATE_HUC: u32 = 0x4000;
    pub(super) const GET_HARDWARE_CONFIGURATION: u32 = 0x4100;
    pub(super) const REGISTER_CONTEXT: u32 = 0x4502;
    pub(super) const DEREGISTER_CONTEXT: u32 = 0x4503;
    pub(super) const CONTROL_BUFFERS: u32 = 0x4509;
    pub(super) const DEREGISTER_CONTEXT_DONE: u32 = 0x4600;
    pub(super) const TLB_INVALIDATION: u32 = 0x7000;
    pub(super) const TLB_INVALIDATION_DONE: u32 = 0x7001;
    pub(super) const TLB_INVALIDATION_ALL: u32 = 0x7002;
    pub(super) const PAGE_RECLAMATION: u32 = 0x7003;
    pub(super) const PAGE_RECLAMATION_DONE: u32 = 0x7004;
}

/// Keys of [`action::SELF_CONFIGURE`]: of either buffer its place, its descriptor's and its size.
const KEY_TO_GUC: u32 = 0x0902;
const KEY_TO_HOST: u32 = 0x0905;

/// Identifiers of contexts.
const CONTEXTS: u32 = 1 << 16;

/// The table of the hardware's configuration: attributes, each with the count of its values, and these. One
/// slice (1) with at most four sub-slices (70).
const CONFIGURATION: [u32; 6] = [1, 1, 1, 70, 1, 4];

/// A context that the driver registered.
#[derive(Clone, Copy, Debug)]
struct Context {
    descriptor: u64,
    class: u32,
    /// Which of the engines of the class may run it.
    engines: u32,
    enabled: bool,
}

/// What an engine shall do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Run a context, if it does not yet.
    Run { engine: EngineIdentity, descriptor: u64 },
    /// Not run a context any more.
    Stop { engine: EngineIdentity, descriptor: u64 },
}

/// What came of a doorbell.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) orders: Vec<Order>,
    /// Something was written for the driver to read.
    pub(super) interrupts: bool,
    /// What the driver did wrong.
    pub(super) misuse: Vec<String>,
}

/// The microcontroller.
pub(super) struct Guc {
    engines: &'static [EngineIdentity],
    running: bool,
    to_guc: Channel,
    to_host: Channel,
    connected: bool,
    contexts: BTreeMap<u32, Context>,
}

impl Guc {
    pub(super) fn new(engines: &'static [EngineIdentity]) -> Guc {
        Guc {
            engines,
            running: false,
            to_guc: Channel::default(),
            to_host: Channel::default(),
            connected: false,
            contexts: BTreeMap::new(),
        }
    }

    /// Back to where it has no firmware.
    pub(super) fn reset(&mut self, registers: &mut Registers) {
        *self = Guc::new(self.engines);
        registers.set(STATUS, STATUS_IN_RESET);
        registers.set(HUC_STATUS, 0);
    }

    /// The driver starts the copy of firmware: it is copied and runs at once.
    pub(super) fn load(&mut self, registers: &mut Registers, control: u32) {
        if control & control >> 16 & DMA_START != 0 {
            self.running = true;
            registers.set(STATUS, STATUS_READY);
        }
    }

    /// The driver rings the doorbell.
    pub(super) fn ring(&mut self, addressing: &Addressing, registers: &mut Registers) -> Answer {
        let mut answer = Answer::default();
        if !self.running {
            return answer;
        }
        let request = [0, 1, 2, 3].map(|index| registers.get(SCRATCH + index * 4));
        let message = Message::new(request.to_vec());
        if message.is_request() && message.action() != 0 {
            let data = self.request(addressing, &message, &mut answer);
            registers.set(SCRATCH, channel::success(data));
        }
        if self.connected
            && let Err(fault) = self.receive(addressing, registers, &mut answer)
        {
            answer.misuse.push(format!("communication buffers: {fault}"));
            self.connected = false;
        }
        answer
    }

    /// Answers a request that came by the scratch registers.
    fn request(&mut self, addressing: &Addressing, message: &Message, answer: &mut Answer) -> u32 {
        match message.action() {
            action::SELF_CONFIGURE => {
                let key = message.word(1) >> 16;
                let value = u64::from(message.word(2)) | u64::from(message.word(3)) << 32;
                self.configure(key, value)
            }
            action::CONTROL_BUFFERS => {
                self.connected = message.word(1) == 1;
                0
            }
            action::GET_HARDWARE_CONFIGURATION => {
                let size = size_of_val(&CONFIGURATION) as u32;
                if message.word(3) >= size {
                    let bytes: Vec<u8> = CONFIGURATION.iter().flat_map(|word| word.to_le_bytes()).collect();
                    if let Err(fault) = addressing.write(Address::global(message.word(1).into()), &bytes) {
                        answer.misuse.push(format!("hardware configuration: {fault}"));
                    }
                }
                size
            }
            _ => 0,
        }
    }

    /// Takes the place or size of a buffer. Tells how many keys it knew.
    fn configure(&mut self, key: u32, value: u64) -> u32 {
        let (channel, key) = match key {
            KEY_TO_GUC..KEY_TO_HOST => (&mut self.to_guc, key - KEY_TO_GUC),
            _ => (&mut self.to_host, key.wrapping_sub(KEY_TO_HOST)),
        };
        match key {
            0 => channel.buffer = value,
            1 => channel.descriptor = value,
            2 => channel.set_size(value),
            _ => return 0,
        }
        1
    }

    /// Reads all messages that the driver has written.
    fn receive(
        &mut self,
        addressing: &Addressing,
        registers: &mut Registers,
        answer: &mut Answer,
    ) -> Result<(), Fault> {
        for message in self.to_guc.receive(addressing)? {
            if message.action() == action::AUTHENTICATE_HUC {
                registers.set(HUC_STATUS, HUC_ACCEPTED);
            }
            let events = self.message(addressing, &message, answer);
            for event in events {
                self.send(addressing, &event, answer)?;
            }
            if message.is_request() {
                self.send(addressing, &message.response(), answer)?;
            }
        }
        Ok(())
    }

    fn send(&self, addressing: &Addressing, message: &[u32], answer: &mut Answer) -> Result<(), Fault> {
        if self.to_host.send(addressing, message)? {
            answer.interrupts = true;
        } else {
            answer.misuse.push("no room for a message of the GuC".to_owned());
        }
        Ok(())
    }

    /// Does what a message asks for, and returns the events to tell of.
    fn message(&mut self, addressing: &Addressing, message: &Message, answer: &mut Answer) -> Vec<Vec<u32>> {
        let identifier = message.word(1);
        match message.action() {
            action::REGISTER_CONTEXT => self.register(message, answer),
            action::SCHEDULE_CONTEXT => self.schedule(identifier, answer),
            action::SCHEDULE_CONTEXT_MODE_SET => {
                let enabled = message.word(2);
                self.set_mode(identifier, enabled == 1, answer);
                return vec![channel::event(action::SCHEDULE_CONTEXT_MODE_DONE, &[identifier, enabled])];
            }
            action::DEREGISTER_CONTEXT => {
                self.set_mode(identifier, false, answer);
                self.contexts.remove(&identifier);
                return vec![channel::event(action::DEREGISTER_CONTEXT_DONE, &[identifier])];
            }
            action::TLB_INVALIDATION | action::TLB_INVALIDATION_ALL => {
                return vec![channel::event(action::TLB_INVALIDATION_DONE, &[identifier])];
            }
            action::PAGE_RECLAMATION => {
                return vec![channel::event(action::PAGE_RECLAMATION_DONE, &[identifier])];
            }
            action::POWER_REQUEST => power_request(addressing, message, answer),
            // Policies, logs and statistics.
            _ => {}
        }
        Vec::new()
    }

    fn register(&mut self, message: &Message, answer: &mut Answer) {
        let identifier = message.word(2);
        if identifier >= CONTEXTS {
            return answer.misuse.push(format!("context {identifier} cannot be registered"));
        }
        let descriptor = u64::from(message.word(10)) | u64::from(message.word(11)) << 32;
        let (class, engines) = (message.word(3), message.word(4));
        self.contexts.insert(identifier, Context { descriptor, class, engines, enabled: false });
    }

    fn schedule(&self, identifier: u32, answer: &mut Answer) {
        let Some(context) = self.contexts.get(&identifier).filter(|context| context.enabled) else {
            return answer.misuse.push(format!("context {identifier} is scheduled but not switched on"));
        };
        let Context { descriptor, .. } = *context;
        match self.engine(context) {
            Some(engine) => answer.orders.push(Order::Run { engine, descriptor }),
            None => answer.misuse.push(format!("context {identifier} has no engine")),
        }
    }

    fn set_mode(&mut self, identifier: u32, enabled: bool, answer: &mut Answer) {
        let Some(context) = self.contexts.get_mut(&identifier) else { return };
        context.enabled = enabled;
        let context = *context;
        if enabled {
            self.schedule(identifier, answer);
        } else if let Some(engine) = self.engine(&context) {
            answer.orders.push(Order::Stop { engine, descriptor: context.descriptor });
        }
    }

    /// The engine of a context: the first that may run it. The GuC counts the engines of a class.
    fn engine(&self, context: &Context) -> Option<EngineIdentity> {
        let class = match context.class {
            0 => Class::Render,
            1 => Class::Video,
            2 => Class::VideoEnhance,
            3 => Class::Copy,
            4 => Class::Compute,
            _ => return None,
        };
        let mut of_class = self.engines.iter().filter(|engine| engine.class == class);
        of_class.nth(context.engines.trailing_zeros() as usize).copied()
    }
}

/// The power controller's part (SLPC): told where its state is kept, it says there that it runs, and how fast
/// the GPU may be.
fn power_request(addressing: &Addressing, message: &Message, answer: &mut Answer) {
    const RESET: u32 = 0;
    const GLOBAL_STATE: u64 = 4;
    const RUNNING: u32 = 3;
    const FREQUENCIES: u64 = 128 + 4;
    if message.word(1) >> 8 & 0xff != RESET {
        return;
    }
    let state = Address::global(message.word(2).into());
    let frequencies = frequency::HIGHEST | frequency::LOWEST << 8;
    let written = addressing.write_word(state.plus(FREQUENCIES), frequencies);
    if let Err(fault) = written.and_then(|()| addressing.write_word(state.plus(GLOBAL_STATE), RUNNING)) {
        answer.misuse.push(format!("state of the power controller: {fault}"));
    }
}
