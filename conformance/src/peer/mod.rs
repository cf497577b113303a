//! The peer: the machine that sends to the NIC under test.
//!
//! It executes scripts, one for each connection, on behalf of a check, and impairs what it sends where a check asks for
//! that. It is a process of this machine, or a [`Listener`] on another one: both sides then prove to each other that
//! they have the same [`Key`].

mod authentication;
mod connecting;
mod control;
mod counts;
mod impairment;
mod key;
mod line;
mod listener;
mod paced;
mod protocol;
mod remote;
mod script;
mod scripts;
mod sealed;
mod server;
mod session;
mod steps;
mod sys;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::path::PathBuf;

pub(crate) use counts::Counts;
pub(crate) use impairment::{Impaired, Impairment};
pub use key::Key;
pub use listener::Listener;
pub(crate) use script::{Script, Step, Told, fill};
pub(crate) use server::serve;
pub(crate) use session::{PEER, Running, Session};

/// Who sends to the NIC under test.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerChoice {
    /// Another NIC of this machine, in the network namespace of this file: `/run/netns/peer`.
    Namespace(PathBuf),
    /// Another machine, on which `devmem-conformance peer` listens.
    #[non_exhaustive]
    Remote {
        /// Where: a name or an address, and a port, as in `sender:5300`.
        address: String,
        /// The file of the key that both have.
        key: PathBuf,
    },
}

impl PeerChoice {
    /// The machine on which [`Listener`] listens at this address and port, with the key of this file.
    #[must_use]
    pub fn remote(address: impl Into<String>, key: impl Into<PathBuf>) -> Self {
        Self::Remote { address: address.into(), key: key.into() }
    }

    /// Finds out whether the peer of another machine takes this runner, and may send to these addresses. One of this
    /// machine is tried by the checks.
    ///
    /// # Errors
    ///
    /// The key cannot be used; the peer cannot be reached, has another key or version, or may not send to an address.
    pub fn verify(&self, to: &[IpAddr]) -> devmem_provider::Result<()> {
        match self {
            Self::Namespace(_) => Ok(()),
            Self::Remote { address, key } => session::verify(address, key, to),
        }
    }
}
