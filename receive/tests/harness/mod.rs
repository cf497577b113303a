//! What the test programs `lab` and `nic` share: how tests are told, named and run, processes that play a
//! role in them, and what holds for every NIC that was prepared.

mod actor;
pub(crate) mod nic;
mod trials;

pub(crate) use actor::{Actor, Role, play, say_ready, wait_for_end};
pub(crate) use trials::{Failure, Outcome, Test, ensure, run, tests};
