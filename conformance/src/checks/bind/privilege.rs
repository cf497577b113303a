//! Who may bind: netlink asks for CAP_NET_ADMIN in the user namespace that owns the NIC's network namespace, io_uring for
//! that of the host.

use std::os::fd::AsFd;

use caps::CapSet;
use devmem_provider::DmaBuf;
use devmem_receive::devmem::BindRefusal;

use super::bench::Bench;
use super::{REFUSALS, check, refused_as};
use crate::check::Check;
use crate::context::Context;
use crate::ensure;
use crate::isolation::{Companion, Link, Role};
use crate::verdict::{Finding, Outcome, Skip, Stop};

pub(super) const CHECKS: &[Check] = &[
    check(
        "without_privilege",
        "Without CAP_NET_ADMIN a bind is refused for that reason, and the queue stays as it is.",
        REFUSALS,
        without_privilege,
    ),
    check(
        "foreign_user_namespace",
        "CAP_NET_ADMIN in a user namespace that does not own the NIC's network namespace is no leave to bind.",
        REFUSALS,
        foreign_user_namespace,
    ),
];

const NO_PRIVILEGE: &[BindRefusal] = &[BindRefusal::NoPrivilege, BindRefusal::NoPrivilegeOnHost];

/// What a companion does here.
pub(in crate::checks) const STRANGER: (&str, Role) = ("stranger", stranger);

fn without_privilege(context: &Context<'_>) -> Outcome {
    let bench = Bench::new(context, 1)?;
    let queue = bench.queues()[0];
    // A thread has capabilities of its own, and this one ends at once.
    let attempt = || -> Result<(), Stop> {
        caps::clear(None, CapSet::Effective).map_err(Stop::fail)?;
        let what = "binding without any capability";
        refused_as(what, bench.attach(&[queue]), NO_PRIVILEGE)
    };
    std::thread::scope(|scope| scope.spawn(attempt).join())
        .unwrap_or_else(|_| Err(Stop::fail("the thread panicked")))?;
    let told = bench.holder(queue)?;
    ensure!(told.is_none(), "queue {queue} was left with {told:?}");
    drop(bench.attach(&[queue])?);
    Ok(Finding::Pass)
}

fn foreign_user_namespace(context: &Context<'_>) -> Outcome {
    let bench = Bench::new(context, 1)?;
    let queue = bench.queues()[0];
    let companion = in_a_user_namespace(context, STRANGER)?;
    companion.link().send_descriptor(bench.dma_buf.as_fd())?;
    companion.link().send(&queue.to_le_bytes())?;
    companion.link().receive_outcome()?;
    let told = bench.holder(queue)?;
    ensure!(told.is_none(), "queue {queue} was left with {told:?}");
    Ok(Finding::Pass)
}

/// Starts a companion that has no capability but in a user namespace of its own.
pub(in crate::checks) fn in_a_user_namespace(
    context: &Context<'_>,
    role: (&str, Role),
) -> Result<Companion, Stop> {
    Companion::start_in_a_user_namespace(context, role.0).map_err(|error| {
        Stop::Skip(Skip {
            reason: format!("no user namespace is to be had: {error}"),
            found_by: "starting a process in one".to_owned(),
            remedy: Some("allow them: `sysctl user.max_user_namespaces`".to_owned()),
        })
    })
}

/// Binds a queue and a buffer that it is told, which must be refused.
fn stranger(context: &Context<'_>, link: &Link) -> Result<(), Stop> {
    let attempt = || -> Result<(), Stop> {
        let dma_buf = DmaBuf::from_fd(link.receive_descriptor()?)?;
        let mut queue = [0; 4];
        link.receive(&mut queue)?;
        let nic = context.nic()?.open()?;
        let is_there = caps::has_cap(None, CapSet::Effective, caps::Capability::CAP_NET_ADMIN);
        ensure!(is_there.map_err(Stop::fail)?, "the process lacks CAP_NET_ADMIN in its own user namespace");
        let result = context.path()?.attach(&nic, &[u32::from_le_bytes(queue)], &dma_buf);
        refused_as("binding from another user namespace", result, NO_PRIVILEGE)
    };
    Ok(link.send_outcome(attempt())?)
}
