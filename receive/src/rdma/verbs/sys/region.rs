//! Memory regions.

use std::mem::ManuallyDrop;
use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::sync::Arc;

use nix::errno::Errno;

use super::super::abi;
use super::{Domain, object};
use crate::rdma::Registration;
use crate::shared_memory::SharedMemory;

/// A memory region.
pub(crate) struct Region {
    domain: Arc<Domain>,
    pointer: NonNull<abi::MemoryRegion>,
    /// The memory of this process that is registered, if it is not that of a DMA-buf.
    memory: ManuallyDrop<Option<SharedMemory>>,
}

// SAFETY: as a context.
unsafe impl Send for Region {}
// SAFETY: as above; the memory may be shared by itself.
unsafe impl Sync for Region {}

impl Region {
    /// A part of a DMA-buf.
    pub(crate) fn of_dma_buf(
        domain: &Arc<Domain>,
        dma_buf: RawFd,
        registration: &Registration,
    ) -> Result<Self, Errno> {
        let register = domain.context.verbs.reg_dmabuf_mr;
        let (pd, offset, iova) = (domain.pointer.as_ptr(), registration.offset(), registration.address());
        let length = usize::try_from(registration.length()).map_err(|_| Errno::EINVAL)?;
        let access = registration.allowed().bits().cast_signed();
        // SAFETY: a protection domain, and a descriptor that the kernel judges; no memory of this process is handed
        // over.
        let pointer = object(unsafe { register(pd, offset, length, iova, dma_buf, access) })?;
        Ok(Self { domain: Arc::clone(domain), pointer, memory: ManuallyDrop::new(None) })
    }

    /// Memory of this process, which requests name by its addresses.
    pub(crate) fn of_memory(domain: &Arc<Domain>, memory: SharedMemory, access: u32) -> Result<Self, Errno> {
        let register = domain.context.verbs.reg_mr;
        let (pd, address) = (domain.pointer.as_ptr(), memory.address() as *mut _);
        // SAFETY: the memory is mapped, and stays so until the region is gone. That a device writes to it is expected:
        // it is only touched by volatile copies.
        let pointer = object(unsafe { register(pd, address, memory.length(), access.cast_signed()) })?;
        Ok(Self { domain: Arc::clone(domain), pointer, memory: ManuallyDrop::new(Some(memory)) })
    }

    /// The memory of this process, if it is not that of a DMA-buf.
    pub(crate) fn memory(&self) -> Option<&SharedMemory> {
        self.memory.as_ref()
    }

    /// The key by which this device's own requests name it.
    pub(crate) fn local_key(&self) -> u32 {
        // SAFETY: a registered region, whose keys never change.
        unsafe { (*self.pointer.as_ptr()).lkey }
    }

    /// The key by which peers name it.
    pub(crate) fn remote_key(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.pointer.as_ptr()).rkey }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: a registered region, which nothing names any more but requests that are outstanding; these fail.
        let result = unsafe { (self.domain.context.verbs.dereg_mr)(self.pointer.as_ptr()) };
        if result == 0 {
            // SAFETY: dropped once, and not used again. The device reaches it no more.
            unsafe { ManuallyDrop::drop(&mut self.memory) };
        }
        // Memory that a device may still reach is not given back.
    }
}
