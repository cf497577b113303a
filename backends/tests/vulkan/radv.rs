//! Mesa's driver of AMD GPUs, which must tell the same story as the kernel's own backend.

use devmem_backends::{discover, find};
use devmem_provider::{Capabilities, DeviceKind, Placement, Request};

use crate::ensure;
use crate::harness::{Failure, Outcome, SIZE};

/// A part of the device's name.
pub(crate) const SELECTOR: &str = "vulkan:radv";

/// The provider's name, which has the PCI address in it.
pub(crate) fn name() -> Result<String, Failure> {
    Ok(find(SELECTOR)?.identity().name.clone())
}

pub(crate) fn is_the_gpu_of_amdgpu() -> Outcome {
    let (vulkan, amdgpu) = (find(SELECTOR)?, find("amdgpu")?);
    let (ours, kernel) = (vulkan.identity(), amdgpu.identity());
    ensure!(ours.pci.is_some() && ours.pci == kernel.pci, "{ours:?} {kernel:?}");
    ensure!(ours.node == kernel.node && ours.numa_node == kernel.numa_node, "{ours:?} {kernel:?}");
    ensure!(ours.kind == DeviceKind::Discrete && ours.driver == "radv", "{ours:?}");
    let address = ours.pci.map(|pci| pci.to_string()).unwrap_or_default();
    ensure!(ours.name == format!("vulkan:{address}"), "{ours:?}");
    // An address alone still means the kernel driver's provider, and hardware goes before software.
    ensure!(find(&address)?.identity() == kernel, "{address}");
    ensure!(discover().find(&address)?.identity() == kernel, "{address}");
    ensure!(find("vulkan")?.identity() == ours, "{:?}", find("vulkan")?.identity());
    ensure!(
        vulkan.capabilities().contains(Capabilities::RESIDENCY | Capabilities::DEVICE_LOCAL),
        "{vulkan:?}"
    );
    Ok(())
}

pub(crate) fn placements_are_kept() -> Outcome {
    let (vulkan, amdgpu) = (find(SELECTOR)?, find("amdgpu")?);
    for placement in [Placement::DeviceLocal, Placement::DeviceLocalVisible, Placement::System] {
        let request = Request::bytes(SIZE).require(placement);
        let (ours, kernel) = (vulkan.allocate(&request)?, amdgpu.allocate(&request)?);
        let (ours, kernel) = (ours.residency()?, kernel.residency()?);
        ensure!(ours == kernel, "{placement}: {ours:?} and {kernel:?}");
    }
    Ok(())
}
