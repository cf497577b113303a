//! Several processes, one NIC: kills and signals.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use devmem_receive::nic::{Nic, restore};
use nix::sys::signal::{Signal, kill};

use crate::prepare::NIC;
use crate::roles::{self, Actor};
use crate::{Outcome, ensure};

pub(crate) fn killed_at_any_moment() -> Outcome {
    let nic = Nic::open(NIC)?;
    let before = nic.snapshot()?;
    let mut left = 0;
    for round in 0..20u64 {
        let mut actor = Actor::start(roles::REPEAT)?;
        // Spread over some runs of the transaction, which takes tens of milliseconds on an emulated CPU.
        std::thread::sleep(Duration::from_micros(round * 48_271 % 200_000));
        actor.kill()?;
        if let Some(report) = restore(NIC)? {
            ensure!(report.is_complete(), "round {round}: {report}");
            left += 1;
        }
        let after = nic.snapshot()?;
        ensure!(after == before, "round {round}: {:?}", before.diff(&after));
    }
    println!("    {left} of 20 kills left a journal");
    Ok(())
}

pub(crate) fn killed_while_queues_are_bound() -> Outcome {
    let nic = Nic::open(NIC)?;
    let before = nic.snapshot()?;
    for _ in 0..3 {
        Actor::start(roles::HOLD)?.kill()?;
        let report = restore(NIC)?.ok_or("no journal was left")?;
        ensure!(report.is_complete(), "{report}");
        ensure!(nic.snapshot()? == before, "{:?}", before.diff(&nic.snapshot()?));
    }
    Ok(())
}

pub(crate) fn a_signal_releases_and_restores() -> Outcome {
    let nic = Nic::open(NIC)?;
    let before = nic.snapshot()?;
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let mut actor = Actor::start(roles::SIGNAL)?;
        kill(actor.pid(), signal)?;
        let status = actor.child.wait()?;
        ensure!(status.signal() == Some(signal as i32), "{status}");
        ensure!(nic.snapshot()? == before, "{:?}", before.diff(&nic.snapshot()?));
        ensure!(restore(NIC)?.is_none(), "a journal was left");
    }
    Ok(())
}
