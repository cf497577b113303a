//! Buffers and the memory behind them.

use std::fmt;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::Arc;

use ash::prelude::VkResult;
use ash::vk;

use super::device::Device;

const DMA_BUF: vk::ExternalMemoryHandleTypeFlags = vk::ExternalMemoryHandleTypeFlags::DMA_BUF_EXT;

/// Whether a buffer's memory is shared with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// It is this device's alone.
    Private,
    /// It is exported or imported as a DMA-buf.
    DmaBuf,
}

/// What a buffer demands of its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Requirements {
    /// The size of the memory in bytes: the buffer's or more.
    pub(crate) size: u64,
    /// The memory types that serve, a bit each.
    pub(crate) memory_types: u32,
    /// Memory must be allocated for this buffer alone.
    pub(crate) dedicated: bool,
}

/// A buffer without memory, destroyed on drop.
pub(crate) struct Buffer {
    raw: vk::Buffer,
    size: u64,
    usage: vk::BufferUsageFlags,
    sharing: Sharing,
    device: Arc<Device>,
}

impl Buffer {
    /// Makes a buffer of `size` bytes, at least 1, for at least one use and queues of one family at a time. What no
    /// device can do answers `ERROR_FEATURE_NOT_PRESENT`.
    pub(crate) fn new(
        device: &Arc<Device>,
        size: u64,
        usage: vk::BufferUsageFlags,
        sharing: Sharing,
    ) -> VkResult<Self> {
        if size == 0 || usage.is_empty() {
            return Err(vk::Result::ERROR_FEATURE_NOT_PRESENT);
        }
        let mut external = vk::ExternalMemoryBufferCreateInfo::default().handle_types(DMA_BUF);
        let mut information =
            vk::BufferCreateInfo::default().size(size).usage(usage).sharing_mode(vk::SharingMode::EXCLUSIVE);
        if sharing == Sharing::DmaBuf {
            information = information.push_next(&mut external);
        }
        // SAFETY: the structures live through the call.
        let raw = unsafe { device.raw().create_buffer(&information, None) }?;
        Ok(Self { raw, size, usage, sharing, device: Arc::clone(device) })
    }

    pub(crate) fn requirements(&self) -> Requirements {
        let question = vk::BufferMemoryRequirementsInfo2::default().buffer(self.raw);
        let mut dedicated = vk::MemoryDedicatedRequirements::default();
        let mut answer = vk::MemoryRequirements2::default().push_next(&mut dedicated);
        // SAFETY: the buffer is alive.
        unsafe { self.device.raw().get_buffer_memory_requirements2(&question, &mut answer) };
        let told = answer.memory_requirements;
        let only = self.sharing == Sharing::DmaBuf
            && self.device.physical().dma_buf_support(self.usage).dedicated_only;
        Requirements {
            size: told.size,
            memory_types: told.memory_type_bits,
            dedicated: only || dedicated.requires_dedicated_allocation == vk::TRUE,
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: nobody else has the handle, and no work uses it: who submits work holds the buffer until it is over.
        unsafe { self.device.raw().destroy_buffer(self.raw, None) };
    }
}

/// Where a buffer's memory comes from.
#[derive(Debug)]
pub(crate) enum Source {
    /// New memory, of this device alone.
    Private,
    /// New memory that can be exported as a DMA-buf.
    Exportable,
    /// The memory of a DMA-buf.
    Import(OwnedFd),
}

impl Source {
    fn sharing(&self) -> Sharing {
        match self {
            Self::Private => Sharing::Private,
            Self::Exportable | Self::Import(_) => Sharing::DmaBuf,
        }
    }
}

/// Memory, freed on drop.
struct Memory {
    raw: vk::DeviceMemory,
    size: u64,
    memory_type: u32,
    exportable: bool,
    device: Arc<Device>,
}

impl Memory {
    fn allocate(buffer: &Buffer, memory_type: u32, source: Source) -> VkResult<Self> {
        let device = &buffer.device;
        let requirements = buffer.requirements();
        let suits = memory_type < device.memory_types() && requirements.memory_types >> memory_type & 1 != 0;
        if !suits || source.sharing() != buffer.sharing {
            return Err(vk::Result::ERROR_FEATURE_NOT_PRESENT);
        }
        let mut dedicated = vk::MemoryDedicatedAllocateInfo::default().buffer(buffer.raw);
        let mut export = vk::ExportMemoryAllocateInfo::default().handle_types(DMA_BUF);
        let mut flags = vk::MemoryAllocateFlagsInfo::default().flags(vk::MemoryAllocateFlags::DEVICE_ADDRESS);
        let mut import = vk::ImportMemoryFdInfoKHR::default().handle_type(DMA_BUF);
        let mut information = vk::MemoryAllocateInfo::default()
            .allocation_size(requirements.size)
            .memory_type_index(memory_type);
        if requirements.dedicated {
            information = information.push_next(&mut dedicated);
        }
        if buffer.usage.contains(vk::BufferUsageFlags::SHADER_DEVICE_ADDRESS) {
            information = information.push_next(&mut flags);
        }
        let exportable = matches!(source, Source::Exportable);
        let imported = match source {
            Source::Private => None,
            Source::Exportable => {
                information = information.push_next(&mut export);
                None
            }
            Source::Import(fd) => {
                import = import.fd(fd.as_raw_fd());
                information = information.push_next(&mut import);
                Some(fd)
            }
        };
        // SAFETY: the structures live through the call; the memory type exists and suits the buffer.
        let raw = unsafe { device.raw().allocate_memory(&information, None) }?;
        if let Some(fd) = imported {
            // The driver took the descriptor over with its success, and only then.
            let _ = fd.into_raw_fd();
        }
        Ok(Self { raw, size: requirements.size, memory_type, exportable, device: Arc::clone(device) })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: nobody else has the handle; the buffer that is bound to it is gone, or destroyed next without use.
        unsafe { self.device.raw().free_memory(self.raw, None) };
    }
}

/// A buffer with the memory behind it.
pub(crate) struct BoundBuffer {
    // The buffer goes before its memory.
    buffer: Buffer,
    memory: Memory,
}

impl BoundBuffer {
    /// Allocates or imports memory of a type that the buffer allows, and binds it. A descriptor to import is closed
    /// if that fails. Another type, or a source that is shared otherwise than the buffer, answers
    /// `ERROR_FEATURE_NOT_PRESENT`.
    pub(crate) fn new(buffer: Buffer, memory_type: u32, source: Source) -> VkResult<Self> {
        let memory = Memory::allocate(&buffer, memory_type, source)?;
        let binding = vk::BindBufferMemoryInfo::default().buffer(buffer.raw).memory(memory.raw);
        // SAFETY: the buffer has no memory yet, and the memory is of its device, of a type that it allows, and large
        // enough.
        unsafe { memory.device.raw().bind_buffer_memory2(&[binding]) }?;
        Ok(Self { buffer, memory })
    }

