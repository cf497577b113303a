//! Signals, without which nothing can be put back when the process is told to end.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// Where the handler writes to; -1 before the first installation. Never closed.
static PIPE: AtomicI32 = AtomicI32::new(-1);
/// The process that installed the handler: a child made by `fork` inherits handler and pipe, but what
/// happens to it is none of its parent's business.
static OWNER: AtomicI32 = AtomicI32::new(0);

/// Runs at any moment in any thread: only async-signal-safe calls, and `errno` as it was.
extern "C" fn handle(number: libc::c_int) {
    // SAFETY: __errno_location returns the address of this thread's errno, valid as long as the thread.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above; the handler may run between a failed call and the reading of its errno.
    let saved = unsafe { *errno };
    // SAFETY: getpid is async-signal-safe.
    if unsafe { libc::getpid() } == OWNER.load(Ordering::Relaxed) {
        let byte = number as u8;
        // SAFETY: write is async-signal-safe and reads the one byte given. If the pipe is full, earlier
        // signals are waiting in it, and one is enough.
        unsafe { libc::write(PIPE.load(Ordering::Relaxed), (&raw const byte).cast(), 1) };
    } else {
        // SAFETY: signal and raise are async-signal-safe. The signal is blocked while its handler runs; it
        // is delivered, with its default action, when this returns.
        unsafe {
            libc::signal(number, libc::SIG_DFL);
            libc::raise(number);
        }
    }
    // SAFETY: as above.
    unsafe { *errno = saved };
}

/// Sends the numbers of these signals to a pipe, except of those that the process ignores.
///
/// Takes the writing end for the rest of the process's life.
pub(super) fn send_signals_to(pipe: OwnedFd, signals: &[Signal]) -> nix::Result<()> {
    OWNER.store(std::process::id().cast_signed(), Ordering::Relaxed);
    PIPE.store(pipe.as_raw_fd(), Ordering::Relaxed);
    std::mem::forget(pipe);
    let action = SigAction::new(SigHandler::Handler(handle), SaFlags::SA_RESTART, SigSet::empty());
    for &signal in signals {
        // SAFETY: `handle` makes only async-signal-safe calls.
        let previous = unsafe { sigaction(signal, &action) }?;
        if matches!(previous.handler(), SigHandler::SigIgn) {
            // SAFETY: what was in force before is put back.
            unsafe { sigaction(signal, &previous) }?;
        }
    }
    Ok(())
}

/// Ends the process by a signal's default action.
pub(super) fn die_of(signal: Signal) -> nix::Result<()> {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default action needs no code of ours.
    unsafe { sigaction(signal, &default) }?;
    let mut mask = SigSet::empty();
    mask.add(signal);
    mask.thread_unblock()?;
    nix::sys::signal::kill(nix::unistd::getpid(), signal)
}
