//! Several processes, one NIC: exclusion, kills and signals.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use devmem_provider::ErrorKind;
use devmem_receive::nic::{Nic, restore, restore_all};
use nix::sys::signal::{Signal, kill};

use crate::namespace::{NIC, Veth};
use crate::roles::{self, Actor, plan};
use crate::{Outcome, ensure};

pub(crate) fn one_process_excludes_another() -> Outcome {
    let _veth = Veth::new()?;
    let mut actor = Actor::start(roles::HOLD)?;
    for error in [Nic::open(NIC)?.prepare(&plan()).err(), restore(NIC).err()] {
        let error = error.ok_or("two processes have the NIC")?;
        ensure!(error.kind() == ErrorKind::Busy, "{error}");
        ensure!(error.to_string().contains(&format!("process {} (nic-", actor.pid())), "{error}");
    }
    actor.finish()?;
    Nic::open(NIC)?.prepare(&plan())?.restore()?;
    Ok(())
}

pub(crate) fn a_killed_process_leaves_a_journal() -> Outcome {
    let _veth = Veth::new()?;
    let nic = Nic::open(NIC)?;
    let before = nic.snapshot()?;
    Actor::start(roles::HOLD)?.kill()?;
    ensure!(nic.snapshot()? != before, "the kill restored it");
    let report = restore(NIC)?.ok_or("no journal was left")?;
    ensure!(report.is_complete() && report.steps.len() == 1, "{report}");
    ensure!(nic.snapshot()? == before, "{:?}", before.diff(&nic.snapshot()?));
    ensure!(restore(NIC)?.is_none(), "the journal is still there");
    Ok(())
}

pub(crate) fn the_next_preparation_recovers() -> Outcome {
    let _veth = Veth::new()?;
    let nic = Nic::open(NIC)?;
    let before = nic.snapshot()?;
    Actor::start(roles::HOLD)?.kill()?;
    let prepared = nic.prepare(&plan())?;
    let recovered = prepared.recovered().ok_or("nothing was recovered")?;
    ensure!(recovered.is_complete(), "{recovered}");
    ensure!(*prepared.before() == before, "{:?}", before.diff(prepared.before()));
    prepared.restore()?;
    ensure!(nic.snapshot()? == before, "{:?}", before.diff(&nic.snapshot()?));
    Ok(())
}

pub(crate) fn a_journal_of_a_removed_nic_is_cleared() -> Outcome {
    let veth = Veth::new()?;
    Actor::start(roles::HOLD)?.kill()?;
    veth.remove()?;
    let [Ok(report)] = &restore_all()?[..] else { return Err("one report was expected".into()) };
    ensure!(report.gone && report.nic.name == NIC, "{report}");
    ensure!(restore_all()?.is_empty(), "the journal is still there");
    Ok(())
}

pub(crate) fn killed_at_any_moment() -> Outcome {
    let _veth = Veth::new()?;
    let nic = Nic::open(NIC)?;
    let before = nic.snapshot()?;
    let mut left = 0;
    for round in 0..20u64 {
        let mut actor = Actor::start(roles::REPEAT)?;
        std::thread::sleep(Duration::from_micros(round * 7919 % 20_000));
        actor.kill()?;
        if let Some(report) = restore(NIC)? {
            ensure!(report.is_complete(), "round {round}: {report}");
            left += 1;
        }
        ensure!(nic.snapshot()? == before, "round {round}: {:?}", before.diff(&nic.snapshot()?));
    }
    println!("    {left} of 20 kills left a journal");
    Ok(())
}

pub(crate) fn a_signal_restores_and_ends_the_process() -> Outcome {
    let _veth = Veth::new()?;
    let nic = Nic::open(NIC)?;
    let before = nic.snapshot()?;
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let mut actor = Actor::start(roles::SIGNAL)?;
        ensure!(nic.snapshot()? != before, "it is not prepared");
        kill(actor.pid(), signal)?;
        let status = actor.child.wait()?;
        ensure!(status.signal() == Some(signal as i32), "{status}");
        ensure!(nic.snapshot()? == before, "{:?}", before.diff(&nic.snapshot()?));
        ensure!(restore(NIC)?.is_none(), "a journal was left");
    }
    Ok(())
}

pub(crate) fn an_ignored_signal_stays_ignored() -> Outcome {
    let _veth = Veth::new()?;
    let nic = Nic::open(NIC)?;
    let before = nic.snapshot()?;
    let mut actor = Actor::start(roles::IGNORE)?;
    kill(actor.pid(), Signal::SIGHUP)?;
    actor.finish()?;
    ensure!(nic.snapshot()? == before, "{:?}", before.diff(&nic.snapshot()?));
    Ok(())
}

pub(crate) fn another_namespace_is_told_apart() -> Outcome {
    Actor::start(roles::ELSEWHERE)?.kill()?;
    let _veth = Veth::new()?;
    ensure!(restore(NIC)?.is_none(), "another namespace's journal was used");
    let [Err(error)] = &restore_all()?[..] else { return Err("one error was expected".into()) };
    ensure!(error.to_string().contains("another network namespace"), "{error}");
    Ok(())
}
