//! A device of Vulkan as a provider.

use std::fmt;
use std::sync::Arc;

use ash::vk;
use devmem_provider::device_copy::DeviceCopy;
use devmem_provider::dma_buf::Access;
use devmem_provider::{
    Buffer, Capabilities, DeviceKind, DmaBuf, Error, ErrorKind, Heap, Identity, Placement, Provider, Request,
    Residency, ResidencyEvidence, Result, base_page_size,
};

use super::copy::{CopyOptions, VulkanCopy};
use super::heaps::Memory;
use super::instance::check_version;
use super::residency::{Watched, Witness, nodes_of};
use super::sys::device::{Device, Families};
use super::sys::memory::{self, BoundBuffer, Sharing, Source};
use super::sys::physical_device::{Description, Extensions, PhysicalDevice};
use super::{errors, identity, import, usage};
use crate::drm::{Target, refuse_fallback, resolve};
use crate::system_memory::SystemBudget;

/// How a device without hardware comes to DMA-bufs.
const LOAD_UDMABUF: &str = "load the module udmabuf and let this user open /dev/udmabuf, by which drivers without \
    hardware make DMA-bufs; or use another device";

/// A device as a provider.
#[derive(Debug)]
pub struct Vulkan(Arc<Opened>);

/// Memory of a DMA-buf as a buffer of a device. The memory lives on while this does.
#[derive(Debug)]
pub struct Imported(Arc<BoundBuffer>);

impl Imported {
    /// The size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.0.size()
    }
}

/// What the provider and its buffers share.
struct Opened {
    identity: Identity,
    device: Arc<Device>,
    usage: vk::BufferUsageFlags,
    memory: Memory,
    summary: Vec<Heap>,
    witness: Witness,
    system: SystemBudget,
    capabilities: Capabilities,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened")
            .field("identity", &self.identity)
            .field("memory", &self.memory)
            .field("witness", &self.witness)
            .finish_non_exhaustive()
    }
}

/// What a device must serve, and what it says of itself.
pub(crate) fn examine(physical: &PhysicalDevice) -> Result<(Extensions, Description)> {
    let name = physical.name();
    let refuse = |reason: String| {
        Error::new(ErrorKind::Unsupported, "allocate memory that can be exported as a DMA-buf")
            .on(&name)
            .because(reason)
            .remedy("use a newer driver, or another device")
    };
    check_version(physical.api_version()).map_err(|error| error.on(&name).remedy("use a newer driver"))?;
    let extensions =
        physical.extensions().map_err(|code| errors::failed(code, "ask for the extensions", &name))?;
    for (there, extension) in [
        (extensions.external_memory_fd, "VK_KHR_external_memory_fd"),
        (extensions.external_memory_dma_buf, "VK_EXT_external_memory_dma_buf"),
    ] {
        if !there {
            return Err(refuse(format!("its driver has no {extension}")));
        }
    }
    let described = physical.describe(&extensions);
    if !described.timeline_semaphores {
        return Err(refuse("its driver has no timeline semaphores".to_owned()));
    }
    Ok((extensions, described))
}

impl Vulkan {
    /// Takes a device into use under the name by which a user selects it, and tries it: it has allocated and exported
    /// once in each sort of memory that it offers.
    pub(crate) fn open(
        physical: &PhysicalDevice,
        extensions: &Extensions,
        described: &Description,
        name: String,
    ) -> Result<Self> {
        let refuse = |operation: &'static str, reason: &'static str| {
            Error::new(ErrorKind::Unsupported, operation).on(&described.name).because(reason)
        };
        let usage = usage::of_exports(physical).ok_or_else(|| {
            let error =
                refuse("export a buffer's memory as a DMA-buf", "its driver says that it exports none");
            match described.kind {
                DeviceKind::Software => error.remedy(LOAD_UDMABUF),
                _ => error.remedy("use a newer driver, or another device"),
            }
        })?;
        let families = Families::choose(&physical.queue_families())
            .ok_or_else(|| refuse("find a queue", "no queue family of the device copies memory"))?;
        let device = Device::open(physical, extensions, families)
            .map_err(|code| errors::failed(code, "take the device into use", &described.name))?;
        let nodes = nodes_of(described);
        let loader = physical.instance().loader().path().to_owned();
        let mut opened = Opened {
            identity: identity::identity(name, described, nodes.as_ref(), loader),
            device: Arc::new(device),
            usage,
            memory: Memory {
                properties: physical.memory(),
                kind: described.kind,
                maximum_allocation: described.maximum_allocation,
                device_granularity: Some(base_page_size()),
                system_granularity: Some(base_page_size()),
            },
            summary: Vec::new(),
            witness: Witness::of(described, nodes.as_ref()),
            system: SystemBudget::open()?,
            capabilities: Capabilities::empty(),
        };
        opened.try_out()?;
        Ok(Self(Arc::new(opened)))
    }

