//! An open DRM node and the ioctls that every driver answers, through `drm-ffi`.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use devmem_provider::{DmaBuf, Error, Result};
use nix::errno::Errno;

use super::errors::{failed, no_permission};
use super::sys;

/// Repeats an ioctl that a signal interrupted or that the driver asks to repeat, as `drmIoctl()` of libdrm does.
pub(crate) fn repeat<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            result => return result,
        }
    }
}

/// [`repeat`] for the calls of `drm-ffi`.
fn repeat_io<T>(mut call: impl FnMut() -> std::io::Result<T>) -> nix::Result<T> {
    repeat(|| call().map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(Errno::EIO as i32))))
}

/// What a driver says of itself (`DRM_IOCTL_VERSION`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) driver: String,
    pub(crate) number: String,
}

/// An open node of a DRM device. GEM handles belong to it and die with it.
#[derive(Debug)]
pub(crate) struct DrmFile {
    file: File,
    node: PathBuf,
}

impl DrmFile {
    /// Opens a node for reading and writing.
    pub(crate) fn open(node: &Path) -> Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(node).map_err(|error| {
            let error = Error::from_io(error, "open").on(node.display());
            match error.errno() {
                Some(Errno::EACCES | Errno::EPERM) => no_permission(error),
                Some(errno @ (Errno::ENODEV | Errno::ENXIO)) => failed(errno, "open", node),
                _ => error,
            }
        })?;
        let file = Self { file, node: node.to_owned() };
        if file.is_primary() {
            // Who opens a primary node first becomes master of the display, which is for a compositor.
            let _ = drm_ffi::auth::release_master(file.as_fd());
        }
        Ok(file)
    }

    pub(crate) fn node(&self) -> &Path {
        &self.node
    }

    fn is_primary(&self) -> bool {
        self.node.file_name().is_some_and(|name| name.to_string_lossy().starts_with("card"))
    }

    /// An error of an ioctl on this node.
    pub(crate) fn failed(&self, errno: Errno, operation: impl Into<String>) -> Error {
        failed(errno, operation, &self.node)
    }

    pub(crate) fn version(&self) -> Result<Version> {
        let mut name = Vec::new();
        let version = repeat_io(|| {
            name.clear();
            drm_ffi::get_version(self.as_fd(), Some(&mut name), None, None)
        })
        .map_err(|errno| self.failed(errno, "ask for the driver's version"))?;
        let number =
            format!("{}.{}.{}", version.version_major, version.version_minor, version.version_patchlevel);
        // drm-ffi takes the C type char for a signed one.
        let name: Vec<u8> = name.into_iter().map(i8::cast_unsigned).collect();
        Ok(Version { driver: String::from_utf8_lossy(&name).into_owned(), number })
    }

    /// Whether the driver exports its buffers (`DRM_CAP_PRIME`; every driver does since Linux 6.6).
    pub(crate) fn can_export(&self) -> Result<bool> {
        const PRIME_CAP_EXPORT: u64 = 2;
        repeat_io(|| drm_ffi::get_capability(self.as_fd(), drm_ffi::DRM_CAP_PRIME.into()))
            .map(|answer| answer.value & PRIME_CAP_EXPORT != 0)
            .map_err(|errno| self.failed(errno, "ask whether buffers can be exported"))
    }

    /// Wakes the GPU and fails if it is gone: for what reaches its memory without an ioctl. Touching a mapping of a
    /// device that is gone makes some drivers complain to the kernel's log.
    pub(crate) fn check_presence(&self) -> Result<()> {
        self.can_export().map(drop)
    }

    /// Gives a handle back. A device that is gone has no handles left, and nobody could act on another error.
    pub(crate) fn close_handle(&self, handle: u32) {
        let _ = repeat_io(|| drm_ffi::gem::close(self.as_fd(), handle));
    }

    /// Exports a buffer for reading and writing.
    pub(crate) fn export(&self, handle: u32, size: u64) -> Result<DmaBuf> {
        let flags = drm_ffi::DRM_CLOEXEC | drm_ffi::DRM_RDWR;
        let fd = repeat_io(|| sys::export(self.as_fd(), handle, flags))
            .map_err(|errno| self.failed(errno, "export a buffer as a DMA-buf"))?;
        Ok(DmaBuf::from_exporter(fd, size))
    }

    /// Imports a DMA-buf. If it is of this device, the handle means the exported buffer itself.
    pub(crate) fn import(&self, dma_buf: &DmaBuf) -> Result<u32> {
        repeat_io(|| drm_ffi::gem::fd_to_handle(self.as_fd(), dma_buf.as_fd()))
            .map(|prime| prime.handle)
            .map_err(|errno| self.failed(errno, format!("import {dma_buf}")))
    }

    /// Makes a dumb buffer of exactly `size` bytes, a multiple of the page size, and returns its handle. Only
    /// primary nodes take it (`DRM_IOCTL_MODE_CREATE_DUMB` lacks `DRM_RENDER_ALLOW`).
    pub(crate) fn create_dumb(&self, size: u64, page: u64) -> nix::Result<u32> {
        const BITS: u32 = 32;
        // One page a line: no driver needs a line that is wider than asked for then.
        let (width, height) = (u32::try_from(page / 4), u32::try_from(size / page));
        let (Ok(width), Ok(height)) = (width, height) else {
            return Err(Errno::E2BIG);
        };
        let dumb = repeat_io(|| drm_ffi::mode::dumbbuffer::create(self.as_fd(), width, height, BITS, 0))?;
        if dumb.size == size {
            return Ok(dumb.handle);
        }
        self.close_handle(dumb.handle);
        Err(Errno::EINVAL)
    }

    /// What `/proc` says of this file: with most drivers, the memory of its buffers.
    pub(crate) fn fdinfo(&self) -> Result<String> {
        let path = format!("/proc/self/fdinfo/{}", self.file.as_raw_fd());
        std::fs::read_to_string(&path)
            .map_err(|error| Error::from_io(error, "read").on(path).remedy("mount /proc"))
    }
}

impl AsFd for DrmFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
