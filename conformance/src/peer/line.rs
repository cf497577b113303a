//! What leads from a check to its peer.

use std::io;
use std::net::Shutdown;
use std::path::Path;

use devmem_provider::{Error, ErrorKind, Result};
use nix::errno::Errno;

use super::PeerChoice;
use super::key::Key;
use super::protocol::{Messages, Plain, Request, Response};
use super::remote::Remote;
use super::session::PEER;
use crate::context::Context;
use crate::isolation::Companion;

/// What leads from a check to its peer.
#[derive(Debug)]
pub(super) enum Line {
    /// A process of this machine, which ends with the line.
    Here(Companion),
    /// A peer of another machine.
    There(Remote),
}

impl Line {
    pub(super) fn open(context: &Context<'_>, choice: &PeerChoice) -> Result<Self> {
        match choice {
            PeerChoice::Namespace(namespace) => Self::here(context, namespace),
            PeerChoice::Remote { address, key } => {
                Remote::connect(address, &Key::read(key)?).map(Self::There)
            }
        }
    }

    fn here(context: &Context<'_>, namespace: &Path) -> Result<Self> {
        let companion = Companion::start_apart(context, PEER)
            .map_err(|error| Error::from_io(error, "start the process that sends"))?;
        let mut line = Self::Here(companion);
        let entered = line.ask(&Request::Enter { namespace: namespace.to_owned() });
        let entered = entered.map_err(|error| Error::from_io(error, ENTER))?;
        understood(entered, ENTER).map(|_| line).map_err(|error| {
            error
                .on(namespace.display())
                .remedy("make it with `ip netns add`, move the peer's NIC there, and run this as root")
        })
    }

    /// Asks, and waits for the answer. After an error the line is of no more use: an answer that comes late is nobody's.
    pub(super) fn ask(&mut self, request: &Request) -> io::Result<Response> {
        fn exchange(messages: &mut impl Messages, request: &Request) -> io::Result<Response> {
            messages.send(request)?;
            messages.receive()
        }
        let response = match self {
            Self::Here(companion) => exchange(&mut Plain(companion.link()), request),
            Self::There(remote) => exchange(&mut remote.messages, request),
        };
        if response.is_err() {
            self.close();
        }
        response
    }

    fn close(&self) {
        // The other side may have closed it.
        let _ = match self {
            Self::Here(companion) => companion.link().close(),
            Self::There(remote) => remote.messages.stream().stream().shutdown(Shutdown::Both),
        };
    }
}

const ENTER: &str = "enter the peer's network namespace";

/// A refusal is an error; anything else is for the caller to understand.
pub(super) fn understood(response: Response, operation: &'static str) -> Result<Response> {
    match response {
        Response::Refused { errno: Some(errno), .. } => {
            Err(Error::from_errno(Errno::from_raw(errno), operation))
        }
        Response::Refused { errno: None, text } => Err(Error::new(ErrorKind::Io, operation).because(text)),
        response => Ok(response),
    }
}
