//! Binding a DMA-buf to receive queues.

use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::Duration;

use devmem_provider::{
    Attachment, Buffer, DmaBuf, Error, Importer, PciAddress, PeerToPeer, Pin, Require, Result,
};

use super::bind_refusal::BindRefusal;
use super::options::StreamOptions;
use super::stream::Stream;
use crate::deadline::Deadline;
use crate::nic::{Nic, Prepared};
use crate::parked_packets::ParkedPackets;
use crate::{netdev, netlink};

/// How often a release is looked for.
const RELEASE_POLL: Duration = Duration::from_millis(5);

/// Receive queues of a NIC that a DMA-buf can be bound to: the importer of devmem TCP.
#[derive(Debug, Clone)]
pub struct DevmemTcp {
    interface: String,
    index: u32,
    pci: Option<PciAddress>,
    queues: Vec<u32>,
}

impl DevmemTcp {
    /// The queues `queues` of `nic`, which somebody else has set up.
    #[must_use]
    pub fn new(nic: &Nic, queues: impl Into<Vec<u32>>) -> Self {
        Self {
            interface: nic.name().to_owned(),
            index: nic.ifindex(),
            pci: nic.identity().pci,
            queues: queues.into(),
        }
    }

    /// The queues that a set-up has reserved.
    #[must_use]
    pub fn on(prepared: &Prepared) -> Self {
        Self::new(prepared.nic(), prepared.queues())
    }

    fn refused(&self, error: netlink::Error) -> Error {
        let refusal = error.kernel().map(|kernel| BindRefusal::classify(kernel, self.is_up()));
        let error = error
            .during(format!("bind a DMA-buf to receive queue {}", list(&self.queues)))
            .on(&self.interface);
        let Some(refusal) = refusal else { return error };
        let error = error.with_kind(refusal.kind()).with_source(refusal);
        match refusal.remedy() {
            Some(remedy) => error.remedy(remedy),
            None => error,
        }
    }

    /// An interface that is not found is not one that is down.
    fn is_up(&self) -> bool {
        Nic::open(&self.interface).and_then(|nic| nic.is_up()).unwrap_or(true)
    }
}

impl Importer for DevmemTcp {
    type Attachment = Binding;

    fn describe(&self) -> String {
        format!("devmem TCP on {} queue {}", self.interface, list(&self.queues))
    }

    /// `net/core/devmem.c` attaches statically, without peer-to-peer, up to Linux 7.2 at least.
    fn peer_to_peer(&self) -> PeerToPeer {
        PeerToPeer::Never
    }

    fn device(&self) -> Option<PciAddress> {
        self.pci
    }

    /// `EOPNOTSUPP` alone does not tell: it is the answer for NICs without queue management as well.
    fn is_refusal_of_exporter(&self, error: &Error) -> bool {
        BindRefusal::of(error) == Some(BindRefusal::ExporterRefusedAttachment)
    }

    fn attach(&mut self, dma_buf: &DmaBuf) -> Result<Binding> {
        let dma_buf = dma_buf.try_clone()?;
        let queues = netdev::Binding::new(self.index, &self.queues, dma_buf.as_fd())
            .map_err(|error| self.refused(error))?;
        Ok(Binding { queues, dma_buf })
    }
}

impl Prepared {
    /// Binds `buffer` to the queues that were set up, and looks where its pages are before and after.
    ///
    /// # Errors
    ///
    /// As [`Pin::new`]; a refusal by the kernel carries a [`BindRefusal`].
    pub fn pin(&self, buffer: &dyn Buffer, require: Require) -> Result<Pin<Binding>> {
        Pin::new(&mut DevmemTcp::on(self), buffer, require)
    }
}

/// A DMA-buf that is bound to receive queues. Dropping it unbinds: the queues get ordinary memory again.
///
/// The kernel ties the binding to a netlink socket, which this owns.
#[derive(Debug)]
pub struct Binding {
    queues: netdev::Binding,
    dma_buf: DmaBuf,
}

impl Binding {
    /// The kernel's number for it, which every fragment names.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.queues.id()
    }

    /// The queues that are bound.
    #[must_use]
    pub fn queues(&self) -> &[u32] {
        self.queues.queues()
    }

    /// Receives a connection, whose packets arrive on the bound queues, into the buffer.
    ///
    /// The stream may outlive the binding: what it has received stays valid until it is released.
    ///
    /// # Errors
    ///
    /// If the socket's options cannot be set.
    pub fn receive(&self, socket: TcpStream, options: StreamOptions) -> Result<Stream> {
        Stream::new(socket, self.id(), self.dma_buf.size(), options)
    }

    /// Unbinds, and waits at most `limit` until the kernel has let go of the buffer. Returns whether it has.
    ///
    /// While fragments are held, or the NIC still has pages, the kernel keeps the buffer mapped: memory
    /// must not be used for something else before. Packets that the kernel has done with and has not freed, for want of
    /// traffic, are seen to.
    ///
    /// # Errors
    ///
    /// If the kernel cannot be asked.
    pub fn unbind(self, limit: Duration) -> Result<bool> {
        let Self { queues, dma_buf } = self;
        let id = queues.id();
        let references = dma_buf.file_information()?.count;
        drop(queues);
        let deadline = Deadline::after(limit);
        let mut parked = ParkedPackets::new();
        // The page pool goes with its last page; the kernel's reference to the buffer goes a little later,
        // by a work queue (`net_devmem_dmabuf_binding_put()`).
        while has_page_pool(id)? || dma_buf.file_information()?.count >= references {
            if deadline.is_over() {
                return Ok(false);
            }
            parked.free_if_due();
            std::thread::sleep(RELEASE_POLL);
        }
        Ok(true)
    }
}

/// Whether a page pool still has pages of a binding. Kernels that do not tell are taken to have none.
fn has_page_pool(binding: u32) -> Result<bool> {
    match netdev::Netdev::open().and_then(|netdev| netdev.page_pools()) {
        Ok(pools) => Ok(pools.iter().any(|pool| pool.dmabuf == Some(binding))),
        Err(error) if error.errno() == Some(nix::errno::Errno::EOPNOTSUPP) => Ok(false),
        Err(error) => Err(error.during("look for the page pools of a binding")),
    }
}

impl Attachment for Binding {}

fn list(queues: &[u32]) -> String {
    queues.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use devmem_provider::ErrorKind;
    use nix::errno::Errno;

    #[test]
    fn a_refusal_by_the_exporter_is_told_from_one_by_the_nic() {
        let queues = DevmemTcp { interface: "eth1".to_owned(), index: 2, pci: None, queues: vec![1] };
        let refused = |refusal: BindRefusal| {
            Error::from_errno(Errno::EOPNOTSUPP, "bind").with_kind(refusal.kind()).with_source(refusal)
        };
        assert!(queues.is_refusal_of_exporter(&refused(BindRefusal::ExporterRefusedAttachment)));
        assert!(!queues.is_refusal_of_exporter(&refused(BindRefusal::NoQueueManagement)));
        assert!(!queues.is_refusal_of_exporter(&Error::new(ErrorKind::Unsupported, "bind")));
    }
}
