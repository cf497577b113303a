//! Many pins, and little memory.

use devmem_provider::{Buffer, Pin, Placement, Provider, Request, Require, Residency};

use crate::harness::{Failure, Outcome, ensure};
use crate::refusals::descriptors;
use crate::setup::{SIZE, domain, is_in, provider, vram};
use crate::witness::{region, regions};

const PINS: usize = 10_000;

fn used(provider: &dyn Provider) -> Result<Vec<Option<u64>>, Failure> {
    Ok(provider.heaps()?.into_iter().map(|heap| heap.used).collect())
}

/// What the kernel has of DMA-bufs, and of memory that it allocates for itself, in KiB.
fn slab() -> Result<u64, Failure> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("SUnreclaim:")).ok_or("no SUnreclaim")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

pub(crate) fn ten_thousand_pins_leave_nothing() -> Outcome {
    let gpu = provider("amdgpu")?;
    let buffer = vram(SIZE)?;
    let mut domain = domain()?;
    let dma_buf = buffer.export()?;
    drop(Pin::new(&mut domain, &*buffer, Require::DeviceLocal)?);
    let before = (used(&*gpu)?, descriptors()?, dma_buf.file_information()?.count, slab()?);
    for round in 0..PINS {
        // Every tenth opens the device anew.
        if round % 10 == 0 {
            domain = crate::setup::domain()?;
        }
        let pin = Pin::new(&mut domain, &*buffer, Require::DeviceLocal)?;
        if round % 1000 == 0 {
            region(0)?.is_in(Residency::DeviceLocal)?;
        }
        drop(pin);
    }
    drop(domain);
    domain = crate::setup::domain()?;
    let after = (used(&*gpu)?, descriptors()?, dma_buf.file_information()?.count, slab()?);
    ensure!(regions(0)?.is_empty(), "regions are left");
    ensure!((&before.0, before.1, before.2) == (&after.0, after.1, after.2), "{before:?}, {after:?}");
    // A pin that left one page behind would have left 40 MiB.
    println!("    slab: {} KiB before, {} KiB after", before.3, after.3);
    ensure!(after.3 < before.3 + 10 * 1024, "{before:?}, {after:?}");
    drop(domain);
    is_in(&*buffer, Residency::DeviceLocal)
}

/// Twice as much as the GPU has, while one buffer is pinned.
pub(crate) fn pressure_does_not_move_a_pinned_buffer() -> Outcome {
    const CHUNK: u64 = 16 << 20;
    let gpu = provider("amdgpu")?;
    let size = gpu.heaps()?.first().and_then(|heap| heap.size).ok_or("the size is not known")?;
    let pinned = vram(CHUNK)?;
    let unpinned = vram(CHUNK)?;
    let mut domain = domain()?;
    let pin = Pin::new(&mut domain, &*pinned, Require::DeviceLocal)?;
    let first = region(0)?;
    let mut others: Vec<Box<dyn Buffer>> = Vec::new();
    while others.len() as u64 * CHUNK < size + size / 2 {
        others.push(gpu.allocate(&Request::bytes(CHUNK).prefer(Placement::DeviceLocal))?);
        is_in(&*pinned, Residency::DeviceLocal)?;
        ensure!(region(0)? == first, "{:?} instead of {first:?}", region(0)?);
    }
    let elsewhere = |buffer: &dyn Buffer| -> Result<bool, Failure> {
        Ok(buffer.residency()?.residency == Residency::System)
    };
    let mut evicted = usize::from(elsewhere(&*unpinned)?);
    for other in &others {
        evicted += usize::from(elsewhere(&**other)?);
    }
    println!("    {evicted} of {} others are in system memory", others.len() + 1);
    ensure!(evicted > 0, "there was no pressure");
    first.is_in(Residency::DeviceLocal)?;
    drop(others);
    drop(pin);
    Ok(())
}
