//! Mesa's drivers of GPUs, which must tell the same story as the kernel drivers' own backends.

use std::sync::Arc;

use devmem_backends::{discover, find};
use devmem_provider::device_copy::Fences;
use devmem_provider::{Capabilities, ErrorKind, Extent, Placement, Request};

use crate::ensure;
use crate::every_copy::{COPY_TESTS, Copies};
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
    /// Whether the emulated GPU executes what the driver makes of copies: it has a copy engine that the driver uses. No
    /// emulated GPU executes shaders.
    copies: bool,
}

const ANV: &str = "Intel open-source Mesa driver";

pub(crate) const GPUS: &[Gpu] = &[
    Gpu { part: "amdgpu", kernel: "amdgpu", selector: "vulkan:radv", driver: "radv", copies: false },
    Gpu { part: "i915:dg1", kernel: "i915:0", selector: "vulkan:dg1", driver: ANV, copies: false },
    Gpu { part: "i915:tgl", kernel: "i915:1", selector: "vulkan:tgl", driver: ANV, copies: false },
    // Little enough memory to exhaust it.
    Gpu { part: "xe:bmg,vram=256M", kernel: "xe", selector: "vulkan:bmg", driver: ANV, copies: true },
];

/// A test of a GPU, by its name.
type GpuTest = (&'static str, fn(Gpu) -> Outcome);

pub(crate) const TESTS: &[GpuTest] = &[
    ("is_the_gpu_of_the_kernel_driver", is_the_gpu_of_the_kernel_driver),
    ("placements_are_kept", placements_are_kept),
    ("copies_or_says_that_it_does_not", copies_or_says_that_it_does_not),
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

/// A queue that executes nothing reports success like any other; the device is found out before anybody relies on it.
fn copies_or_says_that_it_does_not(gpu: Gpu) -> Outcome {
    let provider = find(gpu.selector)?;
    let copy = provider.device_copy()?.ok_or("it does not copy")?;
    let (source, destination) = (find("udmabuf")?, Arc::clone(&provider));
    let (from, to) =
        (source.allocate(&Request::bytes(SIZE))?.export()?, provider.allocate(&Request::bytes(SIZE))?);
    let refused = |error: devmem_provider::Error| -> Outcome {
        let told = error.to_string();
        ensure!(error.kind() == ErrorKind::Unsupported && told.contains("trial"), "{told}");
        Ok(())
    };
    refused(copy.sha256(&from, &[Extent::new(0, SIZE)]).err().ok_or("it executes shaders")?)?;
    match copy.gather(&from, &to.export()?, Fences::Explicit) {
        Ok(gather) if gpu.copies => drop(gather),
        Ok(_) => return Err("it says that it copies".into()),
        Err(error) if gpu.copies => return Err(error.into()),
        Err(error) => return refused(error),
    }
    let copies = Copies { copy, source, destination };
    for (name, test) in COPY_TESTS.iter().filter(|(name, _)| name.starts_with("gather")) {
        test(&copies).map_err(|error| format!("{name}: {error}"))?;
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
