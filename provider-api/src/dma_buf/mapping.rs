//! CPU access to a DMA-buf: a mapping, and guards that tell the exporter when the CPU reads or writes.

use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};

use super::memory::SharedMemory;
use super::{DmaBuf, uapi};
use crate::error::{Error, ErrorKind, Result};
use crate::request::base_page_size;

/// What the CPU may do with a [`Mapping`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// Read only. Works for buffers that were exported read-only.
    Read,
    /// Read and write.
    ReadWrite,
}

/// A DMA-buf, or a part of it, in the address space of this process.
///
/// Bytes are reached through [`ReadAccess`] and [`WriteAccess`]. Beginning one makes the kernel wait for
/// the fences of the buffer's GPU users and lets the exporter make caches coherent
/// (`DMA_BUF_IOCTL_SYNC`); it does **not** keep a device from writing meanwhile. A NIC attaches no fence:
/// what has been received is known from its completion alone.
///
/// Beginning a read may move memory that no importer holds: an exporter is free to bring an unpinned
/// buffer to where the CPU reads it best.
///
/// A part is mapped together with all that lies before it: the kernel shows the beginning of a buffer
/// instead of its part where the exporter uses the DRM core's shmem buffers, as vgem, virtio-gpu and most
/// drivers of embedded GPUs do (`drm_gem_shmem_any_fault()` of Linux 7.2 takes no heed of the offset).
#[derive(Debug)]
pub struct Mapping {
    fd: OwnedFd,
    memory: SharedMemory,
    /// Where the part begins.
    start: usize,
    access: Access,
}

impl Mapping {
    pub(super) fn new(dma_buf: &DmaBuf, offset: u64, length: u64, access: Access) -> Result<Self> {
        let failed = |error: Error| error.on(dma_buf);
        let invalid = |why| {
            Error::new(ErrorKind::InvalidInput, format!("map {length} bytes from offset {offset}"))
                .on(dma_buf)
                .because(why)
        };
        let end = offset.checked_add(length).filter(|&end| length > 0 && end <= dma_buf.size());
        let end = end.and_then(|end| usize::try_from(end).ok()).and_then(NonZeroUsize::new);
        let (Some(end), Ok(start)) = (end, usize::try_from(offset)) else {
            return Err(invalid("the range is empty or not inside the buffer"));
        };
        if !offset.is_multiple_of(base_page_size()) {
            return Err(invalid("the offset is not a multiple of the page size"));
        }
        let memory = SharedMemory::map(dma_buf.as_fd(), end, access == Access::ReadWrite)
            .map_err(|errno| failed(map_error(errno)))?;
        Ok(Self { fd: dma_buf.duplicate_fd()?, memory, start, access })
    }

    /// The number of bytes mapped.
    #[must_use]
    pub fn length(&self) -> usize {
        self.memory.length() - self.start
    }

    fn copy_out(&self, offset: usize, destination: &mut [u8]) -> Option<()> {
        self.memory.copy_out(self.start.checked_add(offset)?, destination)
    }

    fn copy_in(&self, offset: usize, source: &[u8]) -> Option<()> {
        self.memory.copy_in(self.start.checked_add(offset)?, source)
    }

    /// Begins an access of the CPU that reads.
    ///
    /// # Errors
    ///
    /// What the exporter's `begin_cpu_access` returns, for example when the device is gone.
    pub fn read(&self) -> Result<ReadAccess<'_>> {
        Ok(ReadAccess(Guard::begin(self, uapi::SYNC_READ)?))
    }

    /// Begins an access of the CPU that reads and writes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::PermissionDenied`] if the mapping is read-only; else as [`read`](Self::read).
    pub fn write(&self) -> Result<WriteAccess<'_>> {
        if self.access != Access::ReadWrite {
            return Err(Error::new(ErrorKind::PermissionDenied, "begin a write access")
                .because("the DMA-buf is mapped for reading only")
                .remedy("map it with Access::ReadWrite"));
        }
        Ok(WriteAccess(Guard::begin(self, uapi::SYNC_READ | uapi::SYNC_WRITE)?))
    }
}

