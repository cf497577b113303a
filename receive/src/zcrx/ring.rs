//! A ring of io_uring as zero-copy receive needs it.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use devmem_provider::{Error, ErrorKind, Result};
use io_uring::{IoUring, types};
use nix::errno::Errno;

use super::sys::{self, RawRing};
use super::uapi;

/// The most completions that a ring has room for.
const MAXIMUM_COMPLETIONS: u32 = 1 << 16;

/// Requests that may wait to be submitted: two for a connection.
const SUBMISSIONS: u32 = 256;

/// Longer than anybody waits: a hundred years.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// What the completion of a wake-up carries, which is none of a connection's.
const WAKE: u64 = u64::MAX;

/// What the completions of events carry.
pub(crate) const EVENT: u64 = u64::MAX - 1;

/// A ring. Only one thread may submit to it and wait on it: the one that does so first.
pub(crate) struct Ring {
    ring: RawRing,
    enabled: bool,
}

/// What the kernel tells of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Completion {
    /// What the request was given.
    pub(crate) user_data: u64,
    /// Bytes, zero at the end of a stream, or a negative error number.
    pub(crate) result: i32,
    /// Whether the request goes on.
    pub(crate) more: bool,
    /// Where the bytes lie in the area.
    pub(crate) offset: u64,
}

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waited {
    /// As many completions as were asked for, or what there was after the time that was given for that.
    Completions,
    /// Nothing came within the limit.
    Nothing,
}

impl Ring {
    /// A ring with room for at least so many completions.
    pub(crate) fn new(completions: usize) -> Result<Self> {
        let completions = u32::try_from(completions).unwrap_or(MAXIMUM_COMPLETIONS);
        let completions = completions.clamp(SUBMISSIONS, MAXIMUM_COMPLETIONS);
        // Disabled at first, so that it may be made by another thread than the one that will use it.
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_r_disabled()
            .setup_submit_all()
            .setup_cqsize(completions)
            .dontfork()
            .build(SUBMISSIONS)
            .map_err(|error| no_ring(&error))?;
        Ok(Self { ring, enabled: false })
    }

    /// Lets the calling thread, and no other, use the ring.
    pub(crate) fn enable(&mut self) -> Result<()> {
        if !self.enabled {
            let enabled = self.ring.submitter().register_enable_rings();
            enabled.map_err(|error| Error::from_io(error, "enable a ring of io_uring"))?;
            self.enabled = true;
        }
        Ok(())
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        super::sys::descriptor(&self.ring)
    }

    /// Asks to receive everything that comes over a socket. It is submitted with the next [`wait`](Self::wait), or
    /// now if there is no room otherwise.
    pub(crate) fn receive(&mut self, socket: BorrowedFd<'_>, queue: u32, user_data: u64) -> Result<()> {
        if !sys::push_receive(&mut self.ring, socket, queue, user_data, WAKE) {
            self.ring.submit().map_err(|error| wait_error(&error))?;
            if !sys::push_receive(&mut self.ring, socket, queue, user_data, WAKE) {
                return Err(Error::new(ErrorKind::Protocol, "submit a request to io_uring")
                    .because("the kernel takes none"));
            }
        }
        Ok(())
    }

    /// Submits what is to be submitted and waits until `count` completions are there. After `linger`, if that is
    /// given, fewer do, but at least one that is new. It waits at most `limit`, and for ever without one.
    pub(crate) fn wait(
        &mut self,
        count: usize,
        linger: Option<Duration>,
        limit: Option<Duration>,
    ) -> Result<Waited> {
        // Without a timeout the kernel takes the time of lingering for one.
        let limit = limit.map_or(FOR_EVER, |limit| limit.min(FOR_EVER));
        let timeout = types::Timespec::from(limit);
        let mut arguments = types::SubmitArgs::new();
        if let (Some(linger), 2..) = (linger, count) {
            let linger = linger.min(limit).as_micros();
            arguments = arguments.min_wait_usec(u32::try_from(linger).unwrap_or(u32::MAX));
        }
        let arguments = arguments.timespec(&timeout);
        match self.ring.submitter().submit_with_args(count, &arguments) {
            Ok(_) => Ok(Waited::Completions),
            Err(error) => match error.raw_os_error() {
                Some(libc::ETIME) => Ok(Waited::Nothing),
                // A signal; what has come so far is looked at, and the caller waits again.
                Some(libc::EINTR) => Ok(Waited::Completions),
                // More completions than there is room for: they come when those that are there are taken.
                Some(libc::EBUSY) => Ok(Waited::Completions),
                _ => Err(wait_error(&error)),
            },
        }
    }

