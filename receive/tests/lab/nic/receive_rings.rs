//! Receive rings beside a small buffer, on the peer's NIC, which has five queues.

use std::fs::File;

use devmem_provider::ErrorKind;
use devmem_receive::netdev::Binding;
use devmem_receive::nic::{Nic, Plan, Prepared, restore};
use nix::sched::{CloneFlags, setns};

use super::roles;
use crate::harness::nic::{restored, unchanged};
use crate::harness::{Actor, Failure, Outcome, ensure};
use crate::machine::{self, PEER_NAMESPACE, PEER_NIC, bind};

const QUEUES: u32 = 4;
const BUFFER_BYTES: u64 = 2 << 20;
/// 512 pages, half of which are shared by four queues.
const ENTRIES: u32 = 64;

fn plan(queues: u32, buffer_bytes: u64) -> Plan {
    machine::plan(queues).buffer_bytes(buffer_bytes)
}

/// Prepares all queues for the small buffer and binds it.
pub(crate) fn prepare_and_bind(nic: &Nic) -> Result<(Prepared, Binding), Failure> {
    let prepared = nic.prepare(&plan(QUEUES, BUFFER_BYTES))?;
    let binding = bind(nic, prepared.queues(), BUFFER_BYTES)?;
    Ok((prepared, binding))
}

/// Runs a test in a thread of the peer's network namespace; the NIC must be the same afterwards.
fn unchanged_in_peer(test: impl FnOnce(&Nic) -> Outcome + Send) -> Outcome {
    let in_peer = || -> Outcome {
        setns(File::open(PEER_NAMESPACE)?, CloneFlags::CLONE_NEWNET)?;
        unchanged(PEER_NIC, |nic, before| {
            ensure!(entries(nic)? > ENTRIES, "the rings are small already: {:?}", before.rings);
            test(nic)
        })
    };
    std::thread::scope(|scope| {
        // A failure cannot leave its thread, but its words can.
        let thread = scope.spawn(|| in_peer().map_err(|failure| failure.to_string()));
        Ok(thread.join().map_err(|_| "the test panicked")??)
    })
}

fn entries(nic: &Nic) -> Result<u32, Failure> {
    Ok(nic.snapshot()?.rings.and_then(|rings| rings.rx).ok_or("no receive rings")?)
}

pub(crate) fn they_leave_half_of_the_buffer_and_are_put_back() -> Outcome {
    unchanged_in_peer(|nic| {
        let original = entries(nic)?;
        let (prepared, binding) = prepare_and_bind(nic)?;
        ensure!(prepared.queues() == [1, 2, 3, 4], "{:?}", prepared.queues());
        ensure!(entries(nic)? == ENTRIES, "{}", entries(nic)?);
        drop(binding);
        let report = prepared.restore()?;
        ensure!(report.is_complete(), "{report}");
        let step = format!("make receive rings of {ENTRIES} entries");
        ensure!(report.steps.iter().filter(|made| made.change == step).count() == 1, "{report:?}");
        ensure!(entries(nic)? == original, "{}", entries(nic)?);
        Ok(())
    })
}

pub(crate) fn they_stay_where_the_buffer_is_large() -> Outcome {
    unchanged_in_peer(|nic| {
        let original = entries(nic)?;
        let bytes = u64::from(QUEUES * original) * 2 * 4096;
        let prepared = nic.prepare(&plan(QUEUES, bytes))?;
        ensure!(entries(nic)? == original, "{}", entries(nic)?);
        let report = prepared.restore()?;
        ensure!(!report.steps.iter().any(|step| step.change.contains("receive rings")), "{report:?}");
        Ok(())
    })
}

pub(crate) fn they_are_put_back_after_a_kill() -> Outcome {
    unchanged_in_peer(|nic| {
        let original = entries(nic)?;
        let mut actor = Actor::start(roles::SMALL_BUFFER)?;
        ensure!(entries(nic)? == ENTRIES, "{}", entries(nic)?);
        actor.kill()?;
        let report = restore(PEER_NIC)?.ok_or("no journal was left")?;
        ensure!(report.is_complete(), "{report}");
        ensure!(entries(nic)? == original, "{}", entries(nic)?);
        Ok(())
    })
}

pub(crate) fn a_buffer_that_starves_queues_is_refused() -> Outcome {
    unchanged_in_peer(|nic| {
        let error = nic.prepare(&plan(QUEUES, 256 << 10)).err().ok_or("it was not refused")?;
        ensure!(error.kind() == ErrorKind::InvalidInput, "{error}");
        // The driver makes no ring of less than 64 entries.
        for part in ["262144 bytes", "4 queues", "64 entries", "at least 1048576 bytes", "at most 1 queue"] {
            ensure!(error.to_string().contains(part), "{part}: {error}");
        }
        Ok(())
    })
}

pub(crate) fn one_queue_takes_any_buffer() -> Outcome {
    unchanged_in_peer(|nic| {
        let prepared = nic.prepare(&plan(1, 64 << 10))?;
        ensure!(entries(nic)? == ENTRIES, "{}", entries(nic)?);
        restored(prepared)
    })
}
