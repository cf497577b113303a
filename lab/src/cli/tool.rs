//! Building programs of the workspace, and running both sides of the copy tool in a guest.

use std::io::{IsTerminal, stderr};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use devmem_lab::Machine;

const PACKAGE: &str = "nic-to-gpu-copy";

/// Where the tool is in the guest.
const GUEST_TOOL: &str = "/usr/bin/nic-to-gpu-copy";

/// Functions for scripts of the guest: `copy FILE CONNECTIONS SENDER-OPTIONS RECEIVER-OPTIONS…` sends a file from
/// the peer and exits as the receiver does.
const SCRIPT: &str = r#"
copy() {
    file=$1 connections=$2 sender_options=$3
    shift 3
    in-peer nic-to-gpu-copy send --connect 10.77.0.1:5201 --wait 60 --connections "$connections" \
        $sender_options "$file" >/tmp/sender 2>&1 &
    sender=$!
    nic-to-gpu-copy receive --nic eth0 --listen 10.77.0.1:5201 "$@"
    code=$?
    # A receiver that refused leaves a sender behind that waits for it.
    [ $code = 0 ] || kill $sender 2>/dev/null
    if ! { wait $sender; } 2>/dev/null && [ $code = 0 ]; then
        cat /tmp/sender >&2
        code=1
    fi
    return $code
}
"#;

/// Builds the tool, as cargo itself decides what is out of date, and puts it into the guest.
pub(super) fn with_tool(machine: Machine) -> Result<Machine> {
    Ok(machine.file(&build(PACKAGE)?, GUEST_TOOL))
}

/// Runs a script of the guest, in which `copy` is defined.
pub(super) fn with_script(machine: Machine, script: &str, arguments: &[String]) -> Machine {
    let script = format!("{SCRIPT}{script}");
    let command = ["sh".to_owned(), "-c".to_owned(), script, "sh".to_owned()];
    machine.command(command.into_iter().chain(arguments.iter().cloned()))
}

/// Builds the program that a package of this workspace is named after. Returns where it is.
pub(super) fn build(package: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find this program")?;
    let tool = own.with_file_name(package);
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    // Started by `cargo lab`, the variable is set, and the workspace is there.
    let Some(cargo) = std::env::var_os("CARGO") else {
        if tool.is_file() {
            return Ok(tool);
        }
        bail!("cannot find {}; start this as `cargo lab` in the repository, which builds it", tool.display());
    };
    let mut command = Command::new(cargo);
    command.args(["build", "--package", package]).current_dir(workspace);
    if !stderr().is_terminal() {
        command.arg("--quiet");
    }
    if own.parent().and_then(Path::file_name).is_some_and(|profile| profile == "release") {
        command.arg("--release");
    }
    let status = command.status().context("cannot start cargo")?;
    if !status.success() {
        bail!("cannot build {package}: cargo ended with {status}");
    }
    Ok(tool)
}
