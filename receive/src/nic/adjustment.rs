//! Changes beyond a plan.

use devmem_provider::{Error, ErrorKind, Result};

use super::change::Change;
use super::device::Nic;
use super::transaction::Transaction;
use crate::ethtool::ChannelCounts;

/// One change to a prepared NIC beyond its plan, for tests of what a NIC does under other settings.
///
/// Made by [`Prepared::adjust`](super::Prepared::adjust) and undone like all others.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Adjustment {
    /// The greatest packet, in bytes. Below 1280 the interface loses IPv6; the addresses that somebody gave it
    /// are put back.
    Mtu(u32),
    /// The interface set up or down. An interface that was down has its IPv6 addresses put back as well; routes
    /// that somebody made by hand are not, so have none on a NIC under test.
    Link {
        /// Whether it shall be up.
        up: bool,
    },
    /// An offload.
    Feature {
        /// The kernel's name for it, such as `rx-gro-hw`.
        name: String,
        /// Whether it shall be on.
        on: bool,
    },
    /// How many queues there are.
    Channels(ChannelCounts),
    /// The entries of each receive ring.
    ReceiveRings(u32),
}

impl From<Adjustment> for Change {
    fn from(adjustment: Adjustment) -> Self {
        match adjustment {
            Adjustment::Mtu(bytes) => Self::Mtu { bytes },
            Adjustment::Link { up } => Self::Link { up },
            Adjustment::Feature { name, on } => Self::Feature { name, on },
            Adjustment::Channels(counts) => Self::Channels { counts },
            Adjustment::ReceiveRings(entries) => Self::ReceiveRingEntries { entries },
        }
    }
}

pub(super) fn adjust(nic: &Nic, transaction: &mut Transaction, adjustment: Adjustment) -> Result<()> {
    match adjustment {
        Adjustment::Feature { name, on } => set_feature(nic, transaction, &name, on),
        adjustment => transaction.must_make(adjustment.into()),
    }
}

/// Turns a feature on or off, and looks whether the driver did it.
pub(super) fn set_feature(nic: &Nic, transaction: &mut Transaction, name: &str, on: bool) -> Result<()> {
    let change = Change::Feature { name: name.to_owned(), on };
    let operation = change.to_string();
    transaction.must_make(change)?;
    let features = nic.ethtool().features(nic.ifindex());
    let features = features.map_err(|error| error.during("read the features").on(nic))?;
    if features.get(name).is_some_and(|feature| feature.active == on) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Unsupported, operation)
        .on(nic)
        .because(format!("the driver keeps it {}", if on { "off" } else { "on" }))
        .remedy("look for its reason in the kernel log"))
}
