//! The admin queue: executing what the driver commands.
//!
//! Commands are executed at once, while the driver's write to the doorbell is served: when the driver
//! polls the event counter everything is done.

use std::time::Instant;

use super::command::{
    COMMAND_SIZE, Command, ConfigureRss, CreateReceiveQueue, CreateTransmitQueue, FLOW_RULE_COMMAND_SIZE,
    FORMAT_DQO_RDA, FlowRuleCommand, FlowRuleQuery, Resources, STATUS_OFFSET, Status,
};
use super::description::{
    DESCRIPTOR_VERSION, HASH_KEY_SIZE, INDIRECTION_TABLE_SIZE, device_descriptor, packet_type_map,
};
use super::receive::ReceiveQueue;
use super::registers::Register;
use super::rss::ALGORITHM_TOEPLITZ;
use super::state::State;
use super::statistics::StatisticsReport;
use super::steering::FLOW_RULE_SIZE;
use super::transmit::TransmitQueue;
use super::{Gve, doorbell};
use crate::bus::DmaError;

/// What the driver is told about the link, in Mbit/s.
const LINK_SPEED: u64 = 100_000;

/// Why a command was not executed.
struct Refusal {
    status: Status,
    why: String,
    /// The driver may well ask for what cannot be, on behalf of a user.
    misuse: bool,
}

type Outcome = Result<(), Refusal>;

fn refuse(status: Status, why: impl Into<String>) -> Refusal {
    Refusal { status, why: why.into(), misuse: true }
}

/// What a user asked for is not possible.
fn decline(status: Status) -> Refusal {
    Refusal { misuse: false, ..refuse(status, format!("{status:?}")) }
}

impl From<DmaError> for Refusal {
    fn from(error: DmaError) -> Refusal {
        refuse(Status::InvalidArgument, error.to_string())
    }
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Refusal {
        refuse(status, format!("{status:?}"))
    }
}

impl Gve {
    /// Executes what is new in the admin queue; `producer` is how many commands the driver ever put in.
    pub(super) fn admin_doorbell(&self, state: &mut State, producer: u32) {
        let (base, length) = state.registers.admin_queue();
        let slots = length / COMMAND_SIZE as u32;
        let done = state.registers.get(Register::AdminEventCounter);
        let new = producer.wrapping_sub(done);
        if slots == 0 || new > slots {
            self.misuse(format_args!("{new} new commands in an admin queue of {slots}"));
            state.registers.set(Register::AdminEventCounter, producer);
            return;
        }
        for count in 0..new {
            let slot = u64::from(done.wrapping_add(count) % slots) * COMMAND_SIZE as u64;
            self.execute_slot(state, base.wrapping_add(slot));
        }
        state.registers.set(Register::AdminEventCounter, producer);
    }

    fn execute_slot(&self, state: &mut State, address: u64) {
        let slot = match self.memory.read_array::<COMMAND_SIZE>(address) {
            Ok(slot) => slot,
            Err(error) => return self.misuse(format_args!("admin queue: {error}")),
        };
        let outcome = Command::parse(&slot).map_err(Refusal::from).and_then(|command| {
            self.trace(format_args!("{command:x?}"));
            self.execute(state, command)
        });
        let status = match outcome {
            Ok(()) => Status::Passed,
            Err(refusal) => {
                let Refusal { status, why, misuse } = refusal;
                let log = if misuse { Gve::misuse } else { Gve::trace };
                log(self, format_args!("command {:#x} refused: {why}", Command::opcode(&slot)));
                status
            }
        };
        let published = self.memory.publish_u32(address.wrapping_add(STATUS_OFFSET), (status as u32).to_be());
        if let Err(error) = published {
            self.misuse(format_args!("admin queue: {error}"));
        }
    }

