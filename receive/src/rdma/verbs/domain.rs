//! Protection domains: what memory regions and queue pairs that work together belong to.

use std::fmt;
use std::os::fd::AsFd;
use std::sync::Arc;

use devmem_provider::{DmaBuf, Error, Importer, PciAddress, PeerToPeer, Result};

use super::context::Context;
use super::region::{HostRegion, MemoryRegion};
use super::sys;
use crate::rdma::AccessFlags;
use crate::shared_memory::SharedMemory;

/// A protection domain of an opened device.
///
/// It is an [`Importer`]: what attaches a DMA-buf is its registration as a [`MemoryRegion`], whole and with the
/// [access](Self::with_access) that was chosen.
#[derive(Clone)]
pub struct ProtectionDomain {
    pub(super) raw: Arc<sys::Domain>,
    pub(super) context: Context,
    access: AccessFlags,
}

impl ProtectionDomain {
    pub(super) fn allocate(context: &Context) -> Result<Self> {
        let raw = sys::Domain::allocate(&context.raw).map_err(|errno| {
            Error::from_errno(errno, "make a protection domain").on(&*context.device)
        })?;
        Ok(Self { raw: Arc::new(raw), context: context.clone(), access: AccessFlags::default() })
    }

    /// Chooses what may be done to the regions that DMA-bufs are registered as.
    #[must_use]
    pub fn with_access(mut self, access: AccessFlags) -> Self {
        self.access = access;
        self
    }

    /// The device.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Registers a DMA-buf as a region whose addresses begin at 0.
    ///
    /// # Errors
    ///
    /// What the kernel says, as that of
    /// [`rdma::ProtectionDomain`](crate::rdma::ProtectionDomain).
    pub fn register(&self, dma_buf: &DmaBuf) -> Result<MemoryRegion> {
        let length = dma_buf.size();
        let failed = |error: Error| error.on(Importer::describe(self));
        let bytes = usize::try_from(length).map_err(|_| {
            failed(Error::new(devmem_provider::ErrorKind::InvalidInput, "register the DMA-buf"))
        })?;
        let raw = sys::Region::of_dma_buf(&self.raw, dma_buf.as_fd(), (0, bytes), 0, self.access.bits())
            .map_err(|errno| failed(Error::from_errno(errno, format!("register {length} bytes of a DMA-buf"))))?;
        Ok(MemoryRegion::new(raw, length, self.access))
    }

    /// Registers new, zeroed memory of this process, in whole pages.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](devmem_provider::ErrorKind::InvalidInput) for no bytes;
    /// [`ErrorKind::OutOfMemory`](devmem_provider::ErrorKind::OutOfMemory) also where `RLIMIT_MEMLOCK` is too low, for
    /// registered memory is pinned.
    pub fn host_memory(&self, bytes: usize, access: AccessFlags) -> Result<HostRegion> {
        let failed = |errno| {
            let error = Error::from_errno(errno, format!("register {bytes} bytes of host memory"));
            let error = error.on(Importer::describe(self));
            match errno {
                nix::errno::Errno::ENOMEM => error.remedy("raise the limit of locked memory (ulimit -l), or register less"),
                _ => error,
            }
        };
        let memory = SharedMemory::allocate(bytes, false).map_err(failed)?;
        let length = memory.length() as u64;
        let raw = sys::Region::of_memory(&self.raw, memory, access.bits()).map_err(failed)?;
        Ok(HostRegion::new(raw, length, access))
    }
}

impl Importer for ProtectionDomain {
    type Attachment = MemoryRegion;

    fn describe(&self) -> String {
        format!("RDMA on {}", self.context.device.name)
    }

    fn peer_to_peer(&self) -> PeerToPeer {
        PeerToPeer::WhereReachable
    }

    fn device(&self) -> Option<PciAddress> {
        self.context.device.pci
    }

    fn attach(&mut self, dma_buf: &DmaBuf) -> Result<MemoryRegion> {
        self.register(dma_buf)
    }
}

impl fmt::Debug for ProtectionDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProtectionDomain")
            .field("device", &self.context.device.name)
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}
