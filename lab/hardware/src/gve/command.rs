//! Commands of the admin queue: their layout, big-endian throughout.

use super::description::{HASH_KEY_SIZE, INDIRECTION_TABLE_SIZE};
use super::steering::FlowRule;

/// Bytes of a slot of the admin queue.
pub(super) const COMMAND_SIZE: usize = 64;

/// Offset of the status in a slot.
pub(super) const STATUS_OFFSET: u64 = 4;

/// Bytes of the flow rule command that an extended command points to.
pub(super) const FLOW_RULE_COMMAND_SIZE: usize = 92;

/// The page list id that says: no page list, addresses are those of the bus.
const RAW_ADDRESSING: u32 = 0xffff_ffff;

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Status {
    Passed = 1,
    AlreadyExists = 0xffff_fff1,
    FailedPrecondition = 0xffff_fff5,
    InvalidArgument = 0xffff_fff7,
    NotFound = 0xffff_fff8,
    OutOfRange = 0xffff_fff9,
    ResourceExhausted = 0xffff_fffc,
    Unimplemented = 0xffff_fffe,
}

/// A command, read from its slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    DescribeDevice { address: u64, version: u32, available: u32 },
    ConfigureResources(Resources),
    CreateTransmitQueue(CreateTransmitQueue),
    CreateReceiveQueue(CreateReceiveQueue),
    DestroyTransmitQueue { queue: u32 },
    DestroyReceiveQueue { queue: u32 },
    DeconfigureResources,
    ConfigureRss(ConfigureRss),
    SetMtu { mtu: u64 },
    ReportStatistics { length: u64, address: u64 },
    ReportLinkSpeed { address: u64 },
    GetPacketTypeMap { length: u64, address: u64 },
    VerifyDriverCompatibility { length: u64, address: u64 },
    QueryFlowRules { query: FlowRuleQuery, start: u32, available: u64, address: u64 },
    QueryRss { available: u64, address: u64 },
    ConfigureFlowRule { length: u32, address: u64 },
}

/// CONFIGURE_DEVICE_RESOURCES.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resources {
    /// Where the indices of interrupt doorbells are to be written.
    pub(super) interrupt_doorbells: u64,
    pub(super) interrupt_count: u32,
    pub(super) interrupt_stride: u32,
    /// The vector of the first interrupt doorbell.
    pub(super) first_vector: u32,
    pub(super) queue_format: u8,
}

/// The queue format DQO with raw addressing, the only one there is.
pub(super) const FORMAT_DQO_RDA: u8 = 3;

/// CREATE_TX_QUEUE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CreateTransmitQueue {
    pub(super) queue: u32,
    pub(super) resources: u64,
    pub(super) ring: u64,
    pub(super) raw_addressing: bool,
    pub(super) interrupt: u32,
    pub(super) completion_ring: u64,
    pub(super) ring_size: u16,
    pub(super) completion_ring_size: u16,
}

/// CREATE_RX_QUEUE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CreateReceiveQueue {
    pub(super) queue: u32,
    pub(super) interrupt: u32,
    pub(super) resources: u64,
    pub(super) completion_ring: u64,
    pub(super) buffer_ring: u64,
    pub(super) raw_addressing: bool,
    pub(super) completion_ring_size: u16,
    pub(super) packet_buffer_size: u16,
    pub(super) buffer_ring_size: u16,
    pub(super) receive_coalescing: bool,
    /// Bytes of a header buffer; 0 when headers are not split off.
    pub(super) header_buffer_size: u16,
}

/// CONFIGURE_RSS. What has no bytes stays as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ConfigureRss {
    pub(super) hash_types: u16,
    pub(super) algorithm: u8,
    pub(super) key: Option<u64>,
    pub(super) table: Option<u64>,
}

/// What a driver asks about flow rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FlowRuleQuery {
    Rules,
    Ids,
    Counts,
}