    fn execute(&self, state: &mut State, command: Command) -> Outcome {
        match command {
            Command::DescribeDevice { address, version, available } => {
                if version != DESCRIPTOR_VERSION {
                    return Err(refuse(Status::InvalidArgument, format!("descriptor version {version}")));
                }
                self.answer(address, available.into(), &device_descriptor(&self.config, self.mac))
            }
            Command::ConfigureResources(resources) => self.configure_resources(state, &resources),
            Command::DeconfigureResources => {
                state.resources_configured = false;
                state.report = None;
                Ok(())
            }
            Command::CreateTransmitQueue(create) => self.create_transmit_queue(state, &create),
            Command::CreateReceiveQueue(create) => self.create_receive_queue(state, &create),
            Command::DestroyTransmitQueue { queue } => {
                let place = state.transmit.get_mut(queue as usize);
                let destroyed = place.and_then(Option::take).ok_or(Status::NotFound)?;
                state.retire_transmit_queue(&destroyed);
                Ok(())
            }
            Command::DestroyReceiveQueue { queue } => {
                let place = state.receive.get_mut(queue as usize);
                let destroyed = place.and_then(Option::take).ok_or(Status::NotFound)?;
                state.retire_receive_queue(&destroyed);
                Ok(())
            }
            Command::ConfigureRss(configure) => self.configure_rss(state, &configure),
            Command::SetMtu { mtu } if mtu > self.config.mtu.into() => {
                Err(refuse(Status::InvalidArgument, format!("MTU {mtu}")))
            }
            Command::SetMtu { .. } => Ok(()),
            Command::ReportStatistics { length, address } => {
                state.report = StatisticsReport::new(address, length);
                self.report_statistics(state);
                Ok(())
            }
            Command::ReportLinkSpeed { address } => {
                Ok(self.memory.write(address, &LINK_SPEED.to_be_bytes())?)
            }
            Command::GetPacketTypeMap { length, address } => self.answer(address, length, &packet_type_map()),
            Command::VerifyDriverCompatibility { length, address } => {
                // The driver describes itself; any description that can be read is compatible.
                let mut first = [0; 8];
                let readable = first.len().min(usize::try_from(length).unwrap_or(usize::MAX));
                Ok(self.memory.read(address, &mut first[..readable])?)
            }
            Command::QueryFlowRules { query, start, available, address } => {
                self.query_flow_rules(state, query, start, available, address)
            }
            Command::QueryRss { available, address } => self.query_rss(state, available, address),
            Command::ConfigureFlowRule { length, address } => {
                self.configure_flow_rule(state, length, address)
            }
        }
    }

    /// Writes an answer into memory of the driver that has room for `available` bytes.
    fn answer(&self, address: u64, available: u64, bytes: &[u8]) -> Outcome {
        if (bytes.len() as u64) > available {
            let why = format!("{} bytes of answer for a buffer of {available}", bytes.len());
            return Err(refuse(Status::InvalidArgument, why));
        }
        Ok(self.memory.write(address, bytes)?)
    }

    fn configure_resources(&self, state: &mut State, resources: &Resources) -> Outcome {
        let Resources { interrupt_doorbells, interrupt_count, interrupt_stride, first_vector, .. } =
            *resources;
        if resources.queue_format != FORMAT_DQO_RDA {
            let why = format!("queue format {}", resources.queue_format);
            return Err(refuse(Status::InvalidArgument, why));
        }
        let interrupts = state.interrupts.count();
        if interrupt_count as usize > interrupts || interrupt_stride < 4 || first_vector > 1 {
            let why = format!(
                "{interrupt_count} of {interrupts} interrupts from vector {first_vector} on, {interrupt_stride} bytes apart"
            );
            return Err(refuse(Status::InvalidArgument, why));
        }
        for index in 0..interrupt_count {
            let place = interrupt_doorbells.wrapping_add(u64::from(index) * u64::from(interrupt_stride));
            let doorbell = doorbell::interrupt(self.config.queue_pairs, index as usize) as u32;
            self.memory.write(place, &doorbell.to_be_bytes())?;
        }
        state.interrupts.first_vector = first_vector as usize;
        state.resources_configured = true;
        Ok(())
    }

    fn create_transmit_queue(&self, state: &mut State, create: &CreateTransmitQueue) -> Outcome {
        let index = create.queue as usize;
        let place = state.transmit.get(index).ok_or(Status::InvalidArgument)?;
        if place.is_some() {
            return Err(Status::AlreadyExists.into());
        }
        self.check_queue(state, create.interrupt, create.raw_addressing)?;
        self.check_ring(create.ring_size)?;
        self.check_ring(create.completion_ring_size)?;
        self.write_resources(create.resources, doorbell::transmit(index), index)?;
        state.transmit[index] = Some(TransmitQueue::new(create));
        Ok(())
    }

    fn create_receive_queue(&self, state: &mut State, create: &CreateReceiveQueue) -> Outcome {
        let index = create.queue as usize;
        let place = state.receive.get(index).ok_or(Status::InvalidArgument)?;
        if place.is_some() {
            return Err(Status::AlreadyExists.into());
        }
        self.check_queue(state, create.interrupt, create.raw_addressing)?;
        self.check_ring(create.buffer_ring_size)?;
        if create.completion_ring_size != create.buffer_ring_size {
            return Err(refuse(Status::InvalidArgument, "buffer and completion rings of different size"));
        }
        // A completion has 14 bits for the length.
        if !(128..1 << 14).contains(&create.packet_buffer_size) {
            let why = format!("packet buffers of {} bytes", create.packet_buffer_size);
            return Err(refuse(Status::InvalidArgument, why));
        }
        let offered = if self.config.header_split { self.config.header_buffer_size } else { 0 };
        if ![0, offered].contains(&create.header_buffer_size) {
            let why = format!("header buffers of {} bytes", create.header_buffer_size);
            return Err(refuse(Status::InvalidArgument, why));
        }
        let queues = usize::from(self.config.queue_pairs);
        self.write_resources(
            create.resources,
            doorbell::receive(self.config.queue_pairs, index),
            queues + index,
        )?;
        state.receive[index] = Some(ReceiveQueue::new(create, self.config.backlog_kib as usize * 1024));
        self.report_statistics(state);
        Ok(())
    }

