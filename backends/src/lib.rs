//! The backends: one module and one cargo feature for each kind of device that hands out memory.
//!
//! [`discover`] lists every provider of this machine and says of each backend that found none why.
//!
//! # Adding a backend
//!
//! Write it as a module that implements [`devmem_provider::Provider`], add a feature, and name it in the
//! list [`BACKENDS`]. Nothing else knows backends by name, except that the Vulkan backend lists the kernel drivers which
//! it asks where a buffer is.

#[cfg(feature = "amdgpu")]
pub mod amdgpu;
pub mod cpu_copy;
mod discovery;
#[cfg(feature = "dma_heap")]
pub mod dma_heap;
// Each driver needs a part of it.
#[cfg(feature = "drm")]
#[cfg_attr(
    not(all(
        feature = "amdgpu",
        feature = "i915",
        feature = "nouveau",
        feature = "vgem",
        feature = "virtio_gpu",
        feature = "vulkan",
        feature = "xe"
    )),
    allow(dead_code, unused_imports)
)]
mod drm;
#[cfg(feature = "i915")]
pub mod i915;
#[cfg(feature = "nouveau")]
pub mod nouveau;
#[cfg(any(feature = "drm", feature = "dma_heap", feature = "udmabuf"))]
#[cfg_attr(not(all(feature = "drm", feature = "dma_heap", feature = "udmabuf")), allow(dead_code))]
mod system_memory;
#[cfg(feature = "udmabuf")]
pub mod udmabuf;
#[cfg(feature = "vgem")]
pub mod vgem;
#[cfg(feature = "virtio_gpu")]
pub mod virtio_gpu;
#[cfg(feature = "vulkan")]
pub mod vulkan;
#[cfg(feature = "xe")]
pub mod xe;

pub use discovery::{BACKENDS, Backend, Discovery, Unavailable, discover, find};
