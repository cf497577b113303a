//! Copies of this process, and processes in a user namespace of their own.

use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, Uid, fork, pause, write};

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

/// Lets a program start in a user namespace of its own, as its root: with every capability there and none outside.
/// Files are its user's as before.
pub(super) fn in_a_user_namespace(command: &mut Command) {
    let map = format!("0 {} 1", Uid::effective());
    let enter = move || {
        unshare(CloneFlags::CLONE_NEWUSER)?;
        let file = open(c"/proc/self/uid_map", OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        write(&file, map.as_bytes())?;
        Ok(())
    };
    // SAFETY: what runs in the copy of this process before the program does is three system calls and the close of a
    // descriptor: it takes no lock, and its text and path were made before.
    unsafe { command.pre_exec(enter) };
}
