//! Small buffers in which the CPU and the device tell each other what to do and what came of it.

use std::sync::Arc;

use ash::vk::{BufferUsageFlags, MemoryPropertyFlags as Flags};
use devmem_provider::{ErrorKind, Result};

use super::Shared;
use crate::vulkan::sys::mapping::MappedBuffer;
use crate::vulkan::sys::memory::{BoundBuffer, Buffer, Sharing, Source};

/// For shaders to read and write.
pub(crate) const FOR_SHADERS: BufferUsageFlags = BufferUsageFlags::STORAGE_BUFFER;

/// For a list of indirect copies.
pub(crate) const FOR_INDIRECT_COPIES: BufferUsageFlags = BufferUsageFlags::from_raw(
    BufferUsageFlags::INDIRECT_BUFFER.as_raw() | BufferUsageFlags::SHADER_DEVICE_ADDRESS.as_raw(),
);

/// What the CPU and the device see alike without further words. Every device has such a type (Vulkan specification, "Device
/// Memory Properties").
const COHERENT: Flags = Flags::from_raw(Flags::HOST_VISIBLE.as_raw() | Flags::HOST_COHERENT.as_raw());

/// Makes a buffer that stays mapped, for the CPU to read what the device wrote.
pub(crate) fn scratch(shared: &Shared, bytes: u64, usage: BufferUsageFlags) -> Result<MappedBuffer> {
    mapped(shared, bytes, usage, &[COHERENT | Flags::HOST_CACHED, COHERENT])
}

/// Makes a buffer that stays mapped, for the CPU to write what the device reads, again and again: in the device's own
/// memory where the CPU reaches that, for every workgroup reads its part of the list.
pub(crate) fn list(shared: &Shared, bytes: u64, usage: BufferUsageFlags) -> Result<MappedBuffer> {
    mapped(shared, bytes, usage, &[COHERENT | Flags::DEVICE_LOCAL, COHERENT])
}

/// Makes a buffer in memory of the first of these sorts that there is.
fn mapped(shared: &Shared, bytes: u64, usage: BufferUsageFlags, sorts: &[Flags]) -> Result<MappedBuffer> {
    let operation = || format!("allocate {bytes} bytes that the CPU and the device share");
    let failed = |code| shared.failed(code, operation());
    let buffer = Buffer::new(&shared.device, bytes, usage, Sharing::Private).map_err(failed)?;
    let memory = shared.device.physical().memory();
    let of_sort = |wanted: Flags| {
        let mut types = memory.allowed(buffer.requirements().memory_types);
        types.find(|(_, kind)| kind.flags.contains(wanted)).map(|(index, _)| index)
    };
    let memory_type = sorts.iter().copied().find_map(of_sort).ok_or_else(|| {
        let reason = "the driver has no memory type that is visible to the host and coherent";
        shared
            .refuse("allocate memory that the CPU and the device share", reason)
            .with_kind(ErrorKind::Protocol)
    })?;
    let bound = BoundBuffer::new(buffer, memory_type, Source::Private).map_err(failed)?;
    debug_assert!(Arc::ptr_eq(bound.device(), &shared.device));
    MappedBuffer::new(bound).map_err(failed)
}

/// Writes words as the device reads them. They are known to fit.
pub(crate) fn write(shared: &Shared, scratch: &mut MappedBuffer, offset: u64, bytes: &[u8]) -> Result<()> {
    checked(shared, scratch.write(offset, bytes), "write a list for a shader")
}

/// Reads what a shader has written. It is known to lie inside.
pub(crate) fn read(shared: &Shared, scratch: &MappedBuffer, offset: u64, bytes: &mut [u8]) -> Result<()> {
    checked(shared, scratch.read(offset, bytes), "read what a shader has written")
}

fn checked(
    shared: &Shared,
    outcome: Option<ash::prelude::VkResult<()>>,
    operation: &'static str,
) -> Result<()> {
    match outcome {
        Some(outcome) => outcome.map_err(|code| shared.failed(code, operation)),
        None => Err(shared
            .refuse(operation, "the list is longer than its buffer")
            .with_kind(ErrorKind::InvalidInput)),
    }
}
