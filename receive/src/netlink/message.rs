//! Messages: the framing inside a netlink datagram.

use super::attribute::align;
use super::error::Malformed;

/// The bytes of `struct nlmsghdr`.
pub(super) const HEADER: usize = 16;

/// `NLMSG_ERROR`: an acknowledgement, or a refusal if its number is not 0.
pub(super) const ERROR: u16 = 2;
/// `NLMSG_DONE`: the end of a dump.
pub(super) const DONE: u16 = 3;

/// `NLM_F_REQUEST`.
pub(super) const REQUEST: u16 = 0x01;
/// `NLM_F_ACK`: please acknowledge.
pub(super) const ACK: u16 = 0x04;
/// `NLM_F_EXCL`: what exists is not changed.
pub(super) const EXCLUSIVE: u16 = 0x200;
/// `NLM_F_CREATE`: what does not exist is made.
pub(super) const CREATE: u16 = 0x400;
/// `NLM_F_DUMP_INTR`: the objects changed while they were listed.
pub(super) const DUMP_INTERRUPTED: u16 = 0x10;
/// `NLM_F_DUMP`: list every object.
pub(super) const DUMP: u16 = 0x300;
/// `NLM_F_CAPPED`: the acknowledgement does not repeat the request.
pub(super) const CAPPED: u16 = 0x100;
/// `NLM_F_ACK_TLVS`: an extended acknowledgement follows.
pub(super) const ACK_ATTRIBUTES: u16 = 0x200;

/// A received message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    /// Whom it is for: 0 in multicast messages.
    pub(super) port: u32,
    pub(super) payload: &'a [u8],
}

/// Encodes one message. The kernel fills in the sender.
pub(super) fn encode(kind: u16, flags: u16, sequence: u32, parts: &[&[u8]]) -> Vec<u8> {
    let length = HEADER + parts.iter().map(|part| part.len()).sum::<usize>();
    let mut bytes = Vec::with_capacity(align(length));
    // A request is at most one attribute of 64 KiB and some small ones, far below 4 GiB.
    bytes.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&sequence.to_ne_bytes());
    bytes.extend_from_slice(&0u32.to_ne_bytes());
    for part in parts {
        bytes.extend_from_slice(part);
    }
    bytes.resize(align(bytes.len()), 0);
    bytes
}

/// Walks over the messages of a datagram; ends after the first malformed one.
#[derive(Debug, Clone)]
pub(super) struct MessageIter<'a> {
    rest: &'a [u8],
}

impl<'a> MessageIter<'a> {
    pub(super) fn new(datagram: &'a [u8]) -> Self {
        Self { rest: datagram }
    }
}

impl<'a> Iterator for MessageIter<'a> {
    type Item = Result<Message<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = std::mem::take(&mut self.rest);
        if rest.is_empty() {
            return None;
        }
        let Some((header, _)) = rest.split_first_chunk::<HEADER>() else {
            return Some(Err(Malformed("a message header that is cut off")));
        };
        let length = word(header, 0) as usize;
        let Some(payload) = rest.get(HEADER..length) else {
            return Some(Err(Malformed("a message whose length is wrong")));
        };
        self.rest = rest.get(align(length)..).unwrap_or_default();
        Some(Ok(Message {
            kind: half_word(header, 4),
            flags: half_word(header, 6),
            sequence: word(header, 8),
            port: word(header, 12),
            payload,
        }))
    }
}

fn word(header: &[u8; HEADER], at: usize) -> u32 {
    u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
}

fn half_word(header: &[u8; HEADER], at: usize) -> u16 {
    u16::from_ne_bytes([header[at], header[at + 1]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_the_messages_of_a_datagram() {
        let mut datagram = encode(20, REQUEST, 1, &[b"abc"]);
        datagram.extend(encode(DONE, 0, 2, &[&0i32.to_ne_bytes()]));
        let messages: Vec<_> = MessageIter::new(&datagram).map(Result::unwrap).collect();
        assert_eq!(messages[0], Message { kind: 20, flags: REQUEST, sequence: 1, port: 0, payload: b"abc" });
        assert_eq!(messages[1].kind, DONE);
        assert_eq!(messages.len(), 2);
    }

    #[test]
    fn a_message_longer_than_its_datagram_is_an_error() {
        let mut datagram = encode(20, 0, 1, &[b"abcd"]);
        datagram[0] = 21;
        assert!(MessageIter::new(&datagram).next().unwrap().is_err());
        datagram[0] = 15;
        assert!(MessageIter::new(&datagram).next().unwrap().is_err());
        assert!(MessageIter::new(&datagram[..7]).next().unwrap().is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_end_without_panic(datagram: Vec<u8>) {
            let mut read = 0;
            for _ in MessageIter::new(&datagram) {
                read += 1;
                prop_assert!(read <= datagram.len());
            }
        }
    }
}
