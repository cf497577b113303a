//! RDMA: memory regions of DMA-bufs, the importer that takes peer-to-peer addresses.
//!
//! A memory region is what an RDMA device may read and write. One of a DMA-buf is attached *with* peer-to-peer: where the
//! kernel finds a way between the two devices, memory of a GPU stays where it is, pinned in the window that peers see,
//! and the NIC is given its addresses on the bus. Where it finds none, the exporter moves the buffer to system memory
//! and the registration succeeds all the same, or it refuses; [`Pin`](devmem_provider::Pin) tells which.
//!
//! Most drivers pin: the exporter cannot move the buffer while it is registered. mlx5 follows a buffer that its exporter moves,
//! so that there it stays only as long as nothing else wants its place; a [`PinnedBuffer`](devmem_provider::PinnedBuffer)
//! looks again.
//!
//! - [`Device`]: which RDMA devices there are, by what names, with which ports and addresses.
//! - [`ProtectionDomain`] is the importer, [`MemoryRegion`] the held attachment, [`Registration`] what is registered,
//!   [`AccessFlags`] what may be done to it.
//! - [`RegistrationRefusal`]: why it was refused, with what to do.
//! - [`Events`]: what happens to the device.
//! - `verbs`: the data path, through rdma-core's library, with the cargo feature `rdma-core`.
//!
//! All of it goes through the kernel's own interface (`/dev/infiniband/uverbs*`): no library is needed, and no privilege
//! beyond that the node may be opened, which its default mode 0666 lets everybody.
//!
//! ```no_run
//! use devmem_provider::{Pin, Placement, Request, Require};
//! use devmem_receive::rdma::{AccessFlags, Device, ProtectionDomain};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let gpu = devmem_backends::discover().find("amdgpu")?;
//! let buffer = gpu.allocate(&Request::bytes(64 << 20).prefer(Placement::DeviceLocal))?;
//!
//! let access = AccessFlags::LOCAL_WRITE | AccessFlags::REMOTE_WRITE;
//! let mut domain = ProtectionDomain::open(&Device::find("efa_0")?)?.with_access(access);
//! let pin = Pin::new(&mut domain, &*buffer, Require::DeviceLocal)?;
//! println!("{pin}; remote key {:#x}", pin.remote_key());
//! # Ok(())
//! # }
//! ```

mod access;
mod context;
mod device;
mod driver_data;
mod events;
mod memory_region;
mod protection_domain;
mod refusal;
mod registration;
mod sys;
mod sysfs;
mod uapi;
#[cfg(feature = "rdma-core")]
pub mod verbs;

pub use access::AccessFlags;
pub use device::{Device, Gid, Port};
pub use events::{Event, Events};
pub use memory_region::MemoryRegion;
pub use protection_domain::ProtectionDomain;
pub use refusal::RegistrationRefusal;
pub use registration::Registration;
