//! A NIC made ready to receive into device memory, and put back exactly as it was.
//!
//! [`Nic::prepare`] is a transaction. It takes the NIC for itself, takes a [`Snapshot`] of every setting that
//! it may touch, and then changes features, channels, receive rings, header split, RSS and flow rules in the
//! order that the kernel wants. [`Prepared::restore`], dropping it, or an error midway undo the changes in
//! reverse.
//! [`Prepared::adjust`] makes changes beyond that, which are undone with the others.
//! Each change is written to a journal file before it is made, so that after a kill [`restore`], or the next
//! `prepare`, undoes what was left behind. [`restore_on_signals`] undoes on SIGINT, SIGTERM and SIGHUP.
//!
//! Locks and journals live in `/run/devmem`, or in `$XDG_RUNTIME_DIR/devmem` for those who may not write
//! there, or in `$DEVMEM_STATE_DIR`. Users of different folders do not see each other's locks.

mod adjustment;
mod apply;
mod capability;
mod change;
mod device;
mod identity;
mod journal;
mod link;
mod lock;
mod occupancy;
mod plan;
mod prepared;
mod receive_rings;
mod report;
mod restore;
mod signals;
mod snapshot;
mod state_directory;
mod steering;
mod sys;
mod transaction;

pub use adjustment::Adjustment;
pub use capability::{Capabilities, Capability, Support};
pub use device::Nic;
pub use identity::{Identity, MacAddress, Selector};
pub use occupancy::Occupancy;
pub use plan::{Flow, Plan, Queues};
pub use prepared::Prepared;
pub use report::{Report, Step};
pub use restore::{restore, restore_all};
pub use signals::restore_on_signals;
pub use snapshot::{FieldDifference, Ipv6Address, Snapshot};
