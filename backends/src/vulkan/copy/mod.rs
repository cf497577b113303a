//! What a device does with the bytes of DMA-bufs: gathers, hashes and compares them.

mod difference;
mod digest;
mod gather;
mod plan;
mod scratch;
mod trials;
mod work;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use ash::vk;
use devmem_provider::device_copy::{DeviceCopy, Fences, Gather, Sha256, Worker};
use devmem_provider::{DeviceKind, DmaBuf, Error, ErrorKind, Extent, Result};

use super::sys::device::Device;
use super::sys::memory::BoundBuffer;
use super::sys::pipeline::Pipeline;
use super::{errors, import, shaders};
use trials::Trials;

/// How fragments are gathered. What a method cannot copy (bytes that are not aligned for it) copy commands do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum GatherMethod {
    /// What is faster on the device for fragments of their size and number.
    #[default]
    Automatic,
    /// `vkCmdCopyBuffer`, a region for each fragment.
    Commands,
    /// `VK_KHR_copy_memory_indirect`, a copy in a list for each fragment.
    Indirect,
    /// A compute shader that reads a list of fragments.
    Shader,
}

/// How a device copies, for tests and benchmarks: the default is right for use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct CopyOptions {
    /// How fragments are gathered.
    pub gather: GatherMethod,
}

/// The device as one that copies. A clone is the same.
#[derive(Debug, Clone)]
pub(crate) struct VulkanCopy(Arc<Shared>);

/// What all its work shares.
struct Shared {
    device: Arc<Device>,
    name: String,
    software: bool,
    options: CopyOptions,
    trials: Trials,
    gather: Lazy,
    sha256_many: Lazy,
    sha256_few: Lazy,
    first_difference: Lazy,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("name", &self.name)
            .field("options", &self.options)
            .field("lost", &self.device.is_lost())
            .finish_non_exhaustive()
    }
}

/// A pipeline that is compiled when it is first needed.
struct Lazy {
    shader: &'static shaders::Shader,
    made: Mutex<Option<Arc<Pipeline>>>,
}

impl Lazy {
    fn new(shader: &'static shaders::Shader) -> Self {
        Self { shader, made: Mutex::new(None) }
    }
}

impl VulkanCopy {
    /// Nothing is made before it is needed.
    pub(crate) fn new(device: &Arc<Device>, name: &str, kind: DeviceKind, options: CopyOptions) -> Self {
        Self(Arc::new(Shared {
            device: Arc::clone(device),
            name: name.to_owned(),
            software: kind == DeviceKind::Software,
            options,
            trials: Trials::default(),
            gather: Lazy::new(&shaders::GATHER),
            sha256_many: Lazy::new(&shaders::SHA256_MANY),
            sha256_few: Lazy::new(&shaders::SHA256_FEW),
            first_difference: Lazy::new(if kind == DeviceKind::Software {
                &shaders::FIRST_DIFFERENCE_ALONE
            } else {
                &shaders::FIRST_DIFFERENCE
            }),
        }))
    }
}

impl Shared {
    /// A function of Vulkan that failed. A device that is lost stays so.
    fn failed(&self, code: vk::Result, operation: impl Into<String>) -> Error {
        if code == vk::Result::ERROR_DEVICE_LOST {
            self.device.set_lost();
        }
        errors::failed(code, operation, &self.name)
    }

    /// Refuses everything once the device is lost: a driver need not.
    fn check_alive(&self, operation: &'static str) -> Result<()> {
        if self.device.is_lost() {
            return Err(errors::failed(vk::Result::ERROR_DEVICE_LOST, operation, &self.name));
        }
        Ok(())
    }

    fn refuse(&self, operation: &'static str, reason: impl Into<String>) -> Error {
        Error::new(ErrorKind::Unsupported, operation).on(&self.name).because(reason.into())
    }

    fn pipeline(&self, lazy: &Lazy) -> Result<Arc<Pipeline>> {
        let mut made = lazy.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipeline) = &*made {
            return Ok(Arc::clone(pipeline));
        }
        let pipeline = Pipeline::new(&self.device, lazy.shader).map(Arc::new).map_err(|code| {
            self.failed(code, format!("compile the shader {}", lazy.shader.entry().to_string_lossy()))
        })?;
        *made = Some(Arc::clone(&pipeline));
        Ok(pipeline)
    }

    /// Whether shaders reach a buffer.
    fn shaders_reach(&self, buffer: &BoundBuffer) -> bool {
        // Shaders read whole words.
        self.device.computes()
            && buffer.usage().contains(vk::BufferUsageFlags::STORAGE_BUFFER)
            && buffer.size().is_multiple_of(4)
    }

    /// Imports a buffer for shaders to read.
    fn import_for_shaders(
        self: &Arc<Self>,
        dma_buf: &DmaBuf,
        operation: &'static str,
    ) -> Result<Arc<BoundBuffer>> {
        let buffer = import::import(&self.device, dma_buf)?;
        let reached = self.shaders_reach(&buffer);
        if reached && self.trials.shaders_work(self)? {
            return Ok(buffer);
        }
        let reason = if reached {
            "a trial SHA-256 was wrong, although its driver reported success: it executes no shaders"
        } else if self.device.computes() {
            "its driver lets no shader read a buffer that is imported from this DMA-buf"
        } else {
            "it has no queue that executes shaders"
        };
        Err(self.refuse(operation, reason).remedy("compare on the CPU, or on another device"))
    }
}

impl DeviceCopy for VulkanCopy {
    fn worker(&self) -> Worker {
        Worker::Device
    }

    fn gather(&self, source: &DmaBuf, destination: &DmaBuf, fences: Fences) -> Result<Box<dyn Gather>> {
        gather::VulkanGather::new(&self.0, source, destination, fences)
            .map(|gather| Box::new(gather) as Box<dyn Gather>)
    }

    fn sha256(&self, buffer: &DmaBuf, pieces: &[Extent]) -> Result<Vec<Sha256>> {
        digest::sha256(&self.0, buffer, pieces)
    }

    fn first_difference(
        &self,
        left: &DmaBuf,
        piece: Extent,
        right: &DmaBuf,
        right_offset: u64,
    ) -> Result<Option<u64>> {
        difference::first_difference(&self.0, left, piece, right, right_offset)
    }
}
