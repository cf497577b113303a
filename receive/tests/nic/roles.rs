//! What further processes of a test do.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};

use devmem_receive::nic::{Nic, Plan, Queues, restore_on_signals};

use crate::namespace::{self, NIC, Veth};
use crate::{Failure, Outcome};

/// Prepares the NIC and waits.
pub(crate) const HOLD: &str = "role-hold";
/// Prepares and restores the NIC again and again.
pub(crate) const REPEAT: &str = "role-repeat";
/// Prepares the NIC, to be restored when a signal comes, and waits.
pub(crate) const SIGNAL: &str = "role-signal";
/// The same, ignoring SIGHUP.
pub(crate) const IGNORE: &str = "role-ignore";
/// Prepares a NIC in another network namespace and waits.
pub(crate) const ELSEWHERE: &str = "role-elsewhere";

/// What a process says once it has begun.
const READY: u8 = b'r';

pub(crate) fn plan() -> Plan {
    // veth cannot split headers.
    Plan::without_flow(Queues::count(2)).header_split(false)
}

pub(crate) fn is_role(argument: &str) -> bool {
    [HOLD, REPEAT, SIGNAL, IGNORE, ELSEWHERE].contains(&argument)
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
    let mut veth = None;
    match role {
        SIGNAL => restore_on_signals()?,
        IGNORE => {
            let ignore = nix::sys::signal::SigHandler::SigIgn;
            // SAFETY: nothing of ours runs when the signal comes.
            unsafe { nix::sys::signal::signal(nix::sys::signal::SIGHUP, ignore)? };
            restore_on_signals()?;
        }
        ELSEWHERE => {
            namespace::enter()?;
            veth = Some(Veth::new()?);
        }
        REPEAT => {
            say_ready()?;
            loop {
                Nic::open(NIC)?.prepare(&plan())?.restore()?;
            }
        }
        _ => {}
    }
    let prepared = Nic::open(NIC)?.prepare(&plan())?;
    say_ready()?;
    // Until the test closes its end.
    std::io::stdin().read_to_end(&mut Vec::new())?;
    prepared.restore()?;
    drop(veth);
    Ok(())
}

fn say_ready() -> Outcome {
    std::io::stdout().write_all(&[READY])?;
    Ok(std::io::stdout().flush()?)
}

/// A process that plays a role; killed when dropped.
pub(crate) struct Actor {
    pub(crate) child: Child,
    input: Option<ChildStdin>,
}

impl Actor {
    /// Starts a process and waits until it is ready.
    pub(crate) fn start(role: &str) -> Result<Self, Failure> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take();
        let mut output = child.stdout.take().ok_or("no output")?;
        let actor = Self { child, input };
        let mut ready = [0];
        output.read_exact(&mut ready).map_err(|_| format!("{role} did not get ready"))?;
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

    /// Lets it go on to its end.
    pub(crate) fn finish(&mut self) -> Outcome {
        self.input = None;
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(format!("{status}").into()) }
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}
