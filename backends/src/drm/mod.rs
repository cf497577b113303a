//! What the GPU backends share: DRM devices, their nodes and generic ioctls, and providers made of GEM buffers.
//!
//! A backend implements [`Driver`]: what its driver's own ioctls say and do. `Gpu` makes a
//! [`Provider`](devmem_provider::Provider) of it: it resolves placements, judges sizes, counts on no silent
//! fallback, exports, and looks at residency.
//!
//! # Residency
//!
//! Drivers print, in the fdinfo of a DRM file, the memory of the buffers that this file has a handle of, by region
//! (`Documentation/gpu/drm-usage-stats.rst`). To attribute memory to one buffer, the buffer is imported into a
//! second DRM file of the same device, the *witness*, that holds nothing else, and the fdinfo before and after is
//! compared. Importing moves nothing, and costs system calls only when somebody asks.
//!
//! Buffers that another interface made on a device ([`Adopter`]) are looked at in the same way.
//!
//! # Runtime power management
//!
//! An open DRM file keeps no GPU awake: drivers take a reference for the length of an ioctl and suspend the device
//! after a delay (amdgpu: 5 seconds). amdgpu decides by that state whether an attachment may be peer-to-peer
//! (`amdgpu_dma_buf_attach()` asks `pm_runtime_get_if_active()`), and then holds the device for as long as the
//! attachment lasts. See [`power`].

mod adopted;
mod buffer;
mod device;
mod discovery;
mod errors;
mod fdinfo;
mod file;
mod gpu;
#[cfg(test)]
pub(crate) mod headers;
pub(crate) mod ioctl;
mod memory;
mod nodes;
mod pci_function;
mod pci_names;
mod placement;
mod power;
mod sys;
mod witness;

pub(crate) use adopted::{Adopter, adopter};
pub(crate) use buffer::{GemBuffer, judge_buffer};
pub(crate) use device::Device;
pub(crate) use discovery::{describe, discover};
pub(crate) use file::{DrmFile, repeat};
pub(crate) use gpu::{Driver, refuse_fallback};
pub(crate) use memory::{BarrierPage, View};
pub(crate) use nodes::{Nodes, find_by_number, find_by_pci};
pub(crate) use placement::{Target, resolve};
