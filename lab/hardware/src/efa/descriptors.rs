//! What is in the queues of a queue pair: work requests and completions, as pure functions from and to their bytes.

use super::fields::{Fields, Structure};

/// Bytes of an entry of a send queue.
pub(super) const SEND_SIZE: usize = 64;
/// Bytes of a descriptor in a receive queue.
pub(super) const RECEIVE_SIZE: usize = 16;
/// Local buffers of one send.
pub(super) const SEND_BUFFERS: u16 = 2;
/// Local buffers of one RDMA read or write.
pub(super) const RDMA_BUFFERS: u16 = 1;
/// Bytes that a send may carry in the entry itself.
pub(super) const INLINE_BYTES: u16 = 32;
/// Keys of regions in queues have 24 bits.
pub(super) const KEY_MASK: u32 = 0xff_ffff;
/// The address handle of a sender to whom none was made.
pub(super) const NO_ADDRESS_HANDLE: u16 = 0xffff;

/// What a work request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Operation {
    Send = 0,
    RdmaRead = 1,
    RdmaWrite = 2,
}

/// What became of a work request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum CompletionStatus {
    Ok = 0,
    /// The queue pair went into the error state before it was executed.
    Flushed = 1,
    QueuePairInternalError = 2,
    UnsupportedOperation = 3,
    InvalidAddressHandle = 4,
    /// No such region, or not these addresses of it, or not for this use.
    InvalidLocalKey = 5,
    BadLength = 6,
    /// At the other side: no such region, or not these addresses of it, or not for this use.
    RemoteBadAddress = 7,
    RemoteAbort = 8,
    RemoteBadQueuePair = 9,
    /// At the other side no receive was posted.
    RemoteNotReady = 10,
    /// At the other side the posted receive was too short.
    RemoteBadLength = 11,
    /// At the other side there is no address handle for this one, which RDMA needs.
    RemoteUnknownPeer = 14,
    Unreachable = 15,
}

/// A local buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Buffer {
    pub(super) length: u32,
    pub(super) key: u32,
    pub(super) address: u64,
}

impl Buffer {
    fn parse(fields: Fields<'_>, at: usize) -> Buffer {
        Buffer { length: fields.u32(at), key: fields.u32(at + 4) & KEY_MASK, address: fields.u64(at + 8) }
    }
}

/// Memory at the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RemoteMemory {
    pub(super) length: u32,
    pub(super) key: u32,
    pub(super) address: u64,
}

/// The data of a work request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Data {
    Inline(Vec<u8>),
    Buffers(Vec<Buffer>),
    Rdma { remote: RemoteMemory, local: Vec<Buffer> },
}

/// An entry of a send queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SendRequest {
    pub(super) id: u16,
    pub(super) operation: Operation,
    pub(super) immediate: Option<u32>,
    /// Complete it also if it succeeds.
    pub(super) wants_completion: bool,
    pub(super) queue_pair: u16,
    pub(super) address_handle: u16,
    pub(super) queue_key: u32,
    pub(super) data: Data,
}

/// An entry that cannot be executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadRequest {
    pub(super) id: u16,
    /// The operation's number, whether there is such an operation or not.
    pub(super) operation: u8,
    pub(super) status: CompletionStatus,
}

/// Bits of the first control byte.
mod control1 {
    pub(super) const OPERATION: u8 = 0xf;
    pub(super) const IMMEDIATE: u8 = 1 << 4;
    pub(super) const INLINE: u8 = 1 << 5;
    /// The descriptor is one of metadata, as the first of every entry is.
    pub(super) const METADATA: u8 = 1 << 7;
}

/// Bits of the second control byte.
mod control2 {
    pub(super) const FIRST: u8 = 1 << 2;
    pub(super) const LAST: u8 = 1 << 3;
    pub(super) const COMPLETION: u8 = 1 << 4;
}

