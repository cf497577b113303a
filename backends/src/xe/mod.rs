//! Intel GPUs with the kernel driver `xe`, through its render node.
//!
//! # Where a buffer lies
//!
//! | asked for | the driver is told | if there is no room |
//! |---|---|---|
//! | nothing, or device-local memory preferred | VRAM or system memory | the kernel takes system memory |
//! | device-local memory required | VRAM alone | an error |
//! | system memory | system memory alone | an error |
//!
//! A buffer that may lie in system memory can be received into by importers without peer-to-peer, which is what devmem
//! TCP is: the kernel moves it there when they attach. One for VRAM alone refuses them with `EOPNOTSUPP`, and so keeps
//! a required placement to the end. Which of the two a caller wants, it says by preferring or requiring.
//!
//! CPU-visible VRAM is asked for by `NEEDS_VISIBLE_VRAM`, which the kernel keeps to. Without it, a buffer of a GPU with
//! a small BAR may lie where neither the CPU nor a peer reaches it: touching its mapping is a `SIGBUS` then, and
//! mapping it for a peer is `EOPNOTSUPP`.
//!
//! The kernel allocates pages when it creates the buffer, as `DEFER_BACKING` is not asked for, and clears VRAM with the
//! GPU.
//!
//! # Peer writes
//!
//! xe offers a page of which every store is a memory barrier on PCI (`DRM_XE_MMAP_OFFSET_FLAG_PCI_BARRIER`). It is
//! followed by a read-back through the CPU's mapping: the store orders what comes after it, the read waits for what
//! came before.
//!
//! # Attachments
//!
//! With peer-to-peer the buffer stays in VRAM, or moves back there; an attachment wakes the GPU and keeps it awake
//! (`xe_dma_buf_attach()`).
//!
//! A GPU that the driver has declared *wedged* answers every ioctl with `ECANCELED`.

mod uapi;

use std::os::fd::AsFd;
use std::sync::{Arc, OnceLock};

use devmem_provider::{
    Capabilities, DeviceKind, Error, ErrorKind, Heap, Placement, Provider, Reaction, Result, Sharing,
    base_page_size,
};

use crate::drm::{self, BarrierPage, Device, Driver, GemBuffer, Nodes, Target};

/// The backend's name.
pub const NAME: &str = "xe";

/// Finds the GPUs.
///
/// # Errors
///
/// Why this machine has none that works.
pub fn discover() -> Result<Vec<Arc<dyn Provider>>> {
    drm::discover::<Xe>()
}

#[derive(Debug)]
pub(crate) struct Xe {
    /// The bits of system memory and of the first VRAM in a placement.
    system: u32,
    vram: Option<u32>,
    heaps: Vec<Heap>,
    /// The barrier page, once it was needed; `None` inside where the kernel has none.
    barrier: OnceLock<Option<BarrierPage>>,
}

/// Asks for the regions, device memory first.
fn ask_regions(device: &Device) -> Result<Vec<uapi::MemoryRegion>> {
    let mut regions = uapi::memory_regions(device.file())
        .map_err(|errno| device.file().failed(errno, "ask xe for its memory regions"))?;
    regions.sort_by_key(|region| (region.mem_class != uapi::CLASS_VRAM, region.instance));
    Ok(regions)
}

/// Makes heaps of regions that are in order: several tiles have a VRAM each.
fn heaps(regions: &[uapi::MemoryRegion]) -> Vec<Heap> {
    let heap = |(index, region): (usize, &uapi::MemoryRegion)| {
        let is_device = region.mem_class == uapi::CLASS_VRAM;
        Heap {
            // As fdinfo names them.
            name: if is_device { format!("vram{index}") } else { "gtt".to_owned() },
            placement: if is_device { Placement::DeviceLocal } else { Placement::System },
            size: Some(region.total_size),
            used: Some(region.used),
            cpu_visible: Some(if is_device { region.cpu_visible_size } else { region.total_size }),
            maximum_allocation: None,
            granularity: u64::from(region.min_page_size).max(base_page_size()),
        }
    };
    regions.iter().enumerate().map(heap).collect()
}

fn bit(region: &uapi::MemoryRegion) -> u32 {
    1u32.checked_shl(region.instance.into()).unwrap_or(0)
}

impl Driver for Xe {
    const BACKEND: &'static str = NAME;
    const DRIVER: &'static str = "xe";

    fn open(nodes: &Nodes) -> Result<(Device, Self)> {
        let device = Device::open_render(nodes)?;
        let regions = ask_regions(&device)?;
        let find = |class| regions.iter().find(|region| region.mem_class == class).map(bit);
        let Some(system) = find(uapi::CLASS_SYSTEM) else {
            return Err(Error::new(ErrorKind::Protocol, "ask xe for its memory regions")
                .on(device.file().node().display())
                .because("it names no system memory"));
        };
        let vram = find(uapi::CLASS_VRAM);
        let heaps = heaps(&regions);
        Ok((device, Self { system, vram, heaps, barrier: OnceLock::new() }))
    }

    fn kind(&self) -> DeviceKind {
        if self.vram.is_some() { DeviceKind::Discrete } else { DeviceKind::Integrated }
    }

    fn heaps_at_open(&self) -> &[Heap] {
        &self.heaps
    }

    fn heaps(&self, device: &Device) -> Result<Vec<Heap>> {
        Ok(heaps(&ask_regions(device)?))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::CPU_MAPPING | Capabilities::ZEROED | Capabilities::RESIDENCY
    }

    /// `xe_dma_buf_attach()`, `xe_dma_buf_pin()`, and `xe_ttm_vram_mgr_alloc_sgt()`, which refuses pages that peers do not
    /// see.
    fn sharing(&self, visible: bool, only: bool) -> Sharing {
        let sharing = Sharing::stays_with_path(if only { Reaction::Refuses } else { Reaction::Moves });
        let has_hidden_memory = self.heaps.first().is_some_and(|heap| heap.cpu_visible < heap.size);
        if visible || !has_hidden_memory { sharing } else { sharing.if_visible() }
    }

    fn create(&self, device: &Device, bytes: u64, target: Target) -> Result<u32> {
        let vram = self.vram.unwrap_or(self.system);
        let (placement, flags, caching) = match target {
            Target::System => (self.system, 0, uapi::CACHING_WRITE_BACK),
            Target::Device { visible, only, .. } => {
                let placement = if only { vram } else { vram | self.system };
                let flags = if visible { uapi::CREATE_NEEDS_VISIBLE_VRAM } else { 0 };
                (placement, flags, uapi::CACHING_WRITE_COMBINED)
            }
        };
        uapi::gem_create(device.file(), bytes, placement, flags, caching)
            .map_err(|errno| device.file().failed(errno, format!("allocate {bytes} bytes")))
    }

    fn is_device_region(region: &str) -> bool {
        region.starts_with("vram")
    }

    fn flush(&self, buffer: &GemBuffer<Self>) -> Result<()> {
        let file = buffer.device().file();
        file.check_presence()?;
        let length = usize::try_from(base_page_size()).unwrap_or(4096);
        let map = || {
            let offset = uapi::barrier_offset(file).ok()?;
            BarrierPage::map(file.as_fd(), offset, length).ok()
        };
        if let Some(page) = self.barrier.get_or_init(map) {
            page.store();
        }
        buffer.read_back()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_vram_is_device_memory() {
        for region in ["vram0", "vram1"] {
            assert!(Xe::is_device_region(region));
        }
        for region in ["gtt", "system", "stolen"] {
            assert!(!Xe::is_device_region(region));
        }
    }
}
