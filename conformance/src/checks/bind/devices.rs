//! Interfaces that cannot be bound.

use devmem_receive::devmem::BindRefusal;
use devmem_receive::nic::Nic;
use nix::sched::{CloneFlags, unshare};

use super::bench::Bench;
use super::{REFUSALS, check, refused_as};
use crate::check::Check;
use crate::context::Context;
use crate::ensure;
use crate::verdict::{Finding, Outcome, Skip, Stop};

pub(super) const CHECKS: &[Check] = &[
    check(
        "loopback",
        "The loopback interface, whose driver manages no queues, is refused.",
        REFUSALS,
        loopback,
    ),
    check(
        "no_such_interface",
        "From a network namespace that the NIC is not in, it is refused as an interface that does not exist.",
        REFUSALS,
        no_such_interface,
    ),
];

fn loopback(context: &Context<'_>) -> Outcome {
    let loopback = Nic::open("lo")?;
    let result = context.path()?.attach(&loopback, &[0], &context.dma_buf()?);
    refused_as("binding a queue of the loopback interface", result, &[BindRefusal::NoQueueManagement])?;
    Ok(Finding::Pass)
}

fn no_such_interface(context: &Context<'_>) -> Outcome {
    let bench = Bench::new(context, 1)?;
    let queue = bench.queues()[0];
    // A namespace belongs to the thread that enters it, and this one ends at once.
    let attempt = || -> Result<(), Stop> {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| {
            Stop::Skip(Skip {
                reason: format!("no network namespace is to be had: {errno}"),
                found_by: "making one".to_owned(),
                remedy: Some("run with CAP_SYS_ADMIN".to_owned()),
            })
        })?;
        let what = "binding from another network namespace";
        refused_as(what, bench.attach(&[queue]), &[BindRefusal::NoInterface])
    };
    std::thread::scope(|scope| scope.spawn(attempt).join())
        .unwrap_or_else(|_| Err(Stop::fail("the thread panicked")))?;
    let told = bench.holder(queue)?.binding;
    ensure!(told.is_none(), "queue {queue} was left with {told:?}");
    Ok(Finding::Pass)
}
