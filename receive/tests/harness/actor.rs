//! Further processes of a test: this program again, in a role.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};

use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::unistd::Pid;

use super::{Failure, Outcome, ensure};

/// What a process says once it is ready.
const READY: u8 = b'r';

/// What a process does in a test.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Role {
    /// The program's first argument, which chooses the role.
    pub(crate) name: &'static str,
    pub(crate) play: fn() -> Outcome,
}

/// Plays the role that this process was started for, if it is one of these.
pub(crate) fn play(roles: &[Role]) -> Option<ExitCode> {
    let argument = std::env::args().nth(1)?;
    let role = roles.iter().find(|role| role.name == argument)?;
    Some(match heed_signals().and_then(|()| (role.play)()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{}: {failure}", role.name);
            ExitCode::FAILURE
        }
    })
}

/// A shell lets what a script starts in the background ignore SIGINT, and so everything that this starts in turn.
fn heed_signals() -> Outcome {
    for heeded in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the default action is none of our code.
        unsafe { signal(heeded, SigHandler::SigDfl)? };
    }
    Ok(())
}

/// Lets the test go on.
pub(crate) fn say_ready() -> Outcome {
    std::io::stdout().write_all(&[READY])?;
    Ok(std::io::stdout().flush()?)
}

/// Lets the test go on, and waits until it closes its end.
pub(crate) fn wait_for_end() -> Outcome {
    say_ready()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// A process that plays a role; killed when dropped.
#[derive(Debug)]
pub(crate) struct Actor {
    child: Child,
    /// Open as long as the process shall wait; waiting for the process would close it otherwise.
    input: Option<ChildStdin>,
}

impl Actor {
    /// Starts a process and waits until it is ready.
    pub(crate) fn start(role: Role) -> Result<Self, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.arg(role.name).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = child.stdin.take();
        let mut output = child.stdout.take().ok_or("no output")?;
        let actor = Self { child, input };
        output.read_exact(&mut [0]).map_err(|_| format!("{} did not get ready", role.name))?;
        Ok(actor)
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    pub(crate) fn kill(&mut self) -> Outcome {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Sends a signal, by which the process must end.
    pub(crate) fn end_by(&mut self, signal: Signal) -> Outcome {
        kill(self.pid(), signal)?;
        let status = self.child.wait()?;
        ensure!(status.signal() == Some(signal as i32), "{status}");
        Ok(())
    }

    /// Lets it go on to its end, which must be a success.
    pub(crate) fn finish(&mut self) -> Outcome {
        self.input = None;
        let status = self.child.wait()?;
        ensure!(status.success(), "{status}");
        Ok(())
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}
