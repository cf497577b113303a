//! Descriptors by their numbers, and what is called at a fork.

use std::os::fd::RawFd;

/// Lets programs that this process starts inherit a descriptor.
pub(super) fn make_inheritable(number: RawFd) -> std::io::Result<()> {
    // SAFETY: the call takes numbers alone. One that is not open is refused.
    match unsafe { libc::fcntl(number, libc::F_SETFD, 0) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// Has a function called in this process after each `fork` of it that succeeds.
pub(super) fn call_after_fork(function: extern "C" fn()) -> std::io::Result<()> {
    // SAFETY: the function stays where it is as long as the program, and is called in the process that forks, where all
    // of its threads go on.
    match unsafe { libc::pthread_atfork(None, Some(function), None) } {
        0 => Ok(()),
        number => Err(std::io::Error::from_raw_os_error(number)),
    }
}