    pub(crate) fn device(&self) -> &Arc<Device> {
        &self.buffer.device
    }

    /// The size in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.buffer.size
    }

    /// What it may be used for.
    pub(crate) fn usage(&self) -> vk::BufferUsageFlags {
        self.buffer.usage
    }

    /// Its address for the device. `None` if it was not made to have one.
    pub(crate) fn address(&self) -> Option<u64> {
        let has_one = self.buffer.usage.contains(vk::BufferUsageFlags::SHADER_DEVICE_ADDRESS)
            && self.device().copies_indirectly();
        has_one.then(|| {
            let question = vk::BufferDeviceAddressInfo::default().buffer(self.buffer.raw);
            // SAFETY: the buffer is alive, and has memory of which addresses were asked for; the feature is enabled.
            unsafe { self.device().raw().get_buffer_device_address(&question) }
        })
    }

    /// Whether others than this device reach its memory, so that its ownership has to be transferred.
    pub(crate) fn is_shared(&self) -> bool {
        self.buffer.sharing == Sharing::DmaBuf
    }

    /// The index of its memory type.
    pub(crate) fn memory_type(&self) -> u32 {
        self.memory.memory_type
    }

    /// A new descriptor of its memory. `ERROR_INVALID_EXTERNAL_HANDLE` if it is not [`Source::Exportable`].
    pub(crate) fn export(&self) -> VkResult<OwnedFd> {
        if !self.memory.exportable {
            return Err(vk::Result::ERROR_INVALID_EXTERNAL_HANDLE);
        }
        let question = vk::MemoryGetFdInfoKHR::default().memory(self.memory.raw).handle_type(DMA_BUF);
        // SAFETY: the memory is alive.
        let fd = unsafe { self.device().memory_fd().get_memory_fd(&question) }?;
        if fd < 0 {
            return Err(vk::Result::ERROR_UNKNOWN);
        }
        // SAFETY: the driver returns a new descriptor that nobody else owns.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    pub(super) fn raw(&self) -> vk::Buffer {
        self.buffer.raw
    }

    pub(super) fn raw_memory(&self) -> vk::DeviceMemory {
        self.memory.raw
    }

    /// The size of its memory in bytes.
    pub(super) fn memory_size(&self) -> u64 {
        self.memory.size
    }
}

impl fmt::Debug for BoundBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoundBuffer")
            .field("size", &self.size())
            .field("memory_type", &self.memory_type())
            .field("sharing", &self.buffer.sharing)
            .field("device", self.device())
            .finish()
    }
}

/// The memory types as which the driver imports a DMA-buf, a bit each.
pub(crate) fn import_types(device: &Device, fd: BorrowedFd<'_>) -> VkResult<u32> {
    let mut answer = vk::MemoryFdPropertiesKHR::default();
    // SAFETY: the descriptor is open through the call, which does not keep it.
    unsafe { device.memory_fd().get_memory_fd_properties(DMA_BUF, fd.as_raw_fd(), &mut answer) }?;
    Ok(answer.memory_type_bits)
}
