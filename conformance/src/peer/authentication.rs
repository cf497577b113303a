//! How a runner and a peer prove to each other that they have the same key, and agree on keys for the session.
//!
//! | who | sends |
//! |---|---|
//! | runner | greeting: 16 bytes that name the protocol, its version, 32 random bytes |
//! | peer | greeting |
//! | runner | HMAC-SHA-256 over both greetings, with the key |
//! | peer | how it takes that, one byte; likewise an HMAC, of another use |
//!
//! The peer proves nothing before the runner has, so that strangers get nothing to try keys on. Everything that is
//! derived depends on the random bytes of both, so that nothing of another session is of use.

use std::io::{self, ErrorKind, Read, Write};

use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::key::Key;

/// The version of what is said; raised with every change of a message.
pub(super) const VERSION: u32 = 1;

const NAME: [u8; 16] = *b"devmem peer\r\n\0\x1a\xff";
const RANDOM: usize = 32;
const GREETING: usize = NAME.len() + 4 + RANDOM;
pub(super) const PROOF: usize = 32;

/// How the peer takes a runner's proof.
const WELCOME: u8 = 0;
const WRONG_KEY: u8 = 1;
const FULL: u8 = 2;

/// Why there is no session.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The other side speaks something else.
    Stranger,
    /// It speaks this version.
    Version(u32),
    /// The other side has another key.
    WrongKey,
    /// The peer has as many sessions as it takes.
    Full,
    Io(io::Error),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The keys of a session, one for each direction.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Keys {
    pub(super) from_runner: [u8; PROOF],
    pub(super) from_peer: [u8; PROOF],
}

/// What both sides derive from the key and both greetings.
struct Secret([u8; PROOF]);

impl Secret {
    fn new(key: &Key, of_runner: &[u8; GREETING], of_peer: &[u8; GREETING]) -> Self {
        let mut mac = keyed(key.bytes());
        mac.update(of_runner);
        mac.update(of_peer);
        Self(mac.finalize().into_bytes().into())
    }

    fn derive(&self, purpose: &str) -> Hmac<Sha256> {
        let mut mac = keyed(&self.0);
        mac.update(purpose.as_bytes());
        mac
    }

    fn of_runner(&self) -> Hmac<Sha256> {
        self.derive("the runner has the key")
    }

    fn of_peer(&self) -> Hmac<Sha256> {
        self.derive("the peer has the key")
    }

    fn keys(&self) -> Keys {
        let bytes = |purpose| self.derive(purpose).finalize().into_bytes().into();
        Keys { from_runner: bytes("from the runner"), from_peer: bytes("from the peer") }
    }
}

/// HMAC with a key, which may have any length.
pub(super) fn keyed(key: &[u8]) -> Hmac<Sha256> {
    let Ok(mac) = Hmac::new_from_slice(key) else { unreachable!("HMAC takes keys of any length") };
    mac
}

fn greeting(version: u32) -> io::Result<[u8; GREETING]> {
    let mut greeting = [0; GREETING];
    let (name, rest) = greeting.split_at_mut(NAME.len());
    name.copy_from_slice(&NAME);
    let (number, random) = rest.split_at_mut(4);
    number.copy_from_slice(&version.to_le_bytes());
    getrandom::fill(random).map_err(io::Error::other)?;
    Ok(greeting)
}

/// The version that the other side speaks.
fn version(greeting: &[u8; GREETING]) -> Result<u32, Refusal> {
    let (name, rest) = greeting.split_at(NAME.len());
    match rest.first_chunk() {
        Some(&number) if name == NAME => Ok(u32::from_le_bytes(number)),
        _ => Err(Refusal::Stranger),
    }
}

/// The runner's side.
pub(super) fn as_runner(mut stream: impl Read + Write, key: &Key) -> Result<Keys, Refusal> {
    let own = greeting(VERSION)?;
    stream.write_all(&own)?;
    let mut other = [0; GREETING];
    // What is no peer may answer with less, or with nothing.
    stream.read_exact(&mut other).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset => Refusal::Stranger,
        _ => Refusal::Io(error),
    })?;
    match version(&other)? {
        VERSION => {}
        version => return Err(Refusal::Version(version)),
    }
    let secret = Secret::new(key, &own, &other);
    stream.write_all(&secret.of_runner().finalize().into_bytes())?;
    let mut answer = [0; 1 + PROOF];
    stream.read_exact(&mut answer)?;
    let [answer, proof @ ..] = answer;
    match answer {
        WELCOME if secret.of_peer().verify_slice(&proof).is_ok() => Ok(secret.keys()),
        FULL => Err(Refusal::Full),
        // Or it says that it has the key, and does not.
        WELCOME | WRONG_KEY => Err(Refusal::WrongKey),
        _ => Err(Refusal::Stranger),
    }
}