    /// How many completions are there.
    pub(crate) fn available(&mut self) -> usize {
        self.ring.completion().len()
    }

    /// Takes the next completion, if there is one.
    pub(crate) fn next(&mut self) -> Option<Completion> {
        self.ring.completion().find_map(|entry| {
            let [offset, _] = *entry.big_cqe();
            (entry.user_data() != WAKE).then(|| Completion {
                user_data: entry.user_data(),
                result: entry.result(),
                more: entry.flags() & uapi::COMPLETION_MORE != 0,
                offset,
            })
        })
    }

    /// Whether the kernel knows a request.
    pub(crate) fn knows_zero_copy_receive(&self) -> Result<bool> {
        let mut probe = io_uring::Probe::new();
        let probed = self.ring.submitter().register_probe(&mut probe);
        probed.map_err(|error| Error::from_io(error, "ask io_uring for its requests"))?;
        Ok(probe.is_supported(io_uring::opcode::RecvZc::CODE))
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("descriptor", &self.ring.as_raw_fd()).finish_non_exhaustive()
    }
}

fn no_ring(error: &std::io::Error) -> Error {
    let errno = Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
    let error = Error::from_errno(errno, "make a ring of io_uring");
    match errno {
        Errno::ENOSYS => error
            .with_kind(ErrorKind::Unsupported)
            .because("the kernel is built without io_uring, or something keeps it from this process"),
        Errno::EPERM | Errno::EACCES => error.with_kind(ErrorKind::PermissionDenied).remedy(
            "look at the setting kernel.io_uring_disabled, and at the container's system call filter",
        ),
        Errno::EINVAL => error
            .with_kind(ErrorKind::Unsupported)
            .because("the kernel does not know the mode of operation that zero-copy receive takes"),
        Errno::ENOMEM => error.remedy("raise the limit on locked memory (ulimit -l)"),
        _ => error,
    }
}

fn wait_error(error: &std::io::Error) -> Error {
    let errno = Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
    let error = Error::from_errno(errno, "wait for received data");
    match errno {
        Errno::EEXIST => error
            .with_kind(ErrorKind::WrongState)
            .because("another thread has begun to receive here")
            .remedy("receive a connection in one thread"),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `None` where this machine has no io_uring.
    fn ring() -> Option<Ring> {
        match Ring::new(64) {
            Ok(ring) => Some(ring),
            Err(error) => {
                assert!(
                    [ErrorKind::PermissionDenied, ErrorKind::Unsupported].contains(&error.kind()),
                    "{error}"
                );
                println!("skipped: {error}");
                None
            }
        }
    }

    #[test]
    fn a_wait_ends_at_its_limit() {
        let Some(mut ring) = ring() else { return };
        ring.enable().unwrap();
        let waited = ring.wait(4, Some(Duration::from_millis(1)), Some(Duration::from_millis(5)));
        assert_eq!(waited.unwrap(), Waited::Nothing);
        assert_eq!((ring.available(), ring.next()), (0, None));
    }

    #[test]
    fn another_thread_is_told_that_the_ring_is_taken() {
        let Some(mut ring) = ring() else { return };
        ring.enable().unwrap();
        let limit = Some(Duration::from_millis(5));
        let refused = std::thread::spawn(move || ring.wait(1, None, limit)).join().unwrap();
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WrongState, "{error}");
        assert!(error.to_string().contains("one thread"), "{error}");
    }
}
