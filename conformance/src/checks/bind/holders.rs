//! What holds a binding and a buffer, and what a refusal leaves behind.

use devmem_receive::devmem::BindRefusal;

use super::super::pin::settled;
use super::bench::Bench;
use super::{check, refused_as};
use crate::check::Check;
use crate::context::Context;
use crate::ensure;
use crate::faults::Fault;
use crate::verdict::{Finding, Outcome};

pub(super) const CHECKS: &[Check] = &[
    check(
        "detaching_unbinds",
        "When detaching returns the queue has no binding, and can be bound again.",
        &[Fault::LeaksBinding, Fault::BindsNothing],
        detaching_unbinds,
    ),
    check(
        "refusal_leaves_no_reference",
        "Binds that are refused leave no reference to the buffer behind.",
        &[Fault::KeepsRefused, Fault::BindsAnything, Fault::WrongRefusal],
        refusal_leaves_no_reference,
    ),
];

fn detaching_unbinds(context: &Context<'_>) -> Outcome {
    let bench = Bench::new(context, 1)?;
    let queue = bench.queues()[0];
    for _ in 0..2 {
        let attached = bench.attach(&[queue])?;
        let told = bench.holder(queue)?;
        ensure!(told == Some(attached.holder()), "queue {queue} has {told:?}, not {}", attached.holder());
        drop(attached);
        let told = bench.holder(queue)?;
        ensure!(told.is_none(), "queue {queue} still has {told:?} after detaching");
    }
    Ok(Finding::Pass)
}

fn refusal_leaves_no_reference(context: &Context<'_>) -> Outcome {
    let bench = Bench::new(context, 1)?;
    let _first = bench.attach(bench.queues())?;
    let other = bench.another()?;
    let before = other.file_information()?.count;
    for _ in 0..4 {
        let result = bench.attach_to(bench.queues(), &other);
        refused_as("binding another buffer", result, &[BindRefusal::QueueAlreadyBound])?;
    }
    // The kernel drops what it took by a work queue.
    let is_free = || Ok(other.file_information()?.count <= before);
    settled(is_free, "refused binds still hold the buffer after a while")?;
    Ok(Finding::Pass)
}
