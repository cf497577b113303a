//! Anonymous files whose size is sealed, which udmabuf demands.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use devmem_provider::{Error, ErrorKind, PageSize, Result};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::ftruncate;

/// A memfd that can no longer shrink.
#[derive(Debug)]
pub struct SealedMemory {
    fd: OwnedFd,
    size: u64,
}

impl SealedMemory {
    /// Makes one of `size` bytes, a multiple of the page size. Its pages are allocated when they are
    /// used, which for udmabuf is when the DMA-buf is created.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] for huge pages that the kernel does not have.
    pub fn new(size: u64, page_size: PageSize) -> Result<Self> {
        let failed = |errno| {
            Error::from_errno(
                errno,
                format!("make a memfd of {size} bytes on pages of {} bytes", page_size.bytes()),
            )
        };
        let huge = page_size == PageSize::Huge2MiB;
        let mut flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        if huge {
            flags |= MFdFlags::MFD_HUGETLB | MFdFlags::MFD_HUGE_2MB;
        }
        let fd = memfd_create(c"devmem", flags).map_err(|errno| match errno {
            Errno::ENODEV | Errno::EINVAL if huge => failed(errno)
                .with_kind(ErrorKind::Unsupported)
                .because("this kernel has no huge pages of that size"),
            _ => failed(errno),
        })?;
        let length = i64::try_from(size).map_err(|_| failed(Errno::EFBIG))?;
        ftruncate(&fd, length).map_err(failed)?;
        fcntl(&fd, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK)).map_err(failed)?;
        Ok(Self { fd, size })
    }

    /// The size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl AsFd for SealedMemory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cannot_shrink() {
        let memory = SealedMemory::new(8192, PageSize::Base).unwrap();
        assert_eq!(memory.size(), 8192);
        assert_eq!(ftruncate(&memory, 4096), Err(Errno::EPERM));
        let seals = fcntl(&memory, FcntlArg::F_GET_SEALS).unwrap();
        assert_eq!(seals & SealFlag::F_SEAL_WRITE.bits(), 0, "udmabuf refuses write-sealed memory");
    }
}
