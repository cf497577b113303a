//! Several processes, one NIC: exclusion, kills and signals.

use std::time::Duration;

use devmem_provider::ErrorKind;
use devmem_receive::nic::{Nic, restore, restore_all};
use nix::sys::signal::{Signal, kill};

use crate::harness::nic::{restored, restores_on_signals, survives_kills, unchanged};
use crate::harness::{Actor, Outcome, ensure};
use crate::namespace::{NIC, Veth};
use crate::roles::{self, plan};

pub(crate) fn one_process_excludes_another() -> Outcome {
    let _veth = Veth::new()?;
    let mut actor = Actor::start(roles::HOLD)?;
    for error in [Nic::open(NIC)?.prepare(&plan()).err(), restore(NIC).err()] {
        let error = error.ok_or("two processes have the NIC")?;
        ensure!(error.kind() == ErrorKind::Busy, "{error}");
        ensure!(error.to_string().contains(&format!("process {} (nic-", actor.pid())), "{error}");
    }
    actor.finish()?;
    restored(Nic::open(NIC)?.prepare(&plan())?)
}

pub(crate) fn a_killed_process_leaves_a_journal() -> Outcome {
    let _veth = Veth::new()?;
    unchanged(NIC, |nic, before| {
        Actor::start(roles::HOLD)?.kill()?;
        ensure!(nic.snapshot()? != *before, "the kill restored it");
        let report = restore(NIC)?.ok_or("no journal was left")?;
        ensure!(report.is_complete() && report.steps.len() == 1, "{report}");
        Ok(())
    })
}

pub(crate) fn the_next_preparation_recovers() -> Outcome {
    let _veth = Veth::new()?;
    unchanged(NIC, |nic, before| {
        Actor::start(roles::HOLD)?.kill()?;
        let prepared = nic.prepare(&plan())?;
        let recovered = prepared.recovered().ok_or("nothing was recovered")?;
        ensure!(recovered.is_complete(), "{recovered}");
        ensure!(prepared.before() == before, "{:?}", before.diff(prepared.before()));
        restored(prepared)
    })
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
    survives_kills(NIC, roles::REPEAT, |round| Duration::from_micros(round * 7919 % 20_000))
}

pub(crate) fn a_signal_restores_and_ends_the_process() -> Outcome {
    let _veth = Veth::new()?;
    restores_on_signals(NIC, roles::SIGNAL)
}

pub(crate) fn an_ignored_signal_stays_ignored() -> Outcome {
    let _veth = Veth::new()?;
    unchanged(NIC, |_, _| {
        let mut actor = Actor::start(roles::IGNORE)?;
        kill(actor.pid(), Signal::SIGHUP)?;
        actor.finish()
    })
}

pub(crate) fn another_namespace_is_told_apart() -> Outcome {
    Actor::start(roles::ELSEWHERE)?.kill()?;
    let _veth = Veth::new()?;
    ensure!(restore(NIC)?.is_none(), "another namespace's journal was used");
    let [Err(error)] = &restore_all()?[..] else { return Err("one error was expected".into()) };
    ensure!(error.to_string().contains("another network namespace"), "{error}");
    Ok(())
}