    fn check_queue(&self, state: &State, interrupt: u32, raw_addressing: bool) -> Outcome {
        if !state.resources_configured {
            return Err(refuse(Status::FailedPrecondition, "no resources are configured"));
        }
        if interrupt as usize >= state.interrupts.count() {
            return Err(refuse(Status::InvalidArgument, format!("notification block {interrupt}")));
        }
        if !raw_addressing {
            return Err(refuse(Status::InvalidArgument, "a queue page list"));
        }
        Ok(())
    }

    fn check_ring(&self, size: u16) -> Outcome {
        let sizes = self.config.minimum_ring_size..=self.config.maximum_ring_size;
        if size.is_power_of_two() && sizes.contains(&size) {
            return Ok(());
        }
        Err(refuse(Status::InvalidArgument, format!("a ring of {size}")))
    }

    /// Tells the driver which doorbell and which event counter belong to a queue.
    fn write_resources(&self, address: u64, doorbell: usize, counter: usize) -> Outcome {
        let bytes = [(doorbell as u32).to_be_bytes(), (counter as u32).to_be_bytes()].concat();
        Ok(self.memory.write(address, &bytes)?)
    }

    fn configure_rss(&self, state: &mut State, configure: &ConfigureRss) -> Outcome {
        if ![0, ALGORITHM_TOEPLITZ].contains(&configure.algorithm) {
            return Err(refuse(Status::InvalidArgument, format!("hash algorithm {}", configure.algorithm)));
        }
        let key =
            configure.key.map(|address| self.memory.read_array::<HASH_KEY_SIZE>(address)).transpose()?;
        if let Some(address) = configure.table {
            let mut table = [0; INDIRECTION_TABLE_SIZE * 4];
            self.memory.read(address, &mut table)?;
            state.rss.set_table(&table, self.config.queue_pairs)?;
        }
        if let Some(key) = key {
            state.rss.key = key;
        }
        if configure.hash_types != 0 {
            state.rss.hash_types = configure.hash_types;
        }
        Ok(())
    }

    fn query_rss(&self, state: &State, available: u64, address: u64) -> Outcome {
        let table = state.rss.encode_table();
        let length = 8 + HASH_KEY_SIZE + table.len();
        let mut bytes = Vec::with_capacity(length);
        bytes.extend((length as u32).to_be_bytes());
        bytes.extend(state.rss.hash_types.to_be_bytes());
        bytes.extend([ALGORITHM_TOEPLITZ, 0]);
        bytes.extend(state.rss.key);
        bytes.extend(table);
        self.answer(address, available, &bytes)
    }

    fn query_flow_rules(
        &self,
        state: &State,
        query: FlowRuleQuery,
        start: u32,
        available: u64,
        address: u64,
    ) -> Outcome {
        const DESCRIPTOR_SIZE: usize = 16;
        let rules = &state.rules;
        let room = usize::try_from(available).unwrap_or(usize::MAX).saturating_sub(DESCRIPTOR_SIZE);
        let mut entries = Vec::new();
        let mut queried = 0u32;
        for (location, rule) in rules.from(start) {
            let size = match query {
                FlowRuleQuery::Rules => 4 + FLOW_RULE_SIZE,
                FlowRuleQuery::Ids => 4,
                FlowRuleQuery::Counts => break,
            };
            if entries.len() + size > room {
                break; // the driver asks again from where this ends
            }
            entries.extend(location.to_be_bytes());
            if query == FlowRuleQuery::Rules {
                entries.extend(rule.encode());
            }
            queried += 1;
        }
        let length = (DESCRIPTOR_SIZE + entries.len()) as u32;
        let mut bytes = [rules.count(), rules.maximum(), queried, length].map(u32::to_be_bytes).concat();
        bytes.extend(entries);
        self.answer(address, available, &bytes)
    }

    fn configure_flow_rule(&self, state: &mut State, length: u32, address: u64) -> Outcome {
        if length as usize != FLOW_RULE_COMMAND_SIZE {
            return Err(refuse(Status::InvalidArgument, format!("a flow rule command of {length} bytes")));
        }
        let bytes = self.memory.read_array(address)?;
        match FlowRuleCommand::parse(&bytes).map_err(decline)? {
            // Drivers delete all rules on their way out, whether the device has any or not.
            FlowRuleCommand::DeleteAll => state.rules.delete_all(),
            _ if self.config.flow_rules == 0 => return Err(Status::Unimplemented.into()),
            FlowRuleCommand::Add { location, rule } => {
                state.rules.add(location, rule, self.config.queue_pairs).map_err(decline)?;
            }
            FlowRuleCommand::Delete { location } => state.rules.delete(location).map_err(decline)?,
        }
        Ok(())
    }

    /// Raises the interrupt of a notification block.
    pub(super) fn raise(&self, state: &mut State, interrupt: usize) {
        let retry = state.interrupts.raise(interrupt, &self.vectors, Instant::now());
        self.retry_later(interrupt, retry);
    }
}