fn map_error(errno: nix::errno::Errno) -> Error {
    let error = Error::from_errno(errno, "map a DMA-buf into the CPU's address space");
    match errno {
        nix::errno::Errno::EACCES => {
            error.because("it was exported read-only").remedy("map it with Access::Read")
        }
        nix::errno::Errno::EINVAL => {
            error.with_kind(ErrorKind::Unsupported).because("its exporter offers no CPU mapping")
        }
        _ => error,
    }
}

/// An access that has begun and must end.
#[derive(Debug)]
struct Guard<'mapping> {
    mapping: &'mapping Mapping,
    flags: u64,
    open: bool,
}

impl<'mapping> Guard<'mapping> {
    fn begin(mapping: &'mapping Mapping, flags: u64) -> Result<Self> {
        uapi::sync(mapping.fd.as_fd(), flags)
            .map_err(|errno| Error::from_errno(errno, "begin an access of the CPU to a DMA-buf"))?;
        Ok(Self { mapping, flags, open: true })
    }

    fn end(&mut self) -> Result<()> {
        self.open = false;
        uapi::sync(self.mapping.fd.as_fd(), self.flags | uapi::SYNC_END)
            .map_err(|errno| Error::from_errno(errno, "end an access of the CPU to a DMA-buf"))
    }

    fn outside(&self, offset: usize, length: usize) -> Error {
        Error::new(ErrorKind::InvalidInput, format!("access {length} bytes at offset {offset}"))
            .on(format!("a mapping of {} bytes", self.mapping.length()))
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if self.open {
            // Nobody is left to tell; callers that must know call `finish`.
            let _ = self.end();
        }
    }
}

/// The CPU reads; ends on [`finish`](Self::finish) or on drop.
#[derive(Debug)]
#[must_use = "an access that is dropped at once reads nothing"]
pub struct ReadAccess<'mapping>(Guard<'mapping>);

impl ReadAccess<'_> {
    /// Copies bytes from `offset` of the mapping on into `destination`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`], with nothing copied, if the range is not all inside the mapping.
    pub fn copy_to(&self, offset: usize, destination: &mut [u8]) -> Result<()> {
        let length = destination.len();
        self.0.mapping.copy_out(offset, destination).ok_or_else(|| self.0.outside(offset, length))
    }

    /// Ends the access and says whether the exporter could end it properly.
    ///
    /// # Errors
    ///
    /// What the exporter's `end_cpu_access` returns: what was read may be stale then.
    pub fn finish(mut self) -> Result<()> {
        self.0.end()
    }
}

/// The CPU reads and writes; ends on [`finish`](Self::finish) or on drop.
#[derive(Debug)]
#[must_use = "an access that is dropped at once writes nothing"]
pub struct WriteAccess<'mapping>(Guard<'mapping>);

impl WriteAccess<'_> {
    /// Copies bytes from `offset` of the mapping on into `destination`.
    ///
    /// # Errors
    ///
    /// As [`ReadAccess::copy_to`].
    pub fn copy_to(&self, offset: usize, destination: &mut [u8]) -> Result<()> {
        let length = destination.len();
        self.0.mapping.copy_out(offset, destination).ok_or_else(|| self.0.outside(offset, length))
    }

    /// Copies `source` to `offset` of the mapping.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`], with nothing copied, if the range is not all inside the mapping.
    pub fn copy_from(&self, offset: usize, source: &[u8]) -> Result<()> {
        self.0.mapping.copy_in(offset, source).ok_or_else(|| self.0.outside(offset, source.len()))
    }

    /// Ends the access and says whether the exporter could end it properly.
    ///
    /// # Errors
    ///
    /// What the exporter's `end_cpu_access` returns: a device may not see what was written then.
    pub fn finish(mut self) -> Result<()> {
        self.0.end()
    }
}
