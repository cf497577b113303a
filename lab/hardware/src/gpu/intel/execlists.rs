//! Submission by execution lists: the driver writes descriptors of contexts into an engine's submit queue and
//! loads it. The engine runs them one after the other and tells of every switch in the context status buffer
//! of its status page, and by an interrupt.

use super::addressing::{Address, Addressing, Space};
use super::commands::{Context, Position, Ring, Share, Stop, Streamer};
use super::engine::{EngineIdentity, offsets};
use super::interrupts::cause;
use super::memory::Fault;
use super::parts::ContextStatus;
use super::registers::Registers;

/// Contexts of a submit queue that run.
const PORTS: usize = 8;
/// Bits of a descriptor.
const DESCRIPTOR_VALID: u64 = 1 << 0;
const DESCRIPTOR_ADDRESS: u64 = 0xffff_f000;

/// A context's registers are in the page after its status page, as commands that load them: the words that
/// hold the values (`intel_lrc_reg.h`).
mod image {
    pub(super) const PAGE: u64 = 4096;
    pub(super) const RING_HEAD: u64 = 0x05;
    pub(super) const RING_TAIL: u64 = 0x07;
    pub(super) const RING_START: u64 = 0x09;
    pub(super) const RING_CONTROL: u64 = 0x0b;
    /// Where the context was in a batch, when it was switched away from there.
    pub(super) const BATCH_HIGH: u64 = 0x0d;
    pub(super) const BATCH_LOW: u64 = 0x0f;
    pub(super) const BATCH_STATE: u64 = 0x11;
    pub(super) const ROOT_HIGH: u64 = 0x31;
    pub(super) const ROOT_LOW: u64 = 0x33;

    pub(super) const BATCH_VALID: u32 = 1 << 0;
    pub(super) const BATCH_PROCESS: u32 = 1 << 5;
}

/// Bits of the ring registers.
const RING_OFFSET: u32 = 0x001f_fffc;
const RING_PAGES: u32 = 0x001f_f000;

/// The context status buffer, in an engine's status page.
mod status_buffer {
    pub(super) const ENTRIES: u64 = 0x40;
    pub(super) const COUNT: u32 = 12;
    /// Index of the entry written last.
    pub(super) const WRITE_POINTER: u64 = 0xbc;
}

/// A context that the engine runs.
struct Running {
    descriptor: u64,
    context: Context,
    position: Position,
    /// It cannot go on; only another submission or a reset gets the engine out of that.
    faulted: bool,
}

/// An engine with its contexts.
pub(super) struct Execlists {
    pub(super) engine: EngineIdentity,
    layout: ContextStatus,
    running: Option<Running>,
    /// Descriptors of those that run next.
    waiting: Vec<u64>,
}

/// What came of letting an engine work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Interrupts to raise.
    pub(super) raised: u16,
    /// There is more to do at once.
    pub(super) unfinished: bool,
    /// Something was done.
    pub(super) progress: bool,
    /// What went wrong.
    pub(super) fault: Option<Fault>,
}

impl Execlists {
    pub(super) fn new(engine: EngineIdentity, layout: ContextStatus) -> Execlists {
        Execlists { engine, layout, running: None, waiting: Vec::new() }
    }

    /// Forgets all contexts.
    pub(super) fn reset(&mut self) {
        self.running = None;
        self.waiting.clear();
    }

    /// Whether a context runs that could go on.
    pub(super) fn is_busy(&self) -> bool {
        self.running.as_ref().is_some_and(|running| !running.faulted)
    }

    /// The driver loads the submit queue: what runs is switched away from. Returns the interrupts to raise.
    pub(super) fn load(&mut self, addressing: &Addressing, registers: &mut Registers) -> Result<u16, Fault> {
        let word = |index: u64| registers.get(self.engine.base + offsets::SUBMIT_QUEUE + index * 4);
        let descriptor = |port: u64| u64::from(word(port * 2)) | u64::from(word(port * 2 + 1)) << 32;
        let queue = (0..PORTS as u64).map(descriptor).take_while(|entry| entry & DESCRIPTOR_VALID != 0);
        let mut queue: Vec<u64> = queue.collect();
        if queue.is_empty() {
            return Ok(0);
        }
        let first = queue.remove(0);
        self.waiting = queue;
        let old = self.running.take();
        if let Some(old) = &old {
            save(addressing, old)?;
        }
        self.tell(addressing, registers, Some(first), old.map(|old| old.descriptor), true)?;
        self.running = Some(restore(addressing, first)?);
        Ok(self.unmasked(registers, cause::CONTEXT_SWITCH))
    }

    /// What of these interrupts the engine does not mask.
    fn unmasked(&self, registers: &Registers, causes: u16) -> u16 {
        causes & !(registers.get(self.engine.base + offsets::INTERRUPT_MASK) as u16)
    }

