//! Messages that nobody on the way can change, repeat, leave out or invent.
//!
//! Each is its length, four bytes in little-endian order, the message, and an HMAC-SHA-256 with the session's key for the
//! direction, over the number of the message, its length and itself. They can be read on the way: nothing in them
//! is secret.

use std::io::{Error, ErrorKind, Read, Result, Write};

use hmac::{Hmac, Mac};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::Sha256;

use super::authentication::{Keys, PROOF, keyed};
use super::protocol::{Messages, encoded, length};

/// One direction of a session.
struct Seal {
    key: [u8; PROOF],
    /// The number of the next message.
    next: u64,
}

impl Seal {
    fn new(key: [u8; PROOF]) -> Self {
        Self { key, next: 0 }
    }

    fn of_next(&mut self, text: &[u8]) -> Hmac<Sha256> {
        let mut mac = keyed(&self.key);
        mac.update(&self.next.to_le_bytes());
        mac.update(&(text.len() as u64).to_le_bytes());
        mac.update(text);
        self.next += 1;
        mac
    }
}

/// What carries sealed messages of a session.
pub(super) struct Sealed<S> {
    stream: S,
    outgoing: Seal,
    incoming: Seal,
}

impl<S> Sealed<S> {
    pub(super) fn of_runner(stream: S, keys: &Keys) -> Self {
        Self { stream, outgoing: Seal::new(keys.from_runner), incoming: Seal::new(keys.from_peer) }
    }

    pub(super) fn of_peer(stream: S, keys: &Keys) -> Self {
        Self { stream, outgoing: Seal::new(keys.from_peer), incoming: Seal::new(keys.from_runner) }
    }

    pub(super) fn stream(&self) -> &S {
        &self.stream
    }
}

impl<S> std::fmt::Debug for Sealed<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealed")
    }
}

impl<S: Read + Write> Messages for Sealed<S> {
    fn send(&mut self, message: &impl Serialize) -> Result<()> {
        let (length, text) = encoded(message)?;
        let seal = self.outgoing.of_next(&text).finalize().into_bytes();
        self.stream.write_all(&[&length.to_le_bytes()[..], &text, &seal].concat())
    }

    fn receive<M: DeserializeOwned>(&mut self) -> Result<M> {
        let mut bytes = [0; 4];
        self.stream.read_exact(&mut bytes)?;
        let mut text = vec![0; length(bytes)?];
        let mut seal = [0; PROOF];
        self.stream.read_exact(&mut text)?;
        self.stream.read_exact(&mut seal)?;
        if self.incoming.of_next(&text).verify_slice(&seal).is_err() {
            return Err(Error::new(ErrorKind::InvalidData, "a message that somebody has changed on the way"));
        }
        Ok(serde_json::from_slice(&text)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::protocol::Request;
    use proptest::prelude::*;
    use std::io::Cursor;

    const KEYS: Keys = Keys { from_runner: [1; PROOF], from_peer: [2; PROOF] };

    /// What a runner sends.
    fn sent(requests: &[Request]) -> Vec<u8> {
        let mut runner = Sealed::of_runner(Cursor::new(Vec::new()), &KEYS);
        requests.iter().for_each(|request| runner.send(request).unwrap());
        runner.stream.into_inner()
    }

    fn peer(bytes: &[u8]) -> Sealed<Cursor<Vec<u8>>> {
        Sealed::of_peer(Cursor::new(bytes.to_vec()), &KEYS)
    }

    fn received(bytes: &[u8]) -> Result<Request> {
        peer(bytes).receive()
    }

    const fn proceed(number: u32) -> Request {
        Request::Proceed { number }
    }

    #[test]
    fn messages_arrive_as_they_were_sent() {
        let mut peer = peer(&sent(&[proceed(1), proceed(2)]));
        for expected in [1, 2] {
            assert!(matches!(peer.receive().unwrap(), Request::Proceed { number } if number == expected));
        }
        let end = peer.receive::<Request>().unwrap_err();
        assert_eq!(end.kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_message_that_is_said_again_is_refused() {
        let once = sent(&[proceed(1)]);
        let mut peer = peer(&[&once[..], &once].concat());
        peer.receive::<Request>().unwrap();
        assert_eq!(peer.receive::<Request>().unwrap_err().kind(), ErrorKind::InvalidData);
    }

    #[test]
    fn a_message_that_was_left_out_is_missed() {
        let (first, both) = (sent(&[proceed(1)]), sent(&[proceed(1), proceed(2)]));
        assert_eq!(received(&both[first.len()..]).unwrap_err().kind(), ErrorKind::InvalidData);
    }

    #[test]
    fn what_the_peer_said_is_not_what_the_runner_says() {
        let mut other = Sealed::of_peer(Cursor::new(Vec::new()), &KEYS);
        other.send(&proceed(1)).unwrap();
        assert_eq!(received(&other.stream.into_inner()).unwrap_err().kind(), ErrorKind::InvalidData);
    }

    #[test]
    fn a_message_that_is_cut_off_is_none() {
        let whole = sent(&[proceed(1)]);
        for length in 0..whole.len() {
            assert_eq!(received(&whole[..length]).unwrap_err().kind(), ErrorKind::UnexpectedEof, "{length}");
        }
    }

    #[test]
    fn a_length_without_bounds_is_refused_before_anything_is_read() {
        assert_eq!(received(&[0xff; 8]).unwrap_err().kind(), ErrorKind::InvalidData);
    }

    proptest! {
        #[test]
        fn a_changed_bit_is_seen(at: proptest::sample::Index, bit in 0..8_u32) {
            let mut bytes = sent(&[proceed(1)]);
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            prop_assert!(received(&bytes).is_err());
        }

        #[test]
        fn any_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(received(&bytes).is_err());
        }
    }
}
