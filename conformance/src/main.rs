//! The runner of the conformance suite.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
