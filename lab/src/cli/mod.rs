//! The commands of the program.

mod bench;
mod conformance;
mod demo;
mod fetch;
mod matrix;
mod options;
mod processors;
mod progress;
mod providers;
mod rdma;
mod run;
mod shell;
mod signals;
mod terminal;
mod tool;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use devmem_lab::LAB_FAILURE;

/// A virtual machine with emulated NICs and GPUs, on which unmodified distribution kernels load their
/// real drivers. Needs no root and changes nothing on this host.
#[derive(Debug, Parser)]
#[command(
    name = "cargo lab",
    bin_name = "cargo lab",
    version,
    subcommand_required = true,
    arg_required_else_help = true
)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Fetch(fetch::Fetch),
    Kernels(fetch::Kernels),
    Headers(fetch::Headers),
    Run(run::Run),
    Shell(shell::Shell),
    Demo(demo::Demo),
    Bench(bench::Bench),
    Matrix(matrix::Matrix),
    Conformance(conformance::Conformance),
}

/// Reads the command line and does what it says.
pub(crate) fn main() -> ExitCode {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    if arguments.get(1).is_some_and(|command| command == "demo") {
        let options = demo::own_options_first(arguments.split_off(2));
        arguments.extend(options);
    }
    let result = match CommandLine::parse_from(arguments).command {
        Command::Fetch(command) => command.execute(),
        Command::Kernels(command) => command.execute(),
        Command::Headers(command) => command.execute(),
        Command::Run(command) => command.execute(),
        Command::Shell(command) => command.execute(),
        Command::Demo(command) => command.execute(),
        Command::Bench(command) => command.execute(),
        Command::Matrix(command) => command.execute(),
        Command::Conformance(command) => command.execute(),
    };
    let code = result.unwrap_or_else(|error| {
        eprintln!("devmem-lab: {error:#}");
        match error.downcast_ref() {
            Some(devmem_lab::Error::Interrupted) => signals::INTERRUPTED,
            _ => LAB_FAILURE,
        }
    });
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn what_follows_the_two_dashes_belongs_to_the_command() {
        let line = ["cargo lab", "run", "--nic", "gve:queues=8", "--", "ethtool", "--help"];
        let Command::Run(run) = CommandLine::parse_from(line).command else { panic!("another command") };
        assert_eq!(run.command, ["ethtool", "--help"]);
        assert!(CommandLine::try_parse_from(["cargo lab", "run"]).is_err());
        assert!(CommandLine::try_parse_from(["cargo lab", "run", "--cpus", "many", "--", "true"]).is_err());
    }
}