impl SendRequest {
    /// Reads an entry.
    ///
    /// # Errors
    /// [`BadRequest`], which tells how to complete it.
    pub(super) fn parse(bytes: &[u8; SEND_SIZE]) -> Result<SendRequest, BadRequest> {
        let fields = Fields(bytes);
        let (id, first, second) = (fields.u16(0), fields.u8(2), fields.u8(3));
        let refuse = |status| BadRequest { id, operation: first & control1::OPERATION & 0x7, status };
        let operation = match first & control1::OPERATION {
            0 => Operation::Send,
            1 => Operation::RdmaRead,
            2 => Operation::RdmaWrite,
            // Fast registration of regions is not offered.
            _ => return Err(refuse(CompletionStatus::UnsupportedOperation)),
        };
        let whole = control2::FIRST | control2::LAST;
        if first & control1::METADATA == 0 || second & whole != whole {
            return Err(refuse(CompletionStatus::QueuePairInternalError));
        }
        let length = fields.u16(6);
        let buffers = |at: usize, limit: u16| {
            if length > limit {
                return Err(refuse(CompletionStatus::BadLength));
            }
            Ok((0..usize::from(length)).map(|index| Buffer::parse(fields, at + index * 16)).collect())
        };
        let data = match (operation, first & control1::INLINE != 0) {
            (Operation::Send, true) if length > INLINE_BYTES => {
                return Err(refuse(CompletionStatus::BadLength));
            }
            (Operation::Send, true) => Data::Inline(bytes[32..32 + usize::from(length)].to_vec()),
            (Operation::Send, false) => Data::Buffers(buffers(32, SEND_BUFFERS)?),
            (_, true) => return Err(refuse(CompletionStatus::UnsupportedOperation)),
            (_, false) => Data::Rdma {
                remote: RemoteMemory { length: fields.u32(32), key: fields.u32(36), address: fields.u64(40) },
                local: buffers(48, RDMA_BUFFERS)?,
            },
        };
        Ok(SendRequest {
            id,
            operation,
            immediate: (first & control1::IMMEDIATE != 0).then(|| fields.u32(8)),
            wants_completion: second & control2::COMPLETION != 0,
            queue_pair: fields.u16(4),
            address_handle: fields.u16(12),
            queue_key: fields.u32(16),
            data,
        })
    }
}

/// A descriptor in a receive queue; a posted receive has one or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReceiveDescriptor {
    pub(super) id: u16,
    pub(super) buffer: Buffer,
    pub(super) first: bool,
    pub(super) last: bool,
}

impl ReceiveDescriptor {
    pub(super) fn parse(bytes: &[u8; RECEIVE_SIZE]) -> ReceiveDescriptor {
        let fields = Fields(bytes);
        let control = fields.u32(12);
        ReceiveDescriptor {
            id: fields.u16(8),
            buffer: Buffer { length: fields.u16(10).into(), key: control & KEY_MASK, address: fields.u64(0) },
            first: control & 1 << 30 != 0,
            last: control & 1 << 31 != 0,
        }
    }
}

/// What a completion says besides what became of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CompletionKind {
    Send,
    Receive(Received),
}

/// A message that arrived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Received {
    pub(super) length: u32,
    pub(super) address_handle: u16,
    pub(super) source_queue_pair: u16,
    pub(super) immediate: Option<u32>,
    /// The sender, if there is no address handle for it.
    pub(super) source_address: Option<[u8; 16]>,
    /// No posted receive was taken.
    pub(super) unsolicited: bool,
}

/// A completion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Completion {
    pub(super) id: u16,
    pub(super) status: CompletionStatus,
    /// The number of the operation.
    pub(super) operation: u8,
    pub(super) queue_pair: u16,
    pub(super) kind: CompletionKind,
}

/// Kinds of queues in completions.
const FROM_SEND_QUEUE: u8 = 1;
const FROM_RECEIVE_QUEUE: u8 = 2;

