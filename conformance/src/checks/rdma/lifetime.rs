//! What outlives what.

use std::any::Any;

use devmem_provider::DmaBuf;
use devmem_receive::rdma::Registration;

use super::super::lifetime::{EXPORTER, IDLER};
use super::super::path_check;
use super::super::resources::descriptors;
use super::{ONE_REGION, Registered, buffer, let_go, references};
use crate::check::{Check, Group};
use crate::context::Context;
use crate::ensure;
use crate::faults::Fault;
use crate::isolation::{Companion, fork_idle};
use crate::need::Need;
use crate::rdma_transfers::Transfer;
use crate::verdict::{Finding, Outcome, Stop};

/// Where the nodes of RDMA devices are.
const DEVICES: &str = "/dev/infiniband";

/// How often what must leave nothing is done.
const CYCLES: usize = 200;

pub(super) const CHECKS: &[Check] = &[
    path_check(
        Group::Rdma,
        "outlives_its_domain",
        "A memory region holds the buffer after buffer, descriptor and protection domain are dropped, in any order.",
        &[Need::Rdma, Need::Proc],
        &[ONE_REGION],
        &[Fault::EndsWithDomain, Fault::BindsNothing],
        outlives_its_domain,
    ),
    path_check(
        Group::Rdma,
        "buffer_of_another_process",
        "The buffer of another process is registered, and stays so after that process was killed.",
        &[Need::Rdma, Need::Proc],
        &[ONE_REGION],
        &[Fault::RefusesBind, Fault::BindsNothing],
        buffer_of_another_process,
    ),
    path_check(
        Group::Rdma,
        "started_program_inherits_nothing",
        "A program that is started while a buffer is registered does not keep it registered.",
        &[Need::Rdma, Need::Proc],
        &[ONE_REGION],
        &[Fault::Inherited],
        started_program_inherits_nothing,
    ),
    path_check(
        Group::Rdma,
        "leaves_nothing",
        "Two hundred registrations, every tenth on a device that was opened anew, leave nothing behind.",
        &[Need::Rdma, Need::Proc],
        &[ONE_REGION],
        &[Fault::LeaksBinding],
        leaves_nothing,
    ),
    path_check(
        Group::Rdma,
        "forked_process",
        "A process that this one forks neither ends a region by its own end, nor keeps one that this process deregisters.",
        &[Need::Rdma, Need::Proc],
        &[ONE_REGION],
        &[Fault::EndsWithFork, Fault::LeaksBinding, Fault::BindsNothing],
        forked_process,
    ),
    path_check(
        Group::Rdma,
        "closed_in_any_order",
        "Queue pairs with posted receives, region, domain and buffer can be dropped in any order, and nothing is left.",
        &[Need::Rdma, Need::RdmaTransfers(Transfer::Message), Need::Proc],
        &[ONE_REGION],
        &[Fault::LeaksBinding, Fault::KeepsConnection],
        closed_in_any_order,
    ),
];

fn outlives_its_domain(context: &Context<'_>) -> Outcome {
    let domain = context.rdma()?.open()?;
    let buffer = buffer(context)?;
    let dma_buf = buffer.export()?.try_clone()?;
    let region = domain.register(&dma_buf, Registration::whole(&dma_buf))?;
    let during = references(&dma_buf)?;
    drop(domain);
    let after = references(&dma_buf)?;
    ensure!(after == during, "{during} references while it is registered, {after} without its domain");
    drop(buffer);
    let alone = references(&dma_buf)?;
    region.deregister()?;
    ensure!(alone > 0, "nothing but this process's descriptor holds the buffer");
    let_go(&dma_buf, alone - 1)?;
    Ok(Finding::Pass)
}

fn buffer_of_another_process(context: &Context<'_>) -> Outcome {
    let domain = context.rdma()?.open()?;
    let mut companion = Companion::start(context, EXPORTER.0)?;
    let dma_buf = DmaBuf::from_fd(companion.link().receive_descriptor()?)?;
    let region = domain.register(&dma_buf, Registration::whole(&dma_buf))?;
    companion.kill()?;
    let during = references(&dma_buf)?;
    region.deregister()?;
    let_go(&dma_buf, during.saturating_sub(1))?;
    // It can be registered by who has nothing but the descriptor.
    domain.register(&dma_buf, Registration::whole(&dma_buf))?.deregister()?;
    Ok(Finding::Pass)
}

