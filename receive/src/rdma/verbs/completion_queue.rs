//! Completion queues: polling, and waiting.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use devmem_provider::{Error, ErrorKind, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::abi::WorkCompletion;
use super::completion::Completion;
use super::context::{Context, Transport};
use super::failure::VerbsFailure;
use super::sys;
use crate::deadline::Deadline;

/// How many completions are taken at once.
const BATCH: usize = 16;

/// Where requests and receives of queue pairs are completed.
pub struct CompletionQueue {
    pub(super) raw: Arc<sys::Queue>,
    context: Context,
    is_efa: bool,
    system_calls: AtomicU64,
}

/// Completions that were taken out of a queue, in order. They take no allocation.
#[derive(Clone)]
pub struct Completions {
    entries: [WorkCompletion; BATCH],
    taken: usize,
    count: usize,
    is_efa: bool,
}

/// What ended a [wait](CompletionQueue::wait).
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "it is taken apart at once, and must not take an allocation")]
pub enum Woken {
    /// There are completions.
    Completions(Completions),
    /// The other descriptor is readable, or at its end.
    Other,
    /// The time is over.
    TimedOut,
}

impl CompletionQueue {
    pub(super) fn create(context: &Context, entries: u32) -> Result<Self> {
        let operation = || format!("make a completion queue of {entries} entries");
        let most = context.capabilities().maximum_completions;
        if entries == 0 || entries > most {
            return Err(Error::new(ErrorKind::InvalidInput, operation())
                .on(context.device())
                .because(format!("the device has 1 to {most}")));
        }
        let raw = sys::Queue::create(&context.raw, entries).map_err(|errno| match errno {
            // What the provider of EFA returns for a channel.
            Errno::EOPNOTSUPP => {
                VerbsFailure::NoNotifications.error(operation()).on(context.device()).with_errno(errno)
            }
            _ => Error::from_errno(errno, operation()).on(context.device()),
        })?;
        let is_efa = context.capabilities().transport == Transport::ScalableReliableDatagram;
        let context = context.clone();
        Ok(Self { raw: Arc::new(raw), context, is_efa, system_calls: AtomicU64::new(0) })
    }

    /// Takes what there is, up to 16 completions, without a system call.
    ///
    /// # Errors
    ///
    /// If the queue is beyond use. EFA also fails once for each completion of a queue pair that was dropped before it was
    /// taken: let a queue pair be the last to use its completion queue, or take its completions before it is dropped.
    pub fn poll(&self) -> Result<Completions> {
        let mut entries = [WorkCompletion::default(); BATCH];
        let count = self.raw.poll(&mut entries).map_err(|errno| self.failed(errno, "take completions"))?;
        Ok(Completions { entries, taken: 0, count, is_efa: self.is_efa })
    }

    /// Waits for completions, for `other` to become readable, or for `limit` to be over, whichever comes first.
    ///
    /// # Errors
    ///
    /// [`VerbsFailure::NoNotifications`] if the device tells of none; if the queue is beyond use.
    pub fn wait(&self, other: Option<BorrowedFd<'_>>, limit: Duration) -> Result<Woken> {
        let deadline = Deadline::after(limit);
        loop {
            let found = self.poll()?;
            if !found.is_empty() {
                return Ok(Woken::Completions(found));
            }
            self.arm()?;
            // What was completed before the queue was armed is not told.
            let found = self.poll()?;
            if !found.is_empty() {
                return Ok(Woken::Completions(found));
            }
            let left = deadline.left();
            if let Some(woken) = self.sleep(other, left)? {
                return Ok(woken);
            }
        }
    }

    /// `None` if the channel was told something.
    fn sleep(&self, other: Option<BorrowedFd<'_>>, limit: Duration) -> Result<Option<Woken>> {
        let channel = self.raw.channel().descriptor();
        let watched_for = |descriptor| PollFd::new(descriptor, PollFlags::POLLIN);
        let mut watched = [watched_for(channel), watched_for(other.unwrap_or(channel))];
        let watched = if other.is_some() { &mut watched[..] } else { &mut watched[..1] };
        // Rounded up: a wait that ends early would be made again and again.
        let milliseconds = u64::try_from(limit.as_micros().div_ceil(1000)).unwrap_or(u64::MAX);
        let timeout = PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX);
        self.count_system_calls(1);
        match poll(watched, timeout) {
            Ok(0) => return Ok(Some(Woken::TimedOut)),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(self.failed(errno, "wait for completions")),
        }
        let is_ready = |watched: Option<&PollFd<'_>>| {
            watched.and_then(PollFd::revents).is_some_and(|events| !events.is_empty())
        };
        if is_ready(watched.first()) {
            self.count_system_calls(1);
            self.raw.take_event().map_err(|errno| self.failed(errno, "take an event of completions"))?;
            return Ok(None);
        }
        Ok(is_ready(watched.get(1)).then_some(Woken::Other))
    }

    fn arm(&self) -> Result<()> {
        self.raw.arm().map_err(|errno| match errno {
            Errno::EOPNOTSUPP | Errno::ENOSYS => VerbsFailure::NoNotifications
                .error("wait for completions")
                .on(self.context.device())
                .with_errno(errno),
            _ => self.failed(errno, "wait for completions"),
        })
    }

    /// System calls that waiting has made so far.
    #[must_use]
    pub fn system_calls(&self) -> u64 {
        self.system_calls.load(Ordering::Relaxed)
    }

    fn count_system_calls(&self, number: u64) {
        self.system_calls.fetch_add(number, Ordering::Relaxed);
    }

    fn failed(&self, errno: Errno, operation: &'static str) -> Error {
        Error::from_errno(errno, operation).on(self.context.device())
    }
}

impl Completions {
    /// Whether there are none left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.taken == self.count
    }
}

impl Iterator for Completions {
    type Item = Completion;

    fn next(&mut self) -> Option<Completion> {
        let entry = self.entries.get(self.taken).filter(|_| self.taken < self.count)?;
        self.taken += 1;
        Some(Completion::of(entry, self.is_efa))
    }
}

impl fmt::Debug for Completions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}

impl fmt::Debug for CompletionQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompletionQueue").field("device", &self.context.device().name).finish_non_exhaustive()
    }
}
