//! Fences, theirs and ours, with those of vgem that signal when the test says so.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use devmem_provider::device_copy::{Fences, Gather, Ticket, Worker};
use devmem_provider::dma_buf::{Access, FenceUse, SyncFile};
use devmem_provider::{DmaBuf, ErrorKind, Extent, Request, Result};

use super::vgem_fence::{VgemBuffer, VgemFence};
use super::{Copies, bytes};
use crate::ensure;
use crate::harness::{Failure, Outcome, SIZE, skip};

/// Longer than anything takes that may happen, and than vgem's fences last.
const LIMIT: Duration = Duration::from_secs(60);

/// How long a fence has not signalled: time for a gather that does not wait to be over.
const SHORT: Duration = Duration::from_millis(300);

const ALL: [Extent; 1] = [Extent::new(0, SIZE)];

/// A buffer with fences, and one of the destination's provider.
struct Fenced {
    vgem: VgemBuffer,
    other: DmaBuf,
}

fn fenced(copies: &Copies) -> Result<Fenced, Failure> {
    let vgem = VgemBuffer::new(SIZE)?;
    let other = copies.destination.allocate(&Request::bytes(SIZE))?.export()?;
    bytes::write(&vgem.dma_buf, &bytes::random(1, SIZE))?;
    bytes::write(&other, &bytes::random(2, SIZE))?;
    Ok(Fenced { vgem, other })
}

fn gather(
    copies: &Copies,
    source: &DmaBuf,
    destination: &DmaBuf,
    fences: Fences,
) -> Result<Box<dyn Gather>, Failure> {
    match copies.copy.gather(source, destination, fences) {
        Err(error) if fences != Fences::Explicit && error.kind() == ErrorKind::Unsupported => skip(error),
        gather => Ok(gather?),
    }
}

fn skip_for_the_cpu(copies: &Copies) -> Outcome {
    match copies.copy.worker() {
        Worker::Cpu => skip("the CPU waits for fences before it copies, and adds none"),
        _ => Ok(()),
    }
}

/// Does something while a fence has not signalled, which it does a little later; a driver may wait in its functions. Tells
/// `action` whether it has.
fn meanwhile<T>(
    fence: VgemFence,
    before: impl FnOnce() -> Result<()> + Send,
    action: impl FnOnce(&AtomicBool) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let signalled = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let signaller = scope.spawn(|| -> Result<(), String> {
            std::thread::sleep(SHORT);
            before().map_err(|error| error.to_string())?;
            signalled.store(true, Ordering::SeqCst);
            fence.signal().map_err(|failure| failure.to_string())
        });
        let done = action(&signalled);
        signaller.join().map_err(|_| "the thread that signals died")??;
        done
    })
}

/// Submits everything, which must not be over before the fence has signalled.
fn submit_and_wait(
    gather: &mut dyn Gather,
    signalled: &AtomicBool,
    submit: impl FnOnce(&mut dyn Gather) -> Result<Ticket>,
) -> Outcome {
    let ticket = submit(gather)?;
    ensure!(gather.completed()? < ticket || signalled.load(Ordering::SeqCst), "it did not wait");
    ensure!(gather.wait(ticket, LIMIT)?, "it does not begin when the fence has signalled");
    ensure!(signalled.load(Ordering::SeqCst), "it did not wait");
    Ok(())
}

pub(super) fn of_the_source(copies: &Copies) -> Outcome {
    let Fenced { vgem, other } = fenced(copies)?;
    let mut gather = gather(copies, &vgem.dma_buf, &other, Fences::Reservation)?;
    // Others that read do not matter to a reader.
    let reader = vgem.attach_fence(FenceUse::Read)?;
    let fence = vgem.dma_buf.export_sync_file(FenceUse::Write)?;
    let ticket = gather.submit(&ALL, 0)?;
    ensure!(gather.wait(ticket, LIMIT)?, "it does not end");
    ensure!(!fence.is_signalled()?, "it waits for a reader of the source");
    reader.signal()?;
    // The CPU's access begins before there is a fence that it would wait for.
    let mapping = vgem.dma_buf.map(Access::ReadWrite)?;
    let access = mapping.write()?;
    let written = bytes::random(9, SIZE);
    let writer = vgem.attach_fence(FenceUse::Write)?;
    let write = || {
        access.copy_from(0, &written)?;
        access.finish()
    };
    meanwhile(writer, write, |signalled| {
        submit_and_wait(&mut *gather, signalled, |gather| gather.submit(&ALL, 0))
    })?;
    bytes::check(&other, &written)
}

pub(super) fn of_the_destination(copies: &Copies) -> Outcome {
    let Fenced { vgem, other } = fenced(copies)?;
    let mut gather = gather(copies, &other, &vgem.dma_buf, Fences::Reservation)?;
    for fences in [FenceUse::Read, FenceUse::Write] {
        let user = vgem.attach_fence(fences)?;
        meanwhile(
            user,
            || Ok(()),
            |signalled| submit_and_wait(&mut *gather, signalled, |gather| gather.submit(&ALL, 0)),
        )?;
    }
    bytes::check(&vgem.dma_buf, &bytes::read(&other)?)
}

