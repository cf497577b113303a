//! The kernel's ethtool interface: rings, channels, features, RSS and flow rules of network devices.
//!
//! Most of it is netlink. Flow rules exist only behind `ioctl`, as do RSS changes before Linux 6.17.

mod channels;
mod driver;
mod features;
mod flow_rule;
pub mod ioctl_uapi;
mod rings;
mod rss;
mod sys;
pub mod uapi;

use crate::netlink::{Attributes, Generic, Result};
pub use channels::{ChannelCounts, Channels};
pub use driver::Driver;
pub use features::{Feature, Features};
pub use flow_rule::{FlowRule, FlowRuleAction, MaskedPort, RuleTable, TcpMatch};
pub use ioctl_uapi::{DISCARD, FLOW_RSS, LOCATION_ANY};
pub use rings::{DataSplit, Rings, RingsUpdate};
pub use rss::{DEFAULT_CONTEXT, Rss};

/// Both ways to the kernel's ethtool interface, in the network namespace that it was opened in.
#[derive(Debug)]
pub struct Ethtool {
    family: Generic,
    control: sys::Control,
}

impl Ethtool {
    /// Opens the sockets.
    ///
    /// # Errors
    /// No socket is to be had, or the kernel (before 5.6) has no such family.
    pub fn open() -> Result<Self> {
        Ok(Self { family: Generic::open(uapi::FAMILY)?, control: sys::Control::open()? })
    }
}

/// A request about one interface, to which its attributes are added.
fn about(ifindex: u32) -> Attributes {
    Attributes::new().nest(uapi::HEADER, Attributes::new().u32(uapi::header::DEV_INDEX, ifindex))
}
