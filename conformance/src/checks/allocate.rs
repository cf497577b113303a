//! Allocating.

use devmem_provider::dma_buf::Access;
use devmem_provider::{Capabilities, ErrorKind, PageSize, Placement, Request, Residency, base_page_size};

use super::refused;
use crate::check::{Check, Group, LIMIT};
use crate::context::Context;
use crate::ensure;
use crate::faults::Fault;
use crate::need::Need;
use crate::verdict::{Finding, Outcome, Stop};

const fn check(
    name: &'static str,
    proves: &'static str,
    needs: &'static [Need],
    after: &'static [&'static str],
    catches: &'static [Fault],
    run: fn(&Context<'_>) -> Outcome,
) -> Check {
    Check { group: Group::Allocate, name, proves, needs, after, limit: LIMIT, catches, run }
}

/// What everything with a buffer builds on.
pub(super) const ONE_BUFFER: &str = "allocate::one_buffer";

const MEMORY: Need = Need::Capability(Capabilities::DEVICE_LOCAL);

pub(super) const CHECKS: &[Check] = &[
    check(
        "one_buffer",
        "A buffer can be had, exported and dropped.",
        &[],
        &[],
        &[Fault::Hangs, Fault::Crashes, Fault::Panics],
        one_buffer,
    ),
    check(
        "exact_sizes",
        "A buffer and its DMA-buf have exactly the size asked for: one granule, several, and an odd number of them.",
        &[],
        &[ONE_BUFFER],
        &[Fault::LargerBuffers, Fault::WrongSize],
        exact_sizes,
    ),
    check(
        "impossible_sizes",
        "Sizes of zero bytes, of no whole granule, and of more than there can be are refused with what to do.",
        &[],
        &[ONE_BUFFER],
        &[Fault::RoundsSizes, Fault::WrongErrorKind, Fault::NoRemedy],
        impossible_sizes,
    ),
    check(
        "zeroed",
        "New memory reads as zero, also when it was just given back with other content.",
        &[Need::Capability(Capabilities::ZEROED), Need::Capability(Capabilities::CPU_MAPPING)],
        &[ONE_BUFFER],
        &[Fault::StaleData],
        zeroed,
    ),
    check(
        "distinct_memory",
        "Two buffers are different memory.",
        &[Need::Capability(Capabilities::CPU_MAPPING)],
        &[ONE_BUFFER],
        &[Fault::SharedMemory],
        distinct_memory,
    ),
    check(
        "many_at_once",
        "Sixty-four buffers can be held at the same time.",
        &[],
        &[ONE_BUFFER],
        &[Fault::OneBuffer],
        many_at_once,
    ),
    check(
        "from_many_threads",
        "Eight threads allocate, export and drop at the same time.",
        &[],
        &[ONE_BUFFER],
        &[Fault::OneThread],
        from_many_threads,
    ),
    check(
        "system_memory_is_kept",
        "A buffer that is required in system memory lies there.",
        &[Need::Capability(Capabilities::RESIDENCY)],
        &[ONE_BUFFER],
        &[Fault::LyingResidency],
        system_memory_is_kept,
    ),
    check(
        "device_memory_is_kept",
        "A buffer that is required in device memory lies there, and one that cannot is refused.",
        &[MEMORY, Need::Capability(Capabilities::RESIDENCY)],
        &[ONE_BUFFER],
        &[Fault::LyingResidency],
        device_memory_is_kept,
    ),
    check(
        "no_device_memory_is_refused",
        "Where there is no device memory, requiring it is refused and preferring it is not.",
        &[Need::Lack(Capabilities::DEVICE_LOCAL)],
        &[ONE_BUFFER],
        &[Fault::IgnoresRequire],
        no_device_memory_is_refused,
    ),
    check(
        "contiguous_or_refused",
        "Contiguous memory is had where it is promised, and refused where it is not.",
        &[],
        &[ONE_BUFFER],
        &[Fault::FalseCapability],
        contiguous_or_refused,
    ),
    check(
        "huge_pages_or_refused",
        "Huge pages are had where they are promised, or refused because none are left; refused where they are not.",
        &[],
        &[ONE_BUFFER],
        &[Fault::FalseCapability],
        huge_pages_or_refused,
    ),
];

fn one_buffer(context: &Context<'_>) -> Outcome {
    context.buffer()?.export()?;
    Ok(Finding::Pass)
}

fn exact_sizes(context: &Context<'_>) -> Outcome {
    let granularity = context.granularity()?;
    for count in [1, 2, 3, 16, 17, 251] {
        let size = granularity * count;
        let buffer = context.provider().allocate(&Request::bytes(size))?;
        ensure!(buffer.size() == size, "{size} bytes were asked for, and the buffer has {}", buffer.size());
        let dma_buf = devmem_provider::DmaBuf::from_fd(buffer.export()?.into_fd()?)?;
        ensure!(
            dma_buf.size() == size,
            "{size} bytes were asked for, and the DMA-buf has {}",
            dma_buf.size()
        );
    }
    Ok(Finding::Pass)
}

fn impossible_sizes(context: &Context<'_>) -> Outcome {
    let page = base_page_size();
    let largest = u64::MAX - page + 1;
    let cases = [
        (0, ErrorKind::InvalidInput),
        (1, ErrorKind::InvalidInput),
        (page + 1, ErrorKind::InvalidInput),
        (1 << 50, ErrorKind::OutOfMemory),
        (largest, ErrorKind::OutOfMemory),
    ];
    for (size, kind) in cases {
        refused(&format!("{size} bytes"), context.provider().allocate(&Request::bytes(size)), &[kind])?;
    }
    Ok(Finding::Pass)
}

