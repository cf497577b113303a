//! A device in use, and its queues.

use std::ffi::CStr;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use ash::prelude::VkResult;
use ash::{ext, khr, vk};

use super::copy_memory_indirect;
use super::physical_device::{Extensions, PhysicalDevice};

/// A logical device, destroyed on drop. Whatever is made of it holds it.
pub(crate) struct Device {
    raw: ash::Device,
    memory_fd: khr::external_memory_fd::Device,
    semaphore_fd: Option<khr::external_semaphore_fd::Device>,
    copy_memory_indirect: Option<copy_memory_indirect::Function>,
    queue: Queue,
    transfer_queue: Option<Queue>,
    memory_types: u32,
    limits: vk::PhysicalDeviceLimits,
    extensions: Extensions,
    lost: AtomicBool,
    physical: PhysicalDevice,
}

/// A queue. Submission must be synchronised by the caller (Vulkan specification, "Threading Behavior"): the lock does.
pub(crate) struct Queue {
    raw: Mutex<vk::Queue>,
    family: u32,
    flags: vk::QueueFlags,
}

impl Queue {
    /// The index of its family.
    pub(crate) fn family(&self) -> u32 {
        self.family
    }

    /// Whether it executes compute shaders.
    fn computes(&self) -> bool {
        self.flags.contains(vk::QueueFlags::COMPUTE)
    }

