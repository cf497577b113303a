//! The machine that a provider is checked on, as far as the caller has to tell.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use devmem_provider::Result;

use crate::isolation::Assignment;
use crate::nic_under_test::{Family, NicUnderTest};
use crate::path::{self, ReceivePath};
use crate::peer::PeerChoice;
use crate::rdma_device::RdmaDevice;

/// The machine around a provider.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Environment {
    /// The size of a buffer where none matters, in bytes.
    pub buffer_bytes: u64,
    /// The arguments with which this program, started again, calls [`run`](crate::run) again. Every check runs in a
    /// process of its own that gets there the same way.
    pub arguments: Vec<OsString>,
    /// No check may take longer, whatever it says itself.
    pub limit: Option<Duration>,
    /// Checks that one of these means alone, see [`Check::is_meant_by`](crate::Check::is_meant_by); all if there is none.
    pub filters: Vec<String>,
    /// Every `count`-th check alone, from the `index`-th on: to divide a run among machines.
    pub shard: Option<Shard>,
    /// The NIC whose receive paths are checked; without one, the provider alone is.
    pub nic: Option<NicUnderTest>,
    /// The RDMA device on which memory regions are checked.
    pub rdma: Option<Arc<dyn RdmaDevice>>,
    /// Who sends to it; without a peer nothing is received.
    pub peer: Option<PeerChoice>,
    /// Whether checks may take devices away from the machine and bring them back: what else uses these devices is
    /// disturbed.
    pub disruptive: bool,
    /// The receive paths: all of them if nothing else is said. Checks of one that the kernel lacks are skipped.
    pub paths: Vec<Arc<dyn ReceivePath>>,
}

/// A part of the checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// Which part, from 0.
    pub index: usize,
    /// How many there are.
    pub count: usize,
}

impl Default for Environment {
    /// This program with its own arguments, all checks.
    fn default() -> Self {
        Self {
            buffer_bytes: 1 << 20,
            arguments: std::env::args_os().skip(1).collect(),
            limit: None,
            filters: Vec::new(),
            shard: None,
            nic: None,
            rdma: None,
            peer: None,
            disruptive: false,
            paths: path::all(),
        }
    }
}

impl Environment {
    /// Finds out whether the peer of another machine takes this runner and may send to the NIC, before any check is done.
    /// Does nothing in a process that was started for a check, and with no such peer.
    ///
    /// # Errors
    ///
    /// The NIC has no address of IPv4, or what [`PeerChoice::verify`] returns.
    pub fn verify_peer(&self) -> Result<()> {
        let (Some(peer), Some(nic), None) = (&self.peer, &self.nic, Assignment::of_this_process()) else {
            return Ok(());
        };
        match peer {
            PeerChoice::Namespace(_) => Ok(()),
            PeerChoice::Remote { .. } => peer.verify(&[nic.address(&nic.open()?, Family::V4)?]),
        }
    }
}
