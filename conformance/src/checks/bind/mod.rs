//! Binding memory to queues of a NIC, and what the kernel refuses.
//!
//! The kernel's own checks, in their order, are in `net/core/netdev-genl.c` (`netdev_nl_bind_rx_doit()`),
//! `net/core/devmem.c` (`net_devmem_bind_dmabuf()`), `io_uring/zcrx.c` (`io_register_zcrx()`) and
//! `net/core/netdev_rx_queue.c` (`netif_mp_open_rxq()`).

mod bench;
mod devices;
mod holders;
mod privilege;
mod queues;
mod registrations;
mod requests;
mod settings;
mod xdp;

use devmem_provider::Result;
use devmem_receive::devmem::BindRefusal;

use super::pin::ONE_BUFFER;
use super::{all, count, path_check};
use crate::check::{Check, Group};
use crate::context::Context;
use crate::ensure;
use crate::faults::Fault;
use crate::need::Need;
use crate::path::Attached;
use crate::verdict::{Outcome, Stop};

pub(super) use privilege::{STRANGER, in_a_user_namespace};

const PARTS: &[&[Check]] = &[
    queues::CHECKS,
    settings::CHECKS,
    devices::CHECKS,
    requests::CHECKS,
    registrations::CHECKS,
    holders::CHECKS,
    privilege::CHECKS,
    xdp::CHECKS,
];

pub(super) const CHECKS: &[Check] = &all::<{ count(PARTS) }>(PARTS);

/// What a path gets wrong that reports refusals wrongly.
const REFUSALS: &[Fault] = &[Fault::WrongRefusal, Fault::BindsAnything];

/// A check of binding, which takes a NIC and builds on a buffer that can be bound.
const fn check(
    name: &'static str,
    proves: &'static str,
    catches: &'static [Fault],
    run: fn(&Context<'_>) -> Outcome,
) -> Check {
    path_check(Group::Bind, name, proves, &[Need::Nic], &[ONE_BUFFER], catches, run)
}

/// Stops unless binding was refused for one of these reasons, told as such, with something to try next.
fn refused_as(
    what: &str,
    result: Result<Box<dyn Attached>>,
    reasons: &[BindRefusal],
) -> std::result::Result<(), Stop> {
    let error = match result {
        Ok(_) => return Err(Stop::fail(format!("{what}: was not refused"))),
        Err(error) => error,
    };
    let Some(told) = BindRefusal::of(&error).filter(|told| reasons.contains(told)) else {
        let told = BindRefusal::of(&error);
        return Err(Stop::fail(format!("{what}: refused for {told:?}, not for {reasons:?}: {error}")));
    };
    let kind = error.kind();
    ensure!(kind == told.kind(), "{what}: {told:?} is told as {kind:?}, not as {:?}: {error}", told.kind());
    ensure!(error.remedy_text().is_some(), "{what}: the refusal says nothing of what to do: {error}");
    Ok(())
}
