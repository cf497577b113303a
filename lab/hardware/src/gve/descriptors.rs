//! Descriptors of the DQO rings, little-endian: pure functions from and to their bytes.

/// Bytes of a transmit descriptor.
pub(super) const TRANSMIT_SIZE: usize = 16;

/// Bytes of a transmit completion.
pub(super) const TRANSMIT_COMPLETION_SIZE: usize = 8;

/// Bytes of a receive buffer descriptor.
pub(super) const BUFFER_SIZE: usize = 32;

/// Bytes of a receive completion.
pub(super) const RECEIVE_COMPLETION_SIZE: usize = 32;

/// Offset of the two bytes of a receive completion that are stored last.
pub(super) const RECEIVE_COMPLETION_VALID: usize = 4;

const TYPE_MASK: u8 = 0x1f;
const TYPE_GENERAL_CONTEXT: u8 = 0x4;
const TYPE_SEGMENTATION_CONTEXT: u8 = 0x5;
const TYPE_PACKET: u8 = 0xc;
const END_OF_PACKET: u8 = 1 << 5;
const CHECKSUM: u8 = 1 << 6;
const REPORT_EVENT: u8 = 1 << 7;
/// Buffer sizes and segment sizes have 14 bits.
const SIZE_MASK: u16 = 0x3fff;

/// A transmit descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transmit {
    /// Metadata of the packet, nothing that this device needs.
    GeneralContext,
    /// The packet is to be segmented.
    SegmentationContext { segment_size: u16, header_length: u8 },
    /// A piece of the packet.
    Packet(PacketPiece),
}

/// A piece of a packet that is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PacketPiece {
    pub(super) address: u64,
    pub(super) size: u16,
    /// It is the last piece.
    pub(super) end: bool,
    /// Compute the packet's checksum.
    pub(super) checksum: bool,
    /// Tell the driver when this descriptor was fetched.
    pub(super) report: bool,
    /// What the packet's completion shall carry.
    pub(super) tag: u16,
}

impl Transmit {
    /// Reads a descriptor; `Err` with its type when there is no such type.
    pub(super) fn parse(bytes: &[u8; TRANSMIT_SIZE]) -> Result<Transmit, u8> {
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let flags = bytes[8];
        match flags & TYPE_MASK {
            TYPE_GENERAL_CONTEXT => Ok(Transmit::GeneralContext),
            TYPE_SEGMENTATION_CONTEXT => Ok(Transmit::SegmentationContext {
                segment_size: u16_at(4) & SIZE_MASK,
                header_length: bytes[6],
            }),
            TYPE_PACKET => Ok(Transmit::Packet(PacketPiece {
                address: u64_at(bytes, 0),
                size: u16_at(14) & SIZE_MASK,
                end: flags & END_OF_PACKET != 0,
                checksum: flags & CHECKSUM != 0,
                report: flags & REPORT_EVENT != 0,
                tag: u16_at(12),
            })),
            other => Err(other),
        }
    }
}

/// What a transmit completion tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TransmitCompletion {
    /// The packet with this tag was sent.
    Packet { tag: u16 },
    /// All descriptors before this index were fetched.
    Descriptors { head: u16 },
}

impl TransmitCompletion {
    /// The two bytes that are stored last, and those behind them.
    pub(super) fn encode(self, queue: u16, generation: bool) -> (u16, [u8; 6]) {
        let (kind, value) = match self {
            TransmitCompletion::Packet { tag } => (2, tag),
            TransmitCompletion::Descriptors { head } => (4, head),
        };
        let first = queue & 0x7ff | kind << 11 | u16::from(generation) << 15;
        let [low, high] = value.to_le_bytes();
        (first, [low, high, 0, 0, 0, 0])
    }
}

/// A receive buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Buffer {
    pub(super) id: u16,
    pub(super) address: u64,
    pub(super) header_address: u64,
}

impl Buffer {
    pub(super) fn parse(bytes: &[u8; BUFFER_SIZE]) -> Buffer {
        Buffer {
            id: u16::from_le_bytes([bytes[0], bytes[1]]),
            address: u64_at(bytes, 8),
            header_address: u64_at(bytes, 16),
        }
    }
}

/// A receive completion: one for every buffer that a packet filled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ReceiveCompletion {
    pub(super) buffer_id: u16,
    /// Bytes in the buffer.
    pub(super) length: u16,
    /// Bytes in the header buffer, with the packet's first buffer only.
    pub(super) header_length: Option<u16>,
    /// The headers did not fit into the header buffer.
    pub(super) header_overflow: bool,
    /// It is the packet's last buffer.
    pub(super) end: bool,
    pub(super) packet_type: u16,
    /// The payloads of the segments that the packet was put together from, if it was.
    pub(super) segment_size: Option<u16>,
    pub(super) hash: u32,
    /// Checksums were looked at.
    pub(super) checked: bool,
    /// And that of TCP or UDP was wrong.
    pub(super) checksum_wrong: bool,
    /// An IPv6 packet with routing or destination options.
    pub(super) ipv6_extension: bool,
    /// The packet could not be stored.
    pub(super) error: bool,
}

