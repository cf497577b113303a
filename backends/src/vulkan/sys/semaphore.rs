//! Semaphores: what work on queues waits for and signals.

use std::fmt;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use ash::prelude::VkResult;
use ash::vk;

use super::device::Device;

const SYNC_FILE: vk::ExternalSemaphoreHandleTypeFlags = vk::ExternalSemaphoreHandleTypeFlags::SYNC_FD;

/// A semaphore, destroyed on drop.
struct Semaphore {
    raw: vk::Semaphore,
    device: Arc<Device>,
}

impl Semaphore {
    fn new(device: &Arc<Device>, information: &vk::SemaphoreCreateInfo<'_>) -> VkResult<Self> {
        // SAFETY: the structures live through the call.
        let raw = unsafe { device.raw().create_semaphore(information, None) }?;
        Ok(Self { raw, device: Arc::clone(device) })
    }
}

impl Drop for Semaphore {
    fn drop(&mut self) {
        // SAFETY: nobody else has the handle; who submits work with it holds it until the work is over.
        unsafe { self.device.raw().destroy_semaphore(self.raw, None) };
    }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Semaphore").field(&self.raw).finish()
    }
}

/// A semaphore that is signalled once and then waited for once, and passes for a sync_file.
#[derive(Debug)]
pub(crate) struct BinarySemaphore(Semaphore);

impl BinarySemaphore {
    /// Makes one that can be imported into.
    pub(crate) fn new(device: &Arc<Device>) -> VkResult<Self> {
        Semaphore::new(device, &vk::SemaphoreCreateInfo::default()).map(Self)
    }

    /// Makes one that can be exported. The device must be able to export sync_files.
    pub(crate) fn exportable(device: &Arc<Device>) -> VkResult<Self> {
        let mut export = vk::ExportSemaphoreCreateInfo::default().handle_types(SYNC_FILE);
        Semaphore::new(device, &vk::SemaphoreCreateInfo::default().push_next(&mut export)).map(Self)
    }

    /// Makes the next wait one for the fences of a sync_file. The descriptor is closed if that fails.
    ///
    /// `ERROR_EXTENSION_NOT_PRESENT` if the device has no `VK_KHR_external_semaphore_fd`.
    pub(crate) fn import_sync_file(&self, sync_file: OwnedFd) -> VkResult<()> {
        let functions = self.0.device.semaphore_fd().ok_or(vk::Result::ERROR_EXTENSION_NOT_PRESENT)?;
        // sync_files are imported for one wait, and in no other way.
        let information = vk::ImportSemaphoreFdInfoKHR::default()
            .semaphore(self.0.raw)
            .flags(vk::SemaphoreImportFlags::TEMPORARY)
            .handle_type(SYNC_FILE)
            .fd(sync_file.as_raw_fd());
        // SAFETY: the semaphore is alive; the descriptor is open through the call.
        unsafe { functions.import_semaphore_fd(&information) }?;
        // The driver took the descriptor over with its success, and only then.
        let _ = sync_file.into_raw_fd();
        Ok(())
    }

    /// The sync_file that signals when the work does that was submitted to signal this semaphore, which is as if it
    /// had been waited for. `None` if it has signalled already.
    ///
    /// `ERROR_EXTENSION_NOT_PRESENT` if the device has no `VK_KHR_external_semaphore_fd`.
    pub(crate) fn export_sync_file(&self) -> VkResult<Option<OwnedFd>> {
        let functions = self.0.device.semaphore_fd().ok_or(vk::Result::ERROR_EXTENSION_NOT_PRESENT)?;
        let question = vk::SemaphoreGetFdInfoKHR::default().semaphore(self.0.raw).handle_type(SYNC_FILE);
        // SAFETY: the semaphore is alive.
        let fd = unsafe { functions.get_semaphore_fd(&question) }?;
        // SAFETY: the driver returns a new descriptor that nobody else owns, or -1 for one that has signalled.
        Ok((fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    pub(super) fn raw(&self) -> vk::Semaphore {
        self.0.raw
    }
}

/// A number that only grows, which work raises and anybody may wait for.
#[derive(Debug)]
pub(crate) struct TimelineSemaphore(Semaphore);

impl TimelineSemaphore {
    /// Makes one that begins at `value`.
    pub(crate) fn new(device: &Arc<Device>, value: u64) -> VkResult<Self> {
        let mut timeline = vk::SemaphoreTypeCreateInfo::default()
            .semaphore_type(vk::SemaphoreType::TIMELINE)
            .initial_value(value);
        Semaphore::new(device, &vk::SemaphoreCreateInfo::default().push_next(&mut timeline)).map(Self)
    }

    /// Its value now.
    pub(crate) fn value(&self) -> VkResult<u64> {
        // SAFETY: the semaphore is alive and a timeline.
        unsafe { self.0.device.raw().get_semaphore_counter_value(self.0.raw) }
    }

    /// Waits until it has reached `value`, at most `limit`. Returns whether it has.
    pub(crate) fn wait(&self, value: u64, limit: Duration) -> VkResult<bool> {
        let (semaphores, values) = ([self.0.raw], [value]);
        let information = vk::SemaphoreWaitInfo::default().semaphores(&semaphores).values(&values);
        let nanoseconds = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        // SAFETY: the semaphore is alive and a timeline.
        match unsafe { self.0.device.raw().wait_semaphores(&information, nanoseconds) } {
            Ok(()) => Ok(true),
            Err(vk::Result::TIMEOUT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Waits until the value is reached, however long that takes. A device that does not end its work is lost, and its
    /// driver says so.
    pub(crate) fn wait_to_the_end(&self, value: u64) -> VkResult<()> {
        while !self.wait(value, Duration::from_secs(1))? {}
        Ok(())
    }

    pub(super) fn raw(&self) -> vk::Semaphore {
        self.0.raw
    }
}
