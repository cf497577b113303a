//! The peer: the machine that sends to the NIC under test.
//!
//! It executes scripts, one for each connection, on behalf of a check.

mod protocol;
mod script;
mod server;
mod session;

use std::path::PathBuf;

pub(crate) use script::{Script, Step, fill};
pub(crate) use server::serve;
pub(crate) use session::{PEER, Running, Session};

/// Who sends to the NIC under test.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerChoice {
    /// Another NIC of this machine, in the network namespace of this file: `/run/netns/peer`.
    Namespace(PathBuf),
}
