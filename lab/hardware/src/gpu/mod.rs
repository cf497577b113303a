//! Emulated GPUs: PCI functions to which the kernel's own graphics drivers bind.
//!
//! Only what the drivers and our checks need: memory and its window, page tables, copy engines, fences and
//! interrupts. No graphics, no compute. A model is one folder:
//!
//! | folder | parts | driver |
//! |---|---|---|
//! | `amd` | Southern Islands | `amdgpu` |
//! | `intel` | Tiger Lake, DG1, DG2, Battlemage | `i915`, `xe` |
//! | `nvidia` | NV44, GM107, GP107, TU117 | `nouveau` |
//! | `virtio` | virtio-gpu with host-visible memory | `virtio-gpu` |
//!
//! Adding one means writing the folder and naming its parts in [`Part`].

mod amd;
mod config;
mod driver;
mod intel;
mod nvidia;
#[cfg(test)]
mod tests;
mod virtio;

pub use config::{GpuConfig, KernelDriver, Part};
pub(crate) use driver::drivers;
pub use driver::{Driver, Firmware};

use std::io;
use std::sync::Arc;

use crate::bus::{AddressSpace, Bus};
use crate::misuse::MisuseLog;
use crate::pci::{Device, Identity, Vectors};

/// What a GPU is connected to.
pub(crate) struct Connections {
    /// The GPU's name: that of its memory in the ground truth, and in the log.
    pub(crate) name: String,
    /// What it reaches by DMA.
    pub(crate) memory: Arc<AddressSpace>,
    /// How it interrupts.
    pub(crate) vectors: Arc<Vectors>,
    /// Where its own memory comes from.
    pub(crate) bus: Arc<Bus>,
    /// What its driver does wrong.
    pub(crate) misuse: Arc<MisuseLog>,
}

/// What a GPU is for PCI.
pub(crate) fn identity(config: &GpuConfig) -> Identity {
    match config.part {
        Part::Hainan => amd::identity(config),
        Part::TigerLake | Part::Dg1 | Part::Dg2 | Part::Battlemage => intel::identity(config),
        Part::Nv44 | Part::Gm107 | Part::Gp107 | Part::Tu117 => nvidia::identity(config),
        Part::VirtioGpu => virtio::identity(config),
    }
}

/// Builds a GPU.
///
/// # Errors
/// What the system said when it refused the memory.
pub(crate) fn build(config: &GpuConfig, connections: Connections) -> io::Result<Arc<dyn Device>> {
    match config.part {
        Part::Hainan => amd::build(config, connections),
        Part::TigerLake | Part::Dg1 | Part::Dg2 | Part::Battlemage => intel::build(config, connections),
        Part::Nv44 | Part::Gm107 | Part::Gp107 | Part::Tu117 => nvidia::build(config, connections),
        Part::VirtioGpu => virtio::build(config, connections),
    }
}
