//! What a device says of itself.

use std::ffi::CStr;
use std::fmt;
use std::sync::Arc;

use ash::prelude::VkResult;
use ash::{ext, khr, vk};
use devmem_provider::{DeviceKind, PciAddress};

use super::copy_memory_indirect;
use super::instance::Instance;
use super::loader::ApiVersion;
use crate::vulkan::memory_properties::{HeapBudget, MemoryHeap, MemoryProperties, MemoryType};

/// A device of a driver. A clone is the same device.
#[derive(Clone)]
pub(crate) struct PhysicalDevice {
    instance: Arc<Instance>,
    raw: vk::PhysicalDevice,
}

/// The extensions that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Extensions {
    pub(crate) external_memory_fd: bool,
    pub(crate) external_memory_dma_buf: bool,
    pub(crate) external_semaphore_fd: bool,
    pub(crate) queue_family_foreign: bool,
    pub(crate) memory_budget: bool,
    pub(crate) physical_device_drm: bool,
    pub(crate) pci_bus_info: bool,
    /// With the feature of that name, and buffers that have addresses.
    pub(crate) copy_memory_indirect: bool,
}

/// A DRM node, by its device number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DrmNode {
    pub(crate) major: u64,
    pub(crate) minor: u64,
}

/// What a device that serves [`ApiVersion::NEEDED`] says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Description {
    pub(crate) name: String,
    pub(crate) kind: DeviceKind,
    pub(crate) driver: String,
    /// The driver's version, in its own words.
    pub(crate) driver_version: String,
    pub(crate) pci: Option<PciAddress>,
    pub(crate) primary_node: Option<DrmNode>,
    pub(crate) render_node: Option<DrmNode>,
    /// The size of the largest allocation, in bytes.
    pub(crate) maximum_allocation: u64,
    pub(crate) timeline_semaphores: bool,
}

/// What a device can do with DMA-bufs as buffers of a certain use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DmaBufSupport {
    pub(crate) exports: bool,
    pub(crate) imports: bool,
    /// Memory must be allocated for one buffer alone.
    pub(crate) dedicated_only: bool,
}

/// What a device can do with sync_files as binary semaphores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SyncFileSupport {
    pub(crate) exports: bool,
    pub(crate) imports: bool,
}

impl PhysicalDevice {
    pub(super) fn new(instance: Arc<Instance>, raw: vk::PhysicalDevice) -> Self {
        Self { instance, raw }
    }

    pub(crate) fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    pub(super) fn raw(&self) -> vk::PhysicalDevice {
        self.raw
    }

    fn properties(&self) -> vk::PhysicalDeviceProperties {
        // SAFETY: the device belongs to the instance, which is alive; so in every function here.
        unsafe { self.instance.raw().get_physical_device_properties(self.raw) }
    }

    /// The device's name, whatever its version.
    pub(crate) fn name(&self) -> String {
        text(self.properties().device_name_as_c_str().ok())
    }

    /// The version that the driver serves.
    pub(crate) fn api_version(&self) -> ApiVersion {
        ApiVersion(self.properties().api_version)
    }

    /// Alignments, counts and sizes.
    pub(crate) fn limits(&self) -> vk::PhysicalDeviceLimits {
        self.properties().limits
    }

    pub(crate) fn extensions(&self) -> VkResult<Extensions> {
        // SAFETY: as above.
        let list = unsafe { self.instance.raw().enumerate_device_extension_properties(self.raw) }?;
        let has = |wanted: &CStr| list.iter().any(|one| one.extension_name_as_c_str() == Ok(wanted));
        Ok(Extensions {
            external_memory_fd: has(khr::external_memory_fd::NAME),
            external_memory_dma_buf: has(ext::external_memory_dma_buf::NAME),
            external_semaphore_fd: has(khr::external_semaphore_fd::NAME),
            queue_family_foreign: has(ext::queue_family_foreign::NAME),
            memory_budget: has(ext::memory_budget::NAME),
            physical_device_drm: has(ext::physical_device_drm::NAME),
            pci_bus_info: has(ext::pci_bus_info::NAME),
            copy_memory_indirect: has(copy_memory_indirect::NAME) && copy_memory_indirect::is_supported(self),
        })
    }

    /// What the device says of itself. The device must serve [`ApiVersion::NEEDED`].
    pub(crate) fn describe(&self, extensions: &Extensions) -> Description {
        let mut driver = vk::PhysicalDeviceDriverProperties::default();
        let mut limits = vk::PhysicalDeviceMaintenance3Properties::default();
        let mut drm = vk::PhysicalDeviceDrmPropertiesEXT::default();
        let mut pci = vk::PhysicalDevicePCIBusInfoPropertiesEXT::default();
        let mut properties =
            vk::PhysicalDeviceProperties2::default().push_next(&mut driver).push_next(&mut limits);
        if extensions.physical_device_drm {
            properties = properties.push_next(&mut drm);
        }
        if extensions.pci_bus_info {
            properties = properties.push_next(&mut pci);
        }
        // SAFETY: as above; the structures in the chain are of the version and the extensions that the device serves.
        unsafe { self.instance.raw().get_physical_device_properties2(self.raw, &mut properties) };
        let properties = properties.properties;
        let mut timeline = vk::PhysicalDeviceTimelineSemaphoreFeatures::default();
        let mut features = vk::PhysicalDeviceFeatures2::default().push_next(&mut timeline);
        // SAFETY: as above.
        unsafe { self.instance.raw().get_physical_device_features2(self.raw, &mut features) };
        let node = |is_there, major: i64, minor: i64| {
            let node = DrmNode { major: u64::try_from(major).ok()?, minor: u64::try_from(minor).ok()? };
            (is_there == vk::TRUE).then_some(node)
        };
        let address = || {
            Some(PciAddress {
                domain: pci.pci_domain,
                bus: u8::try_from(pci.pci_bus).ok()?,
                device: u8::try_from(pci.pci_device).ok()?,
                function: u8::try_from(pci.pci_function).ok()?,
            })
        };
        Description {
            name: text(properties.device_name_as_c_str().ok()),
            kind: kind(properties.device_type),
            driver: text(driver.driver_name_as_c_str().ok()),
            driver_version: text(driver.driver_info_as_c_str().ok()),
            pci: extensions.pci_bus_info.then(address).flatten(),
            primary_node: node(drm.has_primary, drm.primary_major, drm.primary_minor),
            render_node: node(drm.has_render, drm.render_major, drm.render_minor),
            maximum_allocation: limits.max_memory_allocation_size,
            timeline_semaphores: timeline.timeline_semaphore == vk::TRUE,
        }
    }

