//! Several processes, one NIC: kills and signals.

use std::time::Duration;

use devmem_receive::nic::restore;

use super::roles;
use crate::harness::nic::{restores_on_signals, survives_kills, unchanged};
use crate::harness::{Actor, Outcome, ensure};
use crate::machine::NIC;

pub(crate) fn killed_at_any_moment() -> Outcome {
    // Spread over some runs of the transaction, which takes tens of milliseconds on an emulated CPU.
    survives_kills(NIC, roles::REPEAT, |round| Duration::from_micros(round * 48_271 % 200_000))
}

pub(crate) fn killed_while_queues_are_bound() -> Outcome {
    for _ in 0..3 {
        unchanged(NIC, |_, _| {
            Actor::start(roles::HOLD)?.kill()?;
            let report = restore(NIC)?.ok_or("no journal was left")?;
            ensure!(report.is_complete(), "{report}");
            Ok(())
        })?;
    }
    Ok(())
}

pub(crate) fn a_signal_releases_and_restores() -> Outcome {
    restores_on_signals(NIC, roles::SIGNAL)
}
