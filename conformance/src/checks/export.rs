//! DMA-bufs: same object, size, name, lifetime, other processes.

use std::os::fd::AsFd;

use devmem_provider::dma_buf::Access;
use devmem_provider::{Capabilities, DmaBuf, ErrorKind, Request, Residency};

use super::allocate::ONE_BUFFER;
use crate::check::{Check, Group, LIMIT};
use crate::context::Context;
use crate::ensure;
use crate::faults::Fault;
use crate::isolation::{Companion, Link};
use crate::need::Need;
use crate::verdict::{Finding, Outcome, Stop};

/// The role of a process that a DMA-buf is passed to.
pub(crate) const READER: &str = "reader";

/// What the reader finds and what it writes.
const GREETING: &[u8; 8] = b"greeting";
const ANSWER: &[u8; 8] = b"answered";

const MAPPING: Need = Need::Capability(Capabilities::CPU_MAPPING);

const fn check(
    name: &'static str,
    proves: &'static str,
    needs: &'static [Need],
    catches: &'static [Fault],
    run: fn(&Context<'_>) -> Outcome,
) -> Check {
    Check { group: Group::Export, name, proves, needs, after: &[ONE_BUFFER], limit: LIMIT, catches, run }
}

pub(super) const CHECKS: &[Check] = &[
    check(
        "same_object_again",
        "Every export of a buffer is the same DMA-buf.",
        &[],
        &[Fault::ExportsAnew],
        same_object_again,
    ),
    check(
        "whole_size",
        "The file of a DMA-buf is as large as its buffer.",
        &[],
        &[Fault::ShortExport, Fault::WrongSize],
        whole_size,
    ),
    check(
        "says_who_made_it",
        "A buffer names its provider, for what is told of it when it moves.",
        &[],
        &[Fault::NoExporter],
        says_who_made_it,
    ),
    check(
        "keeps_its_name",
        "The name that was asked for is the DMA-buf's, and can be changed; one that is too long is refused.",
        &[Need::Proc],
        &[Fault::IgnoresName],
        keeps_its_name,
    ),
    check(
        "counts_references",
        "The kernel counts a second descriptor of a DMA-buf, and no other.",
        &[Need::Proc],
        &[Fault::LeakedDescriptor],
        counts_references,
    ),
    check(
        "outlives_its_buffer",
        "The memory stays, with its content, when the buffer is dropped and a DMA-buf is held.",
        &[MAPPING],
        &[Fault::ExportsAnew],
        outlives_its_buffer,
    ),
    check(
        "outlives_its_provider_in_a_mapping",
        "A mapping alone keeps the memory, when buffer and DMA-buf are dropped.",
        &[MAPPING],
        &[Fault::ExportsAnew],
        outlives_its_provider_in_a_mapping,
    ),
    check(
        "passes_to_another_process",
        "A process that got the descriptor over a UNIX socket sees the size and the bytes, and what it writes is seen here.",
        &[MAPPING],
        &[Fault::ShortExport],
        passes_to_another_process,
    ),
    check(
        "stays_readable_and_writable",
        "An export can be mapped for reading and for writing.",
        &[MAPPING],
        &[Fault::ExportsNoDmaBuf],
        stays_readable_and_writable,
    ),
    check(
        "evidence_of_residency",
        "Where a buffer lies is told with what was looked at, and known if that is promised.",
        &[],
        &[Fault::NoEvidence, Fault::UnknownResidency],
        evidence_of_residency,
    ),
    check(
        "a_look_moves_nothing",
        "Looking where a buffer lies twice, and exporting it between, shows the same.",
        &[],
        &[Fault::MovingLook],
        a_look_moves_nothing,
    ),
];

fn same_object_again(context: &Context<'_>) -> Outcome {
    let buffer = context.buffer()?;
    let (first, second) = (buffer.export()?, buffer.export()?);
    ensure!(first.inode() == second.inode(), "the first export is {first}, the second {second}");
    drop((first, second));
    let (third, fourth) = (buffer.export()?, buffer.export()?);
    ensure!(third.inode() == fourth.inode(), "the third export is {third}, the fourth {fourth}");
    Ok(Finding::Pass)
}

fn whole_size(context: &Context<'_>) -> Outcome {
    let size = context.size()? * 2;
    let buffer = context.provider().allocate(&Request::bytes(size))?;
    // As whoever gets the descriptor sees it.
    let received = DmaBuf::from_fd(buffer.export()?.into_fd()?)?;
    ensure!(received.size() == buffer.size(), "the buffer has {} bytes, {received}", buffer.size());
    ensure!(received.size() == size, "{size} bytes were asked for, {received}");
    Ok(Finding::Pass)
}

fn says_who_made_it(context: &Context<'_>) -> Outcome {
    let buffer = context.buffer()?;
    let exporter = buffer.exporter();
    ensure!(exporter == Some(context.provider().identity()), "it says {exporter:?}");
    Ok(Finding::Pass)
}

fn keeps_its_name(context: &Context<'_>) -> Outcome {
    let request = Request::bytes(context.size()?).name("conformance");
    let dma_buf = context.provider().allocate(&request)?.export()?;
    let told = dma_buf.file_information()?.name;
    ensure!(told.as_deref() == Some("conformance"), "it is named {told:?}");
    let longest = "x".repeat(31);
    dma_buf.set_name(&longest)?;
    let told = dma_buf.file_information()?.name;
    ensure!(told.as_deref() == Some(longest.as_str()), "it is named {told:?}");
    for impossible in ["x".repeat(32), "a\0b".to_owned()] {
        let error = dma_buf.set_name(&impossible).err();
        let kind = error.as_ref().map(devmem_provider::Error::kind);
        ensure!(kind == Some(ErrorKind::InvalidInput), "the name {impossible:?}: {error:?}");
    }
    Ok(Finding::Pass)
}

fn counts_references(context: &Context<'_>) -> Outcome {
    let buffer = context.buffer()?;
    let dma_buf = buffer.export()?;
    let before = dma_buf.file_information()?.count;
    let again = buffer.export()?;
    let shared = dma_buf.file_information()?.count;
    ensure!(shared == before, "exporting again took references from {before} to {shared}");
    let second = again.try_clone()?;
    let with_second = dma_buf.file_information()?.count;
    ensure!(with_second == before + 1, "a second descriptor took references from {before} to {with_second}");
    drop(second);
    let after = dma_buf.file_information()?.count;
    ensure!(after == before, "closing it left {after} references of {before}");
    Ok(Finding::Pass)
}

fn outlives_its_buffer(context: &Context<'_>) -> Outcome {
    let buffer = context.buffer()?;
    let mapping = buffer.export()?.map(Access::ReadWrite)?;
    let access = mapping.write()?;
    access.copy_from(0, GREETING)?;
    access.finish()?;
    drop(mapping);
    let held = DmaBuf::from_fd(buffer.export()?.into_fd()?)?;
    drop(buffer);
    let mut content = [0; GREETING.len()];
    held.map(Access::Read)?.read()?.copy_to(0, &mut content)?;
    ensure!(&content == GREETING, "its content is gone: {content:?}");
    Ok(Finding::Pass)
}

fn outlives_its_provider_in_a_mapping(context: &Context<'_>) -> Outcome {
    let buffer = context.buffer()?;
    let mapping = buffer.export()?.map(Access::ReadWrite)?;
    let access = mapping.write()?;
    access.copy_from(0, GREETING)?;
    access.finish()?;
    let again = buffer.export()?.map(Access::Read)?;
    drop(buffer);
    drop(mapping);
    let mut content = [0; GREETING.len()];
    again.read()?.copy_to(0, &mut content)?;
    ensure!(&content == GREETING, "its content is gone: {content:?}");
    Ok(Finding::Pass)
}

fn passes_to_another_process(context: &Context<'_>) -> Outcome {
    let size = context.size()?;
    let dma_buf = context.provider().allocate(&Request::bytes(size))?.export()?;
    let mapping = dma_buf.map(Access::ReadWrite)?;
    let end = mapping.length() - GREETING.len();
    let access = mapping.write()?;
    access.copy_from(end, GREETING)?;
    access.finish()?;
    let companion = Companion::start(context, READER)?;
    companion.link().send_descriptor(dma_buf.as_fd())?;
    let mut told = [0; 8];
    companion.link().receive(&mut told)?;
    let told = u64::from_le_bytes(told);
    ensure!(told == size, "the other process sees {told} bytes of {size}");
    let mut found = [0; GREETING.len()];
    companion.link().receive(&mut found)?;
    ensure!(&found == GREETING, "the other process read {found:?}");
    let access = mapping.read()?;
    access.copy_to(end, &mut found)?;
    access.finish()?;
    ensure!(&found == ANSWER, "what the other process wrote is not seen: {found:?}");
    Ok(Finding::Pass)
}

/// Maps what it gets, tells its size and end, and writes there.
pub(crate) fn reader(_: &Context<'_>, link: &Link) -> Result<(), Stop> {
    let dma_buf = DmaBuf::from_fd(link.receive_descriptor()?)?;
    let mapping = dma_buf.map(Access::ReadWrite)?;
    let end = mapping.length() - GREETING.len();
    let mut found = [0; GREETING.len()];
    let access = mapping.write()?;
    access.copy_to(end, &mut found)?;
    access.copy_from(end, ANSWER)?;
    access.finish()?;
    link.send(&dma_buf.size().to_le_bytes())?;
    Ok(link.send(&found)?)
}

fn stays_readable_and_writable(context: &Context<'_>) -> Outcome {
    let dma_buf = context.dma_buf()?;
    for access in [Access::Read, Access::ReadWrite] {
        let mapping = dma_buf.map(access)?;
        mapping.read()?.finish()?;
    }
    let read_only = dma_buf.map(Access::Read)?;
    let kind = read_only.write().err().map(|error| error.kind());
    ensure!(kind == Some(ErrorKind::PermissionDenied), "a mapping for reading was written: {kind:?}");
    let beyond = dma_buf.map_range(dma_buf.size(), 4096, Access::Read);
    ensure!(beyond.is_err(), "what lies behind the end was mapped");
    Ok(Finding::Pass)
}

fn evidence_of_residency(context: &Context<'_>) -> Outcome {
    let seen = context.buffer()?.residency()?;
    ensure!(!seen.evidence.is_empty(), "it lies in {seen}, without evidence");
    let promised = context.provider().capabilities().contains(Capabilities::RESIDENCY);
    let known = seen.residency != Residency::Unknown;
    ensure!(promised == known, "promised to be known: {promised}; it lies in {seen}: {}", seen.evidence);
    Ok(Finding::Pass)
}

fn a_look_moves_nothing(context: &Context<'_>) -> Outcome {
    let buffer = context.buffer()?;
    let first = buffer.residency()?;
    let _dma_buf = buffer.export()?;
    let second = buffer.residency()?;
    let same = (first.residency, &first.region) == (second.residency, &second.region);
    ensure!(same, "it lay in {first}, then in {second}: {}", second.evidence);
    Ok(Finding::Pass)
}
