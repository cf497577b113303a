//! What a check and its peer say to each other. Each message is JSON.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::IpAddr;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::impairment::{Impaired, Impairment};
use super::script::{Script, Told};
use crate::verdict::Skip;

/// No message is longer, in bytes.
pub(super) const LONGEST: u32 = 256 << 10;

/// What the check asks for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub(super) enum Request {
    /// Goes into a network namespace. Only a process of this machine does that.
    Enter { namespace: PathBuf },
    /// Asks whether scripts may connect to an address.
    Reach { to: IpAddr },
    /// Starts a script; the number names it from now on.
    Start { number: u32, script: Script },
    /// Lets a script go on behind a barrier.
    Proceed { number: u32 },
    /// Waits for the end of a script; how long at most is for the peer to say, so that it is asked again.
    Finish { number: u32, milliseconds: u64 },
    /// Closes a script's connection, wherever it is.
    Abort { number: u32 },
    /// Impairs what leaves by the device that leads to an address.
    Impair { to: IpAddr, impairment: Impairment },
    /// Ends that.
    Lift,
}

/// What the peer answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub(super) enum Response {
    Done,
    Ended {
        told: Told,
    },
    /// The script has not come to its end yet.
    Late,
    /// The script's thread has died, and told nothing.
    Died,
    /// What an impairment that was lifted has done.
    Lifted {
        impaired: Impaired,
    },
    /// It cannot be had of this peer.
    Declined {
        skip: Skip,
    },
    Refused {
        errno: Option<i32>,
        text: String,
    },
}

/// What carries messages.
pub(super) trait Messages {
    /// Sends one.
    fn send(&mut self, message: &impl Serialize) -> Result<()>;

    /// Receives one. The other side's end is [`ErrorKind::UnexpectedEof`].
    fn receive<M: DeserializeOwned>(&mut self) -> Result<M>;
}

/// A message as it is sent.
pub(super) fn encoded(message: &impl Serialize) -> Result<(u32, Vec<u8>)> {
    let text = serde_json::to_vec(message)?;
    let length = u32::try_from(text.len()).ok().filter(|&length| length <= LONGEST);
    let length = length.ok_or_else(|| Error::new(ErrorKind::InvalidInput, "the message is too long"))?;
    Ok((length, text))
}

/// How long a message is, or an error before anything of it is read.
pub(super) fn length(bytes: [u8; 4]) -> Result<usize> {
    match u32::from_le_bytes(bytes) {
        length if length > LONGEST => {
            Err(Error::new(ErrorKind::InvalidData, format!("a message of {length} bytes")))
        }
        length => Ok(length as usize),
    }
}

/// Messages to and from a process of this machine, which started it or which it started: before each is its length,
/// four bytes in little-endian order.
#[derive(Debug)]
pub(super) struct Plain<S>(pub(super) S);

impl<S: Read + Write> Messages for Plain<S> {
    fn send(&mut self, message: &impl Serialize) -> Result<()> {
        let (length, text) = encoded(message)?;
        let mut frame = length.to_le_bytes().to_vec();
        frame.extend(text);
        self.0.write_all(&frame)
    }

    fn receive<M: DeserializeOwned>(&mut self) -> Result<M> {
        let mut bytes = [0; 4];
        self.0.read_exact(&mut bytes)?;
        let length = length(bytes)?;
        let mut text = Vec::new();
        let count = Read::by_ref(&mut self.0).take(length as u64).read_to_end(&mut text)?;
        if count < length {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(serde_json::from_slice(&text)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Cursor;

    fn read(bytes: &[u8]) -> Result<Request> {
        Plain(Cursor::new(bytes.to_vec())).receive()
    }

    #[test]
    fn a_message_arrives_as_it_was_sent() {
        let mut bytes = Plain(Cursor::new(Vec::new()));
        bytes.send(&Request::Finish { number: 7, milliseconds: 20 }).unwrap();
        let bytes = bytes.0.into_inner();
        assert!(matches!(read(&bytes).unwrap(), Request::Finish { number: 7, milliseconds: 20 }));
        assert_eq!(read(&bytes[..bytes.len() - 1]).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_message_that_is_too_long_is_refused_before_it_is_read() {
        assert_eq!(read(&[0xff; 8]).unwrap_err().kind(), ErrorKind::InvalidData);
        let long = Request::Enter { namespace: "x".repeat(LONGEST as usize).into() };
        assert!(Plain(Cursor::new(Vec::new())).send(&long).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = read(&bytes);
        }
    }
}