/// CONFIGURE_FLOW_RULE, the only extended command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FlowRuleCommand {
    Add { location: u32, rule: FlowRule },
    Delete { location: u32 },
    DeleteAll,
}

/// Fields by their offset. Offsets are constants of this file and within the array.
struct Slot<'a>(&'a [u8]);

impl Slot<'_> {
    fn u8(&self, at: usize) -> u8 {
        self.0.get(at).copied().unwrap_or(0)
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.u8(at), self.u8(at + 1)])
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from(self.u16(at)) << 16 | u32::from(self.u16(at + 2))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from(self.u32(at)) << 32 | u64::from(self.u32(at + 4))
    }
}

impl Command {
    /// The opcode of a slot, whether there is such a command or not.
    pub(super) fn opcode(slot: &[u8; COMMAND_SIZE]) -> u32 {
        Slot(slot).u32(0)
    }

    /// Reads a slot.
    ///
    /// # Errors
    /// The status to complete the command with.
    pub(super) fn parse(slot: &[u8; COMMAND_SIZE]) -> Result<Command, Status> {
        let body = Slot(&slot[8..]);
        Ok(match Command::opcode(slot) {
            0x1 => Command::DescribeDevice {
                address: body.u64(0),
                version: body.u32(8),
                available: body.u32(12),
            },
            0x2 => Command::ConfigureResources(Resources {
                interrupt_doorbells: body.u64(8),
                interrupt_count: body.u32(20),
                interrupt_stride: body.u32(24),
                first_vector: body.u32(28),
                queue_format: body.u8(32),
            }),
            0x5 => Command::CreateTransmitQueue(CreateTransmitQueue {
                queue: body.u32(0),
                resources: body.u64(8),
                ring: body.u64(16),
                raw_addressing: body.u32(24) == RAW_ADDRESSING,
                interrupt: body.u32(28),
                completion_ring: body.u64(32),
                ring_size: body.u16(40),
                completion_ring_size: body.u16(42),
            }),
            0x6 => Command::CreateReceiveQueue(CreateReceiveQueue {
                queue: body.u32(0),
                interrupt: body.u32(12),
                resources: body.u64(16),
                completion_ring: body.u64(24),
                buffer_ring: body.u64(32),
                raw_addressing: body.u32(40) == RAW_ADDRESSING,
                completion_ring_size: body.u16(44),
                packet_buffer_size: body.u16(46),
                buffer_ring_size: body.u16(48),
                receive_coalescing: body.u8(50) != 0,
                header_buffer_size: body.u16(52),
            }),
            0x7 => Command::DestroyTransmitQueue { queue: body.u32(0) },
            0x8 => Command::DestroyReceiveQueue { queue: body.u32(0) },
            0x9 => Command::DeconfigureResources,
            0xa => Command::ConfigureRss(ConfigureRss {
                hash_types: body.u16(0),
                algorithm: body.u8(2),
                key: sized(body.u16(4), HASH_KEY_SIZE, body.u64(8))?,
                table: sized(body.u16(6), INDIRECTION_TABLE_SIZE, body.u64(16))?,
            }),
            0xb if body.u32(0) == 1 => Command::SetMtu { mtu: body.u64(8) },
            0xb => return Err(Status::InvalidArgument),
            0xc => Command::ReportStatistics { length: body.u64(0), address: body.u64(8) },
            0xd => Command::ReportLinkSpeed { address: body.u64(0) },
            0xe => Command::GetPacketTypeMap { length: body.u64(0), address: body.u64(8) },
            0xf => Command::VerifyDriverCompatibility { length: body.u64(0), address: body.u64(8) },
            0x10 => Command::QueryFlowRules {
                query: match body.u16(0) {
                    0 => FlowRuleQuery::Rules,
                    1 => FlowRuleQuery::Ids,
                    2 => FlowRuleQuery::Counts,
                    _ => return Err(Status::InvalidArgument),
                },
                start: body.u32(4),
                available: body.u64(8),
                address: body.u64(16),
            },
            0x12 => Command::QueryRss { available: body.u64(0), address: body.u64(8) },
            0xff if body.u32(0) == 0x101 => {
                Command::ConfigureFlowRule { length: body.u32(4), address: body.u64(8) }
            }
            // Page lists (0x3, 0x4), NIC timestamps (0x11) and what nobody knows yet.
            _ => return Err(Status::Unimplemented),
        })
    }
}

