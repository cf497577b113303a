//! What further processes of a test do.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};

use devmem_receive::nic::{Nic, restore_on_signals};

use crate::prepare::{NIC, bind, plan};
use crate::{Failure, Outcome, receive_rings};

/// Prepares the NIC, binds, unbinds and restores, again and again.
pub(crate) const REPEAT: &str = "role-repeat";
/// Prepares the NIC, binds, and waits.
pub(crate) const HOLD: &str = "role-hold";
/// The same, to be restored when a signal comes.
pub(crate) const SIGNAL: &str = "role-signal";
/// Binds a queue of a NIC that it did not prepare, and waits.
pub(crate) const BIND: &str = "role-bind";
/// Prepares the peer's NIC for a small buffer, binds it, and waits.
pub(crate) const SMALL_BUFFER: &str = "role-small-buffer";

pub(crate) fn is_role(argument: &str) -> bool {
    [REPEAT, HOLD, SIGNAL, BIND, SMALL_BUFFER].contains(&argument)
}

pub(crate) fn run(role: &str) -> ExitCode {
    match play(role) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{role}: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn play(role: &str) -> Outcome {
    if role == SMALL_BUFFER {
        let _prepared = receive_rings::prepare_and_bind(&Nic::open(receive_rings::NIC)?)?;
        return wait();
    }
    let nic = Nic::open(NIC)?;
    match role {
        BIND => {
            let _binding = bind(&nic, &[3])?;
            return wait();
        }
        REPEAT => {
            say_ready()?;
            loop {
                let prepared = nic.prepare(&plan(2))?;
                drop(bind(&nic, prepared.queues())?);
                prepared.restore()?;
            }
        }
        SIGNAL => restore_on_signals()?,
        _ => {}
    }
    let prepared = nic.prepare(&plan(2))?;
    let _binding = bind(&nic, prepared.queues())?;
    wait()
}

/// Waits until the test closes its end.
fn wait() -> Outcome {
    say_ready()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn say_ready() -> Outcome {
    std::io::stdout().write_all(b"r")?;
    Ok(std::io::stdout().flush()?)
}

/// A process that plays a role; killed when dropped.
pub(crate) struct Actor {
    pub(crate) child: Child,
    /// Open as long as the process shall wait; waiting for the process would close it otherwise.
    _input: Option<ChildStdin>,
}

impl Actor {
    /// Starts a process and waits until it is ready.
    pub(crate) fn start(role: &str) -> Result<Self, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.arg(role).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut output = child.stdout.take().ok_or("no output")?;
        let input = child.stdin.take();
        let actor = Self { child, _input: input };
        output.read_exact(&mut [0]).map_err(|_| format!("{role} did not get ready"))?;
        Ok(actor)
    }

    pub(crate) fn pid(&self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(self.child.id().cast_signed())
    }

    pub(crate) fn kill(&mut self) -> Outcome {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}
