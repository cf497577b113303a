//! Reading what `recvmsg()` wrote into the control buffer.

use super::uapi::{CONTROL_ALIGNMENT, CONTROL_HEADER, DmabufMessage};

/// One control message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlMessage<'buffer> {
    /// Payload in device memory (`SCM_DEVMEM_DMABUF`).
    Fragment(DmabufMessage),
    /// That many bytes of payload were copied to host memory (`SCM_DEVMEM_LINEAR`).
    Linear(u32),
    /// None of devmem TCP's, such as a timestamp.
    Other {
        /// The protocol level, such as `SOL_SOCKET`.
        level: i32,
        /// The kind of message at that level.
        kind: i32,
        /// What it says.
        payload: &'buffer [u8],
    },
}

/// The bytes do not form control messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the kernel wrote control messages that cannot be read")]
pub struct Malformed;

/// Goes through a control buffer. Ends after a message that cannot be read.
#[derive(Debug, Clone)]
pub struct ControlMessages<'buffer> {
    rest: &'buffer [u8],
}

impl<'buffer> ControlMessages<'buffer> {
    pub(crate) fn new(buffer: &'buffer [u8]) -> Self {
        Self { rest: buffer }
    }

    /// The next message of any kind. `None` at the end.
    fn advance(&mut self) -> Option<Result<AnyMessage<'buffer>, Malformed>> {
        // What is left may be padding shorter than a header, as in CMSG_NXTHDR.
        let header = self.rest.get(..CONTROL_HEADER)?;
        let (length, header) = header.split_at(size_of::<usize>());
        let (level, kind) = header.split_at(size_of::<i32>());
        let length = usize::from_ne_bytes(length.try_into().ok()?);
        let level = i32::from_ne_bytes(level.try_into().ok()?);
        let kind = i32::from_ne_bytes(kind.try_into().ok()?);
        let Some(payload) = self.rest.get(CONTROL_HEADER..length) else {
            self.rest = &[];
            return Some(Err(Malformed));
        };
        let next = length.next_multiple_of(CONTROL_ALIGNMENT);
        self.rest = self.rest.get(next..).unwrap_or(&[]);
        Some(Ok(AnyMessage { level, kind, payload }))
    }
}

/// A control message as any part of the kernel may write it.
struct AnyMessage<'buffer> {
    level: i32,
    kind: i32,
    payload: &'buffer [u8],
}

impl<'buffer> Iterator for ControlMessages<'buffer> {
    type Item = Result<ControlMessage<'buffer>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let AnyMessage { level, kind, payload } = match self.advance()? {
            Ok(message) => message,
            Err(malformed) => return Some(Err(malformed)),
        };
        let message = match (level, kind) {
            (libc::SOL_SOCKET, libc::SCM_DEVMEM_DMABUF) => decode(payload).map(ControlMessage::Fragment),
            (libc::SOL_SOCKET, libc::SCM_DEVMEM_LINEAR) => {
                decode(payload).map(|message| ControlMessage::Linear(message.fragment_size))
            }
            _ => Some(ControlMessage::Other { level, kind, payload }),
        };
        if message.is_none() {
            self.rest = &[];
        }
        Some(message.ok_or(Malformed))
    }
}