pub(super) fn of_nobody(copies: &Copies) -> Outcome {
    skip_for_the_cpu(copies)?;
    let Fenced { vgem, other } = fenced(copies)?;
    let content = bytes::read(&vgem.dma_buf)?;
    let mut gather = gather(copies, &vgem.dma_buf, &other, Fences::Explicit)?;
    let writer = vgem.attach_fence(FenceUse::Write)?;
    let fence = vgem.dma_buf.export_sync_file(FenceUse::Read)?;
    let ticket = gather.submit(&ALL, 0)?;
    ensure!(gather.wait(ticket, LIMIT)?, "it does not end");
    ensure!(!fence.is_signalled()?, "it waits for what it was not told to wait for");
    bytes::check(&other, &content)?;
    writer.signal()
}

pub(super) fn of_a_sync_file(copies: &Copies) -> Outcome {
    let Fenced { vgem, other } = fenced(copies)?;
    let [source, _] = copies.buffers(SIZE)?;
    for fences in [Fences::Explicit, Fences::Reservation] {
        let mut gather = gather(copies, &source, &other, fences)?;
        for fragments in [&ALL[..], &[]] {
            let writer = vgem.attach_fence(FenceUse::Write)?;
            let fence = vgem.dma_buf.export_sync_file(FenceUse::Read)?;
            meanwhile(
                writer,
                || Ok(()),
                |signalled| {
                    submit_and_wait(&mut *gather, signalled, |gather| {
                        let ticket = gather.submit_after(Some(&fence), fragments, 0)?;
                        // What comes behind it waits too.
                        gather.submit(&[Extent::new(1, 9)], 3).map(|behind| behind.max(ticket))
                    })
                },
            )?;
            // One that has signalled already.
            ensure!(fence.is_signalled()?, "the fence has not signalled");
            let ticket = gather.submit_after(Some(&fence), &ALL, 0)?;
            ensure!(gather.wait(ticket, LIMIT)?, "it waits for what has signalled");
            bytes::check(&other, &bytes::read(&source)?)?;
        }
    }
    Ok(())
}

pub(super) fn for_others(copies: &Copies) -> Outcome {
    skip_for_the_cpu(copies)?;
    let Fenced { vgem, .. } = fenced(copies)?;
    let [source, destination] = copies.buffers(SIZE)?;
    let mut gather = gather(copies, &source, &destination, Fences::Reservation)?;
    let writer = vgem.attach_fence(FenceUse::Write)?;
    let fence = vgem.dma_buf.export_sync_file(FenceUse::Read)?;
    meanwhile(
        writer,
        || Ok(()),
        |_| {
            let ticket = gather.submit_after(Some(&fence), &ALL, 0)?;
            // What a writer of the source, a reader of the destination and its writer must wait for.
            let seen = [
                source.export_sync_file(FenceUse::Write)?,
                destination.export_sync_file(FenceUse::Read)?,
                destination.export_sync_file(FenceUse::Write)?,
            ];
            let signalled: Vec<bool> = seen.iter().map(SyncFile::is_signalled).collect::<Result<_>>()?;
            // A driver may make fences only of work that is over.
            let over = gather.completed()? >= ticket;
            ensure!(over || signalled == [false; 3], "{signalled:?} have signalled before the batch");
            let readers = source.export_sync_file(FenceUse::Read)?;
            ensure!(readers.is_signalled()?, "readers of the source must wait");
            ensure!(gather.wait(ticket, LIMIT)?, "it does not begin when the fence has signalled");
            for fence in &seen {
                ensure!(fence.wait(LIMIT)?, "others wait for ever");
            }
            Ok(())
        },
    )
}

pub(super) fn of_a_batch(copies: &Copies) -> Outcome {
    let Fenced { vgem, other } = fenced(copies)?;
    let [source, _] = copies.buffers(SIZE)?;
    let mut gather = gather(copies, &source, &other, Fences::Explicit)?;
    let writer = vgem.attach_fence(FenceUse::Write)?;
    let fence = vgem.dma_buf.export_sync_file(FenceUse::Read)?;
    let ticket = meanwhile(
        writer,
        || Ok(()),
        |signalled| {
            let ticket = gather.submit_after(Some(&fence), &ALL, 0)?;
            let made = match gather.sync_file(ticket) {
                Err(error) if error.kind() == ErrorKind::Unsupported => return skip(error),
                made => made?,
            };
            ensure!(
                !made.is_signalled()? || signalled.load(Ordering::SeqCst),
                "the fence of a batch that waits has signalled"
            );
            ensure!(made.wait(LIMIT)?, "the fence does not signal");
            ensure!(gather.completed()? >= ticket, "{:?}", gather.completed());
            Ok(ticket)
        },
    )?;
    bytes::check(&other, &bytes::read(&source)?)?;
    // Of one that is over.
    ensure!(gather.sync_file(ticket)?.wait(LIMIT)?, "the fence does not signal");
    ensure!(gather.sync_file(Ticket::NONE)?.wait(LIMIT)?, "the fence does not signal");
    Ok(())
}
