//! The side of the check.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use devmem_provider::{Error, ErrorKind, Result};

use super::PeerChoice;
use super::protocol::{Request, Response, read, write};
use super::script::{Script, Told};
use crate::context::Context;
use crate::isolation::Companion;

/// The role of the process that sends.
pub(crate) const PEER: &str = "peer";

/// A session with a peer. It ends with the last of its scripts.
#[derive(Debug)]
pub(crate) struct Session {
    line: Line,
    next: u32,
}

/// What leads to the peer.
type Line = Arc<Mutex<Companion>>;

impl Session {
    /// Reaches the peer.
    ///
    /// # Errors
    ///
    /// Its process cannot be started, or may not enter the network namespace.
    pub(crate) fn open(context: &Context<'_>, choice: &PeerChoice) -> Result<Self> {
        let PeerChoice::Namespace(namespace) = choice;
        let companion = Companion::start(context, PEER);
        let companion = companion.map_err(|error| Error::from_io(error, "start the process that sends"))?;
        let session = Self { line: Arc::new(Mutex::new(companion)), next: 0 };
        session.enter(namespace)?;
        Ok(session)
    }

    fn enter(&self, namespace: &Path) -> Result<()> {
        let request = Request::Enter { namespace: namespace.to_owned() };
        ask(&self.line, &request, "enter the peer's network namespace").map(drop).map_err(|error| {
            error
                .on(namespace.display())
                .remedy("make it with `ip netns add`, move the peer's NIC there, and run this as root")
        })
    }

    /// Starts a script.
    ///
    /// # Errors
    ///
    /// The peer is gone, or has too much to do.
    pub(crate) fn start(&mut self, script: &Script) -> Result<Running> {
        let number = self.next;
        self.next += 1;
        ask(&self.line, &Request::Start { number, script: script.clone() }, "start a script")?;
        Ok(Running { line: Arc::clone(&self.line), number, has_ended: false })
    }
}

/// A script that is being done. Dropping it closes its connection.
#[derive(Debug)]
pub(crate) struct Running {
    line: Line,
    number: u32,
    has_ended: bool,
}

impl Running {
    /// Lets it go on behind a barrier.
    ///
    /// # Errors
    ///
    /// The peer is gone.
    pub(crate) fn proceed(&self) -> Result<()> {
        ask(&self.line, &Request::Proceed { number: self.number }, "let a script go on").map(drop)
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// It takes longer than `limit`, or the peer is gone. What goes wrong in the script itself is told.
    pub(crate) fn finish(mut self, limit: Duration) -> Result<Told> {
        let milliseconds = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        match ask(&self.line, &Request::Finish { number: self.number, milliseconds }, "wait for a script")? {
            Response::Ended { told } => {
                self.has_ended = true;
                Ok(told)
            }
            _ => Err(Error::new(ErrorKind::Gone, "wait for the peer's script")
                .because(format!("it has not ended after {} s", limit.as_secs()))),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.has_ended {
            // A peer that is gone has closed its connections.
            let _ = ask(&self.line, &Request::Abort { number: self.number }, "end a script");
        }
    }
}

fn ask(line: &Line, request: &Request, operation: &'static str) -> Result<Response> {
    let companion = line.lock().unwrap_or_else(PoisonError::into_inner);
    let link = companion.link();
    let response = write(link, request).and_then(|()| read(link));
    match response.map_err(|error| Error::from_io(error, operation))? {
        Response::Refused { errno: Some(errno), .. } => {
            Err(Error::from_errno(nix::errno::Errno::from_raw(errno), operation))
        }
        Response::Refused { errno: None, text } => Err(Error::new(ErrorKind::Io, operation).because(text)),
        response => Ok(response),
    }
}
