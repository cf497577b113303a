//! `completions`.

use clap::CommandFactory;
use devmem_provider::Result;

use super::Status;
use super::arguments::{Arguments, CompletionsOptions};
use super::run::print;

pub(super) fn completions(options: &CompletionsOptions) -> Result<Status> {
    let mut command = Arguments::command();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut command, name, &mut script);
    // What completes the options of a command is written under another name than it is looked up by, if the program's name has
    // a hyphen: https://github.com/clap-rs/clap/issues/6421
    let script =
        String::from_utf8_lossy(&script).replace("devmem__subcmd__conformance", "devmem__conformance");
    print(&script)?;
    Ok(Status::Success)
}
