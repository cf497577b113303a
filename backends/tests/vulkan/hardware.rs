//! Mesa's drivers of GPUs, which must tell the same story as the kernel drivers' own backends.

use devmem_backends::{discover, find};
use devmem_provider::{Capabilities, ErrorKind, Placement, Request};

use crate::ensure;
use crate::harness::{Outcome, SIZE, descriptors};

/// A GPU of the guest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gpu {
    /// As the lab names it.
    pub(crate) part: &'static str,
    /// The provider of its kernel driver.
    pub(crate) kernel: &'static str,
    /// By a part of the device's name.
    pub(crate) selector: &'static str,
    /// What Mesa calls its driver.
    driver: &'static str,
}

const fn gpu(part: &'static str, kernel: &'static str, selector: &'static str, driver: &'static str) -> Gpu {
    Gpu { part, kernel, selector, driver }
}

const ANV: &str = "Intel open-source Mesa driver";

pub(crate) const GPUS: &[Gpu] = &[
    gpu("amdgpu", "amdgpu", "vulkan:radv", "radv"),
    gpu("i915:dg1", "i915:0", "vulkan:dg1", ANV),
    gpu("i915:tgl", "i915:1", "vulkan:tgl", ANV),
];

/// A test of a GPU, by its name.
type GpuTest = (&'static str, fn(Gpu) -> Outcome);

pub(crate) const TESTS: &[GpuTest] = &[
    ("is_the_gpu_of_the_kernel_driver", is_the_gpu_of_the_kernel_driver),
    ("placements_are_kept", placements_are_kept),
];

fn is_the_gpu_of_the_kernel_driver(gpu: Gpu) -> Outcome {
    let (vulkan, kernel_driver) = (find(gpu.selector)?, find(gpu.kernel)?);
    let (ours, kernel) = (vulkan.identity(), kernel_driver.identity());
    ensure!(ours.pci.is_some() && ours.pci == kernel.pci, "{ours:?} {kernel:?}");
    ensure!(ours.node == kernel.node && ours.numa_node == kernel.numa_node, "{ours:?} {kernel:?}");
    ensure!(ours.kind == kernel.kind && ours.driver == gpu.driver, "{ours:?} {kernel:?}");
    let address = ours.pci.map(|pci| pci.to_string()).unwrap_or_default();
    ensure!(ours.name == format!("vulkan:{address}"), "{ours:?}");
    // An address alone still means the kernel driver's provider.
    ensure!(find(&address)?.identity() == kernel, "{address}");
    ensure!(discover().find(&address)?.identity() == kernel, "{address}");
    let (ours, kernel) = (vulkan.capabilities(), kernel_driver.capabilities());
    let same = Capabilities::DEVICE_LOCAL | Capabilities::RESIDENCY | Capabilities::CPU_MAPPING;
    ensure!(ours & same == kernel & same, "{ours:?} {kernel:?}");
    Ok(())
}

fn placements_are_kept(gpu: Gpu) -> Outcome {
    let (vulkan, kernel) = (find(gpu.selector)?, find(gpu.kernel)?);
    for placement in [Placement::DeviceLocal, Placement::DeviceLocalVisible, Placement::System] {
        let request = Request::bytes(SIZE).require(placement);
        match (vulkan.allocate(&request), kernel.allocate(&request)) {
            (Ok(ours), Ok(kernel)) => {
                let (ours, kernel) = (ours.residency()?, kernel.residency()?);
                ensure!(ours == kernel, "{placement}: {ours:?} and {kernel:?}");
            }
            (Err(ours), Err(kernel)) => ensure!(ours.kind() == kernel.kind(), "{ours} and {kernel}"),
            (ours, kernel) => return Err(format!("{placement}: {ours:?} and {kernel:?}").into()),
        }
    }
    Ok(())
}

/// Whatever Vulkan's driver makes of it, the error says that the GPU is gone, and what is left of it can be dropped.
pub(crate) fn is_gone_when_it_is_removed() -> Outcome {
    let provider = find("vulkan:radv")?;
    let buffer = provider.allocate(&Request::bytes(SIZE))?;
    buffer.flush_peer_writes()?;
    let open = descriptors()?;
    let address = provider.identity().pci.ok_or("no PCI address")?;
    let function = format!("/sys/bus/pci/devices/{address}");
    std::fs::write(format!("{function}/remove"), "1")?;
    ensure!(!std::path::Path::new(&function).exists(), "{function} is still there");
    for placement in [Placement::DeviceLocal, Placement::System] {
        let request = Request::bytes(SIZE).prefer(placement);
        let error = provider.allocate(&request).err().ok_or("a GPU that is gone allocated")?;
        ensure!(error.kind() == ErrorKind::Gone && error.remedy_text().is_some(), "{error}");
    }
    for error in [provider.heaps().err(), buffer.residency().err(), buffer.flush_peer_writes().err()] {
        let error = error.ok_or("a GPU that is gone answered")?;
        ensure!(error.kind() == ErrorKind::Gone && error.remedy_text().is_some(), "{error}");
    }
    ensure!(buffer.export()?.file_information()?.size == SIZE, "the DMA-buf outlives its GPU");
    ensure!(descriptors()? == open, "descriptors are left");
    drop((buffer, provider));
    std::fs::write("/sys/bus/pci/rescan", "1")?;
    Ok(())
}
