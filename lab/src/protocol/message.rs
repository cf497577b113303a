//! What the frames mean.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::description::WindowSize;
use super::frame::{self, Frame, Malformed};

/// How many bytes of standard input may be on their way before the command has read them.
pub(crate) const INPUT_WINDOW: usize = 1 << 16;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Exit {
    /// It ended by itself with this code.
    Code(i32),
    /// It was ended by this signal.
    Signal(i32),
}

impl Exit {
    /// The code that a shell would report: 128 and the signal's number for a signal.
    #[must_use]
    pub const fn shell_code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

/// The beginning of a file that the guest sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileStart {
    /// Its path as the host named it.
    pub(crate) path: String,
    pub(crate) permissions: u32,
}

/// From the guest to the host.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum FromGuest {
    /// The machine is up and starts the command.
    Ready,
    /// The machine could not be set up, or the command could not be started.
    Failed(String),
    Output(Vec<u8>),
    ErrorOutput(Vec<u8>),
    /// So many more bytes of standard input may be sent.
    InputRead(u32),
    /// A question to the lab, with a number that its answer carries.
    Question(u32, Value),
    FileStart(FileStart),
    FileContent(Vec<u8>),
    /// The file is complete, or why it is not.
    FileEnd(Option<String>),
    /// The command has ended and all its output has been sent.
    Ended(Exit),
}

/// From the host to the guest.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum FromHost {
    Input(Vec<u8>),
    InputEnd,
    WindowSize(WindowSize),
    Answer(u32, Value),
    /// Send this signal to the command.
    Signal(i32),
    /// Everything has arrived; stop the machine.
    Stop,
}

fn json<T: for<'de> Deserialize<'de>>(frame: &Frame) -> Result<T, Malformed> {
    serde_json::from_slice(&frame.content).map_err(|_| Malformed::Content(frame.kind))
}

fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

fn number(frame: &Frame) -> Result<u32, Malformed> {
    let bytes = frame.content.as_slice().try_into().map_err(|_| Malformed::Content(frame.kind))?;
    Ok(u32::from_le_bytes(bytes))
}

fn text(frame: Frame) -> Result<String, Malformed> {
    String::from_utf8(frame.content).map_err(|_| Malformed::Content(frame.kind))
}

fn nothing<T>(frame: &Frame, message: T) -> Result<T, Malformed> {
    if frame.content.is_empty() { Ok(message) } else { Err(Malformed::Content(frame.kind)) }
}

impl FromGuest {
    pub(crate) fn decode(frame: Frame) -> Result<Self, Malformed> {
        Ok(match frame.kind {
            1 => nothing(&frame, Self::Ready)?,
            2 => Self::Failed(text(frame)?),
            3 => Self::Output(frame.content),
            4 => Self::ErrorOutput(frame.content),
            5 => Self::InputRead(number(&frame)?),
            6 => json(&frame).map(|(number, value)| Self::Question(number, value))?,
            7 => Self::FileStart(json(&frame)?),
            8 => Self::FileContent(frame.content),
            9 => Self::FileEnd(json(&frame)?),
            10 => Self::Ended(json(&frame)?),
            kind => return Err(Malformed::UnknownKind(kind)),
        })
    }

    pub(crate) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Ready => frame::write(out, 1, &[]),
            Self::Failed(reason) => frame::write(out, 2, reason.as_bytes()),
            Self::Output(bytes) => frame::write(out, 3, bytes),
            Self::ErrorOutput(bytes) => frame::write(out, 4, bytes),
            Self::InputRead(count) => frame::write(out, 5, &count.to_le_bytes()),
            Self::Question(number, value) => frame::write(out, 6, &to_json(&(number, value))),
            Self::FileStart(start) => frame::write(out, 7, &to_json(start)),
            Self::FileContent(bytes) => frame::write(out, 8, bytes),
            Self::FileEnd(error) => frame::write(out, 9, &to_json(error)),
            Self::Ended(exit) => frame::write(out, 10, &to_json(exit)),
        }
    }
}

