//! A netlink client: the message layer below [`netdev`](crate::netdev) and [`ethtool`](crate::ethtool).
//!
//! It is our own because it must be trusted in details that decide whether a NIC is set up right: the
//! extended acknowledgement decoded to the message, the offending attribute by name and what is allowed;
//! `uint` attributes of any width; datagrams of any size; and dumps that were disturbed taken again.
//! Every length in a reply is checked: a malformed reply is an [`Error::Malformed`], never a panic.

mod attribute;
mod connection;
mod error;
mod extended_ack;
mod generic;
mod message;
mod names;
mod route;
mod sys;
mod traffic_control;

pub use attribute::{Attribute, AttributeIter, Attributes};
pub use error::{Error, KernelError, Malformed, Policy, Result};
pub use generic::{Generic, Notifications};
pub use names::{AttributeName, AttributeTable};
pub use route::{Link, LocalAddress, Route};
pub use traffic_control::{Netem, QueueingDiscipline, TrafficControl};