impl ReceiveCompletion {
    /// All bytes; those at [`RECEIVE_COMPLETION_VALID`] are to be stored last.
    pub(super) fn encode(&self, generation: bool) -> [u8; RECEIVE_COMPLETION_SIZE] {
        let bit = |set: bool, position: u32| u8::from(set) << position;
        let mut bytes = [0; RECEIVE_COMPLETION_SIZE];
        bytes[0] = 1; // the only descriptor format
        bytes[1] = bit(self.ipv6_extension, 1) | bit(self.error, 2);
        bytes[2..4].copy_from_slice(&(self.packet_type & 0x3ff).to_le_bytes());
        let valid = self.length & SIZE_MASK | u16::from(generation) << 14;
        bytes[4..6].copy_from_slice(&valid.to_le_bytes());
        let header = self.header_length.unwrap_or(0) & 0x3ff
            | u16::from(self.segment_size.is_some()) << 10
            | u16::from(self.header_length.is_some()) << 11;
        bytes[6..8].copy_from_slice(&header.to_le_bytes());
        bytes[8] = bit(true, 0)
            | bit(self.end, 1)
            | bit(self.header_overflow, 2)
            | bit(self.checked, 3)
            | bit(self.checksum_wrong, 5);
        bytes[12..14].copy_from_slice(&self.buffer_id.to_le_bytes());
        bytes[14..16].copy_from_slice(&self.segment_size.unwrap_or(0).to_le_bytes());
        bytes[16..20].copy_from_slice(&self.hash.to_le_bytes());
        bytes
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut field = [0; 8];
    if let Some(source) = bytes.get(at..at + 8) {
        field.copy_from_slice(source);
    }
    u64::from_le_bytes(field)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn transmit_descriptors() {
        let mut bytes = [0; TRANSMIT_SIZE];
        bytes[8] = TYPE_GENERAL_CONTEXT;
        assert_eq!(Transmit::parse(&bytes), Ok(Transmit::GeneralContext));
        bytes[8] = TYPE_SEGMENTATION_CONTEXT | 1 << 5;
        (bytes[4], bytes[5], bytes[6]) = (0xa8, 0xc5, 66);
        let context = Transmit::SegmentationContext { segment_size: 0x05a8, header_length: 66 };
        assert_eq!(Transmit::parse(&bytes), Ok(context));
        let bytes = [0, 0x10, 0, 0x80, 1, 0, 0, 0, 0xec, 0, 0, 0, 0x34, 0x12, 0x2a, 0xc0];
        let piece = PacketPiece {
            address: 0x1_8000_1000,
            size: 42,
            end: true,
            checksum: true,
            report: true,
            tag: 0x1234,
        };
        assert_eq!(Transmit::parse(&bytes), Ok(Transmit::Packet(piece)));
        assert_eq!(Transmit::parse(&[0; TRANSMIT_SIZE]), Err(0));
    }

    #[test]
    fn transmit_completions() {
        let (first, rest) = TransmitCompletion::Packet { tag: 0x0102 }.encode(3, true);
        assert_eq!((first, rest), (3 | 2 << 11 | 1 << 15, [2, 1, 0, 0, 0, 0]));
        let (first, _) = TransmitCompletion::Descriptors { head: 5 }.encode(3, false);
        assert_eq!(first, 3 | 4 << 11);
    }

    #[test]
    fn receive_completions() {
        let completion = ReceiveCompletion {
            buffer_id: 0x0777,
            length: 4096,
            header_length: Some(66),
            end: true,
            packet_type: 0x12,
            segment_size: Some(1448),
            hash: 0xdead_beef,
            checked: true,
            ..ReceiveCompletion::default()
        };
        let bytes = completion.encode(true);
        assert_eq!(bytes[..10], [1, 0, 0x12, 0, 0x00, 0x50, 66, 0x0c, 0b1011, 0]);
        assert_eq!(bytes[12..20], [0x77, 7, 0xa8, 5, 0xef, 0xbe, 0xad, 0xde]);
        assert_eq!(completion.encode(false)[5], 0x10, "only the generation differs");
    }

    proptest! {
        #[test]
        fn any_descriptor_is_parsed(bytes in any::<[u8; BUFFER_SIZE]>()) {
            let _ = Buffer::parse(&bytes);
            let mut transmit = [0; TRANSMIT_SIZE];
            transmit.copy_from_slice(&bytes[..TRANSMIT_SIZE]);
            if let Ok(Transmit::Packet(piece)) = Transmit::parse(&transmit) {
                prop_assert!(piece.size <= SIZE_MASK);
            }
        }
    }
}
