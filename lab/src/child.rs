//! What happens in a child between its birth and the start of its program.

use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::unistd::{Pid, getppid};

/// Lets the child inherit `descriptors`, take signals, and die with the thread that starts it.
pub(crate) fn prepare(command: &mut Command, descriptors: Vec<RawFd>) {
    let parent = Pid::this();
    let prepare = move || {
        set_pdeathsig(Signal::SIGKILL)?;
        if getppid() != parent {
            return Err(Errno::ESRCH.into());
        }
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
        for &descriptor in &descriptors {
            // SAFETY: the descriptor is the parent's, which has it open, and only a flag of it is set.
            Errno::result(unsafe { libc::fcntl(descriptor, libc::F_SETFD, 0) })?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec the function makes only system calls and allocates nothing.
    unsafe { command.pre_exec(prepare) };
}
