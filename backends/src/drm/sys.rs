//! Descriptors that DRM ioctls return.

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};

/// `DRM_IOCTL_PRIME_HANDLE_TO_FD`: the DMA-buf of a GEM handle.
pub(super) fn export(drm: BorrowedFd<'_>, handle: u32, flags: u32) -> io::Result<OwnedFd> {
    let prime = drm_ffi::gem::handle_to_fd(drm, handle, flags)?;
    // SAFETY: on success the kernel returns a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(prime.fd) })
}
