//! Memory regions of an RDMA device, the importer with peer-to-peer, and what its peers do to them.

mod content;
mod lifetime;
mod refusals;
mod residency;
mod transfers;
mod unplugged;
mod wrong_requests;

use devmem_provider::{Buffer, DmaBuf, base_page_size};
use devmem_receive::rdma::Registration;

pub(super) use unplugged::REMOVER;

use super::pin::settled;
use super::{all, count, path_check};
use crate::check::{Check, Group};
use crate::context::Context;
use crate::ensure;
use crate::faults::Fault;
use crate::need::Need;
use crate::rdma_device::{Region, Regions};
use crate::verdict::{Finding, Outcome, Stop};

/// What every check with a region builds on.
pub(super) const ONE_REGION: &str = "rdma::one_region";

/// What takes the device away comes last.
const PARTS: &[&[Check]] = &[
    REGIONS,
    refusals::CHECKS,
    residency::CHECKS,
    transfers::CHECKS,
    wrong_requests::CHECKS,
    lifetime::CHECKS,
    unplugged::CHECKS,
];

pub(super) const CHECKS: &[Check] = &all::<{ count(PARTS) }>(PARTS);

const REGIONS: &[Check] = &[
    path_check(
        Group::Rdma,
        "one_region",
        "A buffer becomes a memory region, which holds it until it is deregistered, and no longer.",
        &[Need::Rdma, Need::Proc],
        &[],
        &[Fault::RefusesBind, Fault::BindsNothing, Fault::LeaksBinding, Fault::ExportsNoDmaBuf],
        one_region,
    ),
    path_check(
        Group::Rdma,
        "registered_twice",
        "A buffer can be registered twice, with keys of its own for each region, and each holds it by itself.",
        &[Need::Rdma, Need::Proc],
        &[ONE_REGION],
        &[Fault::SameKeys, Fault::BindsNothing],
        registered_twice,
    ),
    path_check(
        Group::Rdma,
        "parts_at_addresses",
        "Any part of a buffer can be registered, at any address that is at the same place of a page.",
        &[Need::Rdma],
        &[ONE_REGION],
        &[Fault::RefusesBind],
        parts_at_addresses,
    ),
];

/// How many references to a DMA-buf there are beside this process's own.
fn references(dma_buf: &DmaBuf) -> Result<u64, Stop> {
    Ok(dma_buf.file_information()?.count)
}

/// Waits until the kernel has let go of a buffer.
fn let_go(dma_buf: &DmaBuf, before: u64) -> Result<(), Stop> {
    settled(|| Ok(references(dma_buf)? <= before), "the kernel keeps the buffer")
}

/// A buffer that may move, of some pages.
fn buffer(context: &Context<'_>) -> Result<Box<dyn Buffer>, Stop> {
    Ok(context.buffer()?)
}

/// A buffer that is registered whole.
struct Registered {
    region: Box<dyn Region>,
    domain: Box<dyn Regions>,
    dma_buf: DmaBuf,
    /// How many references to it there were before, and are now.
    before: u64,
    during: u64,
}

impl Registered {
    fn new(context: &Context<'_>) -> Result<Self, Stop> {
        let domain = context.rdma()?.open()?;
        let dma_buf = buffer(context)?.export()?;
        let before = references(&dma_buf)?;
        let region = domain.register(&dma_buf, Registration::whole(&dma_buf))?;
        let during = references(&dma_buf)?;
        ensure!(during > before, "{before} references to the buffer before, {during} while it is registered");
        Ok(Self { region, domain, dma_buf, before, during })
    }
}

fn one_region(context: &Context<'_>) -> Outcome {
    let Registered { region, domain, dma_buf, before, .. } = Registered::new(context)?;
    region.deregister()?;
    let_go(&dma_buf, before)?;
    // Dropping one is the same.
    drop(domain.register(&dma_buf, Registration::whole(&dma_buf))?);
    let_go(&dma_buf, before)?;
    Ok(Finding::Pass)
}

fn registered_twice(context: &Context<'_>) -> Outcome {
    let domain = context.rdma()?.open()?;
    let dma_buf = buffer(context)?.export()?;
    let before = references(&dma_buf)?;
    let first = domain.register(&dma_buf, Registration::whole(&dma_buf))?;
    let one = references(&dma_buf)?;
    let second = domain.register(&dma_buf, Registration::whole(&dma_buf))?;
    let both = references(&dma_buf)?;
    ensure!(before < one && one < both, "references: {before}, then {one}, then {both}");
    ensure!(first.local_key() != second.local_key(), "both have the local key {:#x}", first.local_key());
    ensure!(first.remote_key() != second.remote_key(), "both have the remote key {:#x}", first.remote_key());
    first.deregister()?;
    let_go(&dma_buf, one)?;
    let left = references(&dma_buf)?;
    ensure!(left > before, "the end of one region ended the other");
    second.deregister()?;
    let_go(&dma_buf, before)?;
    Ok(Finding::Pass)
}

fn parts_at_addresses(context: &Context<'_>) -> Outcome {
    let domain = context.rdma()?.open()?;
    let dma_buf = buffer(context)?.export()?;
    let (size, page) = (dma_buf.size(), base_page_size());
    for registration in [
        Registration::of(0, 1),
        Registration::of(size - 1, 1),
        Registration::of(size - page, page),
        Registration::of(0, size).at(page),
        Registration::of(0, size).at(1 << 40),
        Registration::of(5, 7).at(3 * page + 5),
    ] {
        let told = |error| Stop::fail(format!("{registration}: {error}"));
        domain.register(&dma_buf, registration.clone()).map_err(told)?.deregister()?;
    }
    Ok(Finding::Pass)
}
