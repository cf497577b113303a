//! Which queues are bound: one, several, none.

use devmem_receive::devmem::BindRefusal;
use devmem_receive::netdev::{PagePool, QueueKind};

use super::bench::Bench;
use super::{REFUSALS, check, refused_as};
use crate::check::Check;
use crate::context::Context;
use crate::ensure;
use crate::faults::Fault;
use crate::need::Need;
use crate::path::{Feature, Holder};
use crate::verdict::{Finding, Outcome, Stop};

pub(super) const CHECKS: &[Check] = &[
    check(
        "numbers_agree",
        "The kernel tells who has a queue, by its number where it has one, of that queue and its page pool, and of no other.",
        &[Fault::WrongBinding, Fault::BindsNothing, Fault::LeaksBinding],
        numbers_agree,
    ),
    of_several_queues(
        "several_queues",
        "One binding of several queues binds each of them.",
        &[Fault::ForgetsQueues, Fault::WrongBinding, Fault::BindsNothing],
        several_queues,
    ),
    check(
        "several_bindings",
        "One buffer can be bound to several queues by as many bindings, each with a number of its own where they have any.",
        &[Fault::WrongBinding, Fault::BindsNothing],
        several_bindings,
    ),
    check(
        "taken_queue",
        "A queue that is bound is refused to the same buffer and to another, and stays with the first binding.",
        &[Fault::WrongRefusal, Fault::BindsAnything, Fault::BindsNothing],
        taken_queue,
    ),
    of_several_queues(
        "all_or_none",
        "If one of several queues cannot be bound then none of them is, and the others can be bound afterwards.",
        &[Fault::WrongRefusal, Fault::BindsAnything, Fault::ForgetsQueues],
        all_or_none,
    ),
    check("no_such_queue", "A queue that the NIC does not have is refused.", REFUSALS, no_such_queue),
];

const fn of_several_queues(
    name: &'static str,
    proves: &'static str,
    catches: &'static [Fault],
    run: fn(&Context<'_>) -> Outcome,
) -> Check {
    Check { needs: &[Need::Nic, Need::Path(Feature::SeveralQueues)], ..check(name, proves, catches, run) }
}

/// The two queues of a bench that has two.
fn two<'bench>(bench: &'bench Bench<'_>) -> Result<&'bench [u32; 2], Stop> {
    let queues = bench.queues();
    queues.try_into().map_err(|_| Stop::fail(format!("two queues were asked for, and {queues:?} set up")))
}

fn numbers_agree(context: &Context<'_>) -> Outcome {
    let bench = Bench::new(context, 2)?;
    let &[free, queue] = two(&bench)?;
    let attached = bench.attach(&[queue])?;
    let (own, told) = (attached.holder(), bench.holder(queue)?);
    ensure!(own.number() != Some(0), "the binding is number 0, which the kernel never gives");
    ensure!(told == Some(own), "it says that {own} has the queue, the kernel {told:?}");
    let other = bench.holder(free)?;
    ensure!(other.is_none(), "queue {free}, which was not meant, has {other:?}");
    let nic = bench.nic.nic();
    if let Ok(pools) = nic.netdev().page_pools() {
        let polled_by = nic.netdev().queue(nic.ifindex(), QueueKind::Receive, queue);
        let polled_by = polled_by.map_err(|error| error.during("ask for the state of a queue"))?.napi_id;
        let feeds = |pool: &&PagePool| {
            Holder::of_pool(pool) == Some(own)
                && pool.detach_time.is_none()
                && pool.ifindex == Some(nic.ifindex())
        };
        let own_pools: Vec<_> = pools.iter().filter(feeds).collect();
        ensure!(!own_pools.is_empty(), "no page pool has {own}: {pools:?}");
        let strange = own_pools.iter().find(|pool| pool.napi_id.is_some() && pool.napi_id != polled_by);
        ensure!(strange.is_none(), "{strange:?} is not of queue {queue}, which {polled_by:?} polls");
    }
    drop(attached);
    let left = bench.holder(queue)?;
    ensure!(left.is_none(), "{left:?} still has the queue after detaching");
    Ok(Finding::Pass)
}

fn several_queues(context: &Context<'_>) -> Outcome {
    let bench = Bench::new(context, 2)?;
    let queues = two(&bench)?;
    let attached = bench.attach(queues)?;
    for &queue in queues {
        let told = bench.holder(queue)?;
        ensure!(told == Some(attached.holder()), "queue {queue} has {told:?}, not {}", attached.holder());
    }
    drop(attached);
    for &queue in queues {
        let told = bench.holder(queue)?;
        ensure!(told.is_none(), "queue {queue} still has {told:?} after detaching");
    }
    Ok(Finding::Pass)
}

fn several_bindings(context: &Context<'_>) -> Outcome {
    let bench = Bench::new(context, 2)?;
    let &[first, second] = two(&bench)?;
    let bindings = [(first, bench.attach(&[first])?), (second, bench.attach(&[second])?)];
    for (queue, binding) in &bindings {
        let told = bench.holder(*queue)?;
        ensure!(told == Some(binding.holder()), "queue {queue} has {told:?}, not {}", binding.holder());
    }
    let [(_, one), (_, other)] = bindings;
    let (own, others) = (one.holder(), other.holder());
    ensure!(own != others || own.number().is_none(), "both are {own}");
    let remaining = bench.state(second)?;
    drop(one);
    let told = bench.state(second)?;
    ensure!(told == remaining, "detaching the first changed the second from {remaining:?} to {told:?}");
    Ok(Finding::Pass)
}

fn taken_queue(context: &Context<'_>) -> Outcome {
    let bench = Bench::new(context, 1)?;
    let queue = bench.queues()[0];
    let first = bench.attach(&[queue])?;
    let before = bench.state(queue)?;
    ensure!(
        before.holder == Some(first.holder()),
        "queue {queue} has {:?}, not {}",
        before.holder,
        first.holder()
    );
    for (what, dma_buf) in [("the same buffer", &bench.dma_buf), ("another buffer", &bench.another()?)] {
        let what = format!("binding {what} to a queue that is bound");
        refused_as(&what, bench.attach_to(&[queue], dma_buf), &[BindRefusal::QueueAlreadyBound])?;
        let after = bench.state(queue)?;
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
        let told = bench.holder(free)?;
        ensure!(told.is_none(), "{what} left queue {free} with {told:?}");
    }
    let second = bench.attach(&[free])?;
    let told = bench.holder(free)?;
    ensure!(told == Some(second.holder()), "queue {free} has {told:?}, not {}", second.holder());
    Ok(Finding::Pass)
}

fn no_such_queue(context: &Context<'_>) -> Outcome {
    let bench = Bench::new(context, 1)?;
    let own = bench.queues()[0];
    let count = bench.nic.nic().snapshot()?.receive_queues();
    let mut wrong = vec![vec![count], vec![u32::MAX]];
    if context.path()?.has(Feature::SeveralQueues) {
        wrong.push(vec![own, count]);
    }
    for queues in &wrong {
        let what = format!("binding queues {queues:?} of {count}");
        refused_as(&what, bench.attach(queues), &[BindRefusal::NoSuchQueue])?;
    }
    let told = bench.holder(own)?;
    ensure!(told.is_none(), "queue {own} was left with {told:?}");
    Ok(Finding::Pass)
}
