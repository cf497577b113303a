//! A protection domain: what memory regions belong to, and the importer of RDMA.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;

use devmem_provider::{Attachment, DmaBuf, Error, Importer, PciAddress, PeerToPeer, Result, base_page_size};
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};

use super::access::AccessFlags;
use super::context::Context;
use super::device::Device;
use super::events::Events;
use super::memory_region::MemoryRegion;
use super::refusal::{Attempt, RegistrationRefusal};
use super::registration::Registration;
use super::sys::Argument;
use super::uapi::{RegMr, RegMrResp, attr, command, method, object};
use crate::zcrx::HostMemory;

/// A descriptor that is not open.
const NOT_OPEN: i32 = -1;

/// A protection domain of an RDMA device: the importer that makes memory regions of DMA-bufs.
///
/// It opens the device by the kernel's own interface, and takes no more privilege than that the node may be opened. Its
/// regions hold buffers in place for whoever knows their addresses on the bus; a data path that goes through another
/// library has a domain of its own, with its own regions.
///
/// A clone is the same domain.
#[derive(Debug, Clone)]
pub struct ProtectionDomain {
    domain: Arc<Domain>,
    access: AccessFlags,
}

/// What regions share. The order of release is that of the kernel: regions, domain, context.
#[derive(Debug)]
pub(super) struct Domain {
    context: Arc<Context>,
    handle: u32,
}

impl ProtectionDomain {
    /// Opens a device and makes a protection domain.
    ///
    /// # Errors
    ///
    /// With a [`RegistrationRefusal`] that says what is missing.
    pub fn open(device: &Device) -> Result<Self> {
        let context = Context::open(device)?;
        let handle = context.allocate_domain()?;
        Ok(Self { domain: Arc::new(Domain { context, handle }), access: AccessFlags::default() })
    }

    /// Gives regions that [`attach`](Importer::attach) makes this access, instead of local write.
    #[must_use]
    pub fn with_access(mut self, access: AccessFlags) -> Self {
        self.access = access;
        self
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> &Device {
        self.domain.context.device()
    }

    /// A channel of what happens to the device.
    ///
    /// # Errors
    ///
    /// If the kernel makes none.
    pub fn events(&self) -> Result<Events> {
        Events::new(&self.domain.context)
    }

    /// Makes a memory region of a part of a DMA-buf. The exporter pins it: it stays where it is until the region is gone.
    ///
    /// # Errors
    ///
    /// With a [`RegistrationRefusal`]. What no device takes is found before the kernel is asked.
    pub fn register(&self, dma_buf: &DmaBuf, registration: Registration) -> Result<MemoryRegion> {
        match registration.check(dma_buf.size()) {
            Ok(()) => self.register_unchecked(dma_buf.as_fd(), registration),
            Err(refusal) => Err(refusal.error(operation(&registration), self.device(), None)),
        }
    }

    /// As [`register`](Self::register), of any descriptor, and whatever the kernel says: for test suites.
    ///
    /// # Errors
    ///
    /// With a [`RegistrationRefusal`] that was made of the kernel's answer.
    pub fn register_unchecked(
        &self,
        descriptor: BorrowedFd<'_>,
        registration: Registration,
    ) -> Result<MemoryRegion> {
        match self.domain.register(descriptor.as_raw_fd(), &registration) {
            Ok(answer) => Ok(MemoryRegion::of_dma_buf(Arc::clone(&self.domain), &answer, registration)),
            Err(errno) => {
                let is_dma_buf =
                    descriptor.try_clone_to_owned().is_ok_and(|copy| DmaBuf::from_fd(copy).is_ok());
                let attempt = Attempt { errno, access: registration.allowed(), is_dma_buf };
                let refusal = RegistrationRefusal::of_dma_buf(attempt, |access| self.ask_without(access));
                Err(refusal.error(operation(&registration), self.device(), Some(errno)))
            }
        }
    }

    /// Makes a memory region of host memory, whose first byte has the address 0. The kernel counts it as locked.
    ///
    /// # Errors
    ///
    /// With a [`RegistrationRefusal`], for example because of the limit on locked memory.
    pub fn register_host(&self, memory: Arc<HostMemory>, access: AccessFlags) -> Result<MemoryRegion> {
        let registration = Registration::of(0, memory.size()).access(access);
        let operation = || format!("register host memory: {registration}");
        if let Err(refusal) = registration.check(memory.size()) {
            return Err(refusal.error(operation(), self.device(), None));
        }
        match self.domain.register_host(&memory, access) {
            Ok(answer) => Ok(MemoryRegion::of_host(Arc::clone(&self.domain), &answer, registration, memory)),
            Err(errno) => {
                let refusal = RegistrationRefusal::of_host_memory(errno, may_lock_less_than(memory.size()));
                Err(refusal.error(operation(), self.device(), Some(errno)))
            }
        }
    }

    /// Whether the device makes memory regions of DMA-bufs with this access: asked with a descriptor that is not open, so
    /// that nothing changes.
    ///
    /// # Errors
    ///
    /// With the [`RegistrationRefusal`] that a DMA-buf would meet with.
    pub fn probe(&self, access: AccessFlags) -> Result<()> {
        match self.ask_without(access) {
            Errno::EBADF => Ok(()),
            errno => {
                let attempt = Attempt { errno, access, is_dma_buf: true };
                let refusal = RegistrationRefusal::of_dma_buf(attempt, |access| self.ask_without(access));
                let operation = format!("make memory regions of DMA-bufs for {access}");
                Err(refusal.error(operation, self.device(), Some(errno)))
            }
        }
    }

    /// What the kernel answers to a registration of a descriptor that is not open.
    fn ask_without(&self, access: AccessFlags) -> Errno {
        let registration = Registration::of(0, base_page_size()).access(access);
        match self.domain.register(NOT_OPEN, &registration) {
            Err(errno) => errno,
            // It registered nothing that anybody could name.
            Ok(_) => Errno::EPROTO,
        }
    }
}

impl Domain {
    fn register(
        &self,
        descriptor: i32,
        registration: &Registration,
    ) -> std::result::Result<RegMrResp, Errno> {
        let mut answer = RegMrResp::default();
        let mut arguments = [
            Argument::NewHandle(attr::REG_DMABUF_MR_HANDLE, &mut answer.mr_handle),
            Argument::Handle(attr::REG_DMABUF_MR_PD_HANDLE, self.handle),
            Argument::U64(attr::REG_DMABUF_MR_OFFSET, registration.offset()),
            Argument::U64(attr::REG_DMABUF_MR_LENGTH, registration.length()),
            Argument::U64(attr::REG_DMABUF_MR_IOVA, registration.address()),
            Argument::Descriptor(attr::REG_DMABUF_MR_FD, descriptor),
            Argument::U32(attr::REG_DMABUF_MR_ACCESS_FLAGS, registration.allowed().bits()),
            Argument::OutputU32(attr::REG_DMABUF_MR_RESP_LKEY, &mut answer.lkey),
            Argument::OutputU32(attr::REG_DMABUF_MR_RESP_RKEY, &mut answer.rkey),
        ];
        self.context.call(object::MR, method::REG_DMABUF_MR, &mut arguments)?;
        Ok(answer)
    }

