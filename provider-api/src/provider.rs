//! The traits that a backend implements.

use std::fmt;
use std::sync::Arc;

use crate::device_copy::DeviceCopy;
use crate::dma_buf::DmaBuf;
use crate::error::Result;
use crate::heap::Heap;
use crate::identity::Identity;
use crate::request::Request;
use crate::residency::ResidencyEvidence;
use crate::sharing::Sharing;

bitflags::bitflags! {
    /// What a provider can do beyond the minimum; the checks that run against it follow from this.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct Capabilities: u32 {
        /// Its DMA-bufs can be mapped for the CPU.
        const CPU_MAPPING = 1 << 0;
        /// New buffers read as zero.
        const ZEROED = 1 << 1;
        /// It has memory of its own on the device.
        const DEVICE_LOCAL = 1 << 2;
        /// It serves [`Request::contiguous`].
        const CONTIGUOUS = 1 << 3;
        /// It serves [`PageSize::Huge2MiB`](crate::PageSize::Huge2MiB).
        const HUGE_PAGES = 1 << 4;
        /// Its buffers tell where they are: [`Buffer::residency`] is never `Unknown`.
        const RESIDENCY = 1 << 5;
        /// It copies and compares by itself: [`Provider::device_copy`] is never `None`.
        const DEVICE_COPY = 1 << 6;
    }
}

/// A device, or a part of the kernel, that hands out memory which it can export as a DMA-buf.
///
/// # For those who use it
///
/// A provider may be shared between threads. Buffers outlive it. Nothing is allocated before
/// [`allocate`](Self::allocate).
///
/// # For those who implement it
///
/// Four things are to be written: who am I, what heaps have I, allocate, and for a buffer its export and
/// its residency. The conformance suite checks that
///
/// - sizes that break a heap's rules are refused with [`ErrorKind::InvalidInput`](crate::ErrorKind) or
///   [`OutOfMemory`](crate::ErrorKind::OutOfMemory), before anything is allocated
///   ([`Request::check_size`] does it);
/// - a buffer has exactly the size asked for, and so has its DMA-buf;
/// - a placement that was required is kept, also where the driver falls back silently: look at where the
///   buffer is after allocating;
/// - exports of one buffer are the same DMA-buf, and nothing is left open when all is dropped.
pub trait Provider: fmt::Debug + Send + Sync {
    /// Who it is.
    fn identity(&self) -> &Identity;

    /// The memory it has, preferred heap first, with what is in use now.
    ///
    /// # Errors
    ///
    /// If the device is gone or its node may no longer be opened.
    fn heaps(&self) -> Result<Vec<Heap>>;

    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// Allocates a buffer.
    ///
    /// # Errors
    ///
    /// See the contract above; [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) for a placement,
    /// contiguity or page size that it does not offer.
    fn allocate(&self, request: &Request) -> Result<Box<dyn Buffer>>;

    /// What the device can do with bytes by itself, if it can.
    ///
    /// # Errors
    ///
    /// If the device cannot be made ready for it.
    fn device_copy(&self) -> Result<Option<Arc<dyn DeviceCopy>>> {
        Ok(None)
    }
}

/// Memory that a provider allocated.
///
/// Dropping it gives up this process's claim. The memory lives on while a DMA-buf exported from it does.
pub trait Buffer: fmt::Debug + Send + Sync {
    /// The size in bytes.
    fn size(&self) -> u64;

    /// Who allocated it, for what is told of it when it moves. Return the provider's identity.
    fn exporter(&self) -> Option<&Identity> {
        None
    }

    /// Exports it for reading and writing. Every call returns the same DMA-buf (the same inode).
    ///
    /// # Errors
    ///
    /// What the driver returns, or that no descriptor is left.
    fn export(&self) -> Result<DmaBuf>;

    /// Looks where its pages are now.
    ///
    /// # Errors
    ///
    /// If the look itself fails. That a driver gives no way to look is no error but
    /// [`Residency::Unknown`](crate::Residency::Unknown).
    fn residency(&self) -> Result<ResidencyEvidence>;

    /// What its exporter does with it while it is in device memory and somebody attaches; `None` where that is not known.
    ///
    /// A rule of the driver's source, by which a [`Forecast`](crate::Forecast) foretells. What happens, a
    /// [`Pin`](crate::Pin) sees.
    fn sharing(&self) -> Option<Sharing> {
        None
    }

    /// Makes what a peer has written visible to the device and the CPU, where the driver has a means.
    ///
    /// System memory needs none on architectures with coherent DMA, which is what the default assumes.
    ///
    /// # Errors
    ///
    /// If the device is gone.
    fn flush_peer_writes(&self) -> Result<()> {
        Ok(())
    }
}
