//! Waiting for a receiver to change the settings of a NIC.

use std::time::{Duration, Instant};

use devmem_receive::nic::Snapshot;

use crate::ensure;
use crate::guest::{Failure, LIMIT, settings};

/// Waits until a setting of a NIC differs from what it was: until a receiver has begun to prepare it.
pub(crate) fn wait_for_change(nic: &str, before: &Snapshot) -> Result<Duration, Failure> {
    let started = Instant::now();
    while before.diff(&settings(nic)?).is_empty() {
        ensure!(started.elapsed() < LIMIT, "no setting of {nic} ever changed");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(started.elapsed())
}
