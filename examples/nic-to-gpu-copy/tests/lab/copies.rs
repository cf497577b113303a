//! Copies that must succeed, and where their bytes go.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::ask_lab::ask_lab;
use crate::ensure;
use crate::faults::Undo;
use crate::guest::{NIC, Outcome, copy, copy_to};

const ADDRESS_V6: &str = "[fd77::1]:5201";

const MEBIBYTE: usize = 1 << 20;

/// Every byte in the buffer, and the lab saw it there.
pub(crate) fn all_in_buffer(summary: &Value) -> Outcome {
    let truth = &summary["ground_truth"];
    ensure!(summary["sha256_match"] == true, "{summary}");
    ensure!(summary["linear_bytes"] == 0, "{summary}");
    ensure!(summary["fragment_bytes"] == summary["bytes"], "{summary}");
    ensure!(truth["dmabuf_bytes"] == summary["bytes"], "{summary}");
    ensure!(truth["elsewhere_bytes"] == 0, "{summary}");
    ensure!(summary["residency_before"] == "system", "{summary}");
    ensure!(summary["residency_after"] == "system", "{summary}");
    Ok(())
}

pub(crate) fn one_connection() -> Outcome {
    all_in_buffer(&copy(64 * MEBIBYTE, &["--nic", NIC], &[])?)
}

pub(crate) fn a_dma_heap() -> Outcome {
    all_in_buffer(&copy(8 * MEBIBYTE, &["--provider", "dma-heap:system"], &[])?)
}

pub(crate) fn huge_pages() -> Outcome {
    std::fs::write("/proc/sys/vm/nr_hugepages", "16")?;
    let _undo = Undo::by(|| drop(std::fs::write("/proc/sys/vm/nr_hugepages", "0")));
    all_in_buffer(&copy(8 * MEBIBYTE, &["--size", "16M", "--pages", "huge"], &[])?)
}

pub(crate) fn ipv6() -> Outcome {
    all_in_buffer(&copy_to(ADDRESS_V6, 8 * MEBIBYTE, &[], &[])?)
}

pub(crate) fn one_connection_over_four_queues() -> Outcome {
    all_in_buffer(&copy(8 * MEBIBYTE, &["--queues", "4"], &[])?)
}

pub(crate) fn eight_connections_over_four_queues() -> Outcome {
    let summary = copy(32 * MEBIBYTE, &["--queues", "4"], &["--connections", "8"])?;
    ensure!(summary["connections"] == 8, "{summary}");
    ensure!(summary["queues"].as_array().is_some_and(|queues| queues.len() == 4), "{summary}");
    all_in_buffer(&summary)
}

pub(crate) fn thirty_two_connections_over_four_queues() -> Outcome {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // A queue's counters end with it, when it is unbound: they are watched meanwhile.
        let watcher = scope.spawn(|| {
            let mut busy = BTreeSet::new();
            while !done.load(Ordering::Relaxed) {
                let statistics =
                    ask_lab(&json!({ "op": "statistics" })).map_err(|error| error.to_string())?;
                let queues = statistics["nics"][0]["receive_queues"].as_array().cloned().unwrap_or_default();
                busy.extend(
                    queues
                        .iter()
                        .filter(|queue| queue["bytes"].as_u64() > Some(0))
                        .filter_map(|queue| queue["queue"].as_u64()),
                );
                std::thread::sleep(Duration::from_millis(50));
            }
            Ok::<_, String>(busy)
        });
        let summary = copy(32 * MEBIBYTE, &["--queues", "4"], &["--connections", "32"]);
        done.store(true, Ordering::Relaxed);
        let busy = watcher.join().map_err(|_| "the watcher panicked")??;
        let summary = summary?;
        all_in_buffer(&summary)?;
        let queues = summary["queues"].as_array().into_iter().flatten().filter_map(Value::as_u64);
        let idle: Vec<u64> = queues.filter(|queue| !busy.contains(queue)).collect();
        ensure!(idle.is_empty(), "queues {idle:?} received nothing: {summary}");
        Ok(())
    })
}

pub(crate) fn a_buffer_that_is_exhausted_again_and_again() -> Outcome {
    // Smaller than one receive ring of the NIC, so that the NIC has a page only when one is given back.
    let summary = copy(16 * MEBIBYTE, &["--size", "1M"], &[])?;
    all_in_buffer(&summary)?;
    let summary = copy(16 * MEBIBYTE, &["--size", "2M", "--queues", "4"], &["--connections", "8"])?;
    all_in_buffer(&summary)
}

