//! What a provider of device memory is.
//!
//! A [`Provider`] is a device that can hand out memory. It allocates a [`Buffer`]; the buffer exports
//! itself as a [`DmaBuf`], a file descriptor; an [`Importer`] (queues of a NIC, an io_uring area, an RDMA
//! protection domain) attaches to it; the held attachment is a [`Pin`], which knows where the pages were
//! before and after. A [`Forecast`] tells before an attachment what it would do to the buffer, and a [`PinnedBuffer`]
//! keeps pin and buffer together for as long as they are needed. Nothing here knows any driver or any NIC.
//!
//! ```text
//! Provider ─allocate→ Buffer ─export→ DmaBuf ─attach→ Pin
//! ```
//!
//! # For those who use memory
//!
//! Get providers from `devmem-backends` (or from another crate that implements the traits), hand buffers
//! to importers from `devmem-receive`. Errors say what was tried on what, what the kernel said and what to
//! do; match on [`Error::kind`].
//!
//! # For those who write a backend
//!
//! Read the contract of [`Provider`], and `docs/adding-a-backend.md`, which writes one step by step.

pub mod device_copy;
pub mod dma_buf;
mod error;
mod extent;
mod forecast;
mod heap;
mod identity;
mod importer;
mod pci;
mod pin;
mod provider;
mod request;
mod residency;
mod sharing;
pub mod topology;

pub use device_copy::{DeviceCopy, Gather};
pub use dma_buf::DmaBuf;
pub use error::{Error, ErrorKind, Result};
pub use extent::Extent;
pub use forecast::{Agreement, Effect, Forecast};
pub use heap::{Heap, Placement};
pub use identity::{DeviceKind, Identity};
pub use importer::{Attachment, DynImporter, Importer, PeerToPeer};
pub use pci::PciAddress;
pub use pin::{Change, Pin, PinnedBuffer, Require};
pub use provider::{Buffer, Capabilities, Provider};
pub use request::{PageSize, Request, base_page_size};
pub use residency::{Residency, ResidencyEvidence};
pub use sharing::{Reaction, Sharing};
