//! The Vulkan instance: this process's connection to the loader and its drivers.

use std::fmt;
use std::sync::Arc;

use ash::prelude::VkResult;
use ash::vk;

use super::loader::{ApiVersion, Loader};
use super::physical_device::PhysicalDevice;

/// An instance, destroyed on drop.
pub(crate) struct Instance {
    raw: ash::Instance,
    loader: Loader,
}

impl Instance {
    /// Makes an instance. Without any driver the answer is `ERROR_INCOMPATIBLE_DRIVER`.
    pub(crate) fn new(loader: Loader) -> VkResult<Self> {
        let application = vk::ApplicationInfo::default()
            .application_name(c"devmem")
            .engine_name(c"devmem")
            .api_version(ApiVersion::NEEDED.0);
        let information = vk::InstanceCreateInfo::default().application_info(&application);
        // SAFETY: the structures live through the call; the loader lives as long as the instance.
        let raw = unsafe { loader.entry().create_instance(&information, None) }?;
        Ok(Self { raw, loader })
    }

    pub(crate) fn loader(&self) -> &Loader {
        &self.loader
    }

    /// The devices of every driver. A driver lists what was there when the instance first asked.
    pub(crate) fn physical_devices(self: &Arc<Self>) -> VkResult<Vec<PhysicalDevice>> {
        // SAFETY: the instance is alive.
        let devices = unsafe { self.raw.enumerate_physical_devices() }?;
        Ok(devices.into_iter().map(|raw| PhysicalDevice::new(Arc::clone(self), raw)).collect())
    }

    pub(super) fn raw(&self) -> &ash::Instance {
        &self.raw
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // SAFETY: every object made from the instance holds it, so that none is left.
        unsafe { self.raw.destroy_instance(None) };
    }
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Instance").field(&self.loader).finish()
    }
}
