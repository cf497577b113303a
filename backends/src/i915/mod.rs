//! Intel GPUs with the kernel driver `i915`, through its render node: integrated ones, and DG1 and DG2.
//!
//! # Where a buffer lies
//!
//! | asked for | the driver is told | if there is no room |
//! |---|---|---|
//! | nothing, or device-local memory preferred | device memory, then system memory | the kernel takes system memory |
//! | device-local memory required | device memory alone | an error |
//! | system memory | system memory alone | an error |
//!
//! A buffer that may lie in system memory can be received into by importers without peer-to-peer, which is what devmem
//! TCP is: the kernel moves it there when they attach. One for device memory alone refuses them with `EOPNOTSUPP`, and
//! so keeps a required placement to the end. Which of the two a caller wants, it says by preferring or requiring.
//!
//! CPU-visible device memory is asked for by `NEEDS_CPU_ACCESS`, for which the kernel demands system memory as an
//! alternative. Where it is required, and not all of the memory is visible, the buffer is looked at after it got its
//! pages.
//!
//! The kernel allocates pages late. A look at the residency of a buffer without pages makes it allocate them first, and
//! so does an allocation that requires device memory: that there is no room shows there, not later as a `SIGBUS`.
//!
//! # Attachments
//!
//! i915 takes no importer for peer-to-peer: whoever attaches gets system memory or nothing.
//!
//! A *wedged* GPU (its firmware is missing, or it hung beyond repair) still hands out memory, which the CPU then clears
//! and moves; the description of the provider says so.

mod uapi;

use std::sync::Arc;

use devmem_provider::dma_buf::Access;
use devmem_provider::{
    Buffer as _, Capabilities, DeviceKind, Error, ErrorKind, Heap, Placement, Provider, Reaction, Result,
    Sharing, base_page_size,
};
use nix::errno::Errno;

use crate::drm::{self, Device, Driver, GemBuffer, Nodes, Target};

/// The backend's name.
pub const NAME: &str = "i915";

/// Finds the GPUs.
///
/// # Errors
///
/// Why this machine has none that works.
pub fn discover() -> Result<Vec<Arc<dyn Provider>>> {
    drm::discover::<I915>()
}

#[derive(Debug)]
pub(crate) struct I915 {
    system: uapi::Region,
    device: Option<uapi::Region>,
    /// Whether the kernel knows of windows that are smaller than the memory.
    knows_windows: bool,
    /// What sizes are rounded up to with device memory among the placements, in bytes.
    granularity: u64,
    heaps: Vec<Heap>,
}

/// Asks for the regions and makes heaps of them, device memory first.
fn ask_regions(device: &Device) -> Result<Vec<uapi::RegionInfo>> {
    let mut regions = uapi::memory_regions(device.file())
        .map_err(|errno| device.file().failed(errno, "ask i915 for its memory regions"))?;
    regions.sort_by_key(|info| info.region.memory_class != uapi::CLASS_DEVICE);
    Ok(regions)
}

fn heap(info: &uapi::RegionInfo, granularity: u64) -> Heap {
    let is_device = info.region.memory_class == uapi::CLASS_DEVICE;
    let visible = match info.probed_cpu_visible_size {
        0 => info.probed_size,
        size => size.min(info.probed_size),
    };
    Heap {
        // As fdinfo names them.
        name: format!("{}{}", if is_device { "local" } else { "system" }, info.region.memory_instance),
        placement: if is_device { Placement::DeviceLocal } else { Placement::System },
        size: Some(info.probed_size),
        // Who lacks CAP_PERFMON is told that all is free.
        used: info.probed_size.checked_sub(info.unallocated_size).filter(|&used| used > 0),
        cpu_visible: Some(visible),
        maximum_allocation: None,
        granularity: if is_device { granularity } else { base_page_size() },
    }
}

/// What the kernel rounds the size of the smallest buffer up to: it tells by making one, which has no pages yet.
fn probe_granularity(device: &Device, regions: &[uapi::Region]) -> Result<u64> {
    let (handle, size) = uapi::gem_create(device.file(), base_page_size(), regions, 0)
        .map_err(|errno| device.file().failed(errno, "try an allocation"))?;
    device.file().close_handle(handle);
    Ok(size)
}

impl Driver for I915 {
    const BACKEND: &'static str = NAME;
    const DRIVER: &'static str = "i915";

