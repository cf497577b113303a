//! GPUs that go away: from the bus or from their driver, while their memory is received into.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::ensure;
use crate::guest::{
    ADDRESS, Failure, NIC, Outcome, file, receive, run, same_settings, send, settings, spawn, succeed, text,
    wait,
};
use crate::nic_changes::wait_for_change;

const NOBODY: u32 = 65534;
const LIMIT: Duration = Duration::from_secs(60);

/// What `nic-to-gpu-copy providers` tells of a provider.
fn provider(name: &str) -> Result<Option<Value>, Failure> {
    let output =
        succeed(std::process::Command::new("/usr/bin/nic-to-gpu-copy").args(["providers", "--json"]))?;
    let all: Value = serde_json::from_slice(&output.stdout)?;
    let providers = all["providers"].as_array().cloned().unwrap_or_default();
    Ok(providers.into_iter().find(|provider| provider["name"] == name))
}

/// The sysfs folder of a provider's PCI function.
fn pci_function(name: &str) -> Result<PathBuf, Failure> {
    let provider = provider(name)?.ok_or("no such provider")?;
    let address = provider["pci"].as_str().ok_or("no PCI address")?;
    Ok(Path::new("/sys/bus/pci/devices").join(address))
}

/// Finds removed functions again, and waits for their driver.
fn rescan(name: &str) -> Outcome {
    fs::write("/sys/bus/pci/rescan", "1")?;
    let deadline = Instant::now() + LIMIT;
    while provider(name)?.is_none() {
        ensure!(Instant::now() < deadline, "{name} did not come back");
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// Takes the GPU away in the midst of a transfer. Sender and receiver must end by themselves, whether the
/// transfer fails or what is left of the memory carries it to its end, and the NIC must be as it was.
fn while_receiving(name: &str) -> Outcome {
    let function = pci_function(name)?;
    let before = settings(NIC)?;
    let mut command = receive(&["--listen", ADDRESS, "--json", "--size", "4M", "--timeout", "10"]);
    let receiving = spawn(command.args(["--provider", name, "--placement", "device-local"]))?;
    wait_for_change(NIC, &before)?;
    let sending = spawn(&mut send(ADDRESS, &file(64 << 20)?, &[]))?;
    std::thread::sleep(Duration::from_millis(700));
    fs::write(function.join("remove"), "1")?;
    ensure!(!function.exists(), "{} is still there", function.display());
    let received = wait(receiving)?;
    let sent = wait(sending)?;
    println!("    the receiver ended with {}, the sender with {}", received.status, sent.status);
    ensure!(received.status.code().is_some(), "the receiver was killed: {}", text(&received));
    ensure!(!text(&received).contains("panicked"), "{}", text(&received));
    if received.status.success() {
        let summary: Value = serde_json::from_slice(&received.stdout)?;
        ensure!(summary["sha256_match"] == true, "{summary}");
    }
    same_settings(NIC, &before)?;
    rescan(name)
}

/// Takes the GPU away while its memory is bound and nobody sends: the receiver gives up when its time is over, as it
/// does with the GPU in place, and the NIC is as it was.
pub(crate) fn amdgpu_while_bound() -> Outcome {
    let function = pci_function("amdgpu")?;
    let before = settings(NIC)?;
    let mut command = receive(&["--listen", ADDRESS, "--size", "4M", "--timeout", "3"]);
    let receiving = spawn(command.args(["--provider", "amdgpu"]))?;
    wait_for_change(NIC, &before)?;
    std::thread::sleep(Duration::from_millis(700));
    fs::write(function.join("remove"), "1")?;
    let received = wait(receiving)?;
    ensure!(received.status.code() == Some(1), "{}: {}", received.status, text(&received));
    ensure!(text(&received).contains("nobody connected"), "{}", text(&received));
    same_settings(NIC, &before)?;
    rescan("amdgpu")
}

pub(crate) fn amdgpu_while_receiving() -> Outcome {
    while_receiving("amdgpu")
}

pub(crate) fn xe_while_receiving() -> Outcome {
    while_receiving("xe")
}

pub(crate) fn virtio_gpu_while_receiving() -> Outcome {
    while_receiving("virtio-gpu")
}

/// A GPU without a driver is no provider; with its driver back it is one again.
pub(crate) fn a_driver_that_is_unbound() -> Outcome {
    let function = pci_function("amdgpu")?;
    let address = function.file_name().and_then(|name| name.to_str()).ok_or("no address")?.to_owned();
    let driver = fs::canonicalize(function.join("driver"))?;
    fs::write(driver.join("unbind"), &address)?;
    let output = run(receive(&["--listen", ADDRESS]).args(["--provider", "amdgpu"]))?;
    ensure!(!output.status.success(), "{}", text(&output));
    ensure!(text(&output).contains("amdgpu"), "{}", text(&output));
    fs::write(driver.join("bind"), &address)?;
    ensure!(provider("amdgpu")?.is_some(), "amdgpu did not come back");
    Ok(())
}

/// Nodes belong to root unless somebody grants access to them.
pub(crate) fn the_nodes_permission_is_missing() -> Outcome {
    let node = provider("amdgpu")?.ok_or("no amdgpu")?["node"].as_str().ok_or("no node")?.to_owned();
    let output = run(receive(&["--listen", ADDRESS]).args(["--provider", "amdgpu"]).uid(NOBODY))?;
    ensure!(!output.status.success(), "{}", text(&output));
    for word in [node.as_str(), "ermission"] {
        ensure!(text(&output).contains(word), "{word} is not in: {}", text(&output));
    }
    Ok(())
}