    /// What each queue family can do.
    pub(crate) fn queue_families(&self) -> Vec<vk::QueueFlags> {
        // SAFETY: as above.
        let families = unsafe { self.instance.raw().get_physical_device_queue_family_properties(self.raw) };
        families.iter().map(|family| family.queue_flags).collect()
    }

    pub(crate) fn memory(&self) -> MemoryProperties {
        // SAFETY: as above.
        let told = unsafe { self.instance.raw().get_physical_device_memory_properties(self.raw) };
        let types = told
            .memory_types_as_slice()
            .iter()
            .map(|told| MemoryType { heap: told.heap_index as usize, flags: told.property_flags });
        let heaps = told.memory_heaps_as_slice().iter().map(|told| MemoryHeap {
            size: told.size,
            device_local: told.flags.contains(vk::MemoryHeapFlags::DEVICE_LOCAL),
        });
        MemoryProperties { types: types.collect(), heaps: heaps.collect() }
    }

    /// What is left of each heap now. The device must serve `VK_EXT_memory_budget`.
    pub(crate) fn memory_budget(&self) -> Vec<HeapBudget> {
        let mut told = vk::PhysicalDeviceMemoryBudgetPropertiesEXT::default();
        let mut properties = vk::PhysicalDeviceMemoryProperties2::default().push_next(&mut told);
        // SAFETY: as above.
        unsafe { self.instance.raw().get_physical_device_memory_properties2(self.raw, &mut properties) };
        let count = properties.memory_properties.memory_heap_count as usize;
        let heaps = told.heap_budget.iter().zip(&told.heap_usage).take(count);
        heaps.map(|(&budget, &usage)| HeapBudget { budget, usage }).collect()
    }

    /// What the device can do with DMA-bufs as buffers of this use.
    pub(crate) fn dma_buf_support(&self, usage: vk::BufferUsageFlags) -> DmaBufSupport {
        let question = vk::PhysicalDeviceExternalBufferInfo::default()
            .usage(usage)
            .handle_type(vk::ExternalMemoryHandleTypeFlags::DMA_BUF_EXT);
        let mut answer = vk::ExternalBufferProperties::default();
        // SAFETY: as above.
        unsafe {
            self.instance.raw().get_physical_device_external_buffer_properties(
                self.raw,
                &question,
                &mut answer,
            );
        }
        let features = answer.external_memory_properties.external_memory_features;
        DmaBufSupport {
            exports: features.contains(vk::ExternalMemoryFeatureFlags::EXPORTABLE),
            imports: features.contains(vk::ExternalMemoryFeatureFlags::IMPORTABLE),
            dedicated_only: features.contains(vk::ExternalMemoryFeatureFlags::DEDICATED_ONLY),
        }
    }

    /// What the device can do with sync_files as binary semaphores.
    pub(crate) fn sync_file_support(&self) -> SyncFileSupport {
        let question = vk::PhysicalDeviceExternalSemaphoreInfo::default()
            .handle_type(vk::ExternalSemaphoreHandleTypeFlags::SYNC_FD);
        let mut answer = vk::ExternalSemaphoreProperties::default();
        // SAFETY: as above.
        unsafe {
            self.instance.raw().get_physical_device_external_semaphore_properties(
                self.raw,
                &question,
                &mut answer,
            );
        }
        let features = answer.external_semaphore_features;
        SyncFileSupport {
            exports: features.contains(vk::ExternalSemaphoreFeatureFlags::EXPORTABLE),
            imports: features.contains(vk::ExternalSemaphoreFeatureFlags::IMPORTABLE),
        }
    }
}

impl fmt::Debug for PhysicalDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PhysicalDevice").field(&self.name()).finish()
    }
}

fn kind(told: vk::PhysicalDeviceType) -> DeviceKind {
    match told {
        // What a virtual machine is given stands for memory that the machine's processor does not own.
        vk::PhysicalDeviceType::DISCRETE_GPU | vk::PhysicalDeviceType::VIRTUAL_GPU => DeviceKind::Discrete,
        vk::PhysicalDeviceType::CPU => DeviceKind::Software,
        _ => DeviceKind::Integrated,
    }
}

fn text(name: Option<&CStr>) -> String {
    name.unwrap_or_default().to_string_lossy().into_owned()
}
