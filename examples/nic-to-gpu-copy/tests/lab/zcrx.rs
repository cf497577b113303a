//! The same tool with io_uring zero-copy receive.

use std::time::Duration;

use serde_json::{Value, json};

use crate::copies::all_in_buffer;
use crate::ensure;
use crate::faults::Undo;
use crate::guest::{
    ADDRESS, NIC, Outcome, copy, file, receive, same_settings, send, settings, spawn, text, wait,
};

const MEBIBYTE: usize = 1 << 20;

/// Every byte in the buffer, by this path, and none of them copied by the kernel; and the buffer where the summary says.
fn zero_copy(summary: &Value) -> Outcome {
    let pages = summary["buffer_bytes"].as_u64().unwrap_or_default() / 4096;
    for when in ["pages_before", "pages_after"] {
        ensure!(summary["ground_truth"][when]["guest_ram_pages"] == pages, "{when}: {summary}");
    }
    ensure!(summary["path"] == "zcrx", "{summary}");
    ensure!(summary["kernel_copied_bytes"] == 0, "{summary}");
    all_in_buffer(summary)
}

pub(crate) fn one_connection() -> Outcome {
    zero_copy(&copy(64 * MEBIBYTE, &["--path", "zcrx"], &[])?)
}

pub(crate) fn a_dma_heap() -> Outcome {
    zero_copy(&copy(
        64 * MEBIBYTE,
        &["--path", "zcrx", "--provider", "dma-heap:system", "--size", "16M"],
        &[],
    )?)
}

pub(crate) fn eight_connections_over_one_queue() -> Outcome {
    let summary = copy(16 * MEBIBYTE, &["--path", "zcrx"], &["--connections", "8"])?;
    ensure!(summary["connections"] == 8, "{summary}");
    zero_copy(&summary)
}

/// Smaller than one receive ring of the NIC, so that the NIC has a page only when one is given back.
pub(crate) fn a_buffer_that_is_exhausted_again_and_again() -> Outcome {
    zero_copy(&copy(8 * MEBIBYTE, &["--path", "zcrx", "--size", "1M"], &[])?)
}

pub(crate) fn lost_and_reordered_packets() -> Outcome {
    let _undo = Undo::switch_faults(json!({ "drop": 0.01, "reorder": 0.01, "seed": 7 }))?;
    zero_copy(&copy(8 * MEBIBYTE, &["--path", "zcrx"], &["--connections", "4"])?)
}

pub(crate) fn gathered_by_the_cpu() -> Outcome {
    let summary = copy(4 * MEBIBYTE, &["--path", "zcrx", "--gather"], &["--digest", "tree"])?;
    ensure!(summary["cpu_copied_bytes"] == summary["file_bytes"], "{summary}");
    zero_copy(&summary)
}

pub(crate) fn few_system_calls_and_no_allocations() -> Outcome {
    let summary = copy(64 * MEBIBYTE, &["--path", "zcrx", "--discard"], &["--no-digest"])?;
    let number = |key: &str| summary[key].as_f64().unwrap_or(f64::INFINITY);
    ensure!(number("syscalls_per_mib") <= 0.35, "{summary}");
    ensure!(number("allocations_per_receive") == 0.0, "{summary}");
    // The kernel's own count is the tool's, but for the few calls around the loop.
    let bytes = number("bytes") / MEBIBYTE as f64;
    let surplus = (number("measured_syscalls_per_mib") - number("syscalls_per_mib")) * bytes;
    ensure!((0.0..=24.0).contains(&surplus), "{surplus} unexplained system calls: {summary}");
    Ok(())
}

/// What ends in an error, says `words`, and leaves the NIC as it was.
fn refused(arguments: &[&str], words: &[&str]) -> Outcome {
    let before = settings(NIC)?;
    let mut command = vec!["--path", "zcrx", "--listen", ADDRESS, "--timeout", "10"];
    command.extend(arguments);
    let receiving = spawn(&mut receive(&command))?;
    let mut sending = spawn(&mut send(ADDRESS, &file(4 * MEBIBYTE)?, &[]))?;
    let output = wait(receiving)?;
    sending.kill()?;
    sending.wait()?;
    ensure!(!output.status.success(), "{}", text(&output));
    for word in words {
        ensure!(text(&output).contains(word), "{word} is missing: {}", text(&output));
    }
    std::thread::sleep(Duration::from_millis(10));
    same_settings(NIC, &before)
}

pub(crate) fn payload_in_the_header_buffer_is_an_error() -> Outcome {
    let _undo = Undo::nic_fault(json!({ "fault": "linear", "bytes": 16, "every": 3 }))?;
    refused(&[], &["host memory", "DMA-buf", "devmem TCP goes on"])
}

pub(crate) fn packets_on_the_wrong_queue_are_an_error() -> Outcome {
    let _undo = Undo::nic_fault(json!({ "fault": "steering", "every": 20 }))?;
    refused(&[], &["host memory", "steers all of them"])
}

pub(crate) fn four_queues_are_refused() -> Outcome {
    refused(&["--queues", "4"], &["one queue for a buffer", "use one queue"])
}

pub(crate) fn device_local_memory_from_udmabuf_is_refused() -> Outcome {
    refused(&["--require", "device-local"], &["system", "drop the requirement"])
}