/// Later kernels may append to the structure, so that a longer payload is fine.
fn decode(payload: &[u8]) -> Option<DmabufMessage> {
    let word = |at: usize| Some(u32::from_ne_bytes(payload.get(at..at + 4)?.try_into().ok()?));
    Some(DmabufMessage {
        fragment_offset: u64::from_ne_bytes(payload.get(..8)?.try_into().ok()?),
        fragment_size: word(8)?,
        fragment_token: word(12)?,
        dmabuf_id: word(16)?,
        flags: word(20)?,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Writes control messages as the kernel's `put_cmsg()` does.
    pub(crate) fn encode(messages: &[(i32, i32, Vec<u8>)]) -> Vec<u8> {
        let mut buffer = Vec::new();
        for (level, kind, payload) in messages {
            buffer.extend((CONTROL_HEADER + payload.len()).to_ne_bytes());
            buffer.extend(level.to_ne_bytes());
            buffer.extend(kind.to_ne_bytes());
            buffer.extend(payload);
            buffer.resize(buffer.len().next_multiple_of(CONTROL_ALIGNMENT), 0);
        }
        buffer
    }

    pub(crate) fn payload(message: DmabufMessage) -> Vec<u8> {
        let mut bytes = message.fragment_offset.to_ne_bytes().to_vec();
        for word in [message.fragment_size, message.fragment_token, message.dmabuf_id, message.flags] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes
    }

    fn sample(token: u32) -> DmabufMessage {
        DmabufMessage {
            fragment_offset: u64::from(token) * 4096,
            fragment_size: 4096,
            fragment_token: token,
            dmabuf_id: 7,
            flags: 0,
        }
    }

    #[test]
    fn messages_come_in_order_with_those_of_other_kinds() {
        let buffer = encode(&[
            (libc::SOL_SOCKET, libc::SCM_DEVMEM_DMABUF, payload(sample(0))),
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS, vec![1; 16]),
            (
                libc::SOL_SOCKET,
                libc::SCM_DEVMEM_LINEAR,
                payload(DmabufMessage { fragment_size: 16, ..sample(0) }),
            ),
            (libc::SOL_TCP, libc::SCM_DEVMEM_DMABUF, vec![1; 3]),
            (libc::SOL_SOCKET, libc::SCM_DEVMEM_DMABUF, payload(sample(1))),
        ]);
        let messages: Result<Vec<_>, _> = ControlMessages::new(&buffer).collect();
        assert_eq!(
            messages.unwrap(),
            [
                ControlMessage::Fragment(sample(0)),
                ControlMessage::Other {
                    level: libc::SOL_SOCKET,
                    kind: libc::SCM_TIMESTAMPNS,
                    payload: &[1; 16]
                },
                ControlMessage::Linear(16),
                ControlMessage::Other {
                    level: libc::SOL_TCP,
                    kind: libc::SCM_DEVMEM_DMABUF,
                    payload: &[1; 3]
                },
                ControlMessage::Fragment(sample(1))
            ]
        );
    }

    #[test]
    fn a_length_that_lies_is_malformed_and_ends_the_walk() {
        for length in [0usize, 1, CONTROL_HEADER - 1, 41, usize::MAX, usize::MAX - 6] {
            let mut buffer = encode(&[(libc::SOL_SOCKET, libc::SCM_DEVMEM_DMABUF, payload(sample(0)))]);
            buffer[..size_of::<usize>()].copy_from_slice(&length.to_ne_bytes());
            let messages: Vec<_> = ControlMessages::new(&buffer).collect();
            assert_eq!(messages, [Err(Malformed)], "length {length}");
        }
    }

    #[test]
    fn a_payload_that_is_too_short_is_malformed() {
        let buffer = encode(&[(libc::SOL_SOCKET, libc::SCM_DEVMEM_DMABUF, vec![0; 23])]);
        assert_eq!(ControlMessages::new(&buffer).next(), Some(Err(Malformed)));
    }

    proptest! {
        #[test]
        fn any_bytes_end_without_a_panic(buffer in prop::collection::vec(any::<u8>(), 0..256)) {
            prop_assert!(ControlMessages::new(&buffer).count() <= buffer.len() / CONTROL_HEADER + 1);
        }

        #[test]
        fn a_damaged_stream_never_panics(
            count in 1usize..8,
            at: prop::sample::Index,
            value: u8,
            cut: prop::sample::Index,
        ) {
            let messages: Vec<_> = (0..count)
                .map(|i| (libc::SOL_SOCKET, libc::SCM_DEVMEM_DMABUF, payload(sample(i as u32))))
                .collect();
            let mut buffer = encode(&messages);
            let at = at.index(buffer.len());
            buffer[at] = value;
            buffer.truncate(cut.index(buffer.len()) + 1);
            prop_assert!(ControlMessages::new(&buffer).count() <= count + 1);
        }
    }
}
