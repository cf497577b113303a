//! `run`: one command in a fresh machine.

use std::io::{IsTerminal, stderr, stdin, stdout};
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use devmem_lab::{Input, Outcome, Streams};

use super::options::MachineOptions;
use super::signals;

/// How long a run may take if nothing else is said.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Boots a machine, runs a command in it and exits with the command's exit code.
///
/// The machine always ends: with the command, after the timeout, or when the guest's kernel dies. A path
/// to an executable of this host is put into the guest with the libraries that it needs; anything else
/// is a command of the guest (busybox, ip, ss, tc, ethtool). Standard input is passed on unless it is a
/// terminal.
///
/// Exit codes besides the command's own: 123 if the guest's kernel reported trouble (WARNING, BUG, oops,
/// panic, stall) or a driver misused the emulated hardware, 124 after the timeout, 125 if the machine
/// could not be set up.
#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    machine: MachineOptions,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(super) command: Vec<String>,
}

impl Run {
    pub(crate) fn execute(&self) -> Result<i32> {
        let machine = self.machine.machine(TIMEOUT)?.command(self.command.iter());
        // Until here signals end this program at once, so that a fetch can be interrupted.
        machine.prepare()?;
        let signals = signals::take()?;
        let input = if stdin().is_terminal() {
            Input::Nothing
        } else {
            Input::Descriptor(stdin().as_fd().try_clone_to_owned().context("cannot use standard input")?)
        };
        let streams = Streams {
            input,
            output: &mut stdout(),
            // Not locked: the emulated hardware writes there too.
            error_output: &mut stderr(),
            signals: Some(signals),
        };
        let outcome = machine.run_with(streams)?;
        Ok(report(&outcome))
    }
}

/// Says what went wrong besides the command's own exit code, and returns the exit code.
pub(super) fn report(outcome: &Outcome) -> i32 {
    if let Some(trouble) = outcome.trouble() {
        eprintln!("devmem-lab: {}", trouble.trim_end());
    }
    outcome.exit_code()
}
