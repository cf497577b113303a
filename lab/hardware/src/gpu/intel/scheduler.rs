//! Which contexts an engine runs. They come by execution lists or from the microcontroller.
//!
//! With execution lists the driver writes descriptors of contexts into the engine's submit queue and loads
//! it. The engine runs them one after the other and tells of every switch in its context status buffer and by
//! an interrupt. The microcontroller adds contexts as it likes, and nobody is told.

use std::collections::VecDeque;

use super::addressing::Addressing;
use super::commands::{Share, Stop, Streamer};
use super::context_status::Switch;
use super::contexts::{DESCRIPTOR_VALID, Running, restore, save};
use super::engine::{EngineIdentity, offsets};
use super::interrupts::cause;
use super::memory::Fault;
use super::parts::ContextStatus;
use super::registers::Registers;

/// Contexts of a submit queue that run.
const PORTS: u64 = 8;

/// Contexts that may wait for an engine.
const MOST_WAITING: usize = 4096;

/// What switching from a context to another costs, in words of commands that could have been read. Contexts that
/// wait for each other are switched between more often than they do anything.
const WORK_OF_A_SWITCH: usize = 64;

/// Where contexts come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    SubmitQueue,
    Microcontroller,
}

/// An engine with its contexts.
pub(super) struct Scheduler {
    pub(super) engine: EngineIdentity,
    layout: ContextStatus,
    source: Source,
    running: Option<Running>,
    /// Descriptors of those that run next.
    waiting: VecDeque<u64>,
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
    /// Commands that start shaders were passed over.
    pub(super) shaders: bool,
    /// What went wrong.
    pub(super) fault: Option<Fault>,
}

impl Scheduler {
    pub(super) fn new(engine: EngineIdentity, layout: ContextStatus) -> Scheduler {
        Scheduler { engine, layout, source: Source::SubmitQueue, running: None, waiting: VecDeque::new() }
    }

    /// Forgets all contexts.
    pub(super) fn reset(&mut self) {
        *self = Scheduler::new(self.engine, self.layout);
    }

    /// Whether a context runs that could go on.
    pub(super) fn is_busy(&self) -> bool {
        self.running.as_ref().is_some_and(|running| !running.faulted)
    }

    /// The driver loads the submit queue: what runs is switched away from. Returns the interrupts to raise.
    pub(super) fn load(&mut self, addressing: &Addressing, registers: &mut Registers) -> Result<u16, Fault> {
        let word = |index: u64| registers.get(self.engine.base + offsets::SUBMIT_QUEUE + index * 4);
        let descriptor = |port: u64| u64::from(word(port * 2)) | u64::from(word(port * 2 + 1)) << 32;
        let queue = (0..PORTS).map(descriptor).take_while(|entry| entry & DESCRIPTOR_VALID != 0);
        let mut queue: VecDeque<u64> = queue.collect();
        let Some(first) = queue.pop_front() else { return Ok(0) };
        self.source = Source::SubmitQueue;
        self.waiting = queue;
        let old = self.running.take();
        if let Some(old) = &old {
            save(addressing, old)?;
        }
        let from = old.map(|old| old.descriptor);
        let switch = Switch { to: Some(first), from, new_queue: true };
        switch.tell(self.engine, self.layout, addressing, registers)?;
        self.running = Some(restore(addressing, first)?);
        Ok(self.unmasked(registers, cause::CONTEXT_SWITCH))
    }

    /// The microcontroller adds a context; one that is here already has new commands, and finds them.
    pub(super) fn add(&mut self, addressing: &Addressing, descriptor: u64) -> Result<(), Fault> {
        self.source = Source::Microcontroller;
        let runs = self.running.as_ref().is_some_and(|running| running.descriptor == descriptor);
        if !runs && !self.waiting.contains(&descriptor) {
            if self.waiting.len() == MOST_WAITING {
                return Err(Fault::TooManyContexts);
            }
            self.waiting.push_back(descriptor);
        }
        self.take_next(addressing)
    }

    /// The microcontroller takes a context away.
    pub(super) fn remove(&mut self, addressing: &Addressing, descriptor: u64) -> Result<(), Fault> {
        self.waiting.retain(|waiting| *waiting != descriptor);
        if let Some(running) = self.running.take_if(|running| running.descriptor == descriptor) {
            save(addressing, &running)?;
        }
        self.take_next(addressing)
    }

    /// Takes the next context when none runs.
    fn take_next(&mut self, addressing: &Addressing) -> Result<(), Fault> {
        if self.running.is_none()
            && let Some(next) = self.waiting.pop_front()
        {
            self.running = Some(restore(addressing, next)?);
        }
        Ok(())
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
        // Contexts that wait for something give way to others, each once.
        let mut turns = self.waiting.len();
        while let Some(running) = self.running.as_mut().filter(|running| !running.faulted) {
            let (base, context) = (self.engine.base, running.context);
            let before = running.position.clone();
            let mut streamer = Streamer { addressing, registers, base, context, raised: 0, shaders: false };
            let stop = streamer.run(&mut running.position, share);
            outcome.raised |= streamer.raised;
            outcome.shaders |= streamer.shaders;
            outcome.progress |= running.position != before;
            let result = match stop {
                Stop::Done => {
                    outcome.progress = true;
                    share.take(WORK_OF_A_SWITCH, 0);
                    self.complete(addressing, registers).map(|raised| outcome.raised |= raised)
                }
                Stop::Waiting if self.source == Source::Microcontroller && turns > 0 => {
                    turns -= 1;
                    share.take(WORK_OF_A_SWITCH, 0);
                    self.give_way(addressing)
                }
                Stop::Waiting => break,
                Stop::ShareUsedUp => {
                    // With an interrupt the driver comes back, and the engine goes on.
                    outcome.raised |= cause::CONTEXT_SWITCH | cause::USER;
                    outcome.unfinished = true;
                    break;
                }
                Stop::Faulted(fault) => {
                    running.faulted = true;
                    outcome.fault = Some(fault);
                    Ok(())
                }
            };
            if let Err(fault) = result {
                outcome.fault = Some(fault);
                self.reset();
            }
        }
        outcome.raised = self.unmasked(registers, outcome.raised);
        outcome
    }

    /// The context that runs has nothing more to do: the next one. Returns the interrupts to raise.
    fn complete(&mut self, addressing: &Addressing, registers: &mut Registers) -> Result<u16, Fault> {
        let Some(old) = self.running.take() else { return Ok(0) };
        save(addressing, &old)?;
        let ring = old.position.ring;
        for (register, value) in [(offsets::RING_HEAD, ring.head), (offsets::RING_TAIL, ring.tail)] {
            registers.set(self.engine.base + register, value);
        }
        if self.source == Source::Microcontroller {
            // The driver may have written more meanwhile.
            let again = restore(addressing, old.descriptor)?;
            if again.position.ring.head != again.position.ring.tail {
                self.running = Some(again);
            }
            return self.take_next(addressing).map(|()| 0);
        }
        let to = self.waiting.pop_front();
        let switch = Switch { to, from: Some(old.descriptor), new_queue: false };
        switch.tell(self.engine, self.layout, addressing, registers)?;
        self.running = to.map(|next| restore(addressing, next)).transpose()?;
        Ok(cause::CONTEXT_SWITCH)
    }

    /// The context that runs becomes the last of those that wait.
    fn give_way(&mut self, addressing: &Addressing) -> Result<(), Fault> {
        if let Some(old) = self.running.take() {
            save(addressing, &old)?;
            self.waiting.push_back(old.descriptor);
        }
        self.take_next(addressing)
    }
}
