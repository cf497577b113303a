//! AMD GPUs with the kernel driver `amdgpu`, through its render node.
//!
//! # Where a buffer lies
//!
//! | asked for | the driver is told | if there is no room |
//! |---|---|---|
//! | nothing, or device-local memory preferred | `VRAM` | the kernel falls back to GTT without a word, after trying to evict others |
//! | device-local memory required | `VRAM` | the fallback is seen in fdinfo, and is an error here |
//! | CPU-visible device-local memory | `VRAM`, `CPU_ACCESS_REQUIRED` | as above; the kernel drops the flag first, see below |
//! | system memory | `GTT` | an error |
//!
//! The kernel treats `CPU_ACCESS_REQUIRED` as a hint. A buffer outside of the window moves into it when the CPU touches
//! its mapping, or to GTT if there is no room (`amdgpu_bo_fault_reserve_notify()`). Where visibility is required, and
//! not all of the memory is visible, the buffer is therefore touched before its residency is looked at.
//!
//! Contiguous memory is not offered: the kernel makes a user's buffer contiguous only while it is pinned.
//!
//! # Attachments
//!
//! Importers without peer-to-peer make the kernel move a buffer to GTT and pin it there. With peer-to-peer it stays,
//! if the GPU is awake at that moment: this backend forbids runtime suspend from the first export on where it may (as
//! root), until the provider and its buffers are dropped. Everybody else has the 5 seconds of the driver's autosuspend
//! delay after an export or a look at residency, each of which wakes the GPU.
//!
//! # Peer writes
//!
//! What a peer wrote through the BAR is ordered by reading back through the CPU's mapping; the GPU's own view of it
//! (the HDP cache) is flushed by the kernel with every submission of commands.

mod uapi;

use std::os::fd::AsFd;
use std::sync::Arc;

use devmem_provider::{
    Buffer as _, Capabilities, DeviceKind, Heap, Placement, Provider, Reaction, ResidencyEvidence, Result,
    Sharing, base_page_size,
};

use crate::drm::{self, Device, Driver, GemBuffer, Nodes, Target, View, judge_buffer};

/// The backend's name.
pub const NAME: &str = "amdgpu";

/// Finds the GPUs.
///
/// # Errors
///
/// Why this machine has none that works.
pub fn discover() -> Result<Vec<Arc<dyn Provider>>> {
    drm::discover::<Amdgpu>()
}

#[derive(Debug)]
pub(crate) struct Amdgpu {
    integrated: bool,
    heaps: [Heap; 2],
}

impl Amdgpu {
    /// Whether some of the memory lies outside of the window that the CPU reaches.
    fn has_hidden_memory(&self) -> bool {
        self.heaps[0].cpu_visible < self.heaps[0].size
    }
}

fn heaps(memory: &uapi::MemoryInfo) -> [Heap; 2] {
    let heap = |name: &str, placement, info: &uapi::HeapInfo, cpu_visible| Heap {
        name: name.to_owned(),
        placement,
        size: Some(info.total_heap_size),
        used: Some(info.heap_usage),
        cpu_visible: Some(cpu_visible),
        maximum_allocation: None,
        granularity: base_page_size(),
    };
    let visible = memory.cpu_accessible_vram.total_heap_size;
    [
        heap("vram", Placement::DeviceLocal, &memory.vram, visible),
        heap("gtt", Placement::System, &memory.gtt, memory.gtt.total_heap_size),
    ]
}

fn ask_heaps(device: &Device) -> Result<[Heap; 2]> {
    let memory = uapi::memory(device.file())
        .map_err(|errno| device.file().failed(errno, "ask amdgpu for its memory"))?;
    Ok(heaps(&memory))
}

impl Driver for Amdgpu {
    const BACKEND: &'static str = NAME;
    const DRIVER: &'static str = "amdgpu";
    const STAYS_AWAKE: bool = true;

    fn open(nodes: &Nodes) -> Result<(Device, Self)> {
        let device = Device::open_render(nodes)?;
        let flags = uapi::device_flags(device.file())
            .map_err(|errno| device.file().failed(errno, "ask amdgpu for the device"))?;
        let heaps = ask_heaps(&device)?;
        Ok((device, Self { integrated: flags & uapi::IDS_FLAGS_FUSION != 0, heaps }))
    }

    fn kind(&self) -> DeviceKind {
        if self.integrated { DeviceKind::Integrated } else { DeviceKind::Discrete }
    }

    fn heaps_at_open(&self) -> &[Heap] {
        &self.heaps
    }

    fn heaps(&self, device: &Device) -> Result<Vec<Heap>> {
        ask_heaps(device).map(Vec::from)
    }

    fn capabilities(&self) -> Capabilities {
        // The kernel clears VRAM on every creation by an ioctl; GTT pages are always cleared.
        Capabilities::CPU_MAPPING | Capabilities::ZEROED | Capabilities::RESIDENCY
    }

    /// `amdgpu_dma_buf_attach()` and `amdgpu_dma_buf_pin()`: buffers of user space may always lie in GTT, unless they were
    /// created as discardable, which this backend does not do.
    fn sharing(&self, _visible: bool, _only: bool) -> Sharing {
        Sharing::stays_with_path(Reaction::Moves)
    }

    fn create(&self, device: &Device, bytes: u64, target: Target) -> Result<u32> {
        let (domain, flags) = match target {
            Target::Device { visible: true, .. } => (uapi::DOMAIN_VRAM, uapi::CREATE_CPU_ACCESS_REQUIRED),
            Target::Device { .. } => (uapi::DOMAIN_VRAM, 0),
            Target::System => (uapi::DOMAIN_GTT, 0),
        };
        uapi::gem_create(device.file(), bytes, domain, flags)
            .map_err(|errno| device.file().failed(errno, format!("allocate {bytes} bytes")))
    }

    fn residency(&self, buffer: &GemBuffer<Self>) -> Result<ResidencyEvidence> {
        let must_be_visible = matches!(buffer.target(), Target::Device { visible: true, only: true, .. });
        if must_be_visible && self.has_hidden_memory() {
            move_into_window(buffer)?;
        }
        judge_buffer(buffer)
    }

    fn is_device_region(region: &str) -> bool {
        region == "vram"
    }
}

/// Touches a buffer, upon which the kernel moves it into the window, or to GTT.
fn move_into_window(buffer: &GemBuffer<Amdgpu>) -> Result<()> {
    let failed = |errno| buffer.device().file().failed(errno, "touch a buffer for the CPU");
    let length = usize::try_from(base_page_size()).unwrap_or(4096);
    let view = View::map(buffer.export()?.as_fd(), 0, length).map_err(failed)?;
    view.read_back().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_bar_is_told_as_what_the_cpu_sees() {
        let info = |size| uapi::HeapInfo { total_heap_size: size, heap_usage: 4096, ..Default::default() };
        let memory = uapi::MemoryInfo {
            vram: info(8 << 30),
            cpu_accessible_vram: info(256 << 20),
            gtt: info(3 << 30),
        };
        let [vram, gtt] = heaps(&memory);
        assert_eq!((vram.size, vram.cpu_visible), (Some(8 << 30), Some(256 << 20)));
        assert_eq!((gtt.size, gtt.cpu_visible, gtt.used), (Some(3 << 30), Some(3 << 30), Some(4096)));
        let driver = Amdgpu { integrated: false, heaps: [vram, gtt] };
        assert!(driver.has_hidden_memory());
        assert_eq!(driver.kind(), DeviceKind::Discrete);
    }
}
