//! Files from the NIC that a device of Vulkan makes contiguous, and verifies.

use serde_json::{Value, json};

use crate::ensure;
use crate::faults::Undo;
use crate::guest::{Outcome, copy, file};

const MEBIBYTE: usize = 1 << 20;

/// The device that every guest has.
const SOFTWARE: &str = "vulkan:llvmpipe";
const GATHER: &str = "--gather=vulkan:llvmpipe";

/// The file is whole in a buffer of the device, which brought it there and verified it.
fn verified_on_the_device(summary: &Value) -> Outcome {
    let file_bytes = summary["file_bytes"].as_u64().unwrap_or_default();
    ensure!(summary["sha256_match"] == true, "{summary}");
    ensure!(summary["gather_worker"] == "device" && summary["gather_verifier"] == "device", "{summary}");
    ensure!(summary["gather_provider"] == SOFTWARE, "{summary}");
    ensure!(summary["gather_residency"] == "system", "{summary}");
    ensure!(summary["read_back_bytes"] == 0, "{summary}");
    let pages = &summary["ground_truth"]["gathered_pages"];
    ensure!(pages["guest_ram_pages"].as_u64() >= Some(file_bytes.div_ceil(4096)), "{summary}");
    Ok(())
}

/// And the CPU has not touched a byte of it.
fn all_by_the_device(summary: &Value) -> Outcome {
    verified_on_the_device(summary)?;
    ensure!(summary["linear_bytes"] == 0 && summary["cpu_copied_bytes"] == 0, "{summary}");
    ensure!(summary["gathered_bytes"] == summary["file_bytes"], "{summary}");
    ensure!(summary["ground_truth"]["dmabuf_bytes"] == summary["bytes"], "{summary}");
    ensure!(summary["gather_batches"].as_u64() > Some(0), "{summary}");
    Ok(())
}

pub(crate) fn one_connection() -> Outcome {
    let summary = copy(64 * MEBIBYTE, &["--provider", SOFTWARE, "--gather"], &[])?;
    ensure!(summary["provider"] == SOFTWARE, "{summary}");
    ensure!(summary["digest"] == "sha256" && summary["sha256"].is_string(), "{summary}");
    all_by_the_device(&summary)
}

pub(crate) fn a_tree_over_eight_connections() -> Outcome {
    let receiver = ["--provider", SOFTWARE, "--gather", "--queues", "4"];
    let sender = ["--connections", "8", "--digest", "tree"];
    let summary = copy(64 * MEBIBYTE + 4321, &receiver, &sender)?;
    ensure!(summary["digest"] == "sha256-tree", "{summary}");
    all_by_the_device(&summary)
}

pub(crate) fn one_connection_by_zcrx() -> Outcome {
    let summary = copy(64 * MEBIBYTE, &["--path", "zcrx", "--provider", SOFTWARE, "--gather"], &[])?;
    ensure!(summary["path"] == "zcrx" && summary["kernel_copied_bytes"] == 0, "{summary}");
    all_by_the_device(&summary)
}

pub(crate) fn from_udmabuf() -> Outcome {
    all_by_the_device(&copy(8 * MEBIBYTE + 1, &["--provider", "udmabuf", GATHER], &["--digest", "tree"])?)
}

pub(crate) fn from_a_dma_heap() -> Outcome {
    let receiver = ["--provider", "dma-heap:system", GATHER];
    all_by_the_device(&copy(8 * MEBIBYTE + 1, &receiver, &["--digest", "tree"])?)
}

/// Memory of a GPU, which its driver has moved to system memory for the NIC.
pub(crate) fn from_amdgpu() -> Outcome {
    let receiver = ["--provider", "amdgpu", "--placement", "device-local", GATHER];
    let summary = copy(8 * MEBIBYTE + 1, &receiver, &["--digest", "tree"])?;
    ensure!(summary["residency_before"] == "device-local", "{summary}");
    ensure!(summary["residency_after"] == "system", "{summary}");
    all_by_the_device(&summary)
}

