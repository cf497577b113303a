//! DMA-buf: device memory as a file descriptor that other drivers can attach to.

mod attached;
mod file_information;
mod mapping;
mod memory;
mod sync_file;
mod uapi;

use std::ffi::CString;
use std::fmt;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use nix::errno::Errno;
use nix::sys::stat::fstat;
use nix::sys::statfs::fstatfs;

pub use attached::Attached;
pub use file_information::FileInformation;
pub use mapping::{Access, Mapping, ReadAccess, WriteAccess};
pub use sync_file::{FenceUse, SyncFile};

use crate::error::{Error, ErrorKind, Result};

/// A DMA-buf that this process holds open.
///
/// The memory behind it lives as long as any descriptor, mapping or importer's attachment does, whatever
/// becomes of the [`Buffer`](crate::Buffer) that exported it. Passing the descriptor to another process
/// passes the memory.
///
/// A clone shares the descriptor and costs no system call; [`try_clone`](Self::try_clone) makes a second one.
#[derive(Debug, Clone)]
pub struct DmaBuf(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    fd: OwnedFd,
    size: u64,
    inode: OnceLock<u64>,
}

impl DmaBuf {
    /// Takes over a descriptor, after checking that it is a DMA-buf at all.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if it is something else; the message says what.
    pub fn from_fd(fd: OwnedFd) -> Result<Self> {
        const OPERATION: &str = "take a file descriptor as a DMA-buf";
        let failed = |errno| Error::from_errno(errno, OPERATION);
        let file_system = fstatfs(&fd).map_err(failed)?.filesystem_type().0;
        if u64::try_from(file_system).ok() != Some(uapi::DMA_BUF_MAGIC) {
            return Err(Error::new(ErrorKind::InvalidInput, OPERATION)
                .because(format!("it is {}", describe_descriptor(fd.as_fd())))
                .remedy("pass a descriptor that a DMA-buf exporter returned"));
        }
        let inode = fstat(&fd).map_err(failed)?.st_ino;
        let mut file = File::from(fd);
        let size = file.seek(SeekFrom::End(0)).map_err(|error| Error::from_io(error, OPERATION))?;
        Ok(Self(Arc::new(Shared { fd: file.into(), size, inode: OnceLock::from(inode) })))
    }

    /// Takes over the descriptor that an exporter has just returned for `size` bytes, without asking the
    /// kernel what is known already: for backends, where every system call counts. A descriptor of other
    /// origin goes through [`from_fd`](Self::from_fd).
    #[must_use]
    #[inline]
    pub fn from_exporter(fd: OwnedFd, size: u64) -> Self {
        Self(Arc::new(Shared { fd, size, inode: OnceLock::new() }))
    }