impl Completion {
    /// The bytes of the completion: 16 or 32. Its first four are to be stored last.
    pub(super) fn encode(&self, size: usize, phase: bool) -> Vec<u8> {
        let queue = match self.kind {
            CompletionKind::Send => FROM_SEND_QUEUE,
            CompletionKind::Receive(_) => FROM_RECEIVE_QUEUE,
        };
        let mut flags = u8::from(phase) | queue << 1 | (self.operation & 0x7) << 4;
        let mut bytes = Structure::new(size).u16(0, self.id).u8(2, self.status as u8).u16(4, self.queue_pair);
        if let CompletionKind::Receive(received) = &self.kind {
            flags |= u8::from(received.immediate.is_some()) << 3 | u8::from(received.unsolicited) << 7;
            bytes = bytes
                .u16(6, received.length as u16)
                .u16(8, received.address_handle)
                .u16(10, received.source_queue_pair)
                .u32(12, received.immediate.unwrap_or(0));
            bytes = match received.source_address {
                Some(address) => bytes.put(16, &address),
                // Of an RDMA write the length has more bits.
                None => bytes.u16(16, (received.length >> 16) as u16),
            };
        }
        bytes.u8(3, flags).bytes()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(control: [u8; 2], length: u16, data: &[u8]) -> [u8; SEND_SIZE] {
        let bytes = Structure::new(SEND_SIZE).u16(0, 5).put(2, &control).u16(4, 9).u16(6, length);
        let bytes = bytes.u32(8, 0xabcd).u16(12, 3).u32(16, 0x1111).put(32, data).bytes();
        bytes.try_into().unwrap()
    }

    #[test]
    fn sends_inline_and_from_buffers() {
        let parsed = SendRequest::parse(&entry([0xb0, 0x1c], 3, b"abc")).unwrap();
        assert_eq!(parsed.data, Data::Inline(b"abc".to_vec()));
        assert_eq!((parsed.id, parsed.queue_pair, parsed.address_handle), (5, 9, 3));
        assert_eq!((parsed.immediate, parsed.wants_completion), (Some(0xabcd), true));
        let buffer = Structure::new(16).u32(0, 100).u32(4, 0xff00_0007).u64(8, 0x7000).bytes();
        let parsed = SendRequest::parse(&entry([0x80, 0x0c], 1, &buffer)).unwrap();
        let expected = Buffer { length: 100, key: 7, address: 0x7000 };
        assert_eq!((parsed.data, parsed.wants_completion), (Data::Buffers(vec![expected]), false));
    }

    #[test]
    fn an_rdma_write_has_both_sides() {
        let remote = Structure::new(32).u32(0, 64).u32(4, 0x100_0001).u64(8, 1 << 40);
        let data = remote.u32(16, 64).u32(20, 2).u64(24, 0x9000).bytes();
        let parsed = SendRequest::parse(&entry([0x82, 0x1c], 1, &data)).unwrap();
        let remote = RemoteMemory { length: 64, key: 0x100_0001, address: 1 << 40 };
        let local = vec![Buffer { length: 64, key: 2, address: 0x9000 }];
        assert_eq!(parsed.operation, Operation::RdmaWrite);
        assert_eq!(parsed.data, Data::Rdma { remote, local });
    }

    #[test]
    fn what_is_wrong_is_told_by_a_status() {
        let status =
            |control, length| SendRequest::parse(&entry(control, length, &[])).map_err(|bad| bad.status);
        assert_eq!(status([0x83, 0x1c], 0), Err(CompletionStatus::UnsupportedOperation));
        assert_eq!(status([0x00, 0x1c], 0), Err(CompletionStatus::QueuePairInternalError));
        assert_eq!(status([0x80, 0x14], 0), Err(CompletionStatus::QueuePairInternalError));
        assert_eq!(status([0xa0, 0x1c], 33), Err(CompletionStatus::BadLength));
        assert_eq!(status([0x80, 0x1c], 3), Err(CompletionStatus::BadLength));
        assert_eq!(status([0xa2, 0x1c], 3), Err(CompletionStatus::UnsupportedOperation));
    }

    #[test]
    fn completions_of_both_sizes() {
        let received = Received {
            length: 0x2_0010,
            address_handle: NO_ADDRESS_HANDLE,
            source_queue_pair: 4,
            immediate: Some(0x0102_0304),
            ..Received::default()
        };
        let completion = Completion {
            id: 7,
            status: CompletionStatus::Ok,
            operation: Operation::RdmaWrite as u8,
            queue_pair: 1,
            kind: CompletionKind::Receive(received),
        };
        let bytes = completion.encode(32, true);
        assert_eq!(bytes[..6], [7, 0, 0, 1 | 2 << 1 | 1 << 3 | 2 << 4, 1, 0]);
        assert_eq!((bytes[6..8].to_vec(), bytes[16..18].to_vec()), (vec![0x10, 0], vec![2, 0]));
        assert_eq!(completion.encode(16, false).len(), 16);
    }

    proptest! {
        #[test]
        fn any_entry_is_parsed(bytes in proptest::collection::vec(any::<u8>(), SEND_SIZE)) {
            let _ = SendRequest::parse(&bytes.clone().try_into().unwrap());
            let _ = ReceiveDescriptor::parse(bytes[..RECEIVE_SIZE].try_into().unwrap());
        }
    }
}
