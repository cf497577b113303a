//! What is left behind.

use std::time::Duration;

use devmem_provider::dma_buf::Access;
use devmem_provider::{Capabilities, Request};

use super::allocate::ONE_BUFFER;
use crate::check::{Check, Group};
use crate::context::Context;
use crate::ensure;
use crate::faults::Fault;
use crate::need::Need;
use crate::verdict::{Finding, Outcome, Stop};

/// How often what must leave nothing is done.
const CYCLES: usize = 1000;

/// What the machine's free memory may differ by without anybody having lost it, in bytes.
const NOISE: u64 = 64 << 20;

const LIMIT: Duration = Duration::from_secs(120);

const fn check(
    name: &'static str,
    proves: &'static str,
    needs: &'static [Need],
    catches: &'static [Fault],
    run: fn(&Context<'_>) -> Outcome,
) -> Check {
    Check { group: Group::Resources, name, proves, needs, after: &[ONE_BUFFER], limit: LIMIT, catches, run }
}

pub(super) const CHECKS: &[Check] = &[
    check(
        "no_descriptor_is_left",
        "A thousand times allocating, exporting and dropping leave no descriptor open.",
        &[Need::Proc],
        &[Fault::LeakedDescriptor],
        no_descriptor_is_left,
    ),
    check(
        "no_memory_is_left",
        "A thousand times allocating, writing and dropping leave no memory in use.",
        &[Need::Proc, Need::Capability(Capabilities::CPU_MAPPING)],
        &[Fault::LeakedMemory],
        no_memory_is_left,
    ),
    check(
        "refusals_leave_nothing",
        "A thousand refused requests leave no descriptor open.",
        &[Need::Proc],
        &[Fault::RoundsSizes],
        refusals_leave_nothing,
    ),
];

/// How many descriptors this process has open.
pub(super) fn descriptors() -> Result<usize, Stop> {
    Ok(std::fs::read_dir("/proc/self/fd")?.count())
}

/// What the machine could hand out, in bytes.
pub(super) fn available() -> Result<u64, Stop> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    number.map(|kibibytes| kibibytes * 1024).ok_or_else(|| Stop::fail("/proc/meminfo has no MemAvailable"))
}

fn no_descriptor_is_left(context: &Context<'_>) -> Outcome {
    let size = context.granularity()?;
    let cycle = || context.provider().allocate(&Request::bytes(size))?.export().map(drop);
    cycle()?;
    let before = descriptors()?;
    for _ in 0..CYCLES {
        cycle()?;
    }
    let after = descriptors()?;
    ensure!(after == before, "{before} were open before, {after} after");
    Ok(Finding::Pass)
}

fn no_memory_is_left(context: &Context<'_>) -> Outcome {
    // Large enough that a thousand of them are more than the noise.
    let size = (2 * NOISE / CYCLES as u64).next_multiple_of(context.granularity()?.max(1));
    let cycle = || -> Result<(), Stop> {
        let mapping = context.provider().allocate(&Request::bytes(size))?.export()?.map(Access::ReadWrite)?;
        let access = mapping.write()?;
        for offset in (0..mapping.length()).step_by(4096) {
            access.copy_from(offset, &[1])?;
        }
        Ok(access.finish()?)
    };
    cycle()?;
    let used = || -> Result<u64, Stop> {
        Ok(context.provider().heaps()?.iter().filter_map(|heap| heap.used).max().unwrap_or_default())
    };
    let (free, device) = (available()?, used()?);
    for _ in 0..CYCLES {
        cycle()?;
    }
    let lost = free.saturating_sub(available()?);
    ensure!(lost < NOISE, "{lost} bytes of system memory are gone");
    let more = used()?.saturating_sub(device);
    ensure!(more < NOISE, "{more} bytes more are in use on the device");
    Ok(Finding::Pass)
}

fn refusals_leave_nothing(context: &Context<'_>) -> Outcome {
    let attempt = |size| context.provider().allocate(&Request::bytes(size)).is_err();
    ensure!(attempt(1), "a buffer of 1 byte was had");
    let before = descriptors()?;
    for size in (0..CYCLES as u64).map(|index| index * 4096 + 1) {
        ensure!(attempt(size), "a buffer of {size} bytes was had");
    }
    let after = descriptors()?;
    ensure!(after == before, "{before} were open before, {after} after");
    Ok(Finding::Pass)
}
