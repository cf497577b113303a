//! Which queues are bound: one, several, none.

use devmem_receive::devmem::BindRefusal;
use devmem_receive::netdev::QueueKind;

use super::bench::Bench;
use super::{REFUSALS, check, refused_as};
use crate::check::Check;
use crate::context::Context;
use crate::ensure;
use crate::faults::Fault;
use crate::verdict::{Finding, Outcome, Stop};

pub(super) const CHECKS: &[Check] = &[
    check(
        "numbers_agree",
        "The number of a binding is the one that the kernel tells for the queue and its page pool, and for no other.",
        &[Fault::WrongBinding, Fault::BindsNothing, Fault::LeaksBinding],
        numbers_agree,
    ),
    check(
        "several_queues",
        "One binding of several queues binds each of them.",
        &[Fault::ForgetsQueues, Fault::WrongBinding, Fault::BindsNothing],
        several_queues,
    ),
    check(
        "several_bindings",
        "One buffer can be bound to several queues by as many bindings, each with a number of its own.",
        &[Fault::WrongBinding, Fault::BindsNothing],
        several_bindings,
    ),
    check(
        "taken_queue",
        "A queue that is bound is refused to the same buffer and to another, and stays with the first binding.",
        &[Fault::WrongRefusal, Fault::BindsAnything, Fault::BindsNothing],
        taken_queue,
    ),
    check(
        "all_or_none",
        "If one of several queues cannot be bound then none of them is, and the others can be bound afterwards.",
        &[Fault::WrongRefusal, Fault::BindsAnything, Fault::ForgetsQueues],
        all_or_none,
    ),
    check("no_such_queue", "A queue that the NIC does not have is refused.", REFUSALS, no_such_queue),
];

/// The two queues of a bench that has two.
fn two<'bench>(bench: &'bench Bench<'_>) -> Result<&'bench [u32; 2], Stop> {
    let queues = bench.queues();
    queues.try_into().map_err(|_| Stop::fail(format!("two queues were asked for, and {queues:?} set up")))
}

fn numbers_agree(context: &Context<'_>) -> Outcome {
    let bench = Bench::new(context, 2)?;
    let &[free, queue] = two(&bench)?;
    let attached = bench.attach(&[queue])?;
    let (id, told) = (attached.id(), bench.holder(queue)?);
    ensure!(id != 0, "the binding is number 0, which the kernel never gives");
    ensure!(told.binding == Some(id), "it says number {id}, the kernel {:?}", told.binding);
    let other = bench.holder(free)?;
    ensure!(other.binding.is_none(), "queue {free}, which was not meant, has {:?}", other.binding);
    let nic = bench.nic.nic();
    if let Ok(pools) = nic.netdev().page_pools() {
        let polled_by = nic.netdev().queue(nic.ifindex(), QueueKind::Receive, queue);
        let polled_by = polled_by.map_err(|error| error.during("ask for the state of a queue"))?.napi_id;
        let feeds = |pool: &&devmem_receive::netdev::PagePool| {
            pool.dmabuf == Some(id) && pool.detach_time.is_none() && pool.ifindex == Some(nic.ifindex())
        };
        let own: Vec<_> = pools.iter().filter(feeds).collect();
        ensure!(!own.is_empty(), "no page pool has binding {id}: {pools:?}");
        let strange = own.iter().find(|pool| pool.napi_id.is_some() && pool.napi_id != polled_by);
        ensure!(strange.is_none(), "{strange:?} is not of queue {queue}, which {polled_by:?} polls");
    }
    drop(attached);
    let left = bench.holder(queue)?;
    ensure!(left.binding.is_none(), "the queue still has binding {:?} after detaching", left.binding);
    Ok(Finding::Pass)
}

fn several_queues(context: &Context<'_>) -> Outcome {
    let bench = Bench::new(context, 2)?;
    let queues = two(&bench)?;
    let attached = bench.attach(queues)?;
    for &queue in queues {
        let told = bench.holder(queue)?.binding;
        ensure!(told == Some(attached.id()), "queue {queue} has {told:?}, not {}", attached.id());
    }
    drop(attached);
    for &queue in queues {
        let told = bench.holder(queue)?.binding;
        ensure!(told.is_none(), "queue {queue} still has {told:?} after detaching");
    }
    Ok(Finding::Pass)
}

fn several_bindings(context: &Context<'_>) -> Outcome {
    let bench = Bench::new(context, 2)?;
    let &[first, second] = two(&bench)?;
    let bindings = [(first, bench.attach(&[first])?), (second, bench.attach(&[second])?)];
    for (queue, binding) in &bindings {
        let told = bench.holder(*queue)?.binding;
        ensure!(told == Some(binding.id()), "queue {queue} has {told:?}, not {}", binding.id());
    }
    let [(_, one), (_, other)] = bindings;
    ensure!(one.id() != other.id(), "both bindings are number {}", one.id());
    let remaining = bench.holder(second)?;
    drop(one);
    let told = bench.holder(second)?;
    ensure!(told == remaining, "detaching the first changed the second from {remaining:?} to {told:?}");
    Ok(Finding::Pass)
}

fn taken_queue(context: &Context<'_>) -> Outcome {
    let bench = Bench::new(context, 1)?;
    let queue = bench.queues()[0];
    let first = bench.attach(&[queue])?;
    let before = bench.holder(queue)?;
    ensure!(before.binding == Some(first.id()), "queue {queue} has {:?}, not {}", before.binding, first.id());
    for (what, dma_buf) in [("the same buffer", &bench.dma_buf), ("another buffer", &bench.another()?)] {
        let what = format!("binding {what} to a queue that is bound");
        refused_as(&what, bench.attach_to(&[queue], dma_buf), &[BindRefusal::QueueAlreadyBound])?;
        let after = bench.holder(queue)?;
        ensure!(after == before, "{what} changed the first binding from {before:?} to {after:?}");
    }
    drop(first);
    drop(bench.attach(&[queue])?);
    Ok(Finding::Pass)
}

fn all_or_none(context: &Context<'_>) -> Outcome {
    let bench = Bench::new(context, 2)?;
    let &[free, taken] = two(&bench)?;
    let _first = bench.attach(&[taken])?;
    for queues in [[free, taken], [taken, free]] {
        let what = format!("binding queues {queues:?}, of which {taken} is bound");
        refused_as(&what, bench.attach(&queues), &[BindRefusal::QueueAlreadyBound])?;
        let told = bench.holder(free)?.binding;
        ensure!(told.is_none(), "{what} left queue {free} with {told:?}");
    }
    let second = bench.attach(&[free])?;
    let told = bench.holder(free)?.binding;
    ensure!(told == Some(second.id()), "queue {free} has {told:?}, not {}", second.id());
    Ok(Finding::Pass)
}

fn no_such_queue(context: &Context<'_>) -> Outcome {
    let bench = Bench::new(context, 1)?;
    let own = bench.queues()[0];
    let count = bench.nic.nic().snapshot()?.receive_queues();
    for queues in [&[count][..], &[u32::MAX], &[own, count]] {
        let what = format!("binding queues {queues:?} of {count}");
        refused_as(&what, bench.attach(queues), &[BindRefusal::NoSuchQueue])?;
    }
    let told = bench.holder(own)?.binding;
    ensure!(told.is_none(), "queue {own} was left with {told:?}");
    Ok(Finding::Pass)
}
