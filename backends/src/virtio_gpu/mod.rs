//! virtio-gpu: the paravirtual GPU of virtual machines (VIRTIO specification 1.3, section 5.7), with the kernel driver
//! `virtio_gpu`.
//!
//! # Where a buffer lies
//!
//! | asked for | the driver is told | if there is no room |
//! |---|---|---|
//! | nothing, or device-local memory preferred | a `HOST3D` blob, if the device has a window for it | a `GUEST` blob |
//! | device-local memory required | a `HOST3D` blob | an error |
//! | system memory | a `GUEST` blob; a dumb buffer, where the device has no blobs | an error |
//!
//! A `HOST3D` blob is memory of the device that is seen in its host-visible window, a part of a BAR. It has nowhere to
//! move, and lies in one piece: this is the one driver whose buffers stay on the device whoever attaches, because it
//! maps its window for any importer without asking for a path (`virtio_gpu_vram_map_dma_buf()`). Residency follows from
//! how a buffer was made, which `RESOURCE_INFO` tells.
//!
//! The host answers late: that it refused a blob shows when the blob is mapped, which is tried before it is handed out.
//! How large the window is, the driver does not say; the size told is that of the BAR it is in.
//!
//! The blobs are those of the identifier 0, which the host takes for plain memory in the protocol Venus. A host that
//! speaks it gets a context of it, any other the default one.

mod uapi;

use std::os::fd::AsFd;
use std::sync::Arc;

use devmem_provider::{
    Capabilities, DeviceKind, Error, ErrorKind, Heap, Placement, Provider, Reaction, Residency,
    ResidencyEvidence, Result, Sharing, base_page_size,
};

use crate::drm::{self, Device, Driver, GemBuffer, Nodes, Target, View};
use crate::system_memory::SystemBudget;

/// The backend's name.
pub const NAME: &str = "virtio-gpu";

/// Finds the GPUs.
///
/// # Errors
///
/// Why this machine has none that works.
pub fn discover() -> Result<Vec<Arc<dyn Provider>>> {
    drm::discover::<VirtioGpu>()
}

#[derive(Debug)]
struct VirtioGpu {
    /// Whether it makes blobs; if not, dumb buffers of the primary node.
    blobs: bool,
    /// The heap of the host-visible window, if the device has one that works.
    window: Option<Heap>,
    memory: SystemBudget,
    heaps: Vec<Heap>,
}

impl VirtioGpu {
    fn guest_heap(memory: &SystemBudget, granularity: u64) -> Result<Heap> {
        Ok(memory.now()?.heap("guest", granularity, None))
    }

    fn granularity(&self) -> u64 {
        self.heaps.first().map_or_else(base_page_size, |heap| heap.granularity)
    }

    fn guest_buffer(&self, device: &Device, bytes: u64) -> Result<u32> {
        let made = if self.blobs {
            uapi::create_blob(device.file(), uapi::MEMORY_GUEST, bytes)
        } else {
            device.file().create_dumb(bytes, base_page_size())
        };
        made.map_err(|errno| {
            device.file().failed(errno, format!("allocate {bytes} bytes of the guest's memory"))
        })
    }
}

/// A blob in the window, once it was mapped.
fn window_buffer(device: &Device, bytes: u64) -> Result<u32> {
    let operation = || format!("allocate {bytes} bytes in the host-visible window");
    let handle = uapi::create_blob(device.file(), uapi::MEMORY_HOST3D, bytes)
        .map_err(|errno| device.file().failed(errno, operation()))?;
    let length = usize::try_from(base_page_size()).unwrap_or(4096);
    let mapped = device.file().export(handle, bytes).and_then(|dma_buf| {
        View::map(dma_buf.as_fd(), 0, length).map_err(|errno| {
            device
                .file()
                .failed(errno, operation())
                .with_kind(ErrorKind::OutOfMemory)
                .because("the host refused the blob, or to show it in the window")
                .remedy("read the log of the host's virtual machine monitor, or ask for system memory")
        })
    });
    match mapped {
        Ok(_) => Ok(handle),
        Err(error) => {
            device.file().close_handle(handle);
            Err(error)
        }
    }
}

impl Driver for VirtioGpu {
    const BACKEND: &'static str = NAME;
    const DRIVER: &'static str = "virtio_gpu";

