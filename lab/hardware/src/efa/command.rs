//! Commands of the admin queue: their layout, without the header that all have in common.

use super::fields::Fields;

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Status {
    Success = 0,
    /// There is no room for one more.
    ResourceAllocationFailure = 1,
    BadOpcode = 2,
    UnsupportedOpcode = 3,
    MalformedRequest = 4,
    IllegalParameter = 5,
    /// Something else still uses it.
    ResourceBusy = 7,
}

/// Which part of the page list a region's command carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ListPlace {
    /// Up to four addresses in the command itself.
    Inline([u64; 4]),
    /// An array of addresses in memory.
    Direct(Chunk),
    /// A chain of chunks with the addresses of pages that hold the array; see `page_list`.
    Indirect(Chunk),
}

/// Bytes in memory: a control buffer, in the words of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) length: u32,
    pub(super) address: u64,
}

impl Chunk {
    /// Bytes of the structure.
    pub(super) const SIZE: usize = 12;

    pub(super) fn parse(fields: Fields<'_>, at: usize) -> Chunk {
        Chunk { length: fields.u32(at), address: fields.u64(at + 4) }
    }
}

/// A command, read from its entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    CreateQueuePair(CreateQueuePair),
    ModifyQueuePair(ModifyQueuePair),
    QueryQueuePair { handle: u32 },
    DestroyQueuePair { handle: u32 },
    CreateAddressHandle { gid: [u8; 16], domain: u16 },
    DestroyAddressHandle { handle: u16, domain: u16 },
    RegisterRegion(RegisterRegion),
    DeregisterRegion { key: u32 },
    CreateCompletionQueue(CreateCompletionQueue),
    DestroyCompletionQueue { queue: u16 },
    GetFeature { feature: u8 },
    SetFeature { feature: u8, buffer: Option<Chunk>, value: [u8; 8] },
    GetStatistics { kind: u8, scope: u8 },
    AllocateDomain,
    DeallocateDomain { domain: u16 },
    AllocateDoorbellPage,
    DeallocateDoorbellPage { page: u16 },
    CreateEventQueue(CreateEventQueue),
    DestroyEventQueue { queue: u16 },
}

/// CREATE_QP. Its send queue is in BAR 2, its receive queue in host memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CreateQueuePair {
    pub(super) domain: u16,
    /// 1 for UD, 2 for SRD.
    pub(super) transport: u8,
    pub(super) flags: u8,
    pub(super) receive_ring: u64,
    pub(super) send_completions: u32,
    pub(super) receive_completions: u32,
    /// Bytes.
    pub(super) send_ring_size: u32,
    pub(super) send_depth: u32,
    /// Bytes.
    pub(super) receive_ring_size: u32,
    pub(super) receive_depth: u32,
    pub(super) doorbell_page: u16,
}

/// Bits of the flags of CREATE_QP.
pub(super) mod queue_pair_flag {
    /// An RDMA write with immediate data takes no posted receive.
    pub(crate) const UNSOLICITED_WRITE_RECEIVE: u8 = 1 << 2;
}

/// MODIFY_QP: only what the mask names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ModifyQueuePair {
    pub(super) handle: u32,
    pub(super) state: Option<u32>,
    /// The state that the driver believes the queue pair is in.
    pub(super) current_state: Option<u32>,
    pub(super) queue_key: Option<u32>,
    pub(super) sequence_number: Option<u32>,
    pub(super) receiver_retries: Option<u8>,
}

/// REG_MR.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RegisterRegion {
    pub(super) domain: u16,
    pub(super) pages: ListPlace,
    /// Bytes.
    pub(super) length: u64,
    /// Pages are 2 to this power large.
    pub(super) page_shift: u8,
    /// The list is one bus address, and nothing is translated.
    pub(super) physical: bool,
    /// Bits of [`permission`].
    pub(super) permissions: u8,
    /// The address by which work requests name the first byte.
    pub(super) address: u64,
}

/// What may be done with a region. Reading it locally is always allowed.
pub(super) mod permission {
    pub(crate) const LOCAL_WRITE: u8 = 1 << 0;
    pub(crate) const REMOTE_WRITE: u8 = 1 << 1;
    pub(crate) const REMOTE_READ: u8 = 1 << 2;
}

/// CREATE_CQ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CreateCompletionQueue {
    /// The event queue that is told of completions.
    pub(super) event_queue: Option<u16>,
    /// The ring's address is one of a region and not of the bus.
    pub(super) is_virtual: bool,
    /// 32-bit words of a completion.
    pub(super) entry_words: u8,
    /// Completions of an unknown sender's messages carry its address.
    pub(super) with_source_address: bool,
    pub(super) wide_request_ids: bool,
    pub(super) depth: u16,
    pub(super) ring: u64,
    pub(super) sub_queues: u16,
    pub(super) doorbell_page: u16,
}

