//! Putting NICs back when the process is told to end.

use std::io::Read;
use std::sync::{Mutex, PoisonError};

use devmem_provider::{Error, Result};
use nix::fcntl::OFlag;
use nix::sys::signal::Signal;

use super::{prepared, sys};

const SIGNALS: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// Whether the handler is there; held while it is being installed.
static INSTALLED: Mutex<bool> = Mutex::new(false);

/// From now on, SIGINT, SIGTERM and SIGHUP first restore every prepared NIC of this process and then take
/// their default action, which ends it.
///
/// For programs that do not handle these signals themselves. A signal that the process ignores (as SIGHUP
/// under `nohup`) stays ignored; a handler installed before is replaced. The restoring is done by a thread of
/// its own, which releases memory bindings of those NICs first. A second call does nothing.
///
/// # Errors
/// No pipe or thread is to be had.
pub fn restore_on_signals() -> Result<()> {
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if *installed {
        return Ok(());
    }
    let failed = |errno| Error::from_errno(errno, "restore NICs on signals");
    // The writing end must not block the handler; the reading end may block its thread.
    let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
    nix::fcntl::fcntl(&writer, nix::fcntl::F_SETFL(OFlag::O_NONBLOCK)).map_err(failed)?;
    std::thread::Builder::new()
        .name("restore-nics".to_owned())
        .spawn(move || wait(std::fs::File::from(reader)))
        .map_err(|error| Error::from_io(error, "start the thread that restores NICs on signals"))?;
    sys::send_signals_to(writer, &SIGNALS).map_err(failed)?;
    *installed = true;
    Ok(())
}

fn wait(mut pipe: std::fs::File) {
    let mut number = [0];
    // An interrupted read is repeated by read_exact.
    while pipe.read_exact(&mut number).is_ok() {
        prepared::restore_all_of_this_process();
        if let Ok(signal) = Signal::try_from(i32::from(number[0])) {
            // If it fails there is nobody to tell; the next signal tries again.
            let _ = sys::die_of(signal);
        }
    }
}
