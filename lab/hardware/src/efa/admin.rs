//! The admin queue: executing what the driver commands.
//!
//! Commands are executed at once, while the driver's write to the doorbell is served.

use super::Efa;
use super::command::{
    Chunk, Command, CreateCompletionQueue, CreateEventQueue, CreateQueuePair, ModifyQueuePair,
    RegisterRegion, Status,
};
use super::completion_queue::{CompletionQueue, EventQueue};
use super::description::{self, event_group, feature};
use super::descriptors::NO_ADDRESS_HANDLE;
use super::doorbell::Doorbell;
use super::fields::{Fields, Structure};
use super::queue_pair::{QueuePair, QueuePairState};
use super::region::RegisterError;
use super::registers::Register;
use super::state::{AddressHandle, State};
use crate::bus::DmaError;

/// Bytes that a driver may tell of its host.
const HOST_INFORMATION: u32 = 256;

/// Why a command was not executed.
struct Refusal {
    status: Status,
    why: String,
    /// The driver may well ask for what cannot be, on behalf of a program.
    misuse: bool,
}

type Outcome = Result<Vec<u8>, Refusal>;

fn refuse(status: Status, why: impl Into<String>) -> Refusal {
    Refusal { status, why: why.into(), misuse: true }
}

/// What a program asked for is not possible.
fn decline(status: Status, why: impl Into<String>) -> Refusal {
    Refusal { misuse: false, ..refuse(status, why) }
}

/// There is no room for one more.
fn full(what: &str) -> Refusal {
    decline(Status::ResourceAllocationFailure, format!("there is no room for one more {what}"))
}

fn missing(what: &str, number: impl Into<u32>) -> Refusal {
    refuse(Status::IllegalParameter, format!("there is no {what} {}", number.into()))
}

fn in_use(what: &str, number: u16) -> Refusal {
    refuse(Status::ResourceBusy, format!("{what} {number} is in use"))
}

impl From<DmaError> for Refusal {
    fn from(error: DmaError) -> Refusal {
        refuse(Status::IllegalParameter, error.to_string())
    }
}

impl Efa {
    /// Executes what is new in the admin queue.
    pub(super) fn admin_doorbell(&self, state: &mut State) {
        let Some(new) = state.rings.new_commands(&state.registers) else {
            let posted = state.registers.get(Register::AdminDoorbell);
            self.misuse(format_args!("doorbell {posted} of an admin queue that has not so many entries"));
            return state.rings.skip(&state.registers);
        };
        for _ in 0..new {
            self.execute_next(state);
        }
    }

    fn execute_next(&self, state: &mut State) {
        let entry = match state.rings.take(&state.registers, &self.memory) {
            Ok(entry) => entry,
            Err(error) => return self.misuse(format_args!("admin queue: {error}")),
        };
        let outcome = if entry.intact {
            Command::parse(entry.opcode, entry.flags, &entry.body)
                .map_err(|status| decline(status, format!("{status:?}")))
                .and_then(|command| {
                    self.trace(format_args!("{command:x?}"));
                    self.execute(state, command)
                })
        } else {
            Err(refuse(Status::MalformedRequest, "its checksum does not fit"))
        };
        let (status, answer) = match outcome {
            Ok(answer) => (Status::Success, answer),
            Err(Refusal { status, why, misuse }) => {
                let log = if misuse { Efa::misuse } else { Efa::trace };
                log(self, format_args!("command {} refused: {why}", entry.opcode));
                (status, Vec::new())
            }
        };
        let State { rings, registers, .. } = state;
        if let Err(error) = rings.complete(registers, &self.memory, entry.identifier, status as u8, &answer) {
            self.misuse(format_args!("completion of a command: {error}"));
        }
        let vector = state.registers.get(Register::AdminCompletionCapabilities) >> 24;
        self.interrupt_management(state, vector as u8);
    }

    /// Interrupts the driver for commands and events, unless it polls.
    pub(super) fn interrupt_management(&self, state: &mut State, vector: u8) {
        if state.registers.get(Register::InterruptMask) & 1 == 0 {
            state.interrupts.raise(vector, &self.vectors);
        }
    }