    fn open(nodes: &Nodes) -> Result<(Device, Self)> {
        let device = Device::open_render(nodes)?;
        let regions = ask_regions(&device)?;
        let find = |class| regions.iter().find(|info| info.region.memory_class == class);
        let Some(system) = find(uapi::CLASS_SYSTEM) else {
            return Err(Error::new(ErrorKind::Protocol, "ask i915 for its memory regions")
                .on(device.file().node().display())
                .because("it names no system memory"));
        };
        let local = find(uapi::CLASS_DEVICE);
        let granularity = match local {
            Some(local) => probe_granularity(&device, &[local.region, system.region])?,
            None => base_page_size(),
        };
        let driver = Self {
            system: system.region,
            device: local.map(|info| info.region),
            knows_windows: local.is_some_and(|info| info.probed_cpu_visible_size > 0),
            granularity,
            heaps: regions.iter().map(|info| heap(info, granularity)).collect(),
        };
        Ok((device, driver))
    }

    fn kind(&self) -> DeviceKind {
        if self.device.is_some() { DeviceKind::Discrete } else { DeviceKind::Integrated }
    }

    fn remark(&self, device: &Device) -> Option<String> {
        match uapi::throttle(device.file()) {
            Err(Errno::EIO) => {
                Some("wedged: the GPU executes nothing, the CPU clears and moves memory".to_owned())
            }
            _ => None,
        }
    }

    fn heaps_at_open(&self) -> &[Heap] {
        &self.heaps
    }

    fn heaps(&self, device: &Device) -> Result<Vec<Heap>> {
        Ok(ask_regions(device)?.iter().map(|info| heap(info, self.granularity)).collect())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::CPU_MAPPING | Capabilities::ZEROED | Capabilities::RESIDENCY
    }

    /// `i915_gem_dmabuf_attach()` asks for no path.
    fn sharing(&self, _visible: bool, only: bool) -> Sharing {
        Sharing::always(if only { Reaction::Refuses } else { Reaction::Moves })
    }

    fn create(&self, device: &Device, bytes: u64, target: Target) -> Result<u32> {
        let local = self.device.unwrap_or(self.system);
        let either = [local, self.system];
        let hidden = self.heaps.first().is_some_and(|heap| heap.cpu_visible < heap.size);
        let (regions, flags) = match target {
            Target::System => (&either[1..], 0),
            Target::Device { visible, only: true, .. } if !(visible && hidden) => (&either[..1], 0),
            Target::Device { visible, .. } if visible && self.knows_windows => {
                (&either[..], uapi::CREATE_NEEDS_CPU_ACCESS)
            }
            Target::Device { .. } => (&either[..], 0),
        };
        let (handle, size) = uapi::gem_create(device.file(), bytes, regions, flags)
            .map_err(|errno| device.file().failed(errno, format!("allocate {bytes} bytes")))?;
        if size == bytes {
            return Ok(handle);
        }
        device.file().close_handle(handle);
        Err(Error::new(ErrorKind::InvalidInput, format!("allocate {bytes} bytes"))
            .on(device.file().node().display())
            .because(format!("i915 makes {size} bytes of it"))
            .remedy(format!("ask for {size} bytes")))
    }

    fn is_device_region(region: &str) -> bool {
        region.starts_with("local") || region.starts_with("stolen-local")
    }

    fn populate(&self, buffer: &GemBuffer<Self>) -> Result<()> {
        // Beginning a CPU access pins the pages for a moment (`i915_gem_begin_cpu_access()`), and does not move them. A
        // fault of the CPU would do neither: it maps what is there without making it the buffer's.
        let begin = || buffer.export()?.map_range(0, base_page_size(), Access::Read)?.read()?.finish();
        let Err(error) = begin() else { return Ok(()) };
        match error.errno() {
            // A wedged DG2 has pinned the pages before it fails.
            Some(Errno::EIO) => Ok(()),
            // What i915 makes of ENOSPC (`i915_ttm_err_to_gem()`).
            Some(Errno::ENXIO | Errno::ENOMEM | Errno::ENOSPC) => Err(error
                .with_kind(ErrorKind::OutOfMemory)
                .because("no memory of this sort is left")
                .remedy("ask for less, or free memory")),
            _ => Err(error),
        }
    }
}
