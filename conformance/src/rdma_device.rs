//! The RDMA device that registers a provider's buffers, behind an interface that the checks use.

use std::fmt;
use std::sync::Arc;

use devmem_provider::{Attachment, DmaBuf, Error, Importer, PciAddress, PeerToPeer, Result};
use devmem_receive::rdma::{AccessFlags, Device, Events, MemoryRegion, ProtectionDomain, Registration};

use crate::rdma_transfers::{self, Transfers};
use crate::verdict::Skip;

/// A device that makes memory regions of DMA-bufs.
pub trait RdmaDevice: fmt::Debug + Send + Sync {
    /// Opens it and makes a protection domain.
    ///
    /// # Errors
    ///
    /// What is missing, with what to do.
    fn open(&self) -> Result<Box<dyn Regions>>;

    /// Opens it for transfers, by rdma-core's library.
    ///
    /// # Errors
    ///
    /// What is missing, with what to do.
    fn transfers(&self) -> Result<Box<dyn Transfers>>;

    /// The device's name.
    fn name(&self) -> &str;

    /// The device at the same place of the machine, after it was taken away and has come back.
    ///
    /// # Errors
    ///
    /// It has not come back.
    fn found_again(&self) -> Result<Arc<dyn RdmaDevice>>;
}

/// A protection domain. Regions may outlive it.
pub trait Regions: fmt::Debug {
    /// See [`Importer::describe`].
    fn describe(&self) -> String;

    /// See [`Importer::device`].
    fn device(&self) -> Option<PciAddress>;

    /// See [`Importer::is_refusal_of_exporter`].
    fn is_refusal_of_exporter(&self, error: &Error) -> bool;

    /// Whether it makes regions of DMA-bufs with this access.
    ///
    /// # Errors
    ///
    /// Why not.
    fn probe(&self, access: AccessFlags) -> Result<()>;

    /// Registers a part of a DMA-buf.
    ///
    /// # Errors
    ///
    /// Why it was refused, with what to do.
    fn register(&self, dma_buf: &DmaBuf, registration: Registration) -> Result<Box<dyn Region>>;

    /// See [`ProtectionDomain::events`].
    ///
    /// # Errors
    ///
    /// As there.
    fn events(&self) -> Result<Events>;
}

/// A memory region. Dropping it deregisters.
pub trait Region: fmt::Debug + Send {
    /// See [`MemoryRegion::local_key`].
    fn local_key(&self) -> u32;

    /// See [`MemoryRegion::remote_key`].
    fn remote_key(&self) -> u32;

    /// See [`MemoryRegion::deregister`].
    ///
    /// # Errors
    ///
    /// As there.
    fn deregister(self: Box<Self>) -> Result<()>;
}

impl RdmaDevice for Device {
    fn open(&self) -> Result<Box<dyn Regions>> {
        Ok(Box::new(ProtectionDomain::open(self)?))
    }

    fn transfers(&self) -> Result<Box<dyn Transfers>> {
        rdma_transfers::open(self)
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn found_again(&self) -> Result<Arc<dyn RdmaDevice>> {
        let place = self.pci.map_or_else(|| self.name.clone(), |address| address.to_string());
        Ok(Arc::new(Device::find(&place)?))
    }
}

impl Regions for ProtectionDomain {
    fn describe(&self) -> String {
        Importer::describe(self)
    }

    fn device(&self) -> Option<PciAddress> {
        Importer::device(self)
    }

    fn is_refusal_of_exporter(&self, error: &Error) -> bool {
        Importer::is_refusal_of_exporter(self, error)
    }

    fn probe(&self, access: AccessFlags) -> Result<()> {
        ProtectionDomain::probe(self, access)
    }

    fn register(&self, dma_buf: &DmaBuf, registration: Registration) -> Result<Box<dyn Region>> {
        Ok(Box::new(ProtectionDomain::register(self, dma_buf, registration)?))
    }

    fn events(&self) -> Result<Events> {
        ProtectionDomain::events(self)
    }
}

impl Region for MemoryRegion {
    fn local_key(&self) -> u32 {
        MemoryRegion::local_key(self)
    }

    fn remote_key(&self) -> u32 {
        MemoryRegion::remote_key(self)
    }

    fn deregister(self: Box<Self>) -> Result<()> {
        MemoryRegion::deregister(*self)
    }
}

/// A protection domain as an importer.
#[derive(Debug)]
pub(crate) struct RegionsOf(pub(crate) Box<dyn Regions>);

impl Attachment for Box<dyn Region> {}

impl Importer for RegionsOf {
    type Attachment = Box<dyn Region>;

    fn describe(&self) -> String {
        self.0.describe()
    }

    fn peer_to_peer(&self) -> PeerToPeer {
        PeerToPeer::WhereReachable
    }

    fn device(&self) -> Option<PciAddress> {
        self.0.device()
    }

    fn is_refusal_of_exporter(&self, error: &Error) -> bool {
        self.0.is_refusal_of_exporter(error)
    }

    fn attach(&mut self, dma_buf: &DmaBuf) -> Result<Box<dyn Region>> {
        self.0.register(dma_buf, Registration::whole(dma_buf))
    }
}

/// Why nothing can be said of memory regions without a device.
pub(crate) fn no_rdma_device() -> Skip {
    Skip {
        reason: "no RDMA device was named, or the machine has none".to_owned(),
        found_by: "the environment of the run".to_owned(),
        remedy: Some("name one: `--rdma mlx5_0`; `ls /sys/class/infiniband` lists them".to_owned()),
    }
}
