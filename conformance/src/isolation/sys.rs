//! Copies of this process.

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, pause};

/// A copy of this process that does nothing. It is killed on drop.
#[derive(Debug)]
pub(crate) struct Forked(Pid);

/// Makes a copy of this process that has its descriptors and does nothing.
pub(crate) fn fork_idle() -> std::io::Result<Forked> {
    // SAFETY: other threads may hold locks, so that the copy may call what is async-signal-safe alone; `pause` is, and
    // the copy never returns from here.
    match unsafe { fork() }? {
        ForkResult::Child => loop {
            pause();
        },
        ForkResult::Parent { child } => Ok(Forked(child)),
    }
}

impl Drop for Forked {
    fn drop(&mut self) {
        // It exists until it is waited for.
        let _ = kill(self.0, Signal::SIGKILL);
        let _ = waitpid(self.0, None);
    }
}
