//! Fragments become contiguous.

use std::fs::File;
use std::time::{Duration, Instant};

use devmem_provider::device_copy::{Fences, Ticket};
use devmem_provider::dma_buf::Access;
use devmem_provider::{DmaBuf, ErrorKind, Extent, Request};

use super::bytes::{self, Random};
use super::{Copies, expect};
use crate::ensure;
use crate::harness::{Outcome, SIZE, available_memory, descriptors, memory_is_back};

/// Longer than anything takes.
const LIMIT: Duration = Duration::from_secs(60);

pub(super) fn of_any_alignment(copies: &Copies) -> Outcome {
    let [source, destination] = copies.buffers(SIZE)?;
    let (from, mut to) = (bytes::read(&source)?, bytes::read(&destination)?);
    let mut gather = copies.copy.gather(&source, &destination, Fences::Explicit)?;
    let mut random = Random::new(3);
    for longest in [3, 17, 300, 5000, 200_000] {
        for _ in 0..4 {
            let fragments = bytes::fragments(&mut random, SIZE, longest, 500_000);
            let bytes: u64 = fragments.iter().map(|fragment| fragment.length).sum();
            let offset = random.below(SIZE - bytes + 1);
            let ticket = gather.submit(&fragments, offset)?;
            ensure!(gather.wait(ticket, LIMIT)?, "it takes too long");
            expect(&from, &mut to, &fragments, offset);
            bytes::check(&destination, &to)
                .map_err(|failure| format!("fragments of up to {longest} bytes at {offset}: {failure}"))?;
        }
    }
    // To the last byte, from the last byte.
    let last = [Extent::new(SIZE - 1, 1), Extent::new(0, SIZE - 5), Extent::new(SIZE - 4, 4)];
    let ticket = gather.submit(&last, 0)?;
    ensure!(gather.wait(ticket, LIMIT)?, "it takes too long");
    expect(&from, &mut to, &last, 0);
    bytes::check(&destination, &to)?;
    bytes::check(&source, &from)
}

pub(super) fn within_one_buffer(copies: &Copies) -> Outcome {
    let [buffer, _] = copies.buffers(SIZE)?;
    let mut content = bytes::read(&buffer)?;
    let mut gather = copies.copy.gather(&buffer, &buffer.try_clone()?, Fences::Explicit)?;
    let half = SIZE / 2;
    let fragments = bytes::fragments(&mut Random::new(4), half, 700, half - 1001);
    let ticket = gather.submit(&fragments, half + 1001)?;
    ensure!(gather.wait(ticket, LIMIT)?, "it takes too long");
    let from = content.clone();
    expect(&from, &mut content, &fragments, half + 1001);
    bytes::check(&buffer, &content)
}

pub(super) fn a_batch_of_any_length(copies: &Copies) -> Outcome {
    let [source, destination] = copies.buffers(SIZE)?;
    let (from, mut to) = (bytes::read(&source)?, bytes::read(&destination)?);
    let mut gather = copies.copy.gather(&source, &destination, Fences::Explicit)?;
    // None behind another, and more than fit into one submission.
    let fragments: Vec<Extent> =
        (0..40_000_u64).map(|index| Extent::new(index * 7919 % (SIZE - 20), 1 + index % 20)).collect();
    let ticket = gather.submit(&fragments, 77)?;
    ensure!(ticket == Ticket::new(1), "{ticket:?}");
    ensure!(gather.wait(ticket, LIMIT)?, "it takes too long");
    ensure!(gather.completed()? == ticket, "{:?}", gather.completed());
    expect(&from, &mut to, &fragments, 77);
    bytes::check(&destination, &to)
}

pub(super) fn a_fragment_of_any_length(copies: &Copies) -> Outcome {
    // Longer than what one submission of any method copies.
    let size = 66 << 20;
    let source = copies.source.allocate(&Request::bytes(size))?.export()?;
    let destination = copies.destination.allocate(&Request::bytes(size))?.export()?;
    let (from, to) = (source.map(Access::ReadWrite)?, destination.map(Access::Read)?);
    let marks: Vec<u64> = (0..33).map(|index| index * (2 << 20) + index).chain([size - 4]).collect();
    let access = from.write()?;
    for &mark in &marks {
        access.copy_from(mark as usize, &(mark as u32 | 1).to_ne_bytes())?;
    }
    access.finish()?;
    let mut gather = copies.copy.gather(&source, &destination, Fences::Explicit)?;
    let ticket = gather.submit(&[Extent::new(1, size - 1)], 0)?;
    ensure!(gather.wait(ticket, LIMIT)?, "it takes too long");
    let access = to.read()?;
    for mark in marks.into_iter().skip(1) {
        let mut read = [0; 4];
        access.copy_to(mark as usize - 1, &mut read)?;
        ensure!(u32::from_ne_bytes(read) == mark as u32 | 1, "{read:?} at {mark}");
    }
    access.finish()?;
    Ok(())
}

