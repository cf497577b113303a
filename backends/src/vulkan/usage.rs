//! What the buffers of this backend may be used for.

use ash::vk::BufferUsageFlags;

use super::sys::device::Device;
use super::sys::physical_device::{DmaBufSupport, PhysicalDevice};

/// Copies from and to it.
const COPIES: BufferUsageFlags = BufferUsageFlags::from_raw(
    BufferUsageFlags::TRANSFER_SRC.as_raw() | BufferUsageFlags::TRANSFER_DST.as_raw(),
);

/// Copies, and shaders that read and write it.
const COPIES_AND_SHADERS: BufferUsageFlags =
    BufferUsageFlags::from_raw(COPIES.as_raw() | BufferUsageFlags::STORAGE_BUFFER.as_raw());

/// The most that buffers can be used for whose memory is exported as a DMA-buf.
pub(crate) fn of_exports(device: &PhysicalDevice) -> Option<BufferUsageFlags> {
    first(device, |support| support.exports)
}

/// The most that buffers can be used for whose memory is imported from a DMA-buf.
pub(crate) fn of_imports(device: &Device) -> Option<BufferUsageFlags> {
    let imports = |usage| device.physical().dma_buf_support(usage).imports;
    let with_address = COPIES_AND_SHADERS | BufferUsageFlags::SHADER_DEVICE_ADDRESS;
    if device.copies_indirectly() && imports(with_address) {
        return Some(with_address);
    }
    first(device.physical(), |support| support.imports)
}

fn first(device: &PhysicalDevice, suits: fn(DmaBufSupport) -> bool) -> Option<BufferUsageFlags> {
    [COPIES_AND_SHADERS, COPIES].into_iter().find(|&usage| suits(device.dma_buf_support(usage)))
}