    fn register_host(
        &self,
        memory: &HostMemory,
        access: AccessFlags,
    ) -> std::result::Result<RegMrResp, Errno> {
        let request = RegMr {
            start: memory.address(),
            length: memory.size(),
            pd_handle: self.handle,
            access_flags: access.bits(),
            ..RegMr::default()
        };
        let mut answer = [0; size_of::<RegMrResp>()];
        self.context.command(command::REG_MR, &request.to_bytes(), &mut answer)?;
        Ok(RegMrResp::from_bytes(answer))
    }

    pub(super) fn deregister(&self, region: u32) -> std::result::Result<(), Errno> {
        let mut arguments = [Argument::Handle(attr::DESTROY_MR_HANDLE, region)];
        self.context.call(object::MR, method::MR_DESTROY, &mut arguments)
    }

    pub(super) fn device(&self) -> &Device {
        self.context.device()
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        // Where it fails, the kernel frees it with the context.
        let mut arguments = [Argument::Handle(attr::DESTROY_PD_HANDLE, self.handle)];
        let _ = self.context.call(object::PD, method::PD_DESTROY, &mut arguments);
    }
}

impl Importer for ProtectionDomain {
    type Attachment = MemoryRegion;

    fn describe(&self) -> String {
        format!("RDMA on {}", self.device().name)
    }

    /// Every driver that registers DMA-bufs attaches with peer-to-peer (`ib_umem_dmabuf_attach_ops` and
    /// `ib_umem_dmabuf_attach_pinned_ops` in `drivers/infiniband/core/umem_dmabuf.c`, and mlx5's own).
    fn peer_to_peer(&self) -> PeerToPeer {
        PeerToPeer::WhereReachable
    }

    fn device(&self) -> Option<PciAddress> {
        self.domain.device().pci
    }

    /// `EOPNOTSUPP` alone does not tell: it is the answer of drivers without DMA-bufs as well.
    fn is_refusal_of_exporter(&self, error: &Error) -> bool {
        RegistrationRefusal::of(error).is_some_and(RegistrationRefusal::is_of_exporter)
    }

    /// Registers all of a DMA-buf, with offsets as addresses.
    fn attach(&mut self, dma_buf: &DmaBuf) -> Result<MemoryRegion> {
        self.register(dma_buf, Registration::whole(dma_buf).access(self.access))
    }
}

impl Attachment for MemoryRegion {}

fn operation(registration: &Registration) -> String {
    format!("register a DMA-buf: {registration}")
}

/// Whether the limit on locked memory is below `bytes`. Who may lock any amount (`CAP_IPC_LOCK`) is never refused for it.
pub(super) fn may_lock_less_than(bytes: u64) -> bool {
    getrlimit(Resource::RLIMIT_MEMLOCK).is_ok_and(|(limit, _)| limit < bytes)
}