    fn open(nodes: &Nodes) -> Result<(Device, Self)> {
        let memory = SystemBudget::open()?;
        let dumb = || {
            let heap = Self::guest_heap(&memory, base_page_size())?;
            Ok::<_, Error>((Device::open_primary(nodes)?, heap))
        };
        let render = Device::open_render(nodes)?;
        let parameter = |parameter| uapi::parameter(render.file(), parameter);
        if parameter(uapi::PARAMETER_RESOURCE_BLOB).unwrap_or(0) == 0 {
            let (device, heap) = dumb()?;
            return Ok((device, Self { blobs: false, window: None, memory, heaps: vec![heap] }));
        }
        let granularity = parameter(uapi::PARAMETER_BLOB_ALIGNMENT).unwrap_or(0).max(base_page_size());
        let window = (parameter(uapi::PARAMETER_HOST_VISIBLE) == Ok(1)).then(|| {
            if parameter(uapi::PARAMETER_CAPSETS).is_ok_and(|mask| mask & (1 << uapi::CAPSET_VENUS) != 0) {
                // Fails where the kernel has made another context for the file; the attempt below decides.
                let _ = uapi::context_init(render.file(), uapi::CAPSET_VENUS);
            }
            let size = render.pci().and_then(|pci| pci.memory_window());
            let heap = Heap {
                name: "host-visible".to_owned(),
                placement: Placement::DeviceLocal,
                size,
                used: None,
                cpu_visible: size,
                maximum_allocation: None,
                granularity,
            };
            let handle = window_buffer(&render, granularity).ok()?;
            render.file().close_handle(handle);
            Some(heap)
        });
        let window = window.flatten();
        let guest = Self::guest_heap(&memory, granularity)?;
        let heaps = window.iter().cloned().chain([guest]).collect();
        Ok((render, Self { blobs: true, window, memory, heaps }))
    }

    fn kind(&self) -> DeviceKind {
        if self.window.is_some() { DeviceKind::Discrete } else { DeviceKind::Integrated }
    }

    fn heaps_at_open(&self) -> &[Heap] {
        &self.heaps
    }

    fn heaps(&self, _device: &Device) -> Result<Vec<Heap>> {
        let guest = Self::guest_heap(&self.memory, self.granularity())?;
        Ok(self.window.iter().cloned().chain([guest]).collect())
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::CPU_MAPPING | Capabilities::RESIDENCY;
        // What the host's memory held before is the host's affair.
        capabilities.set(Capabilities::ZEROED, self.window.is_none());
        capabilities.set(Capabilities::CONTIGUOUS, self.window.is_some());
        capabilities
    }

    /// `virtio_gpu_vram_map_dma_buf()` gives everybody the addresses of the window.
    fn sharing(&self, _visible: bool, _only: bool) -> Sharing {
        Sharing::always(Reaction::Stays)
    }

    fn create(&self, device: &Device, bytes: u64, target: Target) -> Result<u32> {
        match target {
            Target::System => self.guest_buffer(device, bytes),
            Target::Device { only: true, .. } => window_buffer(device, bytes),
            Target::Device { only: false, .. } => match window_buffer(device, bytes) {
                Err(error) if error.kind() == ErrorKind::OutOfMemory => self.guest_buffer(device, bytes),
                result => result,
            },
        }
    }

    fn residency(&self, buffer: &GemBuffer<Self>) -> Result<ResidencyEvidence> {
        let file = buffer.device().file();
        let memory = uapi::memory_of(file, buffer.handle())
            .map_err(|errno| file.failed(errno, "ask virtio-gpu what memory a buffer has"))?;
        Ok(evidence(memory))
    }
}

fn evidence(memory: u32) -> ResidencyEvidence {
    let (residency, region, evidence) = match memory {
        uapi::MEMORY_HOST3D => (
            Residency::DeviceLocal,
            "host-visible",
            "RESOURCE_INFO says HOST3D: memory of the device, which the driver maps in its window and never moves",
        ),
        _ => (
            Residency::System,
            "guest",
            "RESOURCE_INFO says that the buffer is of the guest's pages, which the driver never moves",
        ),
    };
    ResidencyEvidence { residency, region: Some(region.to_owned()), evidence: evidence.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_memory_of_the_host_is_device_memory() {
        assert_eq!(evidence(uapi::MEMORY_HOST3D).residency, Residency::DeviceLocal);
        assert_eq!(evidence(uapi::MEMORY_GUEST).residency, Residency::System);
        // A dumb buffer is no blob.
        assert_eq!(evidence(0).residency, Residency::System);
    }
}