    /// Imports a DMA-buf of any exporter into the device, where copies and shaders reach it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if the descriptor is closed, is no DMA-buf, or is one that is smaller than it claims
    /// to be, and for one that the driver does not take; [`ErrorKind::Unsupported`] if the device imports none, or none
    /// of this size or memory. Nothing is left behind.
    pub fn import(&self, dma_buf: &DmaBuf) -> Result<Imported> {
        import::import(&self.0.device, dma_buf).map(Imported)
    }

    /// Lets every copy of this device answer from now on as if its driver had said that the device is lost
    /// (`VK_ERROR_DEVICE_LOST`): for tests of what uses it. What it does in fact is still waited for before it is freed.
    pub fn pretend_lost(&self) {
        self.0.device.set_lost();
    }

    /// As [`Provider::device_copy`], for tests and benchmarks that choose how it is done.
    #[must_use]
    pub fn device_copy_with(&self, options: CopyOptions) -> Arc<dyn DeviceCopy> {
        let Opened { identity, device, .. } = &*self.0;
        Arc::new(VulkanCopy::new(device, &identity.name, identity.kind, options))
    }
}

impl Opened {
    /// Exports a page of each sort of memory: the size of the DMA-buf tells what sizes are multiples of.
    fn try_out(&mut self) -> Result<()> {
        let page = base_page_size();
        let device = Target::Device { visible: true, only: true, contiguous: false };
        let hidden = Target::Device { visible: false, only: true, contiguous: false };
        let has = |placements: &[Placement]| {
            self.memory.heaps(&[]).iter().any(|heap| placements.contains(&heap.placement))
        };
        let (has_device, has_system) =
            (has(&[Placement::DeviceLocal, Placement::DeviceLocalVisible]), has(&[Placement::System]));
        let mut first_failure = None;
        let mut attempt = |target| match self.allocate(page, target) {
            Ok(made) => Some(made),
            Err(error) => {
                first_failure.get_or_insert(error);
                None
            }
        };
        let in_device = has_device.then(|| attempt(device).or_else(|| attempt(hidden))).flatten();
        let in_system = has_system.then(|| attempt(Target::System)).flatten();
        let granularity = |made: &Option<Made>| Some(made.as_ref()?.dma_buf.size().next_power_of_two());
        let granularities = (granularity(&in_device), granularity(&in_system));
        let Some(made) = in_device.as_ref().or(in_system.as_ref()) else {
            return Err(first_failure.unwrap_or_else(|| {
                Error::new(ErrorKind::Unsupported, "allocate memory")
                    .on(&self.identity.name)
                    .because("the device has no heap")
            }));
        };
        let map = || made.dma_buf.map_range(0, page, Access::Read)?.read()?.finish();
        let capabilities = [
            (Capabilities::DEVICE_COPY, true),
            (Capabilities::DEVICE_LOCAL, in_device.is_some()),
            (Capabilities::CPU_MAPPING, map().is_ok()),
            (Capabilities::RESIDENCY, made.watched.residency()?.residency != Residency::Unknown),
        ];
        (self.memory.device_granularity, self.memory.system_granularity) = granularities;
        self.summary = self.memory.summary();
        for (capability, is_there) in capabilities {
            self.capabilities.set(capability, is_there);
        }
        Ok(())
    }

    /// Allocates and exports, in the best memory type that has room.
    fn allocate(&self, bytes: u64, target: Target) -> Result<Made> {
        let operation = || format!("allocate {bytes} bytes");
        let failed = |code| match self.witness.check_presence() {
            Ok(()) => errors::failed(code, operation(), &self.identity.name),
            Err(gone) => gone,
        };
        let new_buffer =
            || memory::Buffer::new(&self.device, bytes, self.usage, Sharing::DmaBuf).map_err(failed);
        let mut buffer = new_buffer()?;
        let requirements = buffer.requirements();
        let mut first_failure = None;
        for memory_type in self.memory.types(requirements.memory_types, target, requirements.size) {
            match BoundBuffer::new(buffer, memory_type, Source::Exportable) {
                Ok(bound) => return self.export(bound, target),
                Err(
                    code @ (vk::Result::ERROR_OUT_OF_DEVICE_MEMORY | vk::Result::ERROR_OUT_OF_HOST_MEMORY),
                ) => {
                    first_failure.get_or_insert(code);
                    buffer = new_buffer()?;
                }
                Err(code) => return Err(failed(code)),
            }
        }
        Err(first_failure.map(failed).unwrap_or_else(|| {
            Error::new(ErrorKind::Unsupported, operation())
                .on(&self.identity.name)
                .because(format!(
                    "no memory type of those that an exported buffer may have ({:#x}) is of this sort",
                    requirements.memory_types
                ))
                .remedy("prefer the placement instead of requiring it, or choose another provider")
        }))
    }

