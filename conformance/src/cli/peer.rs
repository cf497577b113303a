//! `peer`.

use std::io::{Write, stderr};
use std::os::fd::AsFd;

use devmem_conformance::peer::{Key, Listener};
use devmem_provider::{Error, Result};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::Status;
use super::arguments::PeerOptions;

pub(super) fn peer(options: &PeerOptions) -> Result<Status> {
    let listener = Listener::bind(&options.listen, Key::read(&options.key)?, &options.to)?;
    let stop = signals().map_err(|errno| Error::from_errno(errno, "wait for signals"))?;
    tell(&format!("listening on {}", listener.address()));
    listener.serve(stop.as_fd(), &tell)?;
    Ok(Status::Success)
}

fn tell(line: &str) {
    // A peer whose lines nobody reads any more goes on.
    let _ = writeln!(stderr(), "{line}");
}

/// Readable once the process is told to end. No thread gets these signals otherwise.
fn signals() -> nix::Result<SignalFd> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block()?;
    SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC)
}
