//! Every GPU with a Vulkan driver, and devices that the CPU executes, through the Khronos loader.
//!
//! The loader is opened at run time (`libvulkan.so.1`): no loader means no provider, and nothing else. A device needs
//! Vulkan 1.2 with timeline semaphores, `VK_KHR_external_memory_fd` and `VK_EXT_external_memory_dma_buf`; a provider is
//! called by its PCI address (`vulkan:0000:03:00.0`), or by its name where it has none (`vulkan:llvmpipe`).
//!
//! # Where a buffer lies
//!
//! | asked for | memory types that are tried, one after the other |
//! |---|---|
//! | nothing, or CPU-visible device-local memory preferred | device-local and host-visible, then system memory |
//! | device-local memory preferred | device-local, host-visible if all of it is, then system memory |
//! | either of them required | the same without system memory; a fallback of the kernel is seen, and is an error |
//! | system memory | host-visible and cached, of a heap that is not the device's own |
//!
//! Where the CPU reaches only a window of the device's memory, device-local memory is taken outside of it. Drivers may
//! forbid to map it then, and no peer reaches it: ask for CPU-visible memory to have either.
//!
//! What Vulkan calls device-local on a part of the processor is system memory here. Where memory is now, and whether an
//! importer's attachment moved it, Vulkan does not tell: the kernel driver of the same device is asked, as its own
//! backend asks it. A device that the CPU executes exports its buffers by udmabuf, and they stay in system memory.
//!
//! Memory is **not** promised to be cleared: Vulkan leaves its content undefined.
//!
//! Each buffer is a `VkBuffer` with memory of its own, from and to which the device copies, and which its shaders read
//! and write where the driver allows that for exported memory. It is exported when it is allocated, to know that its
//! DMA-buf is one, and as large as the buffer.
//!
//! # Attachments
//!
//! As with the kernel driver's own backend.

mod copy;
mod errors;
mod heaps;
mod identity;
mod import;
mod instance;
mod memory_properties;
mod provider;
mod residency;
mod shaders;
mod sys;
mod usage;

use std::sync::Arc;

use devmem_provider::{DeviceKind, Error, ErrorKind, Provider, Result};

pub use copy::{CopyOptions, GatherMethod};
pub use provider::{Imported, Vulkan};

use sys::physical_device::{Description, Extensions, PhysicalDevice};

/// The backend's name.
pub const NAME: &str = "vulkan";

/// Finds the devices: GPUs first, those that the CPU executes last.
///
/// # Errors
///
/// Why this machine has none that works: no loader, no driver, or what each device lacks.
pub fn discover() -> Result<Vec<Arc<dyn Provider>>> {
    let as_provider = |device| Arc::new(device) as Arc<dyn Provider>;
    Ok(devices()?.into_iter().map(as_provider).collect())
}

/// The devices of [`discover`], with what only this backend does.
///
/// # Errors
///
/// As [`discover`].
pub fn devices() -> Result<Vec<Vulkan>> {
    let instance = instance::shared()?;
    let loader = instance.loader().path().display();
    let devices = instance
        .physical_devices()
        .map_err(|code| errors::failed(code, "list the devices of Vulkan", &loader))?;
    let mut failures = Vec::new();
    let mut suitable: Vec<(PhysicalDevice, Extensions, Description)> = Vec::new();
    for device in devices {
        match provider::examine(&device) {
            Ok((extensions, described)) => suitable.push((device, extensions, described)),
            Err(error) => failures.push(error),
        }
    }
    suitable.sort_by_key(|(_, _, described)| match described.kind {
        DeviceKind::Discrete => 0,
        DeviceKind::Integrated => 1,
        _ => 2,
    });
    let names = identity::names(suitable.iter().map(|(_, _, one)| (one.pci, one.name.as_str())));
    let mut opened = Vec::new();
    for ((device, extensions, described), name) in suitable.iter().zip(names) {
        match Vulkan::open(device, extensions, described, name) {
            Ok(device) => opened.push(device),
            Err(error) => failures.push(error),
        }
    }
    if !opened.is_empty() {
        return Ok(opened);
    }
    Err(none_works(failures, loader))
}

/// Why no device works, one device after the other.
fn none_works(mut failures: Vec<Error>, loader: impl std::fmt::Display) -> Error {
    let operation = "find a device of Vulkan that exports DMA-bufs";
    let error = Error::new(ErrorKind::Unsupported, operation).on(loader);
    match failures.len() {
        0 => error
            .because("the loader's drivers have no device")
            .remedy("install the Vulkan driver of this GPU, and let this user open its DRM node"),
        1 => failures.remove(0),
        _ => {
            let reasons: Vec<String> = failures.iter().map(ToString::to_string).collect();
            error.because(reasons.join("; "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_device_that_does_not_work_is_told() {
        let failure = |name: &str| Error::new(ErrorKind::Unsupported, "export").on(name).because("it cannot");
        let error = none_works(vec![failure("one"), failure("two")], "loader");
        assert!(error.to_string().contains("on one: it cannot; cannot export on two"), "{error}");
        assert_eq!(none_works(Vec::new(), "loader").kind(), ErrorKind::Unsupported);
        assert!(none_works(Vec::new(), "loader").remedy_text().is_some());
    }
}
