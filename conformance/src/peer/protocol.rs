//! What a check and its peer say to each other: each message is its length, four bytes in little-endian order, and JSON.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::script::{Script, Told};

/// No message is longer, in bytes.
const LONGEST: u32 = 1 << 20;

/// What the check asks for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub(super) enum Request {
    /// Goes into a network namespace.
    Enter { namespace: PathBuf },
    /// Starts a script; the number names it from now on.
    Start { number: u32, script: Script },
    /// Lets a script go on behind a barrier.
    Proceed { number: u32 },
    /// Waits for the end of a script.
    Finish { number: u32, milliseconds: u64 },
    /// Closes a script's connection, wherever it is.
    Abort { number: u32 },
}

/// What the peer answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub(super) enum Response {
    Done,
    Ended {
        told: Told,
    },
    /// The script has not come to its end in time.
    Late,
    Refused {
        errno: Option<i32>,
        text: String,
    },
}

pub(super) fn write(mut to: impl Write, message: &impl Serialize) -> Result<()> {
    let text = serde_json::to_vec(message)?;
    let length = u32::try_from(text.len()).ok().filter(|&length| length <= LONGEST);
    let length = length.ok_or_else(|| Error::new(ErrorKind::InvalidInput, "the message is too long"))?;
    let mut frame = length.to_le_bytes().to_vec();
    frame.extend(text);
    to.write_all(&frame)
}

pub(super) fn read<M: DeserializeOwned>(mut from: impl Read) -> Result<M> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    if length > LONGEST {
        return Err(Error::new(ErrorKind::InvalidData, format!("a message of {length} bytes")));
    }
    let mut text = Vec::new();
    let count = from.take(length.into()).read_to_end(&mut text)?;
    if count < length as usize {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&text)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_message_arrives_as_it_was_sent() {
        let mut bytes = Vec::new();
        write(&mut bytes, &Request::Finish { number: 7, milliseconds: 20 }).unwrap();
        assert!(matches!(read(&*bytes).unwrap(), Request::Finish { number: 7, milliseconds: 20 }));
        assert!(read::<Request>(&bytes[..bytes.len() - 1]).is_err());
    }

    #[test]
    fn a_message_that_is_too_long_is_refused_before_it_is_read() {
        assert_eq!(read::<Request>(&[0xff; 8][..]).unwrap_err().kind(), ErrorKind::InvalidData);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = read::<Request>(&*bytes);
        }
    }
}