    fn execute(&self, state: &mut State, command: Command) -> Outcome {
        match command {
            Command::CreateQueuePair(create) => create_queue_pair(state, &create),
            Command::ModifyQueuePair(modify) => self.modify_queue_pair(state, &modify),
            Command::QueryQueuePair { handle } => {
                let pair = u16::try_from(handle).ok().and_then(|number| state.queue_pairs.get(number));
                let pair = pair.ok_or_else(|| missing("queue pair", handle))?;
                let answer = Structure::new(16)
                    .u32(0, pair.state as u32)
                    .u32(4, pair.queue_key)
                    .u32(8, pair.sequence_number)
                    // Nothing is being drained: a queue is empty when the doorbell was served.
                    .u8(12, 0)
                    .u8(13, pair.receiver_retries);
                Ok(answer.bytes())
            }
            Command::DestroyQueuePair { handle } => {
                let removed = u16::try_from(handle).ok().and_then(|number| state.queue_pairs.remove(number));
                removed.map(|_| Vec::new()).ok_or_else(|| missing("queue pair", handle))
            }
            Command::CreateAddressHandle { gid, domain } => {
                require(state.domains.get(domain).is_some(), || missing("protection domain", domain))?;
                let handle = state.address_handles.add(AddressHandle { gid, domain });
                handle
                    .filter(|handle| *handle != NO_ADDRESS_HANDLE)
                    .map(number)
                    .ok_or_else(|| full("address handle"))
            }
            Command::DestroyAddressHandle { handle, domain } => {
                let known = state.address_handles.get(handle).filter(|known| known.domain == domain);
                require(known.is_some(), || missing("address handle of the domain,", handle))?;
                state.address_handles.remove(handle);
                Ok(Vec::new())
            }
            Command::RegisterRegion(register) => self.register_region(state, &register),
            Command::DeregisterRegion { key } => {
                require(state.regions.deregister(key), || missing("region with the key", key))?;
                Ok(Vec::new())
            }
            Command::CreateCompletionQueue(create) => create_completion_queue(state, &create),
            Command::DestroyCompletionQueue { queue } => {
                let uses =
                    |pair: &QueuePair| [pair.send_completions, pair.receive_completions].contains(&queue);
                let used = state.queue_pairs.iter().any(|(_, pair)| uses(pair));
                require(!used, || in_use("completion queue", queue))?;
                let removed = state.completion_queues.remove(queue);
                removed.map(|_| Vec::new()).ok_or_else(|| missing("completion queue", queue))
            }
            Command::GetFeature { feature } => self.feature(state, feature),
            Command::SetFeature { feature, buffer, value } => self.set_feature(state, feature, buffer, value),
            Command::GetStatistics { kind, scope } => {
                let report = state.lasting.counters.report(kind).filter(|_| scope == 0);
                let why = || format!("statistics of kind {kind}, scope {scope}");
                report.ok_or_else(|| decline(Status::IllegalParameter, why()))
            }
            Command::AllocateDomain => {
                state.domains.add(()).map(number).ok_or_else(|| full("protection domain"))
            }
            Command::DeallocateDomain { domain } => {
                let used = state.regions.uses_domain(domain)
                    || state.queue_pairs.iter().any(|(_, pair)| pair.domain == domain)
                    || state.address_handles.iter().any(|(_, handle)| handle.domain == domain);
                require(!used, || in_use("protection domain", domain))?;
                let removed = state.domains.remove(domain);
                removed.map(|()| Vec::new()).ok_or_else(|| missing("protection domain", domain))
            }
            Command::AllocateDoorbellPage => {
                state.doorbell_pages.add(()).map(number).ok_or_else(|| full("page of doorbells"))
            }
            Command::DeallocateDoorbellPage { page } => {
                let used = state.queue_pairs.iter().any(|(_, pair)| pair.doorbell_page == page)
                    || state.completion_queues.iter().any(|(_, queue)| queue.doorbell_page == page);
                require(!used, || in_use("page of doorbells", page))?;
                let removed = state.doorbell_pages.remove(page);
                removed.map(|()| Vec::new()).ok_or_else(|| missing("page of doorbells", page))
            }
            Command::CreateEventQueue(create) => self.create_event_queue(state, &create),
            Command::DestroyEventQueue { queue } => {
                let used = state.completion_queues.iter().any(|(_, other)| other.event_queue == Some(queue));
                require(!used, || in_use("event queue", queue))?;
                let removed = state.event_queues.remove(queue);
                removed.map(|_| Vec::new()).ok_or_else(|| missing("event queue", queue))
            }
        }
    }

    fn feature(&self, state: &State, number: u8) -> Outcome {
        if number == feature::ASYNC_EVENTS {
            let groups = Structure::new(8).u32(0, event_group::SUPPORTED).u32(4, state.event_groups);
            return Ok(groups.bytes());
        }
        let value = description::value(number, &self.config, self.gid);
        value.ok_or_else(|| decline(Status::UnsupportedOpcode, format!("feature {number}")))
    }

    fn set_feature(&self, state: &mut State, number: u8, buffer: Option<Chunk>, value: [u8; 8]) -> Outcome {
        match (number, buffer) {
            (feature::ASYNC_EVENTS, None) => {
                let enabled = Fields(&value).u32(4);
                let why = || refuse(Status::IllegalParameter, format!("groups of events {enabled:#x}"));
                require(enabled & !event_group::SUPPORTED == 0, why)?;
                state.event_groups = enabled;
                self.begin_signs_of_life(state);
                Ok(Vec::new())
            }
            (feature::HOST, Some(Chunk { length, address })) => {
                let why = || refuse(Status::IllegalParameter, format!("{length} bytes about the host"));
                require(length <= HOST_INFORMATION, why)?;
                let mut information = vec![0; length as usize];
                self.memory.read(address, &mut information)?;
                Ok(Vec::new())
            }
            _ => Err(refuse(Status::IllegalParameter, format!("feature {number} cannot be set so"))),
        }
    }

