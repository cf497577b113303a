//! `shell`: a prompt in a fresh machine.

use std::io::{stderr, stdout};
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use devmem_lab::{Input, Streams};

use super::options::MachineOptions;
use super::run::report;
use super::signals;
use super::terminal::RawTerminal;

/// How long a person may take if nothing else is said.
const TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// The best shell that the guest has.
const SHELL: &str = "command -v bash >/dev/null && exec bash -l; exec sh -l";

/// Boots a machine and gives a prompt in it; `exit` ends both.
///
/// With a command after `--`, runs that on the terminal instead.
#[derive(Debug, Args)]
pub(crate) struct Shell {
    #[command(flatten)]
    machine: MachineOptions,
    /// A command instead of the shell
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Shell {
    pub(crate) fn execute(&self) -> Result<i32> {
        let shell = ["sh", "-c", SHELL].map(str::to_owned);
        let command = if self.command.is_empty() { shell.as_slice() } else { self.command.as_slice() };
        let terminal_kind = std::env::var("TERM").unwrap_or_else(|_| "linux".into());
        let machine =
            self.machine.machine(TIMEOUT)?.environment("TERM", &terminal_kind).command(command.iter());
        machine.prepare()?;
        let signals = signals::take()?;
        let terminal = RawTerminal::enter()?;
        let streams = Streams {
            input: Input::Terminal(terminal.input()?),
            output: &mut stdout(),
            // Not locked: the emulated hardware writes there too.
            error_output: &mut stderr(),
            signals: Some(signals),
        };
        let outcome = machine.run_with(streams);
        drop(terminal);
        Ok(report(&outcome?))
    }
}