    /// The size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.0.size
    }

    /// The inode number: two descriptors with the same one are the same DMA-buf.
    #[must_use]
    pub fn inode(&self) -> u64 {
        // The kernel answers for any descriptor that is open, as this one is.
        *self.0.inode.get_or_init(|| fstat(&self.0.fd).map_or(0, |status| status.st_ino))
    }

    /// A second descriptor of the same DMA-buf.
    ///
    /// # Errors
    ///
    /// If this process has no descriptor left.
    pub fn try_clone(&self) -> Result<Self> {
        let fd = self.duplicate_fd()?;
        Ok(Self(Arc::new(Shared { fd, size: self.0.size, inode: self.0.inode.clone() })))
    }

    /// The descriptor itself, or a second one if a clone of this DMA-buf still needs it.
    ///
    /// # Errors
    ///
    /// If a second one is needed and this process has no descriptor left.
    pub fn into_fd(self) -> Result<OwnedFd> {
        match Arc::try_unwrap(self.0) {
            Ok(shared) => Ok(shared.fd),
            Err(shared) => Self(shared).duplicate_fd(),
        }
    }

    fn duplicate_fd(&self) -> Result<OwnedFd> {
        self.0
            .fd
            .try_clone()
            .map_err(|error| Error::from_io(error, "duplicate the descriptor of a DMA-buf").on(self))
    }

    /// Names the buffer, for the kernel's debug output and [`FileInformation::name`]. At most 31 bytes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if the name is longer or contains a zero byte.
    pub fn set_name(&self, name: &str) -> Result<()> {
        let invalid = || {
            Error::new(ErrorKind::InvalidInput, "name a DMA-buf")
                .on(format!("{name:?}"))
                .because(format!("a name has at most {} bytes, none of them zero", uapi::NAME_CAPACITY - 1))
        };
        if name.len() >= uapi::NAME_CAPACITY {
            return Err(invalid());
        }
        let name = CString::new(name).map_err(|_| invalid())?;
        uapi::set_name(self.as_fd(), &name)
            .map_err(|errno| Error::from_errno(errno, "name a DMA-buf").on(self))
    }

    /// What the kernel says of this file: exporter, references, name.
    ///
    /// # Errors
    ///
    /// If `/proc` is not mounted.
    pub fn file_information(&self) -> Result<FileInformation> {
        let path = format!("/proc/self/fdinfo/{}", self.0.fd.as_raw_fd());
        let text = std::fs::read_to_string(&path)
            .map_err(|error| Error::from_io(error, "read").on(&path).remedy("mount /proc"))?;
        FileInformation::parse(&text)
    }

    /// Who is attached to it now: root sees it in debugfs, where that is mounted.
    #[must_use]
    pub fn attached(&self) -> Attached {
        Attached::to(self.inode())
    }

    /// Maps the whole buffer for the CPU.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::PermissionDenied`] if it was exported read-only and `access` writes,
    /// [`ErrorKind::Unsupported`] if its exporter offers no CPU mapping.
    pub fn map(&self, access: Access) -> Result<Mapping> {
        self.map_range(0, self.0.size, access)
    }

    /// Maps `length` bytes from `offset`, a multiple of the page size, on.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if the range is empty or not inside the buffer; else as
    /// [`map`](Self::map).
    pub fn map_range(&self, offset: u64, length: u64, access: Access) -> Result<Mapping> {
        Mapping::new(self, offset, length, access)
    }

    /// The buffer's present fences as one sync_file: what work on other devices must be over first.
    ///
    /// Without any fence the result has signalled already. A NIC that receives adds no fence.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] if the kernel is older than 6.0 or was built without `CONFIG_SYNC_FILE`,
    /// which is so where it has no GPU driver.
    pub fn export_sync_file(&self, fences: FenceUse) -> Result<SyncFile> {
        uapi::export_sync_file(self.as_fd(), fences.flags())
            .map(SyncFile::from_fd)
            .map_err(|errno| fence_error(errno, "export the fences of a DMA-buf as a sync_file").on(self))
    }

    /// Adds a fence that the buffer's other users must wait for.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if the descriptor is no sync_file.
    pub fn import_sync_file(&self, sync_file: &SyncFile, fences: FenceUse) -> Result<()> {
        uapi::import_sync_file(self.as_fd(), fences.flags(), sync_file.as_fd().as_raw_fd())
            .map_err(|errno| fence_error(errno, "import a sync_file into a DMA-buf").on(self))
    }
}

#[cfg(test)]
impl DmaBuf {
    /// A file that is no DMA-buf, for tests of what only passes one on: not every kernel has an exporter.
    pub(crate) fn stand_in(size: u64) -> Self {
        let fd = File::open("/dev/null").unwrap().into();
        Self(Arc::new(Shared { fd, size, inode: OnceLock::from(0) }))
    }
}

impl FenceUse {
    fn flags(self) -> u64 {
        match self {
            Self::Read => uapi::SYNC_READ,
            Self::Write => uapi::SYNC_WRITE,
        }
    }
}

impl AsFd for DmaBuf {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }
}

impl fmt::Display for DmaBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DMA-buf {} of {} bytes", self.inode(), self.size())
    }
}

fn fence_error(errno: Errno, operation: &'static str) -> Error {
    let error = Error::from_errno(errno, operation);
    match errno {
        Errno::ENOTTY => error
            .because("this kernel has no sync_files")
            .remedy("use a kernel of version 6.0 or newer, built with CONFIG_SYNC_FILE"),
        _ => error,
    }
}

/// What a descriptor refers to, as `/proc` names it.
fn describe_descriptor(fd: BorrowedFd<'_>) -> String {
    match std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())) {
        Ok(target) => target.display().to_string(),
        Err(_) => "something else".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_that_is_no_dma_buf_is_named() {
        let file = File::open("/dev/null").unwrap();
        let error = DmaBuf::from_fd(file.into()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("/dev/null"), "{error}");
    }
}
