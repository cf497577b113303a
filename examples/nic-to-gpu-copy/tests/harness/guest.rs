//! What the tests need in the guest: the tool on both sides, the NIC's settings, the lab's word.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use devmem_receive::nic::{Nic, Snapshot};
use serde_json::Value;

/// The receiving NIC, and its address.
pub(crate) const NIC: &str = "eth0";
pub(crate) const ADDRESS: &str = "10.77.0.1:5201";

pub(crate) const TOOL: &str = "/usr/bin/nic-to-gpu-copy";
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// What went wrong in a test.
pub(crate) type Failure = Box<dyn std::error::Error>;
pub(crate) type Outcome = Result<(), Failure>;

/// Fails a test unless a condition holds.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        let holds: bool = $condition;
        if !holds {
            return Err(format!("{}: {}", stringify!($condition), format_args!($($message)+)).into());
        }
    };
}

/// `receive` with `arguments`.
pub(crate) fn receive(arguments: &[&str]) -> Command {
    let mut command = Command::new(TOOL);
    command.arg("receive").args(arguments);
    command
}

/// `send` of `file` on the other machine.
pub(crate) fn send(address: &str, file: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("in-peer");
    command.args([TOOL, "send", "--connect", address, "--wait", "60"]).args(arguments).arg(file);
    command
}

/// A file of `bytes` bytes that do not repeat.
pub(crate) fn file(bytes: usize) -> Result<PathBuf, Failure> {
    let path = PathBuf::from(format!("/tmp/file-{bytes}"));
    if !path.exists() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let content: Vec<u8> = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .flatten()
        .take(bytes)
        .collect();
        std::fs::write(&path, content)?;
    }
    Ok(path)
}

/// Copies a file from the other machine, and returns the receiver's summary.
pub(crate) fn copy(bytes: usize, receiver: &[&str], sender: &[&str]) -> Result<Value, Failure> {
    copy_to(ADDRESS, bytes, receiver, sender)
}

/// As [`copy`], to another address.
pub(crate) fn copy_to(
    address: &str,
    bytes: usize,
    receiver: &[&str],
    sender: &[&str],
) -> Result<Value, Failure> {
    let file = file(bytes)?;
    let before = settings(NIC)?;
    let mut arguments = vec!["--listen", address, "--json", "--timeout", "30"];
    arguments.extend(receiver);
    let receiving = spawn(&mut receive(&arguments))?;
    let sending = spawn(&mut send(address, &file, sender))?;
    let received = wait(receiving)?;
    let sent = wait(sending)?;
    ensure!(received.status.success(), "receive: {}", text(&received));
    ensure!(sent.status.success(), "send: {}", text(&sent));
    same_settings(NIC, &before)?;
    let summary = printed_object(&received)?;
    ensure!(summary["file_bytes"] == bytes, "{summary}");
    ensure!(summary["sha256_match"] != false, "{summary}");
    Ok(summary)
}

/// Starts a command with its output caught.
pub(crate) fn spawn(command: &mut Command) -> Result<Child, Failure> {
    Ok(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
}

/// Waits for a command, which must end by itself.
pub(crate) fn wait(mut child: Child) -> Result<Output, Failure> {
    let deadline = Instant::now() + LIMIT;
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            child.kill()?;
            return Err(format!("stuck: {}", text(&child.wait_with_output()?)).into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(child.wait_with_output()?)
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Result<Output, Failure> {
    wait(spawn(command)?)
}

/// Runs a command that must succeed.
pub(crate) fn succeed(command: &mut Command) -> Result<Output, Failure> {
    let output = run(command)?;
    ensure!(output.status.success(), "{command:?}: {}", text(&output));
    Ok(output)
}

/// All that a command printed.
pub(crate) fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The JSON object that a command printed, on a line of its own: a layer of Vulkan prints beside it.
pub(crate) fn printed_object(output: &Output) -> Result<Value, Failure> {
    let printed = String::from_utf8_lossy(&output.stdout);
    let line = printed.lines().find(|line| line.starts_with('{')).ok_or_else(|| text(output))?;
    Ok(serde_json::from_str(line)?)
}

/// Every setting of a NIC that the tool may touch.
pub(crate) fn settings(nic: &str) -> Result<Snapshot, Failure> {
    Ok(Nic::open(nic)?.snapshot()?)
}

/// Fails if a setting differs from what it was.
pub(crate) fn same_settings(nic: &str, before: &Snapshot) -> Outcome {
    let differences = before.diff(&settings(nic)?);
    ensure!(differences.is_empty(), "settings of {nic} changed: {differences:?}");
    Ok(())
}
