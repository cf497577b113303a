//! What is left of exported buffers.

use std::time::{Duration, Instant};

use devmem_provider::{Placement, Provider, Request};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};

use crate::{BYTES, Failure};

fn descriptors() -> Result<usize, Failure> {
    Ok(std::fs::read_dir("/proc/self/fd")?.count())
}

/// What is in use of the device's memory: what a handle that was left would hold.
fn device_memory(provider: &dyn Provider) -> Result<u64, Failure> {
    let heaps = provider.heaps()?.into_iter().filter(|heap| heap.placement != Placement::System);
    Ok(heaps.filter_map(|heap| heap.used).sum())
}

/// Holds 1, 100 and 1000 buffers exported, gives them up, and counts what stays.
pub(crate) fn look(provider: &dyn Provider) -> Result<Value, Failure> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let (open, used) = (descriptors()?, device_memory(provider)?);
    let mut held_descriptors = Vec::new();
    for count in [1usize, 100, 1000] {
        let mut held = Vec::with_capacity(count);
        for _ in 0..count {
            let buffer = provider.allocate(&Request::bytes(BYTES))?;
            let dma_buf = buffer.export()?;
            held.push((buffer, dma_buf));
        }
        held_descriptors.push(json!({ "exports": count, "descriptors": descriptors()? - open }));
    }
    // Drivers free memory a little after its last user let go.
    let deadline = Instant::now() + Duration::from_secs(30);
    while device_memory(provider)? > used && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    let descriptors_left = descriptors()? - open;
    let bytes_left = device_memory(provider)?.saturating_sub(used);
    Ok(json!({
        "held": held_descriptors,
        "descriptors_left": descriptors_left,
        "device_bytes_left": bytes_left,
        "left_over": descriptors_left as u64 + bytes_left,
    }))
}