impl FromHost {
    pub(crate) fn decode(frame: Frame) -> Result<Self, Malformed> {
        Ok(match frame.kind {
            1 => Self::Input(frame.content),
            2 => nothing(&frame, Self::InputEnd)?,
            3 => Self::WindowSize(json(&frame)?),
            4 => json(&frame).map(|(number, value)| Self::Answer(number, value))?,
            5 => Self::Signal(number(&frame)?.cast_signed()),
            6 => nothing(&frame, Self::Stop)?,
            kind => return Err(Malformed::UnknownKind(kind)),
        })
    }

    pub(crate) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Input(bytes) => frame::write(out, 1, bytes),
            Self::InputEnd => frame::write(out, 2, &[]),
            Self::WindowSize(size) => frame::write(out, 3, &to_json(size)),
            Self::Answer(number, value) => frame::write(out, 4, &to_json(&(number, value))),
            Self::Signal(signal) => frame::write(out, 5, &signal.to_le_bytes()),
            Self::Stop => frame::write(out, 6, &[]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::frame::Decoder;
    use proptest::prelude::*;

    fn frames(write: impl FnOnce(&mut Vec<u8>)) -> Frame {
        let mut stream = Vec::new();
        write(&mut stream);
        let mut decoder = Decoder::default();
        decoder.push(&stream);
        decoder.next().unwrap().unwrap()
    }

    #[test]
    fn every_message_of_the_guest_arrives_as_it_was_sent() {
        for message in [
            FromGuest::Ready,
            FromGuest::Failed("no card".into()),
            FromGuest::Output(b"out\xff".to_vec()),
            FromGuest::ErrorOutput(vec![]),
            FromGuest::InputRead(7),
            FromGuest::Question(9, serde_json::json!({"op": "list"})),
            FromGuest::FileStart(FileStart { path: "a b".into(), permissions: 0o755 }),
            FromGuest::FileContent(vec![0; 1000]),
            FromGuest::FileEnd(None),
            FromGuest::FileEnd(Some("no such file".into())),
            FromGuest::Ended(Exit::Code(3)),
            FromGuest::Ended(Exit::Signal(9)),
        ] {
            let frame = frames(|stream| message.write(stream).unwrap());
            assert_eq!(FromGuest::decode(frame).unwrap(), message);
        }
    }

    #[test]
    fn every_message_of_the_host_arrives_as_it_was_sent() {
        for message in [
            FromHost::Input(b"in".to_vec()),
            FromHost::InputEnd,
            FromHost::WindowSize(WindowSize { rows: 24, columns: 80 }),
            FromHost::Answer(1, serde_json::json!(null)),
            FromHost::Signal(15),
            FromHost::Stop,
        ] {
            let frame = frames(|stream| message.write(stream).unwrap());
            assert_eq!(FromHost::decode(frame).unwrap(), message);
        }
    }

    #[test]
    fn malformed_content_is_an_error() {
        for (kind, content) in [
            (1, &b"x"[..]),
            (2, b"\xff"),
            (5, b"123"),
            (6, b"[1]"),
            (7, b"{}"),
            (10, b"{\"code\":"),
            (0, b""),
            (11, b""),
        ] {
            let frame = Frame { kind, content: content.to_vec() };
            assert!(FromGuest::decode(frame).is_err(), "{kind}");
        }
        for (kind, content) in [
            (2, &b"x"[..]),
            (3, b"{\"rows\":70000,\"columns\":1}"),
            (4, b"{}"),
            (5, b""),
            (6, b"x"),
            (7, b""),
        ] {
            let frame = Frame { kind, content: content.to_vec() };
            assert!(FromHost::decode(frame).is_err(), "{kind}");
        }
    }

    proptest! {
        #[test]
        fn noise_never_panics(kind: u8, content in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = FromGuest::decode(Frame { kind, content: content.clone() });
            let _ = FromHost::decode(Frame { kind, content });
        }
    }
}
