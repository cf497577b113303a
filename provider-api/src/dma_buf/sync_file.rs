//! Fences as files: what GPU work a DMA-buf's users must wait for.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::{Error, Result};

/// Which fences of a DMA-buf are meant (`DMA_BUF_SYNC_READ` and `DMA_BUF_SYNC_WRITE`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FenceUse {
    /// Exporting: the fences a reader waits for, those of writers. Importing: a fence of work that reads.
    Read,
    /// Exporting: the fences a writer waits for, those of readers and writers. Importing: a fence of work
    /// that writes.
    Write,
}

/// A sync_file: fences that signal when work on a device is done (`Documentation/driver-api/sync_file.rst`).
#[derive(Debug)]
pub struct SyncFile(OwnedFd);

impl SyncFile {
    /// Takes over a sync_file that another interface made (DRM syncobj, Vulkan, vgem).
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Whether all fences have signalled.
    ///
    /// # Errors
    ///
    /// If the descriptor cannot be polled.
    pub fn is_signalled(&self) -> Result<bool> {
        self.wait(Duration::ZERO)
    }

    /// Waits until all fences have signalled, at most `limit`. Returns whether they have.
    ///
    /// # Errors
    ///
    /// If the descriptor cannot be polled.
    pub fn wait(&self, limit: Duration) -> Result<bool> {
        let deadline = Instant::now().checked_add(limit);
        loop {
            let left = match deadline {
                Some(deadline) => deadline.saturating_duration_since(Instant::now()),
                None => Duration::MAX,
            };
            // Rounded up: a wait that ends early would only poll once more.
            let milliseconds = u64::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
            let timeout = PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX);
            let mut watched = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            match poll(&mut watched, timeout) {
                Ok(0) if left > Duration::from_millis(i32::MAX as u64) => {}
                Ok(ready) => return Ok(ready > 0),
                Err(Errno::EINTR | Errno::EAGAIN) => {}
                Err(errno) => return Err(Error::from_errno(errno, "wait for a sync_file")),
            }
        }
    }
}

impl AsFd for SyncFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<SyncFile> for OwnedFd {
    fn from(sync_file: SyncFile) -> Self {
        sync_file.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_no_longer_than_asked_and_sees_a_signal() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let fence = SyncFile::from_fd(reader);
        assert!(!fence.is_signalled().unwrap());
        assert!(!fence.wait(Duration::from_millis(1)).unwrap());
        nix::unistd::write(&writer, b"x").unwrap();
        assert!(fence.is_signalled().unwrap());
        assert!(fence.wait(Duration::MAX).unwrap());
    }
}
