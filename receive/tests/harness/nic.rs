//! What holds for every NIC: however its preparation ends, it is as it was before.

use std::time::Duration;

use devmem_receive::nic::{Nic, Prepared, Snapshot, restore};
use nix::sys::signal::Signal;

use super::{Actor, Outcome, Role, ensure};

/// Shows a test the NIC before, and promises that it is the same afterwards.
pub(crate) fn unchanged(name: &str, test: impl FnOnce(&Nic, &Snapshot) -> Outcome) -> Outcome {
    let nic = Nic::open(name)?;
    let before = nic.snapshot()?;
    test(&nic, &before)?;
    let after = nic.snapshot()?;
    ensure!(after == before, "{:?}", before.diff(&after));
    ensure!(restore(name)?.is_none(), "a journal was left");
    Ok(())
}

/// Restores a NIC completely.
pub(crate) fn restored(prepared: Prepared) -> Outcome {
    let report = prepared.restore()?;
    ensure!(report.is_complete(), "{report}");
    Ok(())
}

/// How many processes are killed.
const KILLS: u64 = 20;

/// Kills processes that prepare the NIC again and again, each as long after its start as `moment` gives for
/// its number.
pub(crate) fn survives_kills(name: &str, role: Role, moment: impl Fn(u64) -> Duration) -> Outcome {
    unchanged(name, |nic, before| {
        let mut left = 0;
        for round in 0..KILLS {
            let mut actor = Actor::start(role)?;
            std::thread::sleep(moment(round));
            actor.kill()?;
            if let Some(report) = restore(name)? {
                ensure!(report.is_complete(), "round {round}: {report}");
                left += 1;
            }
            let after = nic.snapshot()?;
            ensure!(after == *before, "round {round}: {:?}", before.diff(&after));
        }
        println!("    {left} of {KILLS} kills left a journal");
        Ok(())
    })
}

/// Ends a process that has prepared the NIC by each signal that restores it.
pub(crate) fn restores_on_signals(name: &str, role: Role) -> Outcome {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        unchanged(name, |nic, before| {
            let mut actor = Actor::start(role)?;
            ensure!(nic.snapshot()? != *before, "it is not prepared");
            actor.end_by(signal)
        })?;
    }
    Ok(())
}
