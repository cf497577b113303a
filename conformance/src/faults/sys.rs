//! Descriptors by their numbers.

use std::os::fd::RawFd;

/// Lets programs that this process starts inherit a descriptor.
pub(super) fn make_inheritable(number: RawFd) -> std::io::Result<()> {
    // SAFETY: the call takes numbers alone. One that is not open is refused.
    match unsafe { libc::fcntl(number, libc::F_SETFD, 0) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}
