//! The layout of messages: a header, then fields in the order of their bytes.

use nix::errno::Errno;

/// Bytes of the header that every message begins with.
pub(super) const HEADER_SIZE: usize = 16;

/// Bytes that a message may carry behind its header. QEMU sends at most as much data at once as the
/// server allows in its version message.
pub(super) const MAXIMUM_PAYLOAD: usize = MAXIMUM_TRANSFER + 64;

/// Bytes of data in one region access.
pub(super) const MAXIMUM_TRANSFER: usize = 64 * 1024;

/// Descriptors that one message may bring.
pub(super) const MAXIMUM_DESCRIPTORS: usize = 8;

const TYPE_MASK: u32 = 0xf;
const TYPE_REPLY: u32 = 1;
const NO_REPLY: u32 = 1 << 4;
const ERROR: u32 = 1 << 5;

/// What a message is, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) id: u16,
    pub(super) command: u16,
    pub(super) size: u32,
    pub(super) flags: u32,
    pub(super) error: u32,
}

impl Header {
    pub(super) fn parse(bytes: &[u8; HEADER_SIZE]) -> Option<Header> {
        let mut fields = Fields(bytes);
        Some(Header {
            id: fields.u16()?,
            command: fields.u16()?,
            size: fields.u32()?,
            flags: fields.u32()?,
            error: fields.u32()?,
        })
    }

    pub(super) fn encode(&self) -> [u8; HEADER_SIZE] {
        let mut bytes = [0; HEADER_SIZE];
        bytes[0..2].copy_from_slice(&self.id.to_ne_bytes());
        bytes[2..4].copy_from_slice(&self.command.to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.size.to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.flags.to_ne_bytes());
        bytes[12..16].copy_from_slice(&self.error.to_ne_bytes());
        bytes
    }

    /// Bytes behind the header; `None` when the message is shorter than it or beyond all bounds.
    pub(super) fn payload_size(&self) -> Option<usize> {
        let size = usize::try_from(self.size).ok()?.checked_sub(HEADER_SIZE)?;
        (size <= MAXIMUM_PAYLOAD).then_some(size)
    }

    pub(super) fn is_reply(&self) -> bool {
        self.flags & TYPE_MASK == TYPE_REPLY
    }

    pub(super) fn wants_no_reply(&self) -> bool {
        self.flags & NO_REPLY != 0
    }

    /// The header of the answer to this message.
    pub(super) fn reply(&self, payload: usize) -> Header {
        Header { size: (HEADER_SIZE + payload) as u32, flags: TYPE_REPLY, error: 0, ..*self }
    }

    /// The answer to this message that tells of an error.
    pub(super) fn error_reply(&self, error: Errno) -> Header {
        Header { flags: TYPE_REPLY | ERROR, error: error as u32, ..self.reply(0) }
    }
}

/// Takes fields from the front of a message, in the byte order of the machine.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        Some(u16::from_ne_bytes(self.bytes(2)?.try_into().ok()?))
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        Some(u32::from_ne_bytes(self.bytes(4)?.try_into().ok()?))
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        Some(u64::from_ne_bytes(self.bytes(8)?.try_into().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_survive_encoding() {
        let header = Header { id: 7, command: 9, size: 48, flags: NO_REPLY, error: 0 };
        assert_eq!(Header::parse(&header.encode()), Some(header));
        assert!(header.wants_no_reply() && !header.is_reply());
        assert_eq!(header.payload_size(), Some(32));
        assert_eq!(header.reply(4).size, 20);
        assert_eq!(header.error_reply(Errno::EINVAL).error, 22);
    }

    #[test]
    fn impossible_sizes_are_refused() {
        let header = |size| Header { id: 0, command: 0, size, flags: 0, error: 0 };
        assert_eq!(header(15).payload_size(), None);
        assert_eq!(header(u32::MAX).payload_size(), None);
        assert_eq!(header(16).payload_size(), Some(0));
    }
}
