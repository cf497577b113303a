//! `pin`: holds a buffer for an RDMA device until a signal, and shows where it is.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::ask_lab::ask_lab;
use crate::ensure;
use crate::guest::{Failure, Outcome, TOOL, run, text};

fn pin(arguments: &[&str]) -> Command {
    let mut command = Command::new(TOOL);
    command.args(["pin", "--rdma", "efa_0", "--size", "8M"]).args(arguments);
    command
}

/// A pin that has told what it holds; killed when dropped.
struct Held {
    child: Child,
    output: BufReader<ChildStdout>,
    told: Value,
}

impl Held {
    fn new(arguments: &[&str]) -> Result<Self, Failure> {
        let mut child = pin(arguments).arg("--json").stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut output = BufReader::new(child.stdout.take().ok_or("no output")?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        let told = serde_json::from_str(&line).map_err(|error| format!("{error}: {line:?}"))?;
        Ok(Self { child, output, told })
    }

    fn signal(&self, signal: Signal) -> Outcome {
        Ok(kill(Pid::from_raw(self.child.id().cast_signed()), signal)?)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The regions that the RDMA device has, by the lab's word.
fn regions() -> Result<usize, Failure> {
    let answer = ask_lab(&json!({ "op": "rdma_regions", "rdma": 0 }))?;
    Ok(answer["regions"].as_array().ok_or_else(|| answer.to_string())?.len())
}

pub(crate) fn memory_stays_until_a_signal() -> Outcome {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let mut held = Held::new(&["--provider", "amdgpu", "--require", "device-local", "--remote-write"])?;
        let told = held.told.clone();
        for place in [&told["before"], &told["after"]] {
            ensure!(place["residency"] == "device-local" && place["lab"] == "device-local", "{told}");
        }
        ensure!(told["agreement"] == "as foretold" && told["peer_to_peer"] == "reachable", "{told}");
        ensure!(told["access"] == "local write, remote write" && told["bytes"] == 8 << 20, "{told}");
        ensure!(regions()? == 1, "there are {} regions", regions()?);
        held.signal(signal)?;
        let status = held.child.wait()?;
        ensure!(status.success(), "{signal}: {status}");
        let mut rest = String::new();
        held.output.read_line(&mut rest)?;
        ensure!(rest.is_empty(), "{rest}");
        ensure!(regions()? == 0, "a region is left");
    }
    Ok(())
}

pub(crate) fn memory_that_moves_is_told_or_refused() -> Outcome {
    let held = Held::new(&["--provider", "nouveau", "--placement", "device-local"])?;
    let told = &held.told;
    ensure!(
        told["before"]["residency"] == "device-local" && told["after"]["residency"] == "system",
        "{told}"
    );
    ensure!(told["agreement"] == "as foretold", "{told}");
    drop(held);
    let output = run(&mut pin(&["--provider", "nouveau", "--require", "device-local"]))?;
    ensure!(!output.status.success() && output.stdout.is_empty(), "{}", text(&output));
    ensure!(text(&output).contains("RDMA on efa_0"), "{}", text(&output));
    ensure!(regions()? == 0, "a region is left");
    Ok(())
}

pub(crate) fn a_device_that_is_not_there_is_told() -> Outcome {
    let output = run(Command::new(TOOL).args(["pin", "--provider", "udmabuf", "--rdma", "mlx5_0"]))?;
    ensure!(!output.status.success() && text(&output).contains("efa_0"), "{}", text(&output));
    Ok(())
}
