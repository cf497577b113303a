//! Signals as something to read, so that an interrupted run cleans up after itself.

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// What a shell reports for a program that was ended by Ctrl-C.
pub(crate) const INTERRUPTED: i32 = 130;

/// Takes from now on the signals that would end this program, and those that tell of a new size of the
/// terminal.
pub(crate) fn take() -> Result<SignalFd> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGWINCH] {
        signals.add(signal);
    }
    signals.thread_block().context("cannot block signals")?;
    SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .context("cannot receive signals")
}