    fn create_event_queue(&self, state: &mut State, create: &CreateEventQueue) -> Outcome {
        let queue = EventQueue::new(create, self.vectors.count())
            .map_err(|why| refuse(Status::IllegalParameter, why))?;
        state.event_queues.add(queue).map(number).ok_or_else(|| full("event queue"))
    }

    fn register_region(&self, state: &mut State, register: &RegisterRegion) -> Outcome {
        let RegisterRegion { domain, .. } = *register;
        require(state.domains.get(domain).is_some(), || missing("protection domain", domain))?;
        let (key, remote_key) = state.regions.register(&self.memory, register).map_err(|error| {
            let why = format!("region: {error}");
            match error {
                RegisterError::Full => decline(Status::ResourceAllocationFailure, why),
                _ => refuse(Status::IllegalParameter, why),
            }
        })?;
        // By which interconnects the device reaches the memory is not told.
        Ok(Structure::new(12).u32(0, key).u32(4, remote_key).bytes())
    }

    fn modify_queue_pair(&self, state: &mut State, modify: &ModifyQueuePair) -> Outcome {
        let handle = modify.handle;
        let number = u16::try_from(handle).map_err(|_| missing("queue pair", handle))?;
        let pair = state.queue_pairs.get_mut(number).ok_or_else(|| missing("queue pair", handle))?;
        pair.modify(modify).map_err(|why| decline(Status::IllegalParameter, why))?;
        if pair.state == QueuePairState::Error {
            self.flush(state, number);
        }
        Ok(Vec::new())
    }
}

fn create_queue_pair(state: &mut State, create: &CreateQueuePair) -> Outcome {
    let CreateQueuePair { domain, doorbell_page, .. } = *create;
    require(state.domains.get(domain).is_some(), || missing("protection domain", domain))?;
    require(state.doorbell_pages.get(doorbell_page).is_some(), || {
        missing("page of doorbells", doorbell_page)
    })?;
    for queue in [create.send_completions, create.receive_completions] {
        let known = u16::try_from(queue).is_ok_and(|queue| state.completion_queues.get(queue).is_some());
        require(known, || missing("completion queue", queue))?;
    }
    let invalid = |why| refuse(Status::IllegalParameter, why);
    // Its number decides where its queues are.
    let incarnation = state.lasting.incarnations;
    let pair = QueuePair::new(create, 0, incarnation).map_err(invalid)?;
    let number = state.queue_pairs.add(pair).ok_or_else(|| full("queue pair"))?;
    let pair = QueuePair::new(create, number, incarnation).map_err(invalid)?;
    let send_ring = pair.send_ring;
    if let Some(place) = state.queue_pairs.get_mut(number) {
        *place = pair;
    }
    state.lasting.incarnations += 1;
    let answer = Structure::new(24)
        // The handle for further commands, and the number by which other queue pairs send to it.
        .u32(0, number.into())
        .u16(4, number)
        // The sub-queues of the completion queues: the only ones.
        .u16(8, 0)
        .u16(10, 0)
        .u32(12, Doorbell::Send(number).offset(doorbell_page))
        .u32(16, Doorbell::Receive(number).offset(doorbell_page))
        .u32(20, send_ring as u32);
    Ok(answer.bytes())
}

fn create_completion_queue(state: &mut State, create: &CreateCompletionQueue) -> Outcome {
    let CreateCompletionQueue { doorbell_page, event_queue, depth, .. } = *create;
    require(state.doorbell_pages.get(doorbell_page).is_some(), || {
        missing("page of doorbells", doorbell_page)
    })?;
    if let Some(queue) = event_queue {
        require(state.event_queues.get(queue).is_some(), || missing("event queue", queue))?;
    }
    let queue = CompletionQueue::new(create).map_err(|why| refuse(Status::IllegalParameter, why))?;
    let number = state.completion_queues.add(queue).ok_or_else(|| full("completion queue"))?;
    let doorbell = Doorbell::Completion(number).offset(doorbell_page);
    // The doorbell's place is valid.
    Ok(Structure::new(12).u16(0, number).u16(2, depth).u32(4, doorbell).u32(8, 1).bytes())
}

/// The answer that consists of a number.
fn number(number: u16) -> Vec<u8> {
    Structure::new(4).u16(0, number).bytes()
}

fn require(good: bool, refusal: impl FnOnce() -> Refusal) -> Result<(), Refusal> {
    if good { Ok(()) } else { Err(refusal()) }
}
