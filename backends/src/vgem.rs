//! vgem: a DRM device without hardware, whose buffers lie in system memory (`drivers/gpu/drm/vgem`).
//!
//! It serves tests of what attaches to the DMA-buf of a DRM driver: its PRIME export is the one that most GPU drivers
//! share. Buffers are dumb buffers of the primary node, the only kind that the driver makes.

use std::sync::Arc;

use devmem_provider::{
    Capabilities, DeviceKind, Heap, Provider, Reaction, ResidencyEvidence, Result, Sharing, base_page_size,
};

use crate::drm::{self, Device, Driver, GemBuffer, Nodes, Target};
use crate::system_memory::{SystemBudget, always_system};

/// The backend's name.
pub const NAME: &str = "vgem";

/// Finds the device.
///
/// # Errors
///
/// Why this machine has none that works.
pub fn discover() -> Result<Vec<Arc<dyn Provider>>> {
    drm::discover::<Vgem>()
}

#[derive(Debug)]
struct Vgem {
    memory: SystemBudget,
    heap: Heap,
}

impl Driver for Vgem {
    const BACKEND: &'static str = NAME;
    const DRIVER: &'static str = "vgem";

    fn open(nodes: &Nodes) -> Result<(Device, Self)> {
        let memory = SystemBudget::open()?;
        let heap = memory.now()?.heap("shmem", base_page_size(), None);
        Ok((Device::open_primary(nodes)?, Self { memory, heap }))
    }

    fn kind(&self) -> DeviceKind {
        DeviceKind::Software
    }

    fn fallback_name(&self) -> String {
        "system memory, exported by a DRM device without hardware".to_owned()
    }

    fn heaps_at_open(&self) -> &[Heap] {
        std::slice::from_ref(&self.heap)
    }

    fn heaps(&self, _device: &Device) -> Result<Vec<Heap>> {
        Ok(vec![self.memory.now()?.heap("shmem", base_page_size(), None)])
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::CPU_MAPPING | Capabilities::ZEROED | Capabilities::RESIDENCY
    }

    /// Its memory is system memory, which has nowhere to move.
    fn sharing(&self, _visible: bool, _only: bool) -> Sharing {
        Sharing::always(Reaction::Stays)
    }

    fn create(&self, device: &Device, bytes: u64, _target: Target) -> Result<u32> {
        device
            .file()
            .create_dumb(bytes, base_page_size())
            .map_err(|errno| device.file().failed(errno, format!("create a dumb buffer of {bytes} bytes")))
    }

    fn residency(&self, _buffer: &GemBuffer<Self>) -> Result<ResidencyEvidence> {
        Ok(always_system("vgem allocates ordinary pages, and has nowhere to move them"))
    }

    fn flush(&self, _buffer: &GemBuffer<Self>) -> Result<()> {
        // System memory: DMA is coherent, or `DMA_BUF_IOCTL_SYNC` makes it so.
        Ok(())
    }
}
