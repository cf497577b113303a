//! What further processes of a test do.

use devmem_receive::nic::{Nic, Plan, Queues, restore_on_signals};
use nix::sys::signal::{SigHandler, Signal, signal};

use crate::adjust::adjust_everything;
use crate::harness::{Outcome, Role, say_ready, wait_for_end};
use crate::namespace::{self, NIC, Veth};

pub(crate) const ALL: &[Role] = &[HOLD, REPEAT, HOLD_ADJUSTED, REPEAT_ADJUSTED, SIGNAL, IGNORE, ELSEWHERE];

/// Prepares the NIC and waits.
pub(crate) const HOLD: Role = Role { name: "role-hold", play: hold };
/// Prepares and restores the NIC again and again.
pub(crate) const REPEAT: Role = Role { name: "role-repeat", play: repeat };
/// Prepares the NIC, makes every change beyond the plan, and waits.
pub(crate) const HOLD_ADJUSTED: Role = Role { name: "role-hold-adjusted", play: hold_adjusted };
/// Prepares the NIC, makes every change beyond the plan, and restores it, again and again.
pub(crate) const REPEAT_ADJUSTED: Role = Role { name: "role-repeat-adjusted", play: repeat_adjusted };
/// Prepares the NIC, to be restored when a signal comes, and waits.
pub(crate) const SIGNAL: Role = Role { name: "role-signal", play: hold_until_signal };
/// The same, ignoring SIGHUP.
pub(crate) const IGNORE: Role = Role { name: "role-ignore", play: hold_ignoring };
/// Prepares a NIC in another network namespace and waits.
pub(crate) const ELSEWHERE: Role = Role { name: "role-elsewhere", play: hold_elsewhere };

pub(crate) fn plan() -> Plan {
    // veth cannot split headers.
    Plan::without_flow(Queues::count(2)).header_split(false)
}

fn hold() -> Outcome {
    let prepared = Nic::open(NIC)?.prepare(&plan())?;
    wait_for_end()?;
    prepared.restore()?;
    Ok(())
}

fn repeat() -> Outcome {
    say_ready()?;
    loop {
        Nic::open(NIC)?.prepare(&plan())?.restore()?;
    }
}

fn hold_adjusted() -> Outcome {
    let prepared = Nic::open(NIC)?.prepare(&plan())?;
    adjust_everything(&prepared)?;
    wait_for_end()
}

fn repeat_adjusted() -> Outcome {
    say_ready()?;
    loop {
        let prepared = Nic::open(NIC)?.prepare(&plan())?;
        adjust_everything(&prepared)?;
        prepared.restore()?;
    }
}

fn hold_until_signal() -> Outcome {
    restore_on_signals()?;
    hold()
}

fn hold_ignoring() -> Outcome {
    // SAFETY: nothing of ours runs when the signal comes.
    unsafe { signal(Signal::SIGHUP, SigHandler::SigIgn)? };
    hold_until_signal()
}

fn hold_elsewhere() -> Outcome {
    namespace::enter()?;
    let _veth = Veth::new()?;
    hold()
}
