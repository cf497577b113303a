//! devmem TCP: the kernel's TCP receives straight into a DMA-buf (`Documentation/networking/devmem.rst`).
//!
//! A DMA-buf is bound to receive queues of a NIC ([`DevmemTcp`] is the importer, [`Binding`] the held
//! attachment). The NIC splits packets: headers go to host memory, payload to pages of the buffer. A
//! [`Stream`] yields where each piece of a connection's payload lies, and gives the pieces back.
//!
//! [`DevmemSocket`] is the layer below: the kernel's socket interface as it is, for test suites and for stacks
//! that a stream does not suit.
//!
//! In today's kernels this importer attaches without peer-to-peer; see
//! [`Pin`](devmem_provider::Pin) for what that means.

mod bind_refusal;
mod binding;
mod control_messages;
mod options;
mod parts;
mod receive_refusal;
mod socket;
mod statistics;
mod stream;
mod tokens;
mod uapi;

pub use bind_refusal::BindRefusal;
pub use binding::{Binding, DevmemTcp};
pub use control_messages::{ControlMessage, ControlMessages, Malformed};
pub use options::StreamOptions;
pub use parts::Parts;
pub use socket::{DevmemSocket, RawErrno, Received};
pub use statistics::Statistics;
pub use stream::Stream;
pub use uapi::{DmabufMessage, ETOOSMALL, MESSAGE_SPACE, RELEASE_FRAGMENTS, RELEASE_RANGES, TokenRange};
