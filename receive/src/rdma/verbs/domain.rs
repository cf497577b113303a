//! Protection domains: what memory regions and queue pairs that work together belong to.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;

use devmem_provider::{Attachment, DmaBuf, Error, Importer, PciAddress, PeerToPeer, Result, base_page_size};
use nix::errno::Errno;

use super::context::Context;
use super::region::{HostRegion, MemoryRegion};
use super::sys;
use crate::rdma::protection_domain::may_lock_less_than;
use crate::rdma::refusal::Attempt;
use crate::rdma::{AccessFlags, Registration, RegistrationRefusal};
use crate::shared_memory::SharedMemory;

/// A descriptor that is not open.
const NOT_OPEN: RawFd = -1;

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
        let raw = sys::Domain::allocate(&context.raw)
            .map_err(|errno| Error::from_errno(errno, "make a protection domain").on(&*context.device))?;
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

    /// Makes a memory region of a part of a DMA-buf. The exporter pins it: it stays where it is until the region is gone.
    ///
    /// # Errors
    ///
    /// With a [`RegistrationRefusal`]. What no device takes is found before the kernel is asked.
    pub fn register(&self, dma_buf: &DmaBuf, registration: Registration) -> Result<MemoryRegion> {
        let operation = || format!("register a DMA-buf: {registration}");
        let device = self.context.device();
        if let Err(refusal) = registration.check(dma_buf.size()) {
            return Err(refusal.error(operation(), device, None));
        }
        match sys::Region::of_dma_buf(&self.raw, dma_buf.as_fd().as_raw_fd(), &registration) {
            Ok(raw) => Ok(MemoryRegion::new(raw, registration)),
            Err(errno) => {
                let attempt = Attempt { errno, access: registration.allowed(), is_dma_buf: true };
                let refusal = RegistrationRefusal::of_dma_buf(attempt, |access| self.ask_without(access));
                Err(refusal.error(operation(), device, Some(errno)))
            }
        }
    }

    /// What is answered to a registration of a descriptor that is not open.
    fn ask_without(&self, access: AccessFlags) -> Errno {
        let registration = Registration::of(0, base_page_size()).access(access);
        match sys::Region::of_dma_buf(&self.raw, NOT_OPEN, &registration) {
            Err(errno) => errno,
            Ok(_) => Errno::EPROTO,
        }
    }

    /// Registers new, zeroed memory of this process, in whole pages, which the kernel counts as locked.
    ///
    /// # Errors
    ///
    /// With a [`RegistrationRefusal`], for example because of the limit on locked memory;
    /// [`ErrorKind::InvalidInput`](devmem_provider::ErrorKind::InvalidInput) for no bytes.
    pub fn host_memory(&self, bytes: usize, access: AccessFlags) -> Result<HostRegion> {
        let operation = || format!("register {bytes} bytes of host memory");
        let memory = SharedMemory::allocate(bytes, false)
            .map_err(|errno| Error::from_errno(errno, operation()).on(self.context.device()))?;
        let base = memory.address();
        let registration = Registration::of(0, memory.length() as u64).access(access);
        match sys::Region::of_memory(&self.raw, memory, access.bits()) {
            // Requests name it by the addresses of this process.
            Ok(raw) => Ok(HostRegion::new(MemoryRegion::new(raw, registration.at(base)))),
            Err(errno) => {
                let is_limited = may_lock_less_than(bytes as u64);
                let refusal = RegistrationRefusal::of_host_memory(errno, is_limited);
                Err(refusal.error(operation(), self.context.device(), Some(errno)))
            }
        }
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

    fn is_refusal_of_exporter(&self, error: &Error) -> bool {
        RegistrationRefusal::of(error).is_some_and(RegistrationRefusal::is_of_exporter)
    }

    /// Registers all of a DMA-buf, with offsets as addresses.
    fn attach(&mut self, dma_buf: &DmaBuf) -> Result<MemoryRegion> {
        self.register(dma_buf, Registration::whole(dma_buf).access(self.access))
    }
}

impl Attachment for MemoryRegion {}

impl fmt::Debug for ProtectionDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProtectionDomain")
            .field("device", &self.context.device.name)
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}
