//! Threads that bind at the same time.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

use devmem_provider::{ErrorKind, Request};

use super::check;
use super::processes::is_bound;
use crate::check::Check;
use crate::context::Context;
use crate::ensure;
use crate::faults::Fault;
use crate::setup::{BUFFER_BYTES, pin, prepare};
use crate::verdict::{Finding, Outcome, Stop};

pub(super) const CHECKS: &[Check] = &[
    check(
        "threads_bind_queues_of_their_own",
        "Threads can bind queues of their own to buffers of their own at the same time.",
        &[Fault::OneThread, Fault::LeaksBinding],
        threads_bind_queues_of_their_own,
    ),
    check(
        "threads_bind_the_same_queue",
        "Of threads that bind the same queue at the same time one has it, and the others are refused.",
        &[Fault::BindsAnything, Fault::WrongRefusal],
        threads_bind_the_same_queue,
    ),
];

const ROUNDS: usize = 4;
const THREADS: usize = 4;

fn threads_bind_queues_of_their_own(context: &Context<'_>) -> Outcome {
    let size = BUFFER_BYTES.next_multiple_of(context.granularity()?.max(1));
    let nic = prepare(context, 2, size)?;
    let one_thread = |queue: u32| -> Result<(), Stop> {
        for _ in 0..ROUNDS {
            let buffer = context.provider().allocate(&Request::bytes(size))?;
            let pinned = pin(context, &nic, &[queue], &*buffer)?;
            ensure!(is_bound(nic.nic(), pinned.holder())?, "queue {queue} is not bound");
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            nic.queues().iter().map(|&queue| scope.spawn(move || one_thread(queue))).collect();
        threads.into_iter().try_for_each(joined)
    })?;
    nic.restore()?;
    Ok(Finding::Pass)
}

fn joined(thread: std::thread::ScopedJoinHandle<'_, Result<(), Stop>>) -> Result<(), Stop> {
    thread.join().unwrap_or_else(|_| Err(Stop::fail("a thread panicked")))
}

fn threads_bind_the_same_queue(context: &Context<'_>) -> Outcome {
    let size = BUFFER_BYTES.next_multiple_of(context.granularity()?.max(1));
    let nic = prepare(context, 1, size)?;
    let dma_buf = context.provider().allocate(&Request::bytes(size))?.export()?;
    let path = context.path()?;
    let (together, winners) = (Barrier::new(THREADS), AtomicUsize::new(0));
    let one_thread = || -> Result<(), Stop> {
        together.wait();
        let result = path.attach(nic.nic(), nic.queues(), &dma_buf);
        // Whoever has the queue keeps it until all have tried.
        together.wait();
        match result {
            Ok(_attached) => {
                winners.fetch_add(1, Ordering::SeqCst);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Busy => Ok(()),
            Err(error) => Err(Stop::fail(format!("refused as {:?}: {error}", error.kind()))),
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(one_thread)).collect();
        threads.into_iter().try_for_each(joined)
    })?;
    let winners = winners.into_inner();
    ensure!(winners == 1, "{winners} threads have bound the same queue");
    nic.restore()?;
    Ok(Finding::Pass)
}
