//! Files that arrive, and where.

use serde_json::Value;

use crate::ensure;
use crate::guest::{Failure, Outcome, copy, file, send, spawn, succeed, text, wait};
use crate::place::{Place, is_in};

const RECEIVER: [&str; 2] = ["--path", "rdma"];
const SENDER: [&str; 4] = ["--path", "rdma", "--rdma", "efa_1"];

/// Copies a file, with further options of the receiver and of the sender.
fn copied(bytes: usize, receiver: &[&str], sender: &[&str]) -> Result<Value, Failure> {
    let summary = copy(bytes, &[&RECEIVER, receiver].concat(), &[&SENDER, sender].concat())?;
    ensure!(summary["path"] == "rdma" && summary["nic"] == "efa_0", "{summary}");
    ensure!(summary["kernel_copied_bytes"] == 0 && summary["linear_bytes"] == 0, "{summary}");
    Ok(summary)
}

pub(crate) fn into_vram() -> Outcome {
    let options = ["--provider", "amdgpu", "--size", "8M", "--require", "device-local"];
    let summary = copied(50_000_001, &options, &[])?;
    is_in(&summary, Place::Device, Place::Device)?;
    ensure!(summary["peer_to_peer"] == "reachable", "{summary}");
    ensure!(summary["cpu_copied_bytes"] == 0, "{summary}");
    ensure!(summary["syscalls_per_mib"].as_f64().is_some_and(|calls| calls > 0.0), "{summary}");
    ensure!(summary["allocations_per_receive"] == 0.0, "{summary}");
    Ok(())
}

pub(crate) fn into_vram_over_several_connections() -> Outcome {
    let options = ["--provider", "amdgpu", "--size", "8M", "--require", "device-local"];
    let summary = copied(20 << 20, &options, &["--connections", "5", "--digest", "tree"])?;
    is_in(&summary, Place::Device, Place::Device)?;
    ensure!(summary["connections"] == 5 && summary["digest"] == "sha256-tree", "{summary}");
    Ok(())
}

pub(crate) fn into_system_memory() -> Outcome {
    let summary = copied(20 << 20, &["--provider", "udmabuf", "--size", "4M"], &[])?;
    is_in(&summary, Place::System, Place::System)?;
    ensure!(summary["peer_to_peer"] == Value::Null, "{summary}");
    Ok(())
}

/// The pieces are held until they are copied.
pub(crate) fn gathered_in_a_second_buffer() -> Outcome {
    let options = ["--provider", "amdgpu", "--size", "4M", "--require", "device-local", "--gather=udmabuf"];
    let summary = copied(20 << 20, &options, &["--connections", "2"])?;
    ensure!(summary["sha256_match"] == true && summary["gather_worker"] == "CPU", "{summary}");
    ensure!(summary["cpu_copied_bytes"] == 20 << 20, "{summary}");
    ensure!(summary["ground_truth"]["device_window_bytes"] == summary["bytes"], "{summary}");
    Ok(())
}

/// The stream is a header, the file and a digest: pieces end where they like.
pub(crate) fn of_any_length_through_small_buffers() -> Outcome {
    for (bytes, connections) in [(0, "1"), (1, "2"), (4096 - 96, "1"), (8192 - 96, "1"), (100_000, "2")] {
        let options = ["--provider", "udmabuf", "--size", "16K"];
        let summary = copied(bytes, &options, &["--connections", connections])?;
        ensure!(summary["sha256_match"] == true, "{summary}");
        ensure!(summary["ground_truth"]["dmabuf_bytes"] == summary["bytes"], "{summary}");
    }
    let summary = copied(1 << 20, &["--size", "64K", "--discard"], &["--no-digest"])?;
    ensure!(summary["sha256_match"] == Value::Null, "{summary}");
    let output = "/tmp/received";
    copied(300_000, &["--size", "64K", "--output", output], &[])?;
    ensure!(std::fs::read(output)? == std::fs::read(file(300_000)?)?, "another file was written");
    Ok(())
}

pub(crate) fn by_one_device_with_itself() -> Outcome {
    let mut receiving = crate::guest::receive(&["--listen", crate::guest::ADDRESS, "--json"]);
    let receiving = spawn(receiving.args(["--path", "rdma", "--rdma", "efa_1"]))?;
    let sender = ["--path", "rdma", "--rdma", "efa_1", "--json"];
    let sent = succeed(&mut send(crate::guest::ADDRESS, &file(1 << 20)?, &sender))?;
    let received = wait(receiving)?;
    ensure!(received.status.success(), "{}{}", text(&received), text(&sent));
    let summary = crate::guest::printed_object(&received)?;
    ensure!(summary["nic"] == "efa_1" && summary["sha256_match"] == true, "{summary}");
    Ok(())
}