fn zeroed(context: &Context<'_>) -> Outcome {
    // Pages that were just given back are the likeliest to be handed out with their old content.
    for round in 0..4 {
        let mapping = context.dma_buf()?.map(Access::ReadWrite)?;
        let access = mapping.write()?;
        let mut content = vec![0xff; mapping.length()];
        access.copy_to(0, &mut content)?;
        let old = content.iter().position(|&byte| byte != 0);
        ensure!(old.is_none(), "old content at byte {} in round {round}", old.unwrap_or_default());
        access.copy_from(0, &vec![0xa5; mapping.length()])?;
        access.finish()?;
    }
    Ok(Finding::Pass)
}

fn distinct_memory(context: &Context<'_>) -> Outcome {
    let (first, second) = (context.buffer()?, context.buffer()?);
    let (first, second) = (first.export()?, second.export()?);
    ensure!(first.inode() != second.inode(), "both are {first}");
    let (first, second) = (first.map(Access::ReadWrite)?, second.map(Access::ReadWrite)?);
    for (mapping, byte) in [(&first, 1), (&second, 2)] {
        let access = mapping.write()?;
        access.copy_from(0, &vec![byte; mapping.length()])?;
        access.finish()?;
    }
    let mut content = vec![0; first.length()];
    first.read()?.copy_to(0, &mut content)?;
    ensure!(content.iter().all(|&byte| byte == 1), "what was written to one shows in the other");
    Ok(Finding::Pass)
}

fn many_at_once(context: &Context<'_>) -> Outcome {
    let size = context.granularity()?;
    let buffers = (0..64).map(|_| context.provider().allocate(&Request::bytes(size)));
    let buffers = buffers.collect::<devmem_provider::Result<Vec<_>>>()?;
    let mut inodes = Vec::new();
    for buffer in &buffers {
        inodes.push(buffer.export()?.inode());
    }
    inodes.sort_unstable();
    inodes.dedup();
    ensure!(inodes.len() == buffers.len(), "{} buffers are {} DMA-bufs", buffers.len(), inodes.len());
    Ok(Finding::Pass)
}

fn from_many_threads(context: &Context<'_>) -> Outcome {
    let size = context.granularity()?;
    let provider = context.provider();
    let work = || -> devmem_provider::Result<()> {
        for _ in 0..16 {
            provider.allocate(&Request::bytes(size))?.export()?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            thread.join().map_err(|_| Stop::fail("a thread panicked"))??;
        }
        Ok(Finding::Pass)
    })
}

fn system_memory_is_kept(context: &Context<'_>) -> Outcome {
    let request = Request::bytes(context.size()?).require(Placement::System);
    let buffer = match context.provider().allocate(&request) {
        Ok(buffer) => buffer,
        // A device may have memory of its own alone.
        Err(error) if error.kind() == ErrorKind::Unsupported => return Err(Stop::skip(&error)),
        Err(error) => return Err(error.into()),
    };
    let seen = buffer.residency()?;
    ensure!(seen.residency == Residency::System, "it lies in {seen}: {}", seen.evidence);
    Ok(Finding::Pass)
}

fn device_memory_is_kept(context: &Context<'_>) -> Outcome {
    for placement in [Placement::DeviceLocal, Placement::DeviceLocalVisible] {
        let request = Request::bytes(context.size()?).require(placement);
        let seen = context.provider().allocate(&request)?.residency()?;
        ensure!(
            seen.residency == Residency::DeviceLocal,
            "{placement}: it lies in {seen}: {}",
            seen.evidence
        );
    }
    let heaps = context.provider().heaps()?;
    let Some(heap) = heaps.iter().find(|heap| heap.placement != Placement::System) else {
        return Err(Stop::fail("device memory is promised, and no heap has it"));
    };
    if let Some(size) = heap.size {
        let beyond = (size + heap.granularity).next_multiple_of(heap.granularity);
        let result = context.provider().allocate(&Request::bytes(beyond).require(Placement::DeviceLocal));
        refused("more than the device has", result, &[ErrorKind::OutOfMemory])?;
    }
    Ok(Finding::Pass)
}

fn no_device_memory_is_refused(context: &Context<'_>) -> Outcome {
    let request = Request::bytes(context.size()?);
    for placement in [Placement::DeviceLocal, Placement::DeviceLocalVisible] {
        context.provider().allocate(&request.clone().prefer(placement))?;
        let result = context.provider().allocate(&request.clone().require(placement));
        refused(&format!("{placement} that there is not"), result, &[ErrorKind::Unsupported])?;
    }
    Ok(Finding::Pass)
}

fn contiguous_or_refused(context: &Context<'_>) -> Outcome {
    let result = context.provider().allocate(&Request::bytes(context.size()?).contiguous());
    let promised = context.provider().capabilities().contains(Capabilities::CONTIGUOUS);
    match (promised, result) {
        (true, result) => drop(result?),
        (false, Ok(_)) => return Err(Stop::fail("contiguous memory is not promised, and was had")),
        (false, Err(error)) => ensure!(error.kind() == ErrorKind::Unsupported, "{error}"),
    }
    Ok(Finding::Pass)
}

fn huge_pages_or_refused(context: &Context<'_>) -> Outcome {
    let request = Request::bytes(PageSize::Huge2MiB.bytes()).page_size(PageSize::Huge2MiB);
    let promised = context.provider().capabilities().contains(Capabilities::HUGE_PAGES);
    match (promised, context.provider().allocate(&request)) {
        (true, Ok(_)) => {}
        (true, Err(error)) => ensure!(error.kind() == ErrorKind::OutOfMemory, "{error}"),
        (false, Ok(_)) => return Err(Stop::fail("huge pages are not promised, and were had")),
        (false, Err(error)) => ensure!(error.kind() == ErrorKind::Unsupported, "{error}"),
    }
    Ok(Finding::Pass)
}
