//! Waiting while a buffer is pinned.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use devmem_provider::{Change, PinnedBuffer};
use devmem_receive::rdma::{Event, Events, MemoryRegion};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use serde_json::json;

/// How often the buffer is looked for: the kernel tells nobody that it moves one.
const LOOK: Duration = Duration::from_secs(1);

/// The signals that end a wait.
pub(super) struct Signals(SignalFd);

impl Signals {
    pub(super) fn take() -> Result<Self> {
        let mut signals = SigSet::empty();
        signals.extend([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
        signals.thread_block().context("cannot block signals")?;
        let descriptor = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK);
        Ok(Self(descriptor.context("cannot receive signals")?))
    }
}

/// Why a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// By a signal, or after the time that was asked for.
    Asked,
    RequirementBroken,
    ExporterGone,
    DeviceGone,
}

/// A pinned buffer, and what may happen to it.
pub(super) struct Watched {
    pub(super) pinned: PinnedBuffer<MemoryRegion>,
    pub(super) events: Events,
    pub(super) json: bool,
}

impl Watched {
    /// Waits for a signal, at most so many seconds, and tells what happens meanwhile.
    pub(super) fn wait(&mut self, signals: &Signals, seconds: Option<u64>) -> Result<Ending> {
        let end = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        loop {
            let left = end.map_or(LOOK, |end| end.saturating_duration_since(Instant::now()));
            let timeout = PollTimeout::try_from(LOOK.min(left)).unwrap_or(PollTimeout::MAX);
            let mut ready = [signals.0.as_fd(), self.events.as_fd()]
                .map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN));
            match poll(&mut ready, timeout) {
                Ok(_) | Err(nix::Error::EINTR) => {}
                Err(errno) => return Err(errno).context("cannot wait"),
            }
            if signals.0.read_signal().context("cannot receive a signal")?.is_some() || left.is_zero() {
                return Ok(Ending::Asked);
            }
            if let Some(ending) = self.see()? {
                return Ok(ending);
            }
        }
    }

    fn see(&mut self) -> Result<Option<Ending>> {
        while let Some(event) = self.events.next_event()? {
            self.tell("event", &format!("{event:?}"));
            if event == Event::DeviceGone {
                return Ok(Some(Ending::DeviceGone));
            }
        }
        let Some(change) = self.pinned.look()? else { return Ok(None) };
        self.tell("change", &change.to_string());
        Ok(match change {
            Change::ExporterGone(_) => Some(Ending::ExporterGone),
            Change::Moved { breaks_requirement: true, .. } => Some(Ending::RequirementBroken),
            _ => None,
        })
    }

    fn tell(&self, what: &str, text: &str) {
        if self.json { println!("{}", json!({ what: text })) } else { println!("{what}: {text}") }
    }

    /// Deregisters, then frees the buffer.
    pub(super) fn release(self) -> Result<()> {
        let (region, buffer) = self.pinned.release();
        let deregistered = region.deregister();
        drop(buffer);
        Ok(deregistered?)
    }
}
