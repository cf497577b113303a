//! A registered part of memory.

use std::sync::Arc;

use devmem_provider::Result;

use super::device::Device;
use super::protection_domain::Domain;
use super::refusal::RegistrationRefusal;
use super::registration::Registration;
use super::uapi::RegMrResp;
use crate::zcrx::HostMemory;

/// Memory that an RDMA device may use: a part of a DMA-buf, or host memory. Dropping it deregisters: the device uses
/// the memory no more, and the exporter may move it again.
///
/// The region of a DMA-buf holds the buffer by itself; the DMA-buf's descriptor may be closed.
#[derive(Debug)]
pub struct MemoryRegion {
    domain: Arc<Domain>,
    handle: u32,
    local_key: u32,
    remote_key: u32,
    registration: Registration,
    /// Kept while the device uses it.
    _host: Option<Arc<HostMemory>>,
    is_registered: bool,
}

impl MemoryRegion {
    pub(super) fn of_dma_buf(domain: Arc<Domain>, answer: &RegMrResp, registration: Registration) -> Self {
        Self::new(domain, answer, registration, None)
    }

    pub(super) fn of_host(
        domain: Arc<Domain>,
        answer: &RegMrResp,
        registration: Registration,
        memory: Arc<HostMemory>,
    ) -> Self {
        Self::new(domain, answer, registration, Some(memory))
    }

    fn new(
        domain: Arc<Domain>,
        answer: &RegMrResp,
        registration: Registration,
        host: Option<Arc<HostMemory>>,
    ) -> Self {
        Self {
            domain,
            handle: answer.mr_handle,
            local_key: answer.lkey,
            remote_key: answer.rkey,
            registration,
            _host: host,
            is_registered: true,
        }
    }

    /// The device that may use it.
    #[must_use]
    pub fn device(&self) -> &Device {
        self.domain.device()
    }

    /// By what the device's own requests name it (`lkey`).
    #[must_use]
    pub fn local_key(&self) -> u32 {
        self.local_key
    }

    /// By what a peer's requests name it (`rkey`).
    #[must_use]
    pub fn remote_key(&self) -> u32 {
        self.remote_key
    }

    /// What was registered: which bytes, at which address, for what.
    #[must_use]
    pub fn registration(&self) -> &Registration {
        &self.registration
    }

    /// Deregisters, and tells if that fails.
    ///
    /// # Errors
    ///
    /// If the kernel does not free it, for example because something else was made of it. It does with the last value
    /// that belongs to its protection domain.
    pub fn deregister(mut self) -> Result<()> {
        self.is_registered = false;
        match self.domain.deregister(self.handle) {
            Ok(()) => Ok(()),
            Err(errno) => {
                let refusal = RegistrationRefusal::of_object(errno);
                Err(refusal.error("deregister a memory region", self.domain.device(), Some(errno)))
            }
        }
    }
}

impl Drop for MemoryRegion {
    fn drop(&mut self) {
        if self.is_registered {
            // Where it fails, the kernel frees it with the context.
            let _ = self.domain.deregister(self.handle);
        }
    }
}
