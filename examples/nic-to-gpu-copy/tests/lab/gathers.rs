//! Copies that end contiguous in a second buffer, here by the CPU: no device of this lab can do it.

use serde_json::{Value, json};

use crate::ensure;
use crate::faults::Undo;
use crate::guest::{
    ADDRESS, NIC, Outcome, copy, copy_to, file, receive, same_settings, send, settings, spawn, text, wait,
};

const ADDRESS_V6: &str = "[fd77::1]:5201";

const MEBIBYTE: usize = 1 << 20;

/// The file is whole in the second buffer, and nobody but the CPU has brought it there.
fn gathered_by_the_cpu(summary: &Value) -> Outcome {
    let file_bytes = summary["file_bytes"].as_u64().unwrap_or_default();
    ensure!(summary["sha256_match"] == true, "{summary}");
    ensure!(summary["gathered_bytes"] == 0, "{summary}");
    ensure!(summary["cpu_copied_bytes"] == file_bytes, "{summary}");
    ensure!(summary["gather_worker"] == "CPU", "{summary}");
    ensure!(summary["gather_buffer_bytes"].as_u64() >= Some(file_bytes), "{summary}");
    ensure!(summary["gather_residency"] == "system", "{summary}");
    ensure!(summary["gather_verifier"] == "CPU" && summary["read_back_bytes"] == file_bytes, "{summary}");
    let pages = &summary["ground_truth"]["gathered_pages"];
    ensure!(pages["guest_ram_pages"].as_u64() >= Some(file_bytes.div_ceil(4096)), "{summary}");
    ensure!(pages["device_window_pages"] == 0, "{summary}");
    Ok(())
}

/// And all of it came through the receive buffer.
fn all_by_the_nic(summary: &Value) -> Outcome {
    gathered_by_the_cpu(summary)?;
    ensure!(summary["linear_bytes"] == 0, "{summary}");
    ensure!(summary["fragment_bytes"] == summary["bytes"], "{summary}");
    ensure!(summary["ground_truth"]["dmabuf_bytes"] == summary["bytes"], "{summary}");
    ensure!(summary["gather_batches"].as_u64() > Some(0), "{summary}");
    Ok(())
}

pub(crate) fn one_connection() -> Outcome {
    let summary = copy(64 * MEBIBYTE, &["--gather"], &[])?;
    ensure!(summary["digest"] == "sha256", "{summary}");
    ensure!(summary["sha256"] == summary["stripes"][0]["digest"], "{summary}");
    ensure!(summary["gather_provider"] == "udmabuf", "{summary}");
    all_by_the_nic(&summary)
}

pub(crate) fn eight_connections_over_four_queues() -> Outcome {
    let size = 32 * MEBIBYTE + 4321;
    let summary = copy(size, &["--gather", "--queues", "4"], &["--connections", "8", "--digest", "tree"])?;
    ensure!(summary["connections"] == 8, "{summary}");
    ensure!(summary["digest"] == "sha256-tree", "{summary}");
    ensure!(summary["sha256"].is_null() && summary["stripes"][7]["sha256"].is_null(), "{summary}");
    ensure!(summary["stripes"][7]["digest"].is_string(), "{summary}");
    all_by_the_nic(&summary)
}

pub(crate) fn ipv6_into_a_dma_heap() -> Outcome {
    let summary = copy_to(ADDRESS_V6, 8 * MEBIBYTE, &["--gather=dma-heap:system"], &[])?;
    ensure!(summary["provider"] == "udmabuf", "{summary}");
    ensure!(summary["gather_provider"] == "dma-heap:system", "{summary}");
    all_by_the_nic(&summary)
}

pub(crate) fn a_buffer_that_is_used_again_and_again() -> Outcome {
    all_by_the_nic(&copy(16 * MEBIBYTE, &["--gather", "--size", "1M"], &[])?)?;
    let receiver = ["--gather", "--size", "2M", "--queues", "4"];
    all_by_the_nic(&copy(16 * MEBIBYTE, &receiver, &["--connections", "8"])?)
}

