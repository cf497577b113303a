//! Fences, theirs and ours, with those of vgem that signal when the test says so.

use std::time::Duration;

use devmem_provider::device_copy::{Fences, Gather, Ticket, Worker};
use devmem_provider::dma_buf::{Access, FenceUse, SyncFile};
use devmem_provider::{DmaBuf, ErrorKind, Extent, Request};

use super::vgem_fence::VgemBuffer;
use super::{Copies, bytes};
use crate::ensure;
use crate::harness::{Failure, Outcome, SIZE, skip};

/// Longer than anything takes that may happen.
const LIMIT: Duration = Duration::from_secs(60);

/// How long is looked whether something happens that must not.
const SHORT: Duration = Duration::from_millis(200);

const ALL: [Extent; 1] = [Extent::new(0, SIZE)];

/// A buffer with fences, and one of the destination's provider.
struct Fenced {
    vgem: VgemBuffer,
    other: DmaBuf,
}

fn fenced(copies: &Copies) -> Result<Fenced, Failure> {
    if copies.copy.worker() == Worker::Cpu {
        return skip("the kernel lets the CPU wait before it copies: there is nothing to see");
    }
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

/// A batch is submitted, which must wait until the fence signals.
fn waits(gather: &mut dyn Gather, ticket: Ticket, fence: impl FnOnce() -> Outcome) -> Outcome {
    ensure!(!gather.wait(ticket, SHORT)?, "it did not wait");
    ensure!(gather.completed()? < ticket, "it did not wait");
    fence()?;
    ensure!(gather.wait(ticket, LIMIT)?, "it does not begin when the fence has signalled");
    Ok(())
}

pub(super) fn of_the_source(copies: &Copies) -> Outcome {
    let Fenced { vgem, other } = fenced(copies)?;
    let mut gather = gather(copies, &vgem.dma_buf, &other, Fences::Reservation)?;
    let before = bytes::read(&other)?;
    let written = bytes::random(9, SIZE);
    // Others that read do not matter to a reader.
    let reader = vgem.attach_fence(FenceUse::Read)?;
    let ticket = gather.submit(&ALL, 0)?;
    ensure!(gather.wait(ticket, LIMIT)?, "it waits for a reader of the source");
    reader.signal()?;
    bytes::write(&other, &before)?;
    // The CPU's access begins before there is a fence that it would wait for.
    let mapping = vgem.dma_buf.map(Access::ReadWrite)?;
    let access = mapping.write()?;
    let writer = vgem.attach_fence(FenceUse::Write)?;
    let ticket = gather.submit(&ALL, 0)?;
    waits(&mut *gather, ticket, || {
        access.copy_from(0, &written)?;
        access.finish()?;
        writer.signal()
    })?;
    bytes::check(&other, &written)
}

pub(super) fn of_the_destination(copies: &Copies) -> Outcome {
    let Fenced { vgem, other } = fenced(copies)?;
    let mut gather = gather(copies, &other, &vgem.dma_buf, Fences::Reservation)?;
    for fences in [FenceUse::Read, FenceUse::Write] {
        let user = vgem.attach_fence(fences)?;
        let ticket = gather.submit(&ALL, 0)?;
        waits(&mut *gather, ticket, || user.signal())?;
    }
    bytes::check(&vgem.dma_buf, &bytes::read(&other)?)
}

pub(super) fn of_nobody(copies: &Copies) -> Outcome {
    let Fenced { vgem, other } = fenced(copies)?;
    let content = bytes::read(&vgem.dma_buf)?;
    let mut gather = gather(copies, &vgem.dma_buf, &other, Fences::Explicit)?;
    let writer = vgem.attach_fence(FenceUse::Write)?;
    let ticket = gather.submit(&ALL, 0)?;
    ensure!(gather.wait(ticket, LIMIT)?, "it waits for what it was not told to wait for");
    bytes::check(&other, &content)?;
    writer.signal()
}

pub(super) fn of_a_sync_file(copies: &Copies) -> Outcome {
    let Fenced { vgem, other } = fenced(copies)?;
    let [source, _] = copies.buffers(SIZE)?;
    for fences in [Fences::Explicit, Fences::Reservation] {
        let mut gather = gather(copies, &source, &other, fences)?;
        let writer = vgem.attach_fence(FenceUse::Write)?;
        let fence = vgem.dma_buf.export_sync_file(FenceUse::Read)?;
        let ticket = match gather.submit_after(Some(&fence), &ALL, 0) {
            Err(error) if error.kind() == ErrorKind::Unsupported => return skip(error),
            ticket => ticket?,
        };
        // What comes behind it waits too.
        let behind = gather.submit(&[Extent::new(1, 9)], 3)?;
        let nothing = gather.submit_after(Some(&fence), &[], 0)?;
        ensure!(ticket < behind && behind < nothing, "{ticket:?} {behind:?} {nothing:?}");
        waits(&mut *gather, ticket, || writer.signal())?;
        ensure!(gather.wait(nothing, LIMIT)?, "an empty batch does not end");
        // One that has signalled already.
        ensure!(fence.is_signalled()?, "the fence has not signalled");
        let ticket = gather.submit_after(Some(&fence), &ALL, 0)?;
        ensure!(gather.wait(ticket, LIMIT)?, "it waits for what has signalled");
        bytes::check(&other, &bytes::read(&source)?)?;
    }
    Ok(())
}

pub(super) fn for_others(copies: &Copies) -> Outcome {
    let Fenced { vgem, other } = fenced(copies)?;
    let [source, destination] = copies.buffers(SIZE)?;
    let mut gather = gather(copies, &source, &destination, Fences::Reservation)?;
    let writer = vgem.attach_fence(FenceUse::Write)?;
    let fence = vgem.dma_buf.export_sync_file(FenceUse::Read)?;
    let ticket = gather.submit_after(Some(&fence), &ALL, 0)?;
    // What a writer of the source, a reader of the destination and its writer must wait for.
    let seen = [
        source.export_sync_file(FenceUse::Write)?,
        destination.export_sync_file(FenceUse::Read)?,
        destination.export_sync_file(FenceUse::Write)?,
    ];
    let readers = source.export_sync_file(FenceUse::Read)?;
    let signalled = || seen.iter().map(SyncFile::is_signalled).collect::<Result<Vec<bool>, _>>();
    let early = gather.completed()? >= ticket;
    ensure!(early || signalled()? == [false; 3], "{:?} have signalled", signalled()?);
    ensure!(readers.wait(LIMIT)?, "readers of the source must wait");
    writer.signal()?;
    ensure!(gather.wait(ticket, LIMIT)?, "it does not begin when the fence has signalled");
    for fence in &seen {
        ensure!(fence.wait(LIMIT)?, "others wait for ever");
    }
    ensure!(!early, "it did not wait");
    drop(other);
    Ok(())
}

pub(super) fn of_a_batch(copies: &Copies) -> Outcome {
    let Fenced { vgem, other } = fenced(copies)?;
    let [source, _] = copies.buffers(SIZE)?;
    let mut gather = gather(copies, &source, &other, Fences::Explicit)?;
    let writer = vgem.attach_fence(FenceUse::Write)?;
    let fence = vgem.dma_buf.export_sync_file(FenceUse::Read)?;
    let ticket = match gather.submit_after(Some(&fence), &ALL, 0) {
        Err(error) if error.kind() == ErrorKind::Unsupported => return skip(error),
        ticket => ticket?,
    };
    let made = match gather.sync_file(ticket) {
        Err(error) if error.kind() == ErrorKind::Unsupported => return skip(error),
        made => made?,
    };
    ensure!(!made.wait(SHORT)?, "the fence of a batch that waits has signalled");
    writer.signal()?;
    ensure!(made.wait(LIMIT)?, "the fence does not signal");
    ensure!(gather.completed()? >= ticket, "{:?}", gather.completed());
    bytes::check(&other, &bytes::read(&source)?)?;
    // Of one that is over.
    ensure!(gather.sync_file(ticket)?.wait(LIMIT)?, "the fence does not signal");
    ensure!(gather.sync_file(Ticket::NONE)?.wait(LIMIT)?, "the fence does not signal");
    Ok(())
}