fn started_program_inherits_nothing(context: &Context<'_>) -> Outcome {
    let domain = context.rdma()?.open()?;
    let dma_buf = buffer(context)?.export()?;
    let region = domain.register(&dma_buf, Registration::whole(&dma_buf))?;
    let program = Companion::start(context, IDLER.0)?;
    program.link().receive(&mut [0; 4])?;
    let heirs = children_with(DEVICES)?;
    drop((region, program));
    ensure!(heirs.is_empty(), "programs that were started have the device open: {}", heirs.join(", "));
    Ok(Finding::Pass)
}

/// The processes that this one started which have a file below `folder` open, by their numbers.
fn children_with(folder: &str) -> Result<Vec<String>, Stop> {
    let own = format!("PPid:\t{}", std::process::id());
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let path = entry?.path();
        // What is no process has no such file, and a process may end meanwhile.
        let status = std::fs::read_to_string(path.join("status")).unwrap_or_default();
        if !status.lines().any(|line| line == own) {
            continue;
        }
        let files = std::fs::read_dir(path.join("fd")).into_iter().flatten().flatten();
        let mut targets = files.filter_map(|file| std::fs::read_link(file.path()).ok());
        if targets.any(|target| target.starts_with(folder)) {
            found.extend(path.file_name().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    Ok(found)
}

fn leaves_nothing(context: &Context<'_>) -> Outcome {
    let dma_buf = buffer(context)?.export()?;
    let mut domain = context.rdma()?.open()?;
    let before = (references(&dma_buf)?, descriptors()?);
    for cycle in 0..CYCLES {
        if cycle % 10 == 9 {
            domain = context.rdma()?.open()?;
        }
        drop(domain.register(&dma_buf, Registration::whole(&dma_buf))?);
    }
    let_go(&dma_buf, before.0)?;
    let after = descriptors()?;
    ensure!(after == before.1, "{} descriptors before, {after} after", before.1);
    Ok(Finding::Pass)
}

fn forked_process(context: &Context<'_>) -> Outcome {
    let Registered { region, domain, dma_buf, before, during } = Registered::new(context)?;
    drop(fork_idle()?);
    let after = references(&dma_buf)?;
    ensure!(after == during, "{during} references before a forked process, {after} when it has ended");
    // The copy has the descriptors of the buffer as well.
    let forked = fork_idle()?;
    let shared = references(&dma_buf)?;
    region.deregister()?;
    let_go(&dma_buf, shared - (during - before))?;
    drop(forked);
    let_go(&dma_buf, before)?;
    // The device is none the worse.
    domain.register(&dma_buf, Registration::whole(&dma_buf))?.deregister()?;
    Ok(Finding::Pass)
}

/// Queue pairs, region, domains, and buffer with its DMA-buf: what is dropped in any order.
type Parts = [Box<dyn Any>; 4];

/// Makes all of it, with receives that are posted. Returns also a descriptor of the buffer.
fn everything(context: &Context<'_>) -> Result<(Parts, DmaBuf), Stop> {
    let buffer = buffer(context)?;
    let dma_buf = buffer.export()?;
    let seen = dma_buf.try_clone()?;
    let transfers = context.rdma()?.transfers()?;
    let region = transfers.register(&dma_buf, Registration::whole(&dma_buf))?;
    let pairs = transfers.connect(1)?;
    for id in 0..3 {
        pairs.post(id, region.part(id * 64, 64)?)?;
    }
    let parts: Parts = [Box::new(pairs), Box::new(region), Box::new(transfers), Box::new((buffer, dma_buf))];
    Ok((parts, seen))
}

/// Orders of the four.
const ORDERS: [[usize; 4]; 6] =
    [[0, 1, 2, 3], [3, 2, 1, 0], [1, 0, 3, 2], [2, 3, 0, 1], [1, 3, 2, 0], [3, 0, 2, 1]];

fn closed_in_any_order(context: &Context<'_>) -> Outcome {
    // What a library keeps after its first use is not left behind.
    drop(everything(context)?);
    let alone = references(&context.dma_buf()?)?;
    let before = descriptors()?;
    for order in ORDERS {
        let (parts, seen) = everything(context)?;
        let mut parts = parts.map(Some);
        for index in order {
            drop(parts.get_mut(index).and_then(Option::take));
        }
        let_go(&seen, alone)?;
        drop(seen);
        let after = descriptors()?;
        ensure!(after == before, "in the order {order:?}: {before} descriptors before, {after} after");
    }
    Ok(Finding::Pass)
}
