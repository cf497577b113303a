//! What attaches to a DMA-buf so that a device may do DMA to it.

use std::any::Any;
use std::fmt;

use crate::dma_buf::DmaBuf;
use crate::error::Result;

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
pub trait Importer {
    /// What it returns.
    type Attachment: Attachment;

    /// Who it is, as part of a sentence: "devmem TCP on eth1 queue 7".
    fn describe(&self) -> String;

    /// Whether it takes peer-to-peer addresses.
    fn peer_to_peer(&self) -> PeerToPeer;

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

    fn attach(&mut self, dma_buf: &DmaBuf) -> Result<Self::Attachment> {
        DynImporter::attach(self, dma_buf)
    }
}
