//! What further processes of a test do.

use devmem_receive::nic::{Nic, restore_on_signals};

use super::receive_rings;
use crate::harness::{Outcome, Role, say_ready, wait_for_end};
use crate::machine::{BUFFER_BYTES, NIC, PEER_NIC, bind, plan};

pub(crate) const ALL: &[Role] = &[REPEAT, HOLD, SIGNAL, BIND, SMALL_BUFFER];

/// Prepares the NIC, binds, unbinds and restores, again and again.
pub(crate) const REPEAT: Role = Role { name: "role-repeat", play: repeat };
/// Prepares the NIC, binds, and waits.
pub(crate) const HOLD: Role = Role { name: "role-hold", play: hold };
/// The same, to be restored when a signal comes.
pub(crate) const SIGNAL: Role = Role { name: "role-signal", play: hold_until_signal };
/// Binds a queue of a NIC that it did not prepare, and waits.
pub(crate) const BIND: Role = Role { name: "role-bind", play: bind_unprepared };
/// Prepares the peer's NIC for a small buffer, binds it, and waits.
pub(crate) const SMALL_BUFFER: Role = Role { name: "role-small-buffer", play: hold_small_buffer };

fn repeat() -> Outcome {
    let nic = Nic::open(NIC)?;
    say_ready()?;
    loop {
        let prepared = nic.prepare(&plan(2))?;
        drop(bind(&nic, prepared.queues(), BUFFER_BYTES)?);
        prepared.restore()?;
    }
}

fn hold() -> Outcome {
    let nic = Nic::open(NIC)?;
    let prepared = nic.prepare(&plan(2))?;
    let _binding = bind(&nic, prepared.queues(), BUFFER_BYTES)?;
    wait_for_end()
}

fn hold_until_signal() -> Outcome {
    restore_on_signals()?;
    hold()
}

fn bind_unprepared() -> Outcome {
    let _binding = bind(&Nic::open(NIC)?, &[3], BUFFER_BYTES)?;
    wait_for_end()
}

fn hold_small_buffer() -> Outcome {
    let _prepared = receive_rings::prepare_and_bind(&Nic::open(PEER_NIC)?)?;
    wait_for_end()
}
