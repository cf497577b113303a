//! The command line.

mod arguments;
mod completions;
mod doctor;
mod list;
mod manual;
mod peer;
mod reports;
mod restore;
mod run;

use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Command};

/// What the exit status says; the help tells it to users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    /// Nothing failed.
    Success = 0,
    /// A check failed, or a comparison found that something no longer holds.
    Failure = 1,
    /// What was asked for makes no sense, or a file cannot be read or written. (clap's own status for bad usage.)
    Usage = 2,
    /// There is nothing to check on this machine, or nothing that can receive.
    Nothing = 3,
}

pub(super) fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.command {
        Command::Run(options) => run::run(options),
        Command::Peer(options) => peer::peer(options),
        Command::List(options) => list::list(options),
        Command::Explain(options) => list::explain(options),
        Command::Compare(options) => reports::compare(options),
        Command::Merge(options) => reports::merge(options),
        Command::Restore(options) => restore::restore(options),
        Command::Doctor(options) => doctor::doctor(options),
        Command::Completions(options) => completions::completions(options),
        Command::Man(options) => manual::man(options),
    };
    let status = result.unwrap_or_else(|error| {
        eprintln!("devmem-conformance: {error}");
        Status::Usage
    });
    ExitCode::from(status as u8)
}
