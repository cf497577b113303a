//! The side of the check.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use devmem_provider::{Error, ErrorKind, Result};

use super::PeerChoice;
use super::impairment::{Impaired, Impairment};
use super::key::Key;
use super::line::{Line, understood};
use super::protocol::{Request, Response};
use super::remote::Remote;
use super::script::{Script, Told};
use crate::context::Context;
use crate::verdict::Stop;

/// The role of the process that sends.
pub(crate) const PEER: &str = "peer";

/// How long others get to ask something between two questions about a script's end.
const BREATH: Duration = Duration::from_millis(1);

/// A session with a peer. It ends with the last of its scripts.
#[derive(Debug)]
pub(crate) struct Session {
    line: SharedLine,
    next: u32,
}

type SharedLine = Arc<Mutex<Line>>;

impl Session {
    /// Reaches the peer.
    ///
    /// # Errors
    ///
    /// Its process cannot be started, or may not enter the network namespace. Of another machine: it cannot be reached, or
    /// does not take this runner.
    pub(crate) fn open(context: &Context<'_>, choice: &PeerChoice) -> Result<Self> {
        Line::open(context, choice).map(Self::over)
    }

    /// The session at the other end of this line, in which nothing was asked yet.
    pub(super) fn over(line: Line) -> Self {
        Self { line: Arc::new(Mutex::new(line)), next: 0 }
    }

    /// Starts a script.
    ///
    /// # Errors
    ///
    /// The peer is gone, or has too much to do. A skip if it may not send to that address.
    pub(crate) fn start(&mut self, script: &Script) -> Result<Running, Stop> {
        let number = self.next;
        self.next += 1;
        granted(&self.line, &Request::Start { number, script: script.clone() }, "start a script")?;
        Ok(Running { line: Arc::clone(&self.line), number, has_ended: false })
    }

    /// Impairs what the peer sends from now on to this address, and to everybody else by the same device.
    ///
    /// # Errors
    ///
    /// The peer is gone. A skip if it has no privilege for that, or its kernel cannot.
    pub(crate) fn impair(&mut self, to: IpAddr, impairment: Impairment) -> Result<Impairing, Stop> {
        granted(&self.line, &Request::Impair { to, impairment }, "impair what the peer sends")?;
        Ok(Impairing { line: Arc::clone(&self.line), is_lifted: false })
    }
}

/// An impairment that is in effect. Dropping it lifts it; so does the end of the session, whatever ends it.
#[derive(Debug)]
pub(crate) struct Impairing {
    line: SharedLine,
    is_lifted: bool,
}

impl Impairing {
    /// Lifts it, and tells what it has done.
    ///
    /// # Errors
    ///
    /// The peer is gone, or somebody else has lifted it.
    pub(crate) fn lift(mut self) -> Result<Impaired> {
        self.is_lifted = true;
        match ask(&self.line, &Request::Lift, LIFT)? {
            Response::Lifted { impaired } => Ok(impaired),
            response => Err(unexpected(&response, LIFT)),
        }
    }
}

const LIFT: &str = "lift an impairment";

impl Drop for Impairing {
    fn drop(&mut self) {
        if !self.is_lifted {
            // A peer that is gone has lifted it.
            let _ = ask(&self.line, &Request::Lift, LIFT);
        }
    }
}

/// A script that is being done. Dropping it closes its connection.
#[derive(Debug)]
pub(crate) struct Running {
    line: SharedLine,
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
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let milliseconds = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
            match ask(&self.line, &Request::Finish { number: self.number, milliseconds }, FINISH)? {
                Response::Ended { told } => {
                    self.has_ended = true;
                    return Ok(told);
                }
                Response::Late if !left.is_zero() => std::thread::sleep(BREATH),
                Response::Late => {
                    return Err(Error::new(ErrorKind::Gone, FINISH)
                        .because(format!("it has not ended after {} s", limit.as_secs())));
                }
                Response::Died => {
                    self.has_ended = true;
                    return Err(Error::new(ErrorKind::Gone, FINISH)
                        .because("its thread died; what the peer printed tells why"));
                }
                response => return Err(unexpected(&response, FINISH)),
            }
        }
    }
}

const FINISH: &str = "wait for the peer's script";

impl Drop for Running {
    fn drop(&mut self) {
        if !self.has_ended {
            // A peer that is gone has closed its connections.
            let _ = ask(&self.line, &Request::Abort { number: self.number }, "end a script");
        }
    }
}

/// Begins a session with a peer of another machine, and asks whether it may send to these addresses.
pub(super) fn verify(address: &str, key: &std::path::Path, to: &[IpAddr]) -> Result<()> {
    let key = Key::read(key)?;
    let on = |error: Error| error.on(address);
    let line = Arc::new(Mutex::new(Line::There(Remote::connect(address, &key).map_err(on)?)));
    for &to in to {
        if let Response::Declined { skip } = ask(&line, &Request::Reach { to }, REACH).map_err(on)? {
            let error = Error::new(ErrorKind::PermissionDenied, REACH).on(address).because(skip.reason);
            return Err(error.remedy(format!("start it with `--to {to}`, or reach it from that address")));
        }
    }
    Ok(())
}

const REACH: &str = "have the peer send to the NIC";

fn ask(line: &SharedLine, request: &Request, operation: &'static str) -> Result<Response> {
    let mut line = line.lock().unwrap_or_else(PoisonError::into_inner);
    let response = line.ask(request).map_err(|error| Error::from_io(error, operation))?;
    understood(response, operation)
}

/// Asks for something that is done or declined.
fn granted(line: &SharedLine, request: &Request, operation: &'static str) -> Result<(), Stop> {
    match ask(line, request, operation)? {
        Response::Done => Ok(()),
        Response::Declined { skip } => Err(Stop::Skip(skip)),
        response => Err(unexpected(&response, operation).into()),
    }
}

fn unexpected(response: &Response, operation: &'static str) -> Error {
    Error::new(ErrorKind::Protocol, operation).because(format!("the peer answered {response:?}"))
}
