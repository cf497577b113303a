//! io_uring zero-copy receive: the second receive path (`Documentation/networking/iou-zcrx.rst` in the kernel).
//!
//! A receive queue of a NIC is registered with an area, a DMA-buf or host memory ([`Zcrx`] is the importer,
//! [`Binding`] the held attachment). As with [devmem TCP](crate::devmem), headers go to host memory and payload to
//! the area. A [`Stream`] yields where each piece of a connection's payload lies; a [`Receiver`] does so for many
//! connections with one ring. What is given back goes into a ring that the kernel reads by itself, so that it takes
//! no system call.
//!
//! It takes the same of a NIC as devmem TCP, and the same set-up ([`Nic::prepare`](crate::nic::Nic::prepare)).
//! What differs for its user:
//!
//! | | devmem TCP | zero-copy receive |
//! |---|---|---|
//! | privilege | `CAP_NET_ADMIN` in the user namespace of the network namespace | `CAP_NET_ADMIN` on the host |
//! | queues for a buffer | any number | one |
//! | payload that arrived in host memory | comes in the stream | ends a stream into a DMA-buf with [`LinearData`]; is copied into host memory |
//! | giving back | a system call for up to 1024 fragments | none |
//! | threads | any | one for a stream |
//! | the binding ends | streams go on with what they have | streams end |
//! | size of a fragment | up to a page | up to a receive buffer, which some drivers make larger |
//!
//! [`capabilities`] tells what this kernel can do, without privilege.
//!
//! The kernel closes a ring in the background, and interrupts for that the threads that have used it
//! (`io_ring_exit_work()` in `io_uring/io_uring.c`): what one of them does on a socket with a time limit meanwhile may
//! end with `EINTR`, without any signal. That is so after streams, bindings and [`capabilities`].

mod binding;
mod capability;
mod connection;
mod engine;
mod events;
mod held;
mod host_memory;
mod live;
mod parts;
mod queue;
mod raw_registration;
mod receiver;
mod refill;
mod refill_queue;
mod refill_region;
mod refusal;
mod ring;
mod slot;
mod stream;
mod sys;
mod uapi;

pub use binding::{Binding, Zcrx};
pub use capability::{Capabilities, capabilities};
pub use connection::LinearData;
pub use events::Event;
pub use host_memory::HostMemory;
pub(crate) use live::{refuse_queues, release_all_queues};
pub use parts::Parts;
pub use raw_registration::{RawRegistration, RawRingKind};
pub use receiver::{Batch, ConnectionNumber, Receiver};
pub use stream::Stream;
pub use uapi::{CopyStatistics, RefillEntry};