/// CREATE_EQ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CreateEventQueue {
    pub(super) depth: u16,
    pub(super) vector: u8,
    /// 32-bit words of an event.
    pub(super) entry_words: u8,
    pub(super) ring: u64,
    /// Bit 0: completion events.
    pub(super) events: u32,
}

/// Bits of the flags in a command's header.
mod header_flag {
    /// The command has a control buffer.
    pub(super) const BUFFER: u8 = 1 << 1;
    /// The buffer holds addresses of buffers.
    pub(super) const INDIRECT: u8 = 1 << 2;
}

const MODIFY_STATE: u32 = 1 << 0;
const MODIFY_CURRENT_STATE: u32 = 1 << 1;
const MODIFY_QUEUE_KEY: u32 = 1 << 2;
const MODIFY_SEQUENCE_NUMBER: u32 = 1 << 3;
const MODIFY_RECEIVER_RETRIES: u32 = 1 << 5;

const COMPLETIONS_WITH_EVENTS: u8 = 1 << 5;
const COMPLETIONS_VIRTUAL: u8 = 1 << 6;
const COMPLETION_WORDS: u8 = 0x1f;
const COMPLETIONS_WITH_SOURCE: u8 = 1 << 5;
const COMPLETIONS_WITH_WIDE_IDS: u8 = 1 << 6;

const REGION_PAGE_SHIFT: u8 = 0x3f;
const REGION_PHYSICAL: u8 = 1 << 7;

/// The highest opcode that the interface defines.
const LAST_OPCODE: u8 = 29;

impl Command {
    /// Reads a command: opcode and flags from its header, and the bytes behind the header.
    ///
    /// # Errors
    /// The status to complete the command with.
    pub(super) fn parse(opcode: u8, flags: u8, body: &[u8]) -> Result<Command, Status> {
        let body = Fields(body);
        Ok(match opcode {
            1 => Command::CreateQueuePair(CreateQueuePair {
                domain: body.u16(0),
                transport: body.u8(2),
                flags: body.u8(3),
                receive_ring: body.u64(12),
                send_completions: body.u32(20),
                receive_completions: body.u32(24),
                send_ring_size: body.u32(36),
                send_depth: body.u32(40),
                receive_ring_size: body.u32(44),
                receive_depth: body.u32(48),
                doorbell_page: body.u16(52),
            }),
            2 => Command::ModifyQueuePair(modify_queue_pair(body)),
            3 => Command::QueryQueuePair { handle: body.u32(0) },
            4 => Command::DestroyQueuePair { handle: body.u32(0) },
            5 => Command::CreateAddressHandle { gid: body.array(0), domain: body.u16(16) },
            6 => Command::DestroyAddressHandle { handle: body.u16(0), domain: body.u16(2) },
            7 => Command::RegisterRegion(register_region(flags, body)),
            8 => Command::DeregisterRegion { key: body.u32(0) },
            9 => Command::CreateCompletionQueue(create_completion_queue(body)),
            10 => Command::DestroyCompletionQueue { queue: body.u16(0) },
            11 => Command::GetFeature { feature: body.u8(13) },
            12 => Command::SetFeature {
                feature: body.u8(13),
                buffer: (flags & header_flag::BUFFER != 0).then(|| Chunk::parse(body, 0)),
                value: body.array(16),
            },
            13 => Command::GetStatistics { kind: body.u8(12), scope: body.u8(13) },
            14 => Command::AllocateDomain,
            15 => Command::DeallocateDomain { domain: body.u16(0) },
            16 => Command::AllocateDoorbellPage,
            17 => Command::DeallocateDoorbellPage { page: body.u16(0) },
            18 => Command::CreateEventQueue(CreateEventQueue {
                depth: body.u16(0),
                vector: body.u8(2),
                entry_words: body.u8(3) & 0x1f,
                ring: body.u64(4),
                events: body.u32(12),
            }),
            19 => Command::DestroyEventQueue { queue: body.u16(0) },
            // Fast registration (20), service (21), event counters (25 to 29).
            20..=LAST_OPCODE => return Err(Status::UnsupportedOpcode),
            _ => return Err(Status::BadOpcode),
        })
    }
}

