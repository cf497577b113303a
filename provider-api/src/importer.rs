//! What attaches to a DMA-buf so that a device may do DMA to it.

use std::any::Any;
use std::fmt;

use nix::errno::Errno;

use crate::dma_buf::DmaBuf;
use crate::error::{Error, Result};
use crate::pci::PciAddress;

/// Whether an importer accepts addresses on PCI that are not system memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PeerToPeer {
    /// It attaches without peer-to-peer (a static attachment, `dma_buf_attach()` in the kernel): most
    /// exporters then move the buffer to system memory, and some refuse.
    Never,
    /// It takes peer-to-peer addresses where the kernel finds a path between the two devices.
    WhereReachable,
}

/// Something that can attach to DMA-bufs: queues of a NIC, an io_uring area, an RDMA protection domain.
///
/// # Importers of one buffer are not independent
///
/// A buffer is in one place for all who are attached. With exporters that keep it on the device only for peers (amdgpu and
/// xe do),
///
/// - one importer without peer-to-peer, or without a path, moves it to system memory for everybody, also for those who
///   attach later, until it has detached; an attachment that is never used for DMA counts as well;
/// - one that has pinned it on the device lets a later importer without a path fail: a bind by devmem TCP then ends with
///   `EINVAL`, "Failed to map dmabuf attachment";
/// - once the last one without a path has detached, the next pin with a path brings the buffer back to the device.
///
/// [`Forecast`](crate::Forecast) tells beforehand which of it would happen, [`Sharing`](crate::Sharing) is the exporter's
/// rule.
pub trait Importer {
    /// What it returns.
    type Attachment: Attachment;

    /// Who it is, as part of a sentence: "devmem TCP on eth1 queue 7".
    fn describe(&self) -> String;

    /// Whether it takes peer-to-peer addresses.
    fn peer_to_peer(&self) -> PeerToPeer;

    /// The PCI function that will do the DMA, if it is one and is known. An importer that takes
    /// peer-to-peer addresses should say it: a [`Pin`](crate::Pin) that fails then tells what lies between.
    fn device(&self) -> Option<PciAddress> {
        None
    }

    /// Whether `error`, which [`attach`](Self::attach) returned, is the exporter's refusal of this importer
    /// rather than a failure of the importer's own.
    ///
    /// Exporters refuse with `EOPNOTSUPP`. An importer that fails with it for other reasons as well has to
    /// tell them apart.
    fn is_refusal_of_exporter(&self, error: &Error) -> bool {
        error.errno() == Some(Errno::EOPNOTSUPP)
    }

    /// Attaches. That it succeeds says nothing about where the memory is afterwards: see
    /// [`Pin`](crate::Pin).
    ///
    /// # Errors
    ///
    /// What the kernel says, with the importer's own reasons.
    fn attach(&mut self, dma_buf: &DmaBuf) -> Result<Self::Attachment>;
}

/// A held attachment. Dropping it detaches.
pub trait Attachment: fmt::Debug + Send + Any {}

/// An [`Importer`] behind a pointer, for code that goes through a list of different ones.
pub trait DynImporter {
    /// See [`Importer::describe`].
    fn describe(&self) -> String;

    /// See [`Importer::peer_to_peer`].
    fn peer_to_peer(&self) -> PeerToPeer;

    /// See [`Importer::device`].
    fn device(&self) -> Option<PciAddress>;

    /// See [`Importer::is_refusal_of_exporter`].
    fn is_refusal_of_exporter(&self, error: &Error) -> bool;

    /// See [`Importer::attach`].
    ///
    /// # Errors
    ///
    /// As there.
    fn attach(&mut self, dma_buf: &DmaBuf) -> Result<Box<dyn Attachment>>;
}

impl<I: Importer> DynImporter for I {
    fn describe(&self) -> String {
        Importer::describe(self)
    }

    fn peer_to_peer(&self) -> PeerToPeer {
        Importer::peer_to_peer(self)
    }

    fn device(&self) -> Option<PciAddress> {
        Importer::device(self)
    }

    fn is_refusal_of_exporter(&self, error: &Error) -> bool {
        Importer::is_refusal_of_exporter(self, error)
    }

    fn attach(&mut self, dma_buf: &DmaBuf) -> Result<Box<dyn Attachment>> {
        Ok(Box::new(Importer::attach(self, dma_buf)?))
    }
}

impl Attachment for Box<dyn Attachment> {}

impl Importer for dyn DynImporter + '_ {
    type Attachment = Box<dyn Attachment>;

    fn describe(&self) -> String {
        DynImporter::describe(self)
    }

    fn peer_to_peer(&self) -> PeerToPeer {
        DynImporter::peer_to_peer(self)
    }

    fn device(&self) -> Option<PciAddress> {
        DynImporter::device(self)
    }

    fn is_refusal_of_exporter(&self, error: &Error) -> bool {
        DynImporter::is_refusal_of_exporter(self, error)
    }

    fn attach(&mut self, dma_buf: &DmaBuf) -> Result<Self::Attachment> {
        DynImporter::attach(self, dma_buf)
    }
}