    /// Uses the queue while nobody else does.
    pub(super) fn with<T>(&self, action: impl FnOnce(vk::Queue) -> T) -> T {
        action(*self.raw.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Which queue of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QueueRole {
    /// The one for everything.
    Main,
    /// The one for copies alone; where a device has none, the one for everything.
    Transfer,
}

/// The families to take a queue of, by their indices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Families {
    /// For everything: it copies, and computes if any family does.
    pub(crate) main: u32,
    /// For copies alone: the engine that moves memory beside whatever else a GPU does.
    pub(crate) transfer: Option<u32>,
}

impl Families {
    /// Chooses among the families of a device. `None` if it has no family that copies.
    pub(crate) fn choose(families: &[vk::QueueFlags]) -> Option<Self> {
        // A family that draws or computes also copies, whether it says so or not.
        const COPIES: vk::QueueFlags = vk::QueueFlags::from_raw(
            vk::QueueFlags::TRANSFER.as_raw()
                | vk::QueueFlags::COMPUTE.as_raw()
                | vk::QueueFlags::GRAPHICS.as_raw(),
        );
        let find = |suits: &dyn Fn(vk::QueueFlags) -> bool| {
            (0..).zip(families).find(|(_, flags)| suits(**flags)).map(|(index, _)| index)
        };
        let main = find(&|flags| flags.contains(vk::QueueFlags::COMPUTE))
            .or_else(|| find(&|flags| flags.intersects(COPIES)))?;
        let transfer = find(&|flags| flags & COPIES == vk::QueueFlags::TRANSFER);
        Some(Self { main, transfer: transfer.filter(|&transfer| transfer != main) })
    }
}

impl Device {
    /// Takes a device into use. It must serve [`ApiVersion::NEEDED`](super::loader::ApiVersion::NEEDED) with timeline
    /// semaphores; extensions are used where they are.
    pub(crate) fn open(
        physical: &PhysicalDevice,
        extensions: &Extensions,
        families: Families,
    ) -> VkResult<Self> {
        let mut names = Vec::new();
        if extensions.external_memory_fd {
            names.push(khr::external_memory_fd::NAME);
        }
        if extensions.external_memory_dma_buf {
            names.push(ext::external_memory_dma_buf::NAME);
        }
        if extensions.external_semaphore_fd {
            names.push(khr::external_semaphore_fd::NAME);
        }
        if extensions.queue_family_foreign {
            names.push(ext::queue_family_foreign::NAME);
        }
        if extensions.copy_memory_indirect {
            names.push(copy_memory_indirect::NAME);
        }
        let names: Vec<_> = names.into_iter().map(CStr::as_ptr).collect();
        let queue =
            |family| vk::DeviceQueueCreateInfo::default().queue_family_index(family).queue_priorities(&[1.0]);
        let queues: Vec<_> =
            [Some(families.main), families.transfer].into_iter().flatten().map(queue).collect();
        let mut timeline = vk::PhysicalDeviceTimelineSemaphoreFeatures::default().timeline_semaphore(true);
        // Every device has it: what a shader reads or writes outside of its buffers is harmless.
        let features = vk::PhysicalDeviceFeatures::default().robust_buffer_access(true);
        let mut copies = copy_memory_indirect::Features::new(true);
        let mut addresses =
            vk::PhysicalDeviceBufferDeviceAddressFeatures::default().buffer_device_address(true);
        let mut information = vk::DeviceCreateInfo::default()
            .queue_create_infos(&queues)
            .enabled_features(&features)
            .enabled_extension_names(&names)
            .push_next(&mut timeline);
        if extensions.copy_memory_indirect {
            information = information.push_next(&mut copies).push_next(&mut addresses);
        }
        let instance = physical.instance().raw();
        // SAFETY: the structures and what they point to live through the call.
        let raw = unsafe { instance.create_device(physical.raw(), &information, None) }?;
        let kinds = physical.queue_families();
        let queue = |family: u32| {
            // SAFETY: a queue of this family was asked for above.
            let queue = unsafe { raw.get_device_queue(family, 0) };
            let flags = kinds.get(family as usize).copied().unwrap_or_default();
            Queue { raw: Mutex::new(queue), family, flags }
        };
        let has_semaphore_fd = extensions.external_semaphore_fd;
        Ok(Self {
            memory_fd: khr::external_memory_fd::Device::new(instance, &raw),
            semaphore_fd: has_semaphore_fd.then(|| khr::external_semaphore_fd::Device::new(instance, &raw)),
            copy_memory_indirect: extensions
                .copy_memory_indirect
                .then(|| copy_memory_indirect::Function::load(instance, raw.handle()))
                .flatten(),
            queue: queue(families.main),
            transfer_queue: families.transfer.map(queue),
            memory_types: u32::try_from(physical.memory().types.len()).unwrap_or(0),
            raw,
            limits: physical.limits(),
            extensions: *extensions,
            lost: AtomicBool::new(false),
            physical: physical.clone(),
        })
    }

    /// The device that this is.
    pub(crate) fn physical(&self) -> &PhysicalDevice {
        &self.physical
    }

    /// The extensions that are enabled where they are there.
    pub(crate) fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    /// Alignments, counts and sizes.
    pub(crate) fn limits(&self) -> &vk::PhysicalDeviceLimits {
        &self.limits
    }

    /// The queue of this role.
    pub(crate) fn queue(&self, role: QueueRole) -> &Queue {
        match (role, &self.transfer_queue) {
            (QueueRole::Transfer, Some(queue)) => queue,
            _ => &self.queue,
        }
    }

    /// Whether there is a queue for copies alone.
    pub(crate) fn has_transfer_queue(&self) -> bool {
        self.transfer_queue.is_some()
    }

    /// Whether the queue for everything executes compute shaders.
    pub(crate) fn computes(&self) -> bool {
        self.queue.computes()
    }

    /// Whether somebody was told that the device is lost. It stays so, and a driver need not say it again.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Remembers that the device is lost.
    pub(crate) fn set_lost(&self) {
        self.lost.store(true, Ordering::Relaxed);
    }

    /// Whether buffers have addresses, and copies may be told by lists in memory.
    pub(crate) fn copies_indirectly(&self) -> bool {
        self.copy_memory_indirect.is_some() && self.queue.computes()
    }

    /// Waits until every queue is idle.
    pub(crate) fn wait_idle(&self) -> VkResult<()> {
        let wait = || {
            // SAFETY: the device is alive, and nobody submits meanwhile: its queues are locked.
            unsafe { self.raw.device_wait_idle() }
        };
        self.queue.with(|_| match &self.transfer_queue {
            Some(transfer) => transfer.with(|_| wait()),
            None => wait(),
        })
    }

    /// How many memory types it has.
    pub(super) fn memory_types(&self) -> u32 {
        self.memory_types
    }

    pub(super) fn copy_memory_indirect(&self) -> Option<&copy_memory_indirect::Function> {
        self.copy_memory_indirect.as_ref()
    }

    pub(super) fn raw(&self) -> &ash::Device {
        &self.raw
    }

    pub(super) fn memory_fd(&self) -> &khr::external_memory_fd::Device {
        &self.memory_fd
    }

    pub(super) fn semaphore_fd(&self) -> Option<&khr::external_semaphore_fd::Device> {
        self.semaphore_fd.as_ref()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // A device that is lost is idle too.
        let _ = self.wait_idle();
        // SAFETY: every object made of the device holds it, so that none is left.
        unsafe { self.raw.destroy_device(None) };
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Device").field(&self.physical).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRAPHICS: vk::QueueFlags = vk::QueueFlags::GRAPHICS;
    const COMPUTE: vk::QueueFlags = vk::QueueFlags::COMPUTE;
    const TRANSFER: vk::QueueFlags = vk::QueueFlags::TRANSFER;
    const VIDEO: vk::QueueFlags = vk::QueueFlags::VIDEO_DECODE_KHR;

    fn chosen(families: &[vk::QueueFlags]) -> Option<(u32, Option<u32>)> {
        Families::choose(families).map(|families| (families.main, families.transfer))
    }

    #[test]
    fn the_queue_computes_where_one_does_and_the_copying_engine_is_found() {
        let all = GRAPHICS | COMPUTE | TRANSFER;
        assert_eq!(chosen(&[all]), Some((0, None)));
        assert_eq!(chosen(&[all, COMPUTE | TRANSFER, TRANSFER | VIDEO, VIDEO]), Some((0, Some(2))));
        // Drawing alone, as some part of a processor may be without shaders that compute; it copies all the same.
        assert_eq!(chosen(&[VIDEO, GRAPHICS, COMPUTE]), Some((2, None)));
        assert_eq!(chosen(&[VIDEO, GRAPHICS]), Some((1, None)));
        assert_eq!(chosen(&[TRANSFER]), Some((0, None)));
        assert_eq!(chosen(&[VIDEO]), None);
        assert_eq!(chosen(&[]), None);
    }
}