pub(crate) fn lost_and_reordered_packets() -> Outcome {
    let _undo = Undo::switch_faults(json!({ "drop": 0.01, "reorder": 0.01, "seed": 7 }))?;
    let receiver = ["--gather", "--queues", "4"];
    let summary = copy(16 * MEBIBYTE, &receiver, &["--connections", "8", "--digest", "tree"])?;
    ensure!(summary["ground_truth"]["repeated_bytes"].as_u64() > Some(0), "{summary}");
    all_by_the_nic(&summary)
}

pub(crate) fn payload_in_the_header_buffer() -> Outcome {
    let _undo = Undo::nic_fault(json!({ "fault": "linear", "bytes": 16, "every": 3 }))?;
    let summary = copy(4 * MEBIBYTE + 1, &["--gather"], &["--connections", "2"])?;
    ensure!(summary["linear_bytes"].as_u64() > Some(0), "{summary}");
    gathered_by_the_cpu(&summary)
}

pub(crate) fn through_host_memory() -> Outcome {
    let summary = copy(4 * MEBIBYTE, &["--path", "copy", "--gather"], &["--connections", "2"])?;
    ensure!(summary["linear_bytes"] == summary["bytes"], "{summary}");
    ensure!(summary["gather_batches"] == 0, "{summary}");
    gathered_by_the_cpu(&summary)
}

pub(crate) fn the_output_is_the_file() -> Outcome {
    let (output, size) = ("/tmp/gathered", 5 * MEBIBYTE + 12_345);
    let summary = copy(size, &["--gather", "--output", output], &["--connections", "3"])?;
    // Once to verify it, and once for the output.
    ensure!(summary["read_back_bytes"] == 2 * size, "{summary}");
    ensure!(std::fs::read(output)? == std::fs::read(file(size)?)?, "the output differs");
    std::fs::remove_file(output)?;
    Ok(())
}

pub(crate) fn an_empty_file() -> Outcome {
    for digest in ["sha256", "tree"] {
        gathered_by_the_cpu(&copy(0, &["--gather"], &["--connections", "2", "--digest", digest])?)?;
    }
    Ok(())
}

pub(crate) fn a_tree_without_gathering() -> Outcome {
    for path in ["devmem-tcp", "host"] {
        let summary = copy(MEBIBYTE + 1, &["--path", path], &["--digest", "tree", "--connections", "2"])?;
        ensure!(summary["sha256_match"] == true, "{summary}");
        ensure!(summary["digest"] == "sha256-tree", "{summary}");
        ensure!(summary["gathered_bytes"].is_null() && summary["gather_worker"].is_null(), "{summary}");
        ensure!(summary["cpu_copied_bytes"] == 0, "{summary}");
    }
    Ok(())
}

pub(crate) fn nothing_is_allocated_in_the_loop() -> Outcome {
    let summary = copy(64 * MEBIBYTE, &["--gather", "--discard"], &["--digest", "none"])?;
    ensure!(summary["allocations_per_receive"] == 0.0, "{summary}");
    ensure!(summary["digest"].is_null() && summary["gather_digest_seconds"].is_null(), "{summary}");
    ensure!(summary["cpu_copied_bytes"] == summary["file_bytes"], "{summary}");
    Ok(())
}

/// A peer that announces more than there is room for gets no room at all.
pub(crate) fn a_file_that_is_too_large() -> Outcome {
    let sparse = std::path::Path::new("/tmp/too-large");
    let cases: [(u64, &[&str], &str); 3] = [
        (5 << 30, &["--gather"], "--gather-limit"),
        (2 << 20, &["--gather", "--gather-limit", "1M"], "--gather-limit"),
        (1 << 40, &["--gather=dma-heap:system", "--gather-limit", "2048G"], "size of the whole heap"),
    ];
    for (bytes, arguments, reason) in cases {
        let before = settings(NIC)?;
        std::fs::File::create(sparse)?.set_len(bytes)?;
        let receiving = spawn(receive(&["--listen", ADDRESS, "--timeout", "20"]).args(arguments))?;
        let sending = spawn(&mut send(ADDRESS, sparse, &["--connections", "2"]))?;
        let received = wait(receiving)?;
        wait(sending)?;
        let said = text(&received);
        ensure!(received.status.code() == Some(1), "{said}");
        ensure!(said.contains("the peer announces") && said.contains(reason), "{said}");
        same_settings(NIC, &before)?;
    }
    std::fs::remove_file(sparse)?;
    Ok(())
}