    /// Lets the engine work, for as long as it may.
    pub(super) fn run(
        &mut self,
        addressing: &Addressing,
        registers: &mut Registers,
        share: &mut Share,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        while let Some(running) = self.running.as_mut().filter(|running| !running.faulted) {
            let (base, context) = (self.engine.base, running.context);
            let before = running.position.clone();
            let mut streamer = Streamer { addressing, registers, base, context, raised: 0 };
            let stop = streamer.run(&mut running.position, share);
            outcome.raised |= streamer.raised;
            outcome.progress |= running.position != before;
            match stop {
                Stop::Done => match self.complete(addressing, registers) {
                    Ok(()) => {
                        outcome.raised |= cause::CONTEXT_SWITCH;
                        outcome.progress = true;
                    }
                    Err(fault) => {
                        outcome.fault = Some(fault);
                        self.reset();
                    }
                },
                Stop::Waiting => break,
                Stop::ShareUsedUp => {
                    // With an interrupt the driver comes back, and the engine goes on.
                    outcome.raised |= cause::CONTEXT_SWITCH;
                    outcome.unfinished = true;
                    break;
                }
                Stop::Faulted(fault) => {
                    running.faulted = true;
                    outcome.fault = Some(fault);
                }
            }
        }
        outcome.raised = self.unmasked(registers, outcome.raised);
        outcome
    }

    /// The context that runs has nothing more to do: the next one.
    fn complete(&mut self, addressing: &Addressing, registers: &mut Registers) -> Result<(), Fault> {
        let Some(old) = self.running.take() else { return Ok(()) };
        save(addressing, &old)?;
        let ring = old.position.ring;
        for (register, value) in [(offsets::RING_HEAD, ring.head), (offsets::RING_TAIL, ring.tail)] {
            registers.set(self.engine.base + register, value);
        }
        let next = (!self.waiting.is_empty()).then(|| self.waiting.remove(0));
        self.tell(addressing, registers, next, Some(old.descriptor), false)?;
        self.running = next.map(|next| restore(addressing, next)).transpose()?;
        Ok(())
    }

    /// Writes an entry into the context status buffer: a switch from one context to another, or from or to none.
    fn tell(
        &self,
        addressing: &Addressing,
        registers: &mut Registers,
        to: Option<u64>,
        from: Option<u64>,
        new_queue: bool,
    ) -> Result<(), Fault> {
        let page = u64::from(registers.get(self.engine.base + offsets::STATUS_PAGE)) & DESCRIPTOR_ADDRESS;
        let pointer = self.engine.base + offsets::CONTEXT_STATUS_POINTER;
        let last = registers.get(pointer) & 0xff;
        let index = (last + 1) % status_buffer::COUNT;
        let entry = self.entry(to, from, new_queue);
        let place = page + status_buffer::ENTRIES + u64::from(index) * 8;
        addressing.write(Address::global(place), &entry.to_le_bytes())?;
        registers.set(pointer, index);
        addressing.write_word(Address::global(page + status_buffer::WRITE_POINTER), index)
    }

    /// An entry of the context status buffer: in each half a context's identifier.
    fn entry(&self, to: Option<u64>, from: Option<u64>, new_queue: bool) -> u64 {
        let new_queue = u64::from(new_queue);
        match self.layout {
            ContextStatus::Xe => {
                let of = |context: Option<u64>| context.map_or(0x7ff, |it| it >> 37 & 0x7ff) << 15;
                of(to) | new_queue | of(from) << 32
            }
            ContextStatus::XeHp => {
                let of = |context: Option<u64>| context.map_or(0xffff, |it| it >> 39 & 0xffff) << 10;
                of(to) | (of(from) | new_queue << 1) << 32
            }
        }
    }
}

fn word(descriptor: u64, index: u64) -> Address {
    Address::global((descriptor & DESCRIPTOR_ADDRESS) + image::PAGE + index * 4)
}

/// Reads a context from its image.
fn restore(addressing: &Addressing, descriptor: u64) -> Result<Running, Fault> {
    let get = |index: u64| addressing.read_word(word(descriptor, index));
    let long = |high: u64, low: u64| Ok::<u64, Fault>(u64::from(get(high)?) << 32 | u64::from(get(low)?));
    let root = long(image::ROOT_HIGH, image::ROOT_LOW)?;
    let size = (get(image::RING_CONTROL)? & RING_PAGES) + image::PAGE as u32;
    let offset = |index: u64| Ok::<u32, Fault>((get(index)? & RING_OFFSET) % size);
    let ring = Ring {
        start: u64::from(get(image::RING_START)?) & DESCRIPTOR_ADDRESS,
        size,
        head: offset(image::RING_HEAD)?,
        tail: offset(image::RING_TAIL)?,
    };
    let batch = long(image::BATCH_HIGH, image::BATCH_LOW)?;
    let mut batches = Vec::new();
    if batch as u32 & image::BATCH_VALID != 0 {
        let process = get(image::BATCH_STATE)? & image::BATCH_PROCESS != 0;
        let space = if process { Space::Process(root) } else { Space::Global };
        batches.push(Address { space, at: batch & !3 });
    }
    let context = Context { status_page: descriptor & DESCRIPTOR_ADDRESS, root };
    Ok(Running { descriptor, context, position: Position { ring, batches }, faulted: false })
}

/// Writes where a context is into its image. Of batches within a batch the innermost is kept.
fn save(addressing: &Addressing, running: &Running) -> Result<(), Fault> {
    let put = |index: u64, value: u32| addressing.write_word(word(running.descriptor, index), value);
    put(image::RING_HEAD, running.position.ring.head)?;
    let (batch, process) = match running.position.batches.last() {
        Some(Address { space, at }) => {
            (at | u64::from(image::BATCH_VALID), *space != Space::Global)
        }
        None => (0, false),
    };
    put(image::BATCH_LOW, batch as u32)?;
    put(image::BATCH_HIGH, (batch >> 32) as u32)?;
    put(image::BATCH_STATE, if process { image::BATCH_PROCESS } else { 0 })
}
