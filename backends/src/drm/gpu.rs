//! A provider made of a driver's own ioctls.

use std::fmt;
use std::sync::Arc;

use devmem_provider::{
    Buffer, Capabilities, DeviceKind, Error, ErrorKind, Heap, Identity, Provider, Request, Residency,
    ResidencyEvidence, Result, Sharing,
};

use super::buffer::GemBuffer;
use super::device::Device;
use super::nodes::Nodes;
use super::placement::{Target, resolve};
use super::{judge_buffer, pci_names};
use crate::system_memory::SystemBudget;

/// What a backend says and does with its driver's ioctls.
pub(crate) trait Driver: fmt::Debug + Send + Sync + Sized + 'static {
    /// The backend's name.
    const BACKEND: &'static str;
    /// The kernel driver's name.
    const DRIVER: &'static str;

    /// Opens a device and asks what it has.
    fn open(nodes: &Nodes) -> Result<(Device, Self)>;

    /// What sort of device it is.
    fn kind(&self) -> DeviceKind;

    /// What to call a device that has no PCI name.
    fn fallback_name(&self) -> String {
        format!("a device of {}", Self::DRIVER)
    }

    /// A state that people should know of: that the driver has given the device up, say.
    fn remark(&self, _device: &Device) -> Option<String> {
        None
    }

    /// Its heaps as they were when it was opened, device memory first.
    fn heaps_at_open(&self) -> &[Heap];

    /// Its heaps, with what is in use now.
    fn heaps(&self, device: &Device) -> Result<Vec<Heap>>;

    /// What it can do. [`Gpu`] adds what follows from the heaps.
    fn capabilities(&self) -> Capabilities;

    /// Creates a buffer and returns its handle. The size fits the heap.
    fn create(&self, device: &Device, bytes: u64, target: Target) -> Result<u32>;

    /// Looks where a buffer is. The default attributes fdinfo, by [`is_device_region`](Self::is_device_region).
    fn residency(&self, buffer: &GemBuffer<Self>) -> Result<ResidencyEvidence> {
        judge_buffer(buffer)
    }

    /// Whether a region of fdinfo is device memory.
    fn is_device_region(_region: &str) -> bool {
        false
    }

    /// What the driver does with device memory when somebody attaches, which was asked to be `visible` to peers, and to lie
    /// there `only`.
    fn sharing(&self, visible: bool, only: bool) -> Sharing;

    /// Gives a buffer that has no pages its pages, where the driver allocates them late.
    fn populate(&self, _buffer: &GemBuffer<Self>) -> Result<()> {
        Ok(())
    }

    /// Makes what a peer wrote visible. The default reads back through the CPU's mapping.
    fn flush(&self, buffer: &GemBuffer<Self>) -> Result<()> {
        buffer.read_back()
    }

    /// Whether an importer's attachment depends on the GPU being awake.
    const STAYS_AWAKE: bool = false;
}

/// A GPU as a provider.
#[derive(Debug)]
pub(crate) struct Gpu<D>(Arc<Opened<D>>);

/// What the provider and its buffers share.
#[derive(Debug)]
pub(crate) struct Opened<D> {
    pub(super) device: Device,
    pub(super) driver: D,
    pub(super) identity: Identity,
    memory: SystemBudget,
}

impl<D: Driver> Gpu<D> {
    /// Opens a device under the name by which a user selects it.
    pub(crate) fn open(nodes: &Nodes, name: String) -> Result<Self> {
        let (device, driver) = D::open(nodes)?;
        let mut description = match device.pci() {
            Some(pci) => {
                let ids = format!("{:04x}:{:04x}", pci.vendor, pci.device);
                match pci_names::name(pci.vendor, pci.device) {
                    Some(name) => format!("{name} ({ids})"),
                    None => format!("PCI device {ids}"),
                }
            }
            None => driver.fallback_name(),
        };
        if let Some(remark) = driver.remark(&device) {
            description = format!("{description}; {remark}");
        }
        let identity = Identity {
            name,
            backend: D::BACKEND,
            description,
            kind: driver.kind(),
            driver: device.version().driver.clone(),
            driver_version: Some(device.version().number.clone()),
            node: device.file().node().to_owned(),
            pci: device.pci().map(|pci| pci.address),
            numa_node: device.pci().and_then(|pci| pci.numa_node),
        };
        Ok(Self(Arc::new(Opened { device, driver, identity, memory: SystemBudget::open()? })))
    }

    pub(super) fn opened(&self) -> &Arc<Opened<D>> {
        &self.0
    }

    /// The smallest buffer that its preferred heap takes.
    pub(crate) fn smallest(&self) -> u64 {
        self.0.driver.heaps_at_open().first().map_or(0, |heap| heap.granularity)
    }
}

impl<D: Driver> Provider for Gpu<D> {
    fn identity(&self) -> &Identity {
        &self.0.identity
    }

    fn heaps(&self) -> Result<Vec<Heap>> {
        self.0.driver.heaps(&self.0.device)
    }

    fn capabilities(&self) -> Capabilities {
        let has_memory = self
            .0
            .driver
            .heaps_at_open()
            .iter()
            .any(|heap| heap.placement != devmem_provider::Placement::System);
        let mut capabilities = self.0.driver.capabilities();
        capabilities.set(Capabilities::DEVICE_LOCAL, has_memory);
        capabilities
    }

    fn allocate(&self, request: &Request) -> Result<Box<dyn Buffer>> {
        let gpu = &self.0;
        let can_be_contiguous = gpu.driver.capabilities().contains(Capabilities::CONTIGUOUS);
        let target = resolve(request, gpu.driver.heaps_at_open(), can_be_contiguous, &gpu.identity.name)?;
        if target == Target::System {
            gpu.memory.take(request)?;
        }
        let handle = gpu.driver.create(&gpu.device, request.size(), target)?;
        let buffer = GemBuffer::new(Arc::clone(gpu), handle, request.size(), target);
        if let Some(name) = request.buffer_name() {
            buffer.export()?.set_name(name)?;
        }
        if matches!(target, Target::Device { only: true, .. }) {
            refuse_fallback(&buffer.residency()?, request, &gpu.identity.name)?;
        }
        Ok(Box::new(buffer))
    }
}

/// Refuses a buffer that its driver, asked for device memory only, put elsewhere without a word.
pub(crate) fn refuse_fallback(evidence: &ResidencyEvidence, request: &Request, provider: &str) -> Result<()> {
    let error = |kind| {
        Error::new(kind, format!("allocate {} bytes in device-local memory", request.size())).on(provider)
    };
    match evidence.residency {
        Residency::DeviceLocal => Ok(()),
        // Only a device without room makes drivers do it.
        Residency::System => Err(error(ErrorKind::OutOfMemory)
            .because(format!("the driver fell back to system memory: {}", evidence.evidence))
            .remedy("ask for less, free device memory, or prefer the placement instead of requiring it")),
        _ => Err(error(ErrorKind::WrongResidency)
            .because(format!("nobody can tell where the buffer is: {}", evidence.evidence))
            .remedy("prefer the placement instead of requiring it")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fallback_is_told_as_what_it_is() {
        let kind = |residency| {
            let evidence = ResidencyEvidence { residency, region: None, evidence: "seen".to_owned() };
            refuse_fallback(&evidence, &Request::bytes(4096), "amdgpu").map_err(|error| error.kind())
        };
        assert_eq!(kind(Residency::DeviceLocal), Ok(()));
        assert_eq!(kind(Residency::System), Err(ErrorKind::OutOfMemory));
        assert_eq!(kind(Residency::Unknown), Err(ErrorKind::WrongResidency));
    }
}