pub(super) fn many_batches_at_once(copies: &Copies) -> Outcome {
    let [source, destination] = copies.buffers(SIZE)?;
    let (from, mut to) = (bytes::read(&source)?, bytes::read(&destination)?);
    let mut gather = copies.copy.gather(&source, &destination, Fences::Explicit)?;
    ensure!(gather.completed()? == Ticket::NONE, "{:?}", gather.completed());
    let mut random = Random::new(5);
    let (mut last, mut seen) = (Ticket::NONE, Ticket::NONE);
    for batch in 0..300 {
        let fragments = bytes::fragments(&mut random, SIZE, 1000, 3000);
        let offset = batch * 3001;
        let ticket = gather.submit(&fragments, offset)?;
        ensure!(ticket > last, "{ticket:?} after {last:?}");
        last = ticket;
        let completed = gather.completed()?;
        ensure!(seen <= completed && completed <= last, "{completed:?} of {last:?} after {seen:?}");
        seen = completed;
        expect(&from, &mut to, &fragments, offset);
    }
    ensure!(gather.wait(last, LIMIT)?, "it takes too long");
    ensure!(gather.completed()? == last, "{:?}", gather.completed());
    bytes::check(&destination, &to)?;
    // As a stream: one behind the other, asked for without waiting, and dropped in the end.
    bytes::write(&destination, &bytes::random(10, SIZE))?;
    to = bytes::read(&destination)?;
    let mut offset = 11;
    for _ in 0..3000 {
        let fragments = bytes::fragments(&mut random, SIZE, 200, 300);
        last = gather.submit(&fragments, offset)?;
        expect(&from, &mut to, &fragments, offset);
        offset += 300;
    }
    let started = Instant::now();
    while gather.completed()? < last {
        ensure!(started.elapsed() < LIMIT, "asking does not end it");
        std::thread::sleep(Duration::from_millis(1));
    }
    bytes::check(&destination, &to)?;
    for _ in 0..200 {
        let fragments = bytes::fragments(&mut random, SIZE, 200, 300);
        gather.submit(&fragments, offset)?;
        expect(&from, &mut to, &fragments, offset);
        offset += 300;
    }
    drop(gather);
    bytes::check(&destination, &to)
}

pub(super) fn in_order(copies: &Copies) -> Outcome {
    let [source, destination] = copies.buffers(SIZE)?;
    let (from, mut to) = (bytes::read(&source)?, bytes::read(&destination)?);
    let mut gather = copies.copy.gather(&source, &destination, Fences::Explicit)?;
    let mut random = Random::new(6);
    let mut last = Ticket::NONE;
    // Each writes over most of what the one before wrote, and shares words with it.
    for batch in 0..100 {
        let fragments = bytes::fragments(&mut random, SIZE, 900, 20_000);
        last = gather.submit(&fragments, batch * 13)?;
        expect(&from, &mut to, &fragments, batch * 13);
    }
    ensure!(gather.wait(last, LIMIT)?, "it takes too long");
    bytes::check(&destination, &to)?;
    // A gather reads what another one has written.
    let mut within = copies.copy.gather(&destination, &destination, Fences::Explicit)?;
    for step in 0..8_u64 {
        let fragment = [Extent::new(step * 3, 60_000)];
        last = within.submit(&fragment, 100_000 + step)?;
        let before = to.clone();
        expect(&before, &mut to, &fragment, 100_000 + step);
        let back = [Extent::new(100_001, 50_000)];
        last = within.submit(&back, step).map(|ticket| ticket.max(last))?;
        let before = to.clone();
        expect(&before, &mut to, &back, step);
    }
    ensure!(within.wait(last, LIMIT)?, "it takes too long");
    bytes::check(&destination, &to)
}

pub(super) fn an_empty_batch(copies: &Copies) -> Outcome {
    let [source, destination] = copies.buffers(SIZE)?;
    for fences in [Fences::Explicit, Fences::Reservation] {
        let mut gather = match copies.copy.gather(&source, &destination, fences) {
            Err(error) if error.kind() == ErrorKind::Unsupported => continue,
            gather => gather?,
        };
        let before = gather.submit(&[], SIZE)?;
        let ticket = gather.submit(&[Extent::new(0, SIZE)], 0)?;
        let behind = gather.submit(&[], 0)?;
        ensure!(before < ticket && ticket < behind, "{before:?} {ticket:?} {behind:?}");
        ensure!(gather.wait(behind, LIMIT)?, "it takes too long");
        ensure!(gather.completed()? == behind, "{:?}", gather.completed());
        bytes::check(&destination, &bytes::read(&source)?)?;
    }
    Ok(())
}

