//! `demo`: the main job, from a file on one machine to a buffer on another.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{IsTerminal, copy, stderr, stdout};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Command};
use devmem_lab::{Input, Streams};
use tempfile::NamedTempFile;

use super::options::MachineOptions;
use super::run::report;
use super::{providers, rdma, signals, tool};

/// How long a demo may take if nothing else is said.
const TIMEOUT: Duration = Duration::from_secs(300);

/// The receiver has queues to spare for any number of bound ones.
pub(super) const NICS: [&str; 2] = ["gve:queues=8", "gve:queues=4"];

/// Where the file is in the guest.
const GUEST_FILE: &str = "/root/file";

/// Boots a machine and copies a file over its emulated network into a buffer that a provider exported.
///
/// The kernel and its NIC driver are the distribution's, unmodified. A second NIC, in a network namespace
/// of its own, is the sender. At the end stands where every byte went, by the tool's account and by that of
/// the emulated hardware.
///
/// With `--path rdma` the file goes from one emulated RDMA device to another, and the NICs are only for the two to agree.
///
/// Options that are not listed here go to `nic-to-gpu-copy receive`: --provider, --size, --queues, --path,
/// --require, --json and others.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    #[command(flatten)]
    machine: MachineOptions,
    /// The file to copy [default: the machine's own kernel and emulator, one after the other]
    #[arg(long = "input", value_name = "FILE")]
    input: Option<PathBuf>,
    /// Connections to send it over
    #[arg(long, value_name = "N", default_value_t = 1)]
    connections: u32,
    /// Options for `nic-to-gpu-copy receive`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "TOOL OPTIONS")]
    receiver: Vec<String>,
}

impl Demo {
    pub(crate) fn execute(&self) -> Result<i32> {
        let machine = self.machine.machine_with(&NICS, TIMEOUT)?;
        let machine = providers::add(machine, &self.receiver, self.machine.has_gpus());
        let (machine, sender) = rdma::add(machine, &self.receiver, &self.machine);
        let machine = tool::with_tool(machine)?;
        machine.prepare()?;
        let signals = signals::take()?;
        let joined;
        let file = match &self.input {
            Some(file) => file.as_path(),
            None => {
                joined = join(&machine.parts()?)?;
                joined.path()
            }
        };
        let arguments: Vec<String> = [GUEST_FILE.to_owned(), self.connections.to_string(), sender.to_owned()]
            .into_iter()
            .chain(self.receiver.iter().cloned())
            .collect();
        let machine = tool::with_script(machine.file(file, GUEST_FILE), r#"copy "$@""#, &arguments);
        if stderr().is_terminal() {
            eprintln!("booting a machine to copy {} from one emulated NIC to another", file.display());
        }
        let streams = Streams {
            input: Input::Nothing,
            output: &mut stdout(),
            error_output: &mut stderr(),
            signals: Some(signals),
        };
        Ok(report(&machine.run_with(streams)?))
    }
}

/// Puts the options of `demo` itself in front of those for the tool, so that the two may be mixed.
pub(super) fn own_options_first(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut command = Demo::augment_args(Command::new("demo"));
    // Adds `--help`.
    command.build();
    // Whether an option is ours, and whether the next argument is its value.
    let takes_value = |argument: &OsStr| {
        let name = argument.to_str()?.strip_prefix("--")?;
        let (name, has_value) = name.split_once('=').map_or((name, false), |(name, _)| (name, true));
        let known = command.get_arguments().find(|known| known.get_long() == Some(name))?;
        Some(known.get_action().takes_values() && !has_value)
    };
    let (mut own, mut others) = (Vec::new(), Vec::new());
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        match takes_value(&argument) {
            Some(value_follows) => {
                own.push(argument);
                own.extend(value_follows.then(|| arguments.next()).flatten());
            }
            None => others.push(argument),
        }
    }
    own.extend(others);
    own
}

/// One file out of several.
fn join(parts: &[PathBuf]) -> Result<NamedTempFile> {
    let mut joined = NamedTempFile::new().context("cannot create a temporary file")?;
    for part in parts {
        let named = || format!("cannot copy {}", part.display());
        copy(&mut File::open(part).with_context(named)?, joined.as_file_mut()).with_context(named)?;
    }
    Ok(joined)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_the_demo_and_of_the_tool_may_be_mixed() {
        let line =
            "--provider udmabuf --connections 8 --json --switch=drop=0.01 --size 32M --trace --queues 4";
        let sorted = own_options_first(line.split(' ').map(OsString::from));
        assert_eq!(
            sorted.join(OsStr::new(" ")),
            "--connections 8 --switch=drop=0.01 --trace --provider udmabuf --json --size 32M --queues 4"
        );
    }
}