/// The copy engine of an emulated GPU, driven by Mesa's ANV, brings the file to the GPU's memory. It has no shaders, so that
/// the CPU verifies.
pub(crate) fn to_the_memory_of_a_gpu() -> Outcome {
    let receiver = ["--provider", "xe", "--gather=vulkan:bmg"];
    let summary = copy(8 * MEBIBYTE + 1, &receiver, &["--digest", "tree", "--connections", "2"])?;
    ensure!(summary["sha256_match"] == true, "{summary}");
    ensure!(summary["gather_worker"] == "device" && summary["gather_verifier"] == "CPU", "{summary}");
    ensure!(summary["gathered_bytes"] == summary["file_bytes"], "{summary}");
    ensure!(summary["cpu_copied_bytes"] == 0, "{summary}");
    ensure!(summary["residency_after"] == "system", "{summary}");
    ensure!(summary["gather_residency"] == "device-local", "{summary}");
    Ok(())
}

pub(crate) fn a_buffer_that_is_used_again_and_again() -> Outcome {
    let receiver = ["--provider", SOFTWARE, "--gather", "--size", "1M"];
    all_by_the_device(&copy(16 * MEBIBYTE, &receiver, &["--digest", "tree"])?)
}

pub(crate) fn lost_and_reordered_packets() -> Outcome {
    let _undo = Undo::switch_faults(json!({ "drop": 0.01, "reorder": 0.01, "seed": 7 }))?;
    let receiver = ["--provider", SOFTWARE, "--gather", "--queues", "4"];
    let summary = copy(16 * MEBIBYTE, &receiver, &["--connections", "8", "--digest", "tree"])?;
    ensure!(summary["ground_truth"]["repeated_bytes"].as_u64() > Some(0), "{summary}");
    all_by_the_device(&summary)
}

/// What arrives in host memory the CPU copies, and says so.
pub(crate) fn payload_in_the_header_buffer() -> Outcome {
    let _undo = Undo::nic_fault(json!({ "fault": "linear", "bytes": 16, "every": 3 }))?;
    let summary = copy(4 * MEBIBYTE + 1, &["--provider", SOFTWARE, "--gather"], &["--digest", "tree"])?;
    verified_on_the_device(&summary)?;
    let number = |key: &str| summary[key].as_u64().unwrap_or_default();
    ensure!(number("cpu_copied_bytes") > 0 && number("gathered_bytes") > 0, "{summary}");
    ensure!(number("cpu_copied_bytes") + number("gathered_bytes") == number("file_bytes"), "{summary}");
    ensure!(number("cpu_copied_bytes") <= number("linear_bytes"), "{summary}");
    Ok(())
}

pub(crate) fn the_output_is_the_file() -> Outcome {
    let (output, size) = ("/tmp/gathered", 5 * MEBIBYTE + 12_345);
    let receiver = ["--provider", SOFTWARE, "--gather", "--output", output];
    let summary = copy(size, &receiver, &["--connections", "3", "--digest", "tree"])?;
    ensure!(summary["cpu_copied_bytes"] == 0 && summary["read_back_bytes"] == size, "{summary}");
    ensure!(std::fs::read(output)? == std::fs::read(file(size)?)?, "the output differs");
    std::fs::remove_file(output)?;
    Ok(())
}

pub(crate) fn an_empty_file() -> Outcome {
    let summary = copy(0, &["--provider", SOFTWARE, "--gather"], &["--connections", "2"])?;
    verified_on_the_device(&summary)?;
    ensure!(summary["gathered_bytes"] == 0, "{summary}");
    Ok(())
}

pub(crate) fn nothing_is_allocated_in_the_loop() -> Outcome {
    let receiver = ["--provider", SOFTWARE, "--gather", "--discard"];
    let summary = copy(64 * MEBIBYTE, &receiver, &["--no-digest"])?;
    ensure!(summary["allocations_per_receive"] == 0.0, "{summary}");
    ensure!(summary["gathered_bytes"] == summary["file_bytes"], "{summary}");
    Ok(())
}