pub(crate) fn lost_and_reordered_packets() -> Outcome {
    let _undo = Undo::switch_faults(json!({ "drop": 0.01, "reorder": 0.01, "seed": 7 }))?;
    let summary = copy(16 * MEBIBYTE, &["--queues", "4"], &["--connections", "8"])?;
    let truth = &summary["ground_truth"];
    all_in_buffer(&summary)?;
    // What is sent twice arrives twice at the NIC.
    ensure!(truth["repeated_bytes"].as_u64() > Some(0), "{summary}");
    let switch = &ask_lab(&json!({ "op": "statistics" }))?["switch"];
    ensure!(switch["dropped"].as_u64() > Some(0) && switch["reordered"].as_u64() > Some(0), "{switch}");
    Ok(())
}

pub(crate) fn payload_in_the_header_buffer_is_linear() -> Outcome {
    let _undo = Undo::nic_fault(json!({ "fault": "linear", "bytes": 16, "every": 3 }))?;
    let summary = copy(4 * MEBIBYTE, &[], &[])?;
    let truth = &summary["ground_truth"];
    ensure!(summary["sha256_match"] == true, "{summary}");
    ensure!(summary["linear_bytes"].as_u64() > Some(0), "{summary}");
    ensure!(truth["dmabuf_bytes"] == summary["fragment_bytes"], "{summary}");
    ensure!(truth["header_buffer_bytes"] == summary["linear_bytes"], "{summary}");
    Ok(())
}

pub(crate) fn packets_on_the_wrong_queue_are_linear() -> Outcome {
    let _undo = Undo::nic_fault(json!({ "fault": "steering", "every": 20 }))?;
    let summary = copy(4 * MEBIBYTE, &[], &[])?;
    let truth = &summary["ground_truth"];
    ensure!(summary["sha256_match"] == true, "{summary}");
    ensure!(summary["linear_bytes"].as_u64() > Some(0), "{summary}");
    // Of a byte that was sent again, one copy may have gone to the buffer and another elsewhere.
    let bytes = |value: &Value| value.as_u64().unwrap_or(u64::MAX);
    let sent_again = bytes(&truth["repeated_bytes"]);
    for (seen, told) in [("dmabuf_bytes", "fragment_bytes"), ("elsewhere_bytes", "linear_bytes")] {
        ensure!(bytes(&truth[seen]).abs_diff(bytes(&summary[told])) <= sent_again, "{summary}");
    }
    Ok(())
}

pub(crate) fn through_host_memory() -> Outcome {
    let summary = copy(4 * MEBIBYTE, &["--path", "copy"], &[])?;
    ensure!(summary["fragment_bytes"] == 0, "{summary}");
    ensure!(summary["linear_bytes"] == summary["bytes"], "{summary}");
    ensure!(summary["nic_restored"].is_null(), "{summary}");
    Ok(())
}

pub(crate) fn auto_takes_the_nic_where_it_can() -> Outcome {
    let summary = copy(MEBIBYTE, &["--path", "auto"], &[])?;
    ensure!(summary["path"] == "devmem-tcp", "{summary}");
    ensure!(summary["path_reason"].is_string(), "{summary}");
    Ok(())
}

pub(crate) fn the_output_is_the_file() -> Outcome {
    let output = "/tmp/output";
    copy(5 * MEBIBYTE + 12_345, &["--output", output], &["--connections", "3"])?;
    let sent = std::fs::read(crate::guest::file(5 * MEBIBYTE + 12_345)?)?;
    ensure!(std::fs::read(output)? == sent, "the output differs");
    std::fs::remove_file(output)?;
    Ok(())
}

pub(crate) fn an_empty_file() -> Outcome {
    let summary = copy(0, &[], &["--connections", "2"])?;
    ensure!(summary["sha256_match"] == true, "{summary}");
    Ok(())
}

/// The figures that the benchmark prints, against their goals.
pub(crate) fn few_system_calls_and_no_allocations() -> Outcome {
    let summary = copy(64 * MEBIBYTE, &["--discard"], &["--no-digest"])?;
    let number = |key: &str| summary[key].as_f64().unwrap_or(f64::INFINITY);
    ensure!(number("syscalls_per_mib") <= 0.6, "{summary}");
    ensure!(number("allocations_per_receive") == 0.0, "{summary}");
    // The kernel's own count is the tool's, but for the few calls around the loop.
    let bytes = number("bytes") / MEBIBYTE as f64;
    let surplus = (number("measured_syscalls_per_mib") - number("syscalls_per_mib")) * bytes;
    ensure!((0.0..=16.0).contains(&surplus), "{surplus} unexplained system calls: {summary}");
    Ok(())
}
