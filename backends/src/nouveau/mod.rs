//! NVIDIA GPUs with the kernel driver `nouveau`, through its render node.
//!
//! # Where a buffer lies
//!
//! | asked for | the driver is told | if there is no room |
//! |---|---|---|
//! | nothing, or device-local memory preferred | `VRAM` or `GART` | the kernel takes GART |
//! | device-local memory required | the same, see below | an error here |
//! | system memory | `GART` | an error |
//!
//! nouveau prints no memory in fdinfo. `GEM_INFO` tells where a buffer is, but only of one that was created for both
//! domains: of any other it repeats what was asked for, even after an importer made the kernel move it
//! (`nouveau_gem_info()`). So device-local buffers are created for both, and a required placement is looked at. Asked
//! for both, the kernel takes GART rather than evicting anybody; where the placement is required, a buffer for VRAM
//! alone, given back at once, evicts what is in the way, and the creation is repeated.
//!
//! A buffer for system memory is created for GART alone, and has nowhere else to go: the kernel moves buffers of GPUs
//! since Tesla between the domains that they were created for. On older GPUs `GEM_INFO` always tells.
//!
//! A buffer that Vulkan made is judged by the same means. Mesa's NVK creates device-local memory for both domains.
//!
//! Memory is **not** cleared: a new buffer shows what was there before.
//!
//! `GEM_NEW` on a file turns the newer interface of VM_INIT and VM_BIND off for that file. It is not needed for memory
//! that is exported, and a program that wants it imports the DMA-buf into a file of its own.
//!
//! # Attachments
//!
//! Every importer makes the kernel pin the buffer in GART (`nouveau_gem_prime_pin()`), peer-to-peer or not. The pin
//! wakes the GPU where it has to.

mod uapi;

use std::sync::Arc;

use devmem_provider::{
    Capabilities, DeviceKind, Error, ErrorKind, Heap, Placement, Provider, Reaction, Residency,
    ResidencyEvidence, Result, Sharing, base_page_size,
};
use nix::errno::Errno;

use crate::drm::{self, Device, Driver, GemBuffer, Nodes, Target};

/// The backend's name.
pub const NAME: &str = "nouveau";

/// Finds the GPUs.
///
/// # Errors
///
/// Why this machine has none that works.
pub fn discover() -> Result<Vec<Arc<dyn Provider>>> {
    drm::discover::<Nouveau>()
}

#[derive(Debug)]
pub(crate) struct Nouveau {
    kind: DeviceKind,
    chipset: u64,
    heaps: Vec<Heap>,
}

/// What the driver says of its memory, in bytes.
#[derive(Debug, Clone, Copy)]
struct Memory {
    vram: u64,
    vram_used: Option<u64>,
    /// The size of the BAR through which the CPU sees VRAM.
    window: Option<u64>,
    gart: u64,
}

impl Memory {
    fn ask(device: &Device) -> Result<Self> {
        Ok(Self {
            vram: parameter(device, uapi::PARAMETER_FB_SIZE)?,
            // Kernels before 6.8 do not know these two.
            vram_used: uapi::parameter(device.file(), uapi::PARAMETER_VRAM_USED).ok(),
            window: uapi::parameter(device.file(), uapi::PARAMETER_VRAM_BAR_SIZE).ok(),
            gart: parameter(device, uapi::PARAMETER_AGP_SIZE)?,
        })
    }

    fn heaps(self) -> Vec<Heap> {
        let heap = |name: &str, placement, size, used, cpu_visible| Heap {
            name: name.to_owned(),
            placement,
            size: Some(size),
            used,
            cpu_visible,
            maximum_allocation: None,
            granularity: base_page_size(),
        };
        let visible = self.window.map(|window| window.min(self.vram));
        let vram = heap("vram", Placement::DeviceLocal, self.vram, self.vram_used, visible);
        let gart = heap("gart", Placement::System, self.gart, None, Some(self.gart));
        // A GPU that is a part of the processor has no memory of its own.
        if self.vram == 0 { vec![gart] } else { vec![vram, gart] }
    }
}

fn parameter(device: &Device, parameter: u64) -> Result<u64> {
    uapi::parameter(device.file(), parameter)
        .map_err(|errno| device.file().failed(errno, format!("ask nouveau for its parameter {parameter}")))
}

impl Nouveau {
    fn new_buffer(device: &Device, bytes: u64, domain: u32, tile_flags: u32) -> Result<uapi::GemInfo> {
        let info = uapi::gem_new(device.file(), bytes, domain, tile_flags)
            .map_err(|errno| device.file().failed(errno, format!("allocate {bytes} bytes")))?;
        Ok(info)
    }
}

impl Driver for Nouveau {
    const BACKEND: &'static str = NAME;
    const DRIVER: &'static str = "nouveau";