    /// Exports a buffer, and makes sure that what the driver hands out is a DMA-buf.
    fn export(&self, bound: BoundBuffer, target: Target) -> Result<Made> {
        let operation = "export a buffer as a DMA-buf";
        let fd = bound.export().map_err(|code| errors::failed(code, operation, &self.identity.name))?;
        let dma_buf = DmaBuf::from_fd(fd).map_err(|error| {
            let found = error.reason().unwrap_or("it is something else").to_owned();
            Error::new(ErrorKind::Unsupported, operation)
                .on(&self.identity.name)
                .because(format!("the driver handed out another file: {found}"))
                .remedy(LOAD_UDMABUF)
        })?;
        if dma_buf.size() < bound.size() {
            return Err(Error::new(ErrorKind::Protocol, operation).on(&self.identity.name).because(format!(
                "the DMA-buf has {} bytes, and the buffer {}",
                dma_buf.size(),
                bound.size()
            )));
        }
        let watched = self.witness.watch(&dma_buf, target);
        Ok(Made { watched, dma_buf, _bound: Arc::new(bound) })
    }
}

/// A buffer with its export.
#[derive(Debug)]
struct Made {
    watched: Watched,
    dma_buf: DmaBuf,
    /// Holds the memory for Vulkan.
    _bound: Arc<BoundBuffer>,
}

impl Provider for Vulkan {
    fn identity(&self) -> &Identity {
        &self.0.identity
    }

    fn heaps(&self) -> Result<Vec<Heap>> {
        self.0.witness.check_presence()?;
        let device = &self.0.device;
        let budget =
            if device.extensions().memory_budget { device.physical().memory_budget() } else { Vec::new() };
        Ok(self.0.memory.heaps(&budget))
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities
    }

    fn device_copy(&self) -> Result<Option<Arc<dyn DeviceCopy>>> {
        Ok(Some(self.device_copy_with(CopyOptions::default())))
    }

    fn allocate(&self, request: &Request) -> Result<Box<dyn Buffer>> {
        let opened = &self.0;
        let target = resolve(request, &opened.summary, false, &opened.identity.name)?;
        if target == Target::System {
            opened.system.take(request)?;
        }
        let made = opened.allocate(request.size(), target)?;
        if made.dma_buf.size() != request.size() {
            let size = made.dma_buf.size();
            return Err(Error::new(ErrorKind::InvalidInput, format!("allocate {} bytes", request.size()))
                .on(&opened.identity.name)
                .because(format!("the driver makes {size} bytes of it"))
                .remedy(format!("ask for {size} bytes")));
        }
        if let Some(name) = request.buffer_name() {
            made.dma_buf.set_name(name)?;
        }
        if matches!(target, Target::Device { only: true, .. }) {
            refuse_fallback(&made.watched.residency()?, request, &opened.identity.name)?;
        }
        Ok(Box::new(VulkanBuffer { made, opened: Arc::clone(opened) }))
    }
}

/// A buffer of a device. Its memory lives on while its DMA-buf does.
#[derive(Debug)]
struct VulkanBuffer {
    made: Made,
    opened: Arc<Opened>,
}

impl Buffer for VulkanBuffer {
    fn size(&self) -> u64 {
        self.made.dma_buf.size()
    }

    fn exporter(&self) -> Option<&Identity> {
        Some(&self.opened.identity)
    }

    fn export(&self) -> Result<DmaBuf> {
        Ok(self.made.dma_buf.clone())
    }

    fn residency(&self) -> Result<ResidencyEvidence> {
        self.made.watched.residency()
    }

    fn sharing(&self) -> Option<devmem_provider::Sharing> {
        self.made.watched.sharing()
    }

    fn flush_peer_writes(&self) -> Result<()> {
        self.made.watched.flush_peer_writes(&self.made.dma_buf)
    }
}
