//! `VK_KHR_copy_memory_indirect`, which is younger than the interface description that this crate is built with: copies
//! whose addresses and sizes the device reads from memory.

use std::ffi::{CStr, c_void};
use std::marker::PhantomData;

use ash::vk;

use super::physical_device::PhysicalDevice;

/// The extension's name.
pub(super) const NAME: &CStr = c"VK_KHR_copy_memory_indirect";

const FUNCTION: &CStr = c"vkCmdCopyMemoryIndirectKHR";

/// `VkPhysicalDeviceCopyMemoryIndirectFeaturesKHR`.
#[repr(C)]
pub(super) struct Features<'a> {
    s_type: vk::StructureType,
    p_next: *mut c_void,
    indirect_memory_copy: vk::Bool32,
    indirect_memory_to_image_copy: vk::Bool32,
    marker: PhantomData<&'a ()>,
}

// SAFETY: the structure begins with its type and the pointer to the next one.
unsafe impl vk::TaggedStructure for Features<'_> {
    const STRUCTURE_TYPE: vk::StructureType = vk::StructureType::from_raw(1_000_549_000);
}

// SAFETY: the extension's specification lets it extend these two.
unsafe impl vk::ExtendsPhysicalDeviceFeatures2 for Features<'_> {}
// SAFETY: as above.
unsafe impl vk::ExtendsDeviceCreateInfo for Features<'_> {}

impl Features<'_> {
    /// Copies between memory as a feature that is there, asked for, or neither.
    pub(super) fn new(indirect_memory_copy: bool) -> Self {
        Self {
            s_type: <Self as vk::TaggedStructure>::STRUCTURE_TYPE,
            p_next: std::ptr::null_mut(),
            indirect_memory_copy: indirect_memory_copy.into(),
            indirect_memory_to_image_copy: vk::FALSE,
            marker: PhantomData,
        }
    }
}

/// Whether a device that has the extension copies so between memory, on queues that compute.
pub(super) fn is_supported(physical: &PhysicalDevice) -> bool {
    let functions = physical.instance().raw();
    let mut copies = Features::new(false);
    let mut addresses = vk::PhysicalDeviceBufferDeviceAddressFeatures::default();
    let mut features =
        vk::PhysicalDeviceFeatures2::default().push_next(&mut copies).push_next(&mut addresses);
    // SAFETY: the device belongs to the instance, which is alive; it has the extensions of the structures.
    unsafe { functions.get_physical_device_features2(physical.raw(), &mut features) };
    let is_there = copies.indirect_memory_copy == vk::TRUE && addresses.buffer_device_address == vk::TRUE;
    // The structure is the older extension's.
    let mut queues = vk::PhysicalDeviceCopyMemoryIndirectPropertiesNV::default();
    let mut properties = vk::PhysicalDeviceProperties2::default().push_next(&mut queues);
    // SAFETY: as above.
    unsafe { functions.get_physical_device_properties2(physical.raw(), &mut properties) };
    is_there && queues.supported_queues.contains(vk::QueueFlags::COMPUTE)
}

/// `VkCopyMemoryIndirectCommandKHR`: one copy, as the device reads it. Addresses and sizes are multiples of 4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct IndirectCopy {
    /// The address of the source.
    pub(crate) source: u64,
    /// The address of the destination.
    pub(crate) destination: u64,
    /// In bytes.
    pub(crate) size: u64,
}

/// What the addresses and sizes of a copy are multiples of, in bytes.
pub(crate) const ALIGNMENT: u64 = 4;

/// `VkCopyMemoryIndirectInfoKHR`.
#[repr(C)]
struct Information {
    s_type: vk::StructureType,
    p_next: *const c_void,
    source_flags: u32,
    destination_flags: u32,
    count: u32,
    address: vk::DeviceAddress,
    size: vk::DeviceSize,
    stride: vk::DeviceSize,
}

const _: () = {
    assert!(
        size_of::<Features<'_>>() == 24 && size_of::<IndirectCopy>() == 24 && size_of::<Information>() == 56
    );
    assert!(std::mem::offset_of!(Information, address) == 32);
};

type CopyMemoryIndirect = unsafe extern "system" fn(vk::CommandBuffer, *const Information);

/// The extension's function.
pub(super) struct Function(CopyMemoryIndirect);

impl Function {
    /// Looks it up. `None` if the driver has none.
    pub(super) fn load(instance: &ash::Instance, device: vk::Device) -> Option<Self> {
        // SAFETY: the device is alive, and the name ends with zero.
        let function = unsafe { instance.get_device_proc_addr(device, FUNCTION.as_ptr()) }?;
        // SAFETY: this is the function's type.
        Some(Self(unsafe {
            std::mem::transmute::<unsafe extern "system" fn(), CopyMemoryIndirect>(function)
        }))
    }

    /// Copies what `count` of [`IndirectCopy`] tell that lie at `address`.
    ///
    /// # Safety
    ///
    /// The command buffer is being recorded outside of a render pass, its device has the extension enabled, and the copies
    /// are valid when they are executed.
    pub(super) unsafe fn record(&self, commands: vk::CommandBuffer, address: vk::DeviceAddress, count: u32) {
        let stride = size_of::<IndirectCopy>() as u64;
        let information = Information {
            s_type: vk::StructureType::from_raw(1_000_549_002),
            p_next: std::ptr::null(),
            source_flags: 0,
            destination_flags: 0,
            count,
            address,
            size: stride * u64::from(count),
            stride,
        };
        // SAFETY: the caller's promise; the structure lives through the call.
        unsafe { (self.0)(commands, &information) };
    }
}