fn modify_queue_pair(body: Fields<'_>) -> ModifyQueuePair {
    let mask = body.u32(0);
    let has = |bit: u32| mask & bit != 0;
    ModifyQueuePair {
        handle: body.u32(4),
        state: has(MODIFY_STATE).then(|| body.u32(8)),
        current_state: has(MODIFY_CURRENT_STATE).then(|| body.u32(12)),
        queue_key: has(MODIFY_QUEUE_KEY).then(|| body.u32(16)),
        sequence_number: has(MODIFY_SEQUENCE_NUMBER).then(|| body.u32(20)),
        receiver_retries: has(MODIFY_RECEIVER_RETRIES).then(|| body.u8(25)),
    }
}

fn register_region(flags: u8, body: Fields<'_>) -> RegisterRegion {
    let pages = match (flags & header_flag::BUFFER != 0, flags & header_flag::INDIRECT != 0) {
        (false, _) => ListPlace::Inline([4, 12, 20, 28].map(|at| body.u64(at))),
        (true, false) => ListPlace::Direct(Chunk::parse(body, 4)),
        (true, true) => ListPlace::Indirect(Chunk::parse(body, 4)),
    };
    RegisterRegion {
        domain: body.u16(0),
        pages,
        length: body.u64(36),
        page_shift: body.u8(44) & REGION_PAGE_SHIFT,
        physical: body.u8(44) & REGION_PHYSICAL != 0,
        permissions: body.u8(45),
        // The number of pages at 48 follows from the others; Linux leaves it 0.
        address: body.u64(52),
    }
}

fn create_completion_queue(body: Fields<'_>) -> CreateCompletionQueue {
    let (first, second) = (body.u8(0), body.u8(1));
    CreateCompletionQueue {
        event_queue: (first & COMPLETIONS_WITH_EVENTS != 0).then(|| body.u16(4)),
        is_virtual: first & COMPLETIONS_VIRTUAL != 0,
        entry_words: second & COMPLETION_WORDS,
        with_source_address: second & COMPLETIONS_WITH_SOURCE != 0,
        wide_request_ids: second & COMPLETIONS_WITH_WIDE_IDS != 0,
        depth: body.u16(2),
        ring: body.u64(8),
        sub_queues: body.u16(20),
        doorbell_page: body.u16(22),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fields::Structure;
    use super::*;

    #[test]
    fn a_region_with_each_kind_of_list() {
        let body = Structure::new(60)
            .u16(0, 7)
            .u32(4, 0x2000)
            .u64(8, 0x1_0000_3000)
            .u64(36, 0x40_0000)
            .u8(44, 12)
            .u8(45, 5)
            .u64(52, 0x7fff_0000_0000)
            .bytes();
        let parse = |flags| match Command::parse(7, flags, &body) {
            Ok(Command::RegisterRegion(register)) => register,
            other => panic!("{other:?}"),
        };
        let list = Chunk { length: 0x2000, address: 0x1_0000_3000 };
        let register = parse(2);
        assert_eq!((register.domain, register.length, register.page_shift), (7, 0x40_0000, 12));
        assert_eq!((register.permissions, register.address), (5, 0x7fff_0000_0000));
        assert_eq!(register.pages, ListPlace::Direct(list));
        assert_eq!(parse(6).pages, ListPlace::Indirect(list));
        assert_eq!(parse(1).pages, ListPlace::Inline([0x3000_0000_2000, 1, 0, 0]));
    }

    #[test]
    fn a_queue_pair_and_its_changes() {
        let body = Structure::new(60).u8(2, 2).u64(12, 5 << 32).u32(20, 3).u32(40, 64).u16(52, 9).bytes();
        let Ok(Command::CreateQueuePair(create)) = Command::parse(1, 0, &body) else { panic!() };
        assert_eq!((create.transport, create.receive_ring, create.send_completions), (2, 5 << 32, 3));
        assert_eq!((create.send_depth, create.doorbell_page), (64, 9));
        let body = Structure::new(60).u32(0, 1 | 1 << 5).u32(4, 2).u32(8, 3).u32(16, 8).u8(25, 7).bytes();
        let Ok(Command::ModifyQueuePair(modify)) = Command::parse(2, 0, &body) else { panic!() };
        assert_eq!((modify.handle, modify.state, modify.receiver_retries), (2, Some(3), Some(7)));
        assert_eq!((modify.queue_key, modify.current_state), (None, None));
    }

    #[test]
    fn opcodes_that_do_not_exist() {
        assert_eq!(Command::parse(0, 0, &[]), Err(Status::BadOpcode));
        assert_eq!(Command::parse(20, 0, &[]), Err(Status::UnsupportedOpcode));
        assert_eq!(Command::parse(30, 0, &[]), Err(Status::BadOpcode));
    }

    proptest! {
        #[test]
        fn any_command_is_parsed(opcode in 0u8..32, flags: u8, body in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = Command::parse(opcode, flags, &body);
        }
    }
}