/// The address of a table that may be absent but has no other size than this.
fn sized(found: u16, expected: usize, address: u64) -> Result<Option<u64>, Status> {
    match usize::from(found) {
        0 => Ok(None),
        size if size == expected => Ok(Some(address)),
        _ => Err(Status::InvalidArgument),
    }
}

impl FlowRuleCommand {
    /// Reads what an extended command points to.
    ///
    /// # Errors
    /// The status to complete the command with.
    pub(super) fn parse(bytes: &[u8; FLOW_RULE_COMMAND_SIZE]) -> Result<FlowRuleCommand, Status> {
        let body = Slot(bytes);
        let location = body.u32(88);
        match body.u16(0) {
            0 => Ok(FlowRuleCommand::Add { location, rule: FlowRule::parse(&bytes[4..88])? }),
            1 => Ok(FlowRuleCommand::Delete { location }),
            2 => Ok(FlowRuleCommand::DeleteAll),
            _ => Err(Status::InvalidArgument),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slot(opcode: u32, fields: &[(usize, &[u8])]) -> [u8; COMMAND_SIZE] {
        let mut slot = [0; COMMAND_SIZE];
        slot[..4].copy_from_slice(&opcode.to_be_bytes());
        for (at, bytes) in fields {
            slot[8 + at..8 + at + bytes.len()].copy_from_slice(bytes);
        }
        slot
    }

    #[test]
    fn a_receive_queue() {
        let parsed = Command::parse(&slot(
            6,
            &[
                (0, &2u32.to_be_bytes()),
                (12, &6u32.to_be_bytes()),
                (24, &0x1000u64.to_be_bytes()),
                (40, &[0xff; 4]),
                (44, &[4, 0]),
                (46, &[16, 0]),
                (48, &[4, 0]),
                (50, &[1]),
                (52, &[0, 128]),
            ],
        ));
        let Ok(Command::CreateReceiveQueue(create)) = parsed else { panic!("{parsed:?}") };
        assert_eq!((create.queue, create.interrupt, create.completion_ring), (2, 6, 0x1000));
        assert_eq!((create.completion_ring_size, create.packet_buffer_size), (1024, 4096));
        assert!(create.raw_addressing && create.receive_coalescing);
        assert_eq!(create.header_buffer_size, 128);
    }

    #[test]
    fn refusals() {
        assert_eq!(Command::parse(&slot(0x3, &[])), Err(Status::Unimplemented));
        assert_eq!(Command::parse(&slot(0xffff, &[])), Err(Status::Unimplemented));
        assert_eq!(Command::parse(&slot(0xff, &[])), Err(Status::Unimplemented));
        assert_eq!(Command::parse(&slot(0xa, &[(4, &[0, 41])])), Err(Status::InvalidArgument));
        assert_eq!(Command::parse(&slot(0x10, &[(0, &[0, 3])])), Err(Status::InvalidArgument));
        let mut rule = [0; FLOW_RULE_COMMAND_SIZE];
        rule[1] = 3;
        assert_eq!(FlowRuleCommand::parse(&rule), Err(Status::InvalidArgument));
    }

    proptest! {
        #[test]
        fn any_slot_is_parsed(bytes in proptest::collection::vec(any::<u8>(), COMMAND_SIZE), opcode in 0u32..0x20) {
            let mut slot: [u8; COMMAND_SIZE] = bytes.try_into().unwrap();
            let _ = Command::parse(&slot);
            slot[..4].copy_from_slice(&opcode.to_be_bytes());
            let _ = Command::parse(&slot);
        }
    }
}