    fn open(nodes: &Nodes) -> Result<(Device, Self)> {
        let device = Device::open_render(nodes)?;
        let heaps = Memory::ask(&device)?.heaps();
        let integrated = parameter(&device, uapi::PARAMETER_BUS_TYPE)? == uapi::BUS_SOC;
        let kind = if integrated { DeviceKind::Integrated } else { DeviceKind::Discrete };
        let chipset = parameter(&device, uapi::PARAMETER_CHIPSET_ID)?;
        Ok((device, Self { kind, chipset, heaps }))
    }

    fn kind(&self) -> DeviceKind {
        self.kind
    }

    fn fallback_name(&self) -> String {
        format!("NVIDIA GPU, chipset NV{:02X}", self.chipset)
    }

    fn heaps_at_open(&self) -> &[Heap] {
        &self.heaps
    }

    fn heaps(&self, device: &Device) -> Result<Vec<Heap>> {
        Memory::ask(device).map(Memory::heaps)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::CPU_MAPPING | Capabilities::RESIDENCY | Capabilities::CONTIGUOUS
    }

    /// `nouveau_gem_prime_pin()` pins in GART.
    fn sharing(&self, _visible: bool, _only: bool) -> Sharing {
        Sharing::always(Reaction::Moves)
    }

    fn create(&self, device: &Device, bytes: u64, target: Target) -> Result<u32> {
        const EITHER: u32 = uapi::DOMAIN_VRAM | uapi::DOMAIN_GART;
        let info = match target {
            Target::System => Self::new_buffer(device, bytes, uapi::DOMAIN_GART, uapi::TILE_NONCONTIG)?,
            Target::Device { only, contiguous, .. } => {
                let flags = if contiguous { 0 } else { uapi::TILE_NONCONTIG };
                let info = Self::new_buffer(device, bytes, EITHER, flags)?;
                if only && info.domain != uapi::DOMAIN_VRAM {
                    device.file().close_handle(info.handle);
                    let room = Self::new_buffer(device, bytes, uapi::DOMAIN_VRAM, flags)?;
                    device.file().close_handle(room.handle);
                    Self::new_buffer(device, bytes, EITHER, flags)?
                } else {
                    info
                }
            }
        };
        if info.size == bytes {
            return Ok(info.handle);
        }
        device.file().close_handle(info.handle);
        Err(Error::new(ErrorKind::Protocol, format!("allocate {bytes} bytes"))
            .on(device.file().node().display())
            .with_errno(Errno::EINVAL)
            .because(format!("nouveau made a buffer of {} bytes", info.size)))
    }

    fn residency(&self, buffer: &GemBuffer<Self>) -> Result<ResidencyEvidence> {
        let file = buffer.device().file();
        let info = uapi::gem_info(file, buffer.handle())
            .map_err(|errno| file.failed(errno, "ask nouveau where a buffer is"))?;
        Ok(evidence(info.domain, buffer.target()))
    }
}

fn evidence(domain: u32, target: Target) -> ResidencyEvidence {
    let (residency, region) = match domain {
        uapi::DOMAIN_VRAM => (Residency::DeviceLocal, Some("vram".to_owned())),
        uapi::DOMAIN_GART => (Residency::System, Some("gart".to_owned())),
        _ => (Residency::Unknown, None),
    };
    let evidence = match (target, residency) {
        (Target::System, Residency::System) => {
            "GEM_INFO says GART, the only domain that the buffer was created for".to_owned()
        }
        _ => {
            format!("GEM_INFO says domain {domain:#x} (2 is VRAM, 4 is GART), of the two it was created for")
        }
    };
    ResidencyEvidence { residency, region, evidence }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_without_vram_has_system_memory_only() {
        let memory = Memory { vram: 0, vram_used: Some(0), window: Some(0), gart: 1 << 40 };
        let heaps = memory.heaps();
        assert_eq!(heaps.len(), 1);
        assert_eq!(heaps[0].placement, Placement::System);
    }

    #[test]
    fn the_cpu_sees_no_more_than_there_is() {
        let memory = Memory { vram: 240 << 20, vram_used: None, window: Some(256 << 20), gart: 1 << 40 };
        assert_eq!(memory.heaps()[0].cpu_visible, Some(240 << 20));
        let older = Memory { window: None, ..memory };
        assert_eq!(older.heaps()[0].cpu_visible, None);
    }

    #[test]
    fn the_domain_tells_where_a_buffer_is() {
        let target = Target::Device { visible: true, only: true, contiguous: false };
        assert_eq!(evidence(uapi::DOMAIN_VRAM, target).residency, Residency::DeviceLocal);
        assert_eq!(evidence(uapi::DOMAIN_GART, target).residency, Residency::System);
        assert_eq!(evidence(uapi::DOMAIN_VRAM | uapi::DOMAIN_GART, target).residency, Residency::Unknown);
    }
}