pub(super) fn what_is_outside_or_overlaps(copies: &Copies) -> Outcome {
    let [source, destination] = copies.buffers(SIZE)?;
    let (from, to) = (bytes::read(&source)?, bytes::read(&destination)?);
    let mut gather = copies.copy.gather(&source, &destination, Fences::Explicit)?;
    let good = Extent::new(0, 4096);
    for (fragment, offset) in [
        (Extent::new(SIZE, 1), 0),
        (Extent::new(SIZE - 1, 2), 0),
        (Extent::new(u64::MAX, 2), 0),
        (Extent::new(0, 0), 0),
        (Extent::new(0, u64::MAX), 0),
        (good, SIZE - 8191),
        (good, u64::MAX),
    ] {
        let error =
            gather.submit(&[good, fragment], offset).err().ok_or(format!("{fragment} at {offset}"))?;
        ensure!(error.kind() == ErrorKind::InvalidInput, "{error}");
    }
    let mut within = copies.copy.gather(&source, &source, Fences::Explicit)?;
    let error = within.submit(&[Extent::new(8192, 10), good], 4095).err().ok_or("an overlap was copied")?;
    ensure!(error.kind() == ErrorKind::InvalidInput, "{error}");
    // They count as nothing.
    let ticket = gather.submit(&[], 0)?;
    ensure!(ticket == Ticket::new(1) && gather.wait(ticket, LIMIT)?, "{ticket:?}");
    bytes::check(&source, &from)?;
    bytes::check(&destination, &to)
}

pub(super) fn a_ticket_of_no_batch(copies: &Copies) -> Outcome {
    let [source, destination] = copies.buffers(SIZE)?;
    let mut gather = copies.copy.gather(&source, &destination, Fences::Explicit)?;
    ensure!(gather.wait(Ticket::NONE, Duration::ZERO)?, "nothing is completed");
    for ticket in [Ticket::new(1), Ticket::new(u64::MAX)] {
        let error = gather.wait(ticket, LIMIT).err().ok_or("it was waited for")?;
        ensure!(error.kind() == ErrorKind::InvalidInput, "{error}");
        ensure!(gather.sync_file(ticket).is_err(), "there is a fence of no batch");
    }
    Ok(())
}

pub(super) fn what_is_no_dma_buf(copies: &Copies) -> Outcome {
    let [source, _] = copies.buffers(SIZE)?;
    let before = descriptors()?;
    for _ in 0..3 {
        let other = DmaBuf::from_exporter(File::open("/dev/null")?.into(), SIZE);
        ensure!(copies.copy.gather(&source, &other, Fences::Explicit).is_err(), "/dev/null was written");
        ensure!(copies.copy.gather(&other, &source, Fences::Explicit).is_err(), "/dev/null was read");
        ensure!(copies.copy.sha256(&other, &[Extent::new(0, 1)]).is_err(), "/dev/null was hashed");
    }
    ensure!(descriptors()? == before, "{} descriptors are open instead of {before}", descriptors()?);
    Ok(())
}

pub(super) fn leaves_nothing_behind(copies: &Copies) -> Outcome {
    let [source, destination] = copies.buffers(SIZE)?;
    let fragments: Vec<Extent> = (0..64).map(|index| Extent::new(index * 8192, 500)).collect();
    let cycle = |batches: usize| -> Outcome {
        for fences in [Fences::Explicit, Fences::Reservation] {
            let mut gather = match copies.copy.gather(&source, &destination, fences) {
                Err(error) if error.kind() == ErrorKind::Unsupported => continue,
                gather => gather?,
            };
            for _ in 0..batches {
                gather.submit(&fragments, 5)?;
            }
            let ticket = gather.submit(&fragments, 5)?;
            if batches.is_multiple_of(2) {
                // Dropping it waits as well.
                ensure!(gather.wait(ticket, LIMIT)?, "it takes too long");
            }
        }
        copies.copy.sha256(&destination, &[Extent::new(3, 100)])?;
        copies.copy.first_difference(&source, Extent::new(0, 100), &destination, 0)?;
        Ok(())
    };
    for batches in 0..8 {
        cycle(batches)?;
    }
    let (open, memory) = (descriptors()?, available_memory()?);
    for batches in 0..100 {
        cycle(batches % 20)?;
    }
    ensure!(descriptors()? == open, "{} descriptors are open instead of {open}", descriptors()?);
    memory_is_back(memory, 32 << 20)
}
