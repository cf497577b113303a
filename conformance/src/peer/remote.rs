//! The runner's end of a session with a peer of another machine.

use std::io::{self, Read};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::time::Duration;

use devmem_provider::{Error, ErrorKind, Result};

use super::authentication::{Refusal, VERSION, as_runner};
use super::key::Key;
use super::paced::Paced;
use super::sealed::Sealed;

/// How long reaching the peer may take, and agreeing with it.
const REACH: Duration = Duration::from_secs(10);
const AGREE: Duration = Duration::from_secs(10);
/// How long the peer may take for an answer.
const ANSWER: Duration = Duration::from_secs(30);
/// How long it may take to end what it does.
const END: Duration = Duration::from_secs(5);

/// A session with a peer of another machine. Dropping it ends the session, and waits until the peer has ended what it did.
#[derive(Debug)]
pub(super) struct Remote {
    pub(super) messages: Sealed<Paced>,
}

impl Remote {
    /// Begins a session.
    ///
    /// # Errors
    ///
    /// The peer cannot be reached, has another key or version, or has too much to do. Where it is,
    /// is not said: it would be in reports, which are published.
    pub(super) fn connect(address: &str, key: &Key) -> Result<Self> {
        let stream = reached(address).map_err(|error| {
            Error::from_io(error, "reach the peer")
                .remedy("start `devmem-conformance peer --listen ADDRESS:PORT --key FILE` there, and let firewalls pass it")
        })?;
        let begin = || {
            let mut paced = Paced::within(stream, AGREE)?;
            let keys = as_runner(&mut paced, key)?;
            Ok::<_, Refusal>(Sealed::of_runner(paced.with_messages_within(ANSWER), &keys))
        };
        begin().map(|messages| Self { messages }).map_err(said)
    }
}

/// The first of the addresses that answers.
fn reached(address: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, REACH) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// A refusal in words.
fn said(refusal: Refusal) -> Error {
    let refused = |kind| Error::new(kind, "begin a session with the peer");
    match refusal {
        Refusal::Stranger => refused(ErrorKind::Protocol)
            .because("what answers there is no `devmem-conformance peer`, or takes no more connections of this machine")
            .remedy("name the address on which it listens"),
        Refusal::Version(version) => refused(ErrorKind::Unsupported)
            .because(format!("it speaks version {version} of the protocol, and this program version {VERSION}"))
            .remedy("install the same version of devmem-conformance on both machines"),
        Refusal::WrongKey => refused(ErrorKind::PermissionDenied)
            .because("it has another key")
            .remedy("copy the key file of one machine to the other"),
        Refusal::Full => refused(ErrorKind::Busy)
            .because("it has as many sessions as it takes")
            .remedy("wait for other runs to end"),
        Refusal::Io(error) => Error::from_io(error, "begin a session with the peer")
            .remedy("look at what `devmem-conformance peer` says there"),
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        let mut stream = self.messages.stream().stream();
        // A peer that is gone has ended what it did.
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.set_read_timeout(Some(END));
        let _ = stream.read(&mut [0]);
    }
}