/// The peer's side. `admit` is asked once the runner is known to have the key.
pub(super) fn as_peer<T>(
    mut stream: impl Read + Write,
    key: &Key,
    admit: impl FnOnce() -> Option<T>,
) -> Result<(Keys, T), Refusal> {
    let mut other = [0; GREETING];
    stream.read_exact(&mut other)?;
    let version = version(&other)?;
    let own = greeting(VERSION)?;
    stream.write_all(&own)?;
    if version != VERSION {
        return Err(Refusal::Version(version));
    }
    let secret = Secret::new(key, &other, &own);
    let mut proof = [0; PROOF];
    stream.read_exact(&mut proof)?;
    let mut answer = [0; 1 + PROOF];
    let (admitted, refusal) = match secret.of_runner().verify_slice(&proof) {
        Ok(()) => (admit(), Refusal::Full),
        Err(_) => (None, Refusal::WrongKey),
    };
    answer[0] = match (&admitted, &refusal) {
        (Some(_), _) => WELCOME,
        (None, Refusal::Full) => FULL,
        _ => WRONG_KEY,
    };
    if admitted.is_some() {
        answer[1..].copy_from_slice(&secret.of_peer().finalize().into_bytes());
    }
    stream.write_all(&answer)?;
    admitted.map(|admitted| (secret.keys(), admitted)).ok_or(refusal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Cursor;
    use std::net::{TcpListener, TcpStream};

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let runner = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (runner, listener.accept().unwrap().0)
    }

    type Both = (Result<Keys, Refusal>, Result<(Keys, ()), Refusal>);

    fn both(of_runner: u8, of_peer: u8, admits: bool) -> Both {
        let (runner, peer) = pair();
        std::thread::scope(|scope| {
            let peer = scope.spawn(move || as_peer(&peer, &Key::of_test(of_peer), || admits.then_some(())));
            let runner = as_runner(&runner, &Key::of_test(of_runner));
            (runner, peer.join().unwrap())
        })
    }

    #[test]
    fn the_same_key_makes_the_same_keys_and_new_ones_each_time() {
        let (Ok(runner), Ok((peer, ()))) = both(1, 1, true) else { panic!("refused") };
        assert!(runner == peer);
        assert_ne!(runner.from_peer, runner.from_runner);
        let (Ok(again), _) = both(1, 1, true) else { panic!("refused") };
        assert!(again != runner);
    }

    #[test]
    fn another_key_is_refused_on_both_sides() {
        let (runner, peer) = both(1, 2, true);
        assert!(matches!(runner, Err(Refusal::WrongKey)), "{:?}", runner.err());
        assert!(matches!(peer, Err(Refusal::WrongKey)), "{:?}", peer.err());
    }

    #[test]
    fn a_peer_that_takes_no_more_says_so() {
        let (runner, peer) = both(1, 1, false);
        assert!(matches!(runner, Err(Refusal::Full)) && matches!(peer, Err(Refusal::Full)));
    }

    #[test]
    fn another_version_is_told_to_both_sides() {
        let (mut runner, peer) = pair();
        let thread = std::thread::spawn(move || as_peer(&peer, &Key::of_test(1), || Some(())));
        runner.write_all(&greeting(VERSION + 1).unwrap()).unwrap();
        let mut other = [0; GREETING];
        runner.read_exact(&mut other).unwrap();
        assert!(matches!(version(&other), Ok(VERSION)));
        assert!(matches!(thread.join().unwrap(), Err(Refusal::Version(version)) if version == VERSION + 1));

        let (runner, mut peer) = pair();
        let thread = std::thread::spawn(move || as_runner(&runner, &Key::of_test(1)));
        peer.write_all(&greeting(7).unwrap()).unwrap();
        assert!(matches!(thread.join().unwrap(), Err(Refusal::Version(7))));
    }

    /// One who has heard a session says the runner's part again.
    #[test]
    fn a_session_that_was_heard_is_of_no_use() {
        let (runner, peer) = pair();
        let mut heard = Vec::new();
        std::thread::scope(|scope| {
            let peer = scope.spawn(|| as_peer(&peer, &Key::of_test(1), || Some(())));
            let mut listening = Listening { stream: &runner, heard: &mut heard };
            as_runner(&mut listening, &Key::of_test(1)).unwrap();
            peer.join().unwrap().unwrap();
        });
        let (mut runner, peer) = pair();
        let thread = std::thread::spawn(move || as_peer(&peer, &Key::of_test(1), || Some(())));
        runner.write_all(&heard).unwrap();
        assert!(matches!(thread.join().unwrap(), Err(Refusal::WrongKey)));
    }

    /// One who says back what the runner says.
    #[test]
    fn a_mirror_is_no_peer() {
        let (runner, mut mirror) = pair();
        let thread = std::thread::spawn(move || as_runner(&runner, &Key::of_test(1)));
        let (mut greeting, mut proof) = ([0; GREETING], [0; PROOF]);
        mirror.read_exact(&mut greeting).unwrap();
        mirror.write_all(&greeting).unwrap();
        mirror.read_exact(&mut proof).unwrap();
        mirror.write_all(&[&[WELCOME][..], &proof].concat()).unwrap();
        assert!(matches!(thread.join().unwrap(), Err(Refusal::WrongKey)));
    }

    struct Listening<'a> {
        stream: &'a TcpStream,
        heard: &'a mut Vec<u8>,
    }

    impl Read for Listening<'_> {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            self.stream.read(bytes)
        }
    }

    impl Write for Listening<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let length = self.stream.write(bytes)?;
            self.heard.extend(&bytes[..length]);
            Ok(length)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What arrives is given, and what is sent is thrown away.
    struct Scripted(Cursor<Vec<u8>>);

    impl Read for Scripted {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            self.0.read(bytes)
        }
    }

    impl Write for Scripted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..120), named: bool) {
            let mut bytes = bytes;
            if named {
                let known = greeting(VERSION).unwrap();
                bytes.splice(..0, known);
            }
            let key = Key::of_test(1);
            prop_assert!(as_peer(Scripted(Cursor::new(bytes.clone())), &key, || Some(())).is_err());
            prop_assert!(as_runner(Scripted(Cursor::new(bytes)), &key).is_err());
        }
    }
}
