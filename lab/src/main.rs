//! The lab's command line: see [`devmem_lab`] for what the lab is.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
