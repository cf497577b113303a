//! A registration as it is asked of the kernel, with members that may be wrong: for test suites.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use devmem_provider::{DmaBuf, Error, Result};
use io_uring::{IoUring, cqueue, squeue};
use nix::errno::Errno;

use super::sys;
use super::uapi::{AREA_DMABUF, Area, Queue, REGION_USER};
use crate::nic::Nic;
use crate::shared_memory::SharedMemory;

/// The room of the refill ring's region, in bytes: for 256 entries behind their header.
const REGION_BYTES: usize = 8192;

/// What is asked with `IORING_REGISTER_ZCRX_IFQ`, on a ring of its own.
///
/// [`new`](Self::new) asks for what can be had. The kernel's checks are in `io_register_zcrx()` and in what it calls
/// (`io_uring/zcrx.c`); the members are those of `struct io_uring_zcrx_ifq_reg`, `struct io_uring_zcrx_area_reg` and
/// `struct io_uring_region_desc`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RawRegistration {
    /// The interface.
    pub interface: u32,
    /// The receive queue.
    pub queue: u32,
    /// Entries of the refill ring.
    pub refill_entries: u32,
    /// Flags of the registration.
    pub flags: u32,
    /// What the kernel is to fill in, and wants to find zero.
    pub id: u32,
    /// The size of a receive buffer in bytes, 0 for a page.
    pub buffer_bytes: u32,
    /// Where the area begins, which a DMA-buf does at 0.
    pub area_address: u64,
    /// The area's size in bytes: all of the DMA-buf.
    pub area_bytes: u64,
    /// Flags of the area, besides the one that says DMA-buf.
    pub area_flags: u32,
    /// The descriptor of the DMA-buf.
    pub descriptor: RawFd,
    /// How much of the region is told to be there, in bytes; no more than is.
    pub region_bytes: u64,
    /// Flags of the region, besides the one that says memory of the caller.
    pub region_flags: u32,
    /// The ring.
    pub ring: RawRingKind,
}

/// A ring that a queue is registered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RawRingKind {
    /// As zero-copy receive takes it: completions of 32 bytes, and work that waits for the thread that receives.
    Suitable,
    /// With completions of 16 bytes (without `IORING_SETUP_CQE32`).
    ShortCompletions,
    /// Whose work is done at any time (without `IORING_SETUP_DEFER_TASKRUN`).
    UndeferredWork,
}

impl RawRegistration {
    /// Asks for a DMA-buf for a queue.
    #[must_use]
    pub fn new(nic: &Nic, queue: u32, dma_buf: &DmaBuf) -> Self {
        let descriptor = dma_buf.as_fd().as_raw_fd();
        Self { area_bytes: dma_buf.size(), descriptor, ..Self::without_dma_buf(nic, queue) }
    }

    /// Asks with a descriptor that is not open: what the kernel looks at before that is looked at, and nothing is changed.
    pub(crate) fn without_dma_buf(nic: &Nic, queue: u32) -> Self {
        Self {
            interface: nic.ifindex(),
            queue,
            refill_entries: 256,
            flags: 0,
            id: 0,
            buffer_bytes: 0,
            area_address: 0,
            area_bytes: 4096,
            area_flags: 0,
            descriptor: RawFd::MAX,
            region_bytes: REGION_BYTES as u64,
            region_flags: 0,
            ring: RawRingKind::Suitable,
        }
    }

    /// Asks. The ring is closed at once, and the queue is free again a little later.
    ///
    /// # Errors
    ///
    /// In the outer result, there is no such ring to be had; in the inner one, what the kernel answers.
    pub fn attempt(&self) -> Result<Result<(), Errno>> {
        let refill = SharedMemory::allocate(REGION_BYTES, false)
            .map_err(|errno| Error::from_errno(errno, "allocate a refill ring"))?;
        let no_ring = |error| Error::from_io(error, "make a ring of io_uring");
        // The number of entries does not matter: nothing is received.
        match self.ring {
            RawRingKind::Suitable => {
                let mut builder = IoUring::<squeue::Entry, cqueue::Entry32>::builder();
                let ring = builder.setup_single_issuer().setup_defer_taskrun().build(8).map_err(no_ring)?;
                Ok(self.ask(sys::descriptor(&ring), &refill))
            }
            RawRingKind::ShortCompletions => {
                let mut builder = IoUring::<squeue::Entry, cqueue::Entry>::builder();
                let ring = builder.setup_single_issuer().setup_defer_taskrun().build(8).map_err(no_ring)?;
                Ok(self.ask(sys::descriptor(&ring), &refill))
            }
            RawRingKind::UndeferredWork => {
                let mut builder = IoUring::<squeue::Entry, cqueue::Entry32>::builder();
                let ring = builder.setup_single_issuer().build(8).map_err(no_ring)?;
                Ok(self.ask(sys::descriptor(&ring), &refill))
            }
        }
    }

    fn ask(&self, ring: BorrowedFd<'_>, refill: &SharedMemory) -> Result<(), Errno> {
        let mut queue = Queue {
            interface: self.interface,
            queue: self.queue,
            refill_entries: self.refill_entries,
            flags: self.flags,
            id: self.id,
            buffer_bytes: self.buffer_bytes,
            ..Queue::default()
        };
        let area = Area {
            address: self.area_address,
            length: self.area_bytes,
            flags: AREA_DMABUF | self.area_flags,
            dmabuf: self.descriptor.cast_unsigned(),
            ..Area::default()
        };
        sys::register_raw_queue(
            ring,
            &mut queue,
            area,
            refill,
            self.region_bytes,
            REGION_USER | self.region_flags,
        )
    }
}
