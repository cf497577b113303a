//! What buffers leave behind: nothing.

use std::time::{Duration, Instant};

use devmem_provider::{Buffer, DmaBuf, Heap, Placement, Provider, Request};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::ensure;
use crate::harness::{Failure, Outcome, descriptors};

/// Drivers free memory a little after its last user let go.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whether a heap is the machine's own memory, in which others allocate meanwhile: that of i915 and virtio-gpu, and those of
/// Vulkan that are not a device's.
fn is_everybodys(heap: &Heap) -> bool {
    let is_named = heap.name == "shmem" || heap.name == "guest" || heap.name.starts_with("heap ");
    heap.placement == Placement::System && is_named
}

/// What is in use of each heap of the device's own.
fn used(provider: &dyn Provider) -> Result<Vec<u64>, Failure> {
    let heaps = provider.heaps()?.into_iter();
    Ok(heaps.filter(|heap| !is_everybodys(heap)).filter_map(|heap| heap.used).collect())
}

fn granularity(provider: &dyn Provider) -> Result<u64, Failure> {
    Ok(provider.heaps()?.first().ok_or("no heap")?.granularity)
}

/// Does something, and waits until no more is in use than before.
fn nothing_is_left(provider: &dyn Provider, of: impl FnOnce() -> Outcome) -> Outcome {
    let (open, before) = (descriptors()?, used(provider)?);
    of()?;
    ensure!(descriptors()? == open, "{open} descriptors were open before, {} are now", descriptors()?);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = used(provider)?;
        if now.iter().zip(&before).all(|(now, before)| now <= before) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{before:?} were in use before, {now:?} are now");
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub(crate) fn of_a_thousand_exports(provider: &dyn Provider) -> Outcome {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let bytes = granularity(provider)?;
    let round = |count: usize| -> Outcome {
        let held = (0..count)
            .map(|_| {
                let buffer = provider.allocate(&Request::bytes(bytes))?;
                let dma_buf = buffer.export()?;
                Ok((buffer, dma_buf))
            })
            .collect::<devmem_provider::Result<Vec<(Box<dyn Buffer>, DmaBuf)>>>()?;
        drop(held);
        Ok(())
    };
    // The kernel keeps the page tables of as many buffers as there have ever been.
    round(1000)?;
    for count in [1, 100, 1000] {
        nothing_is_left(provider, || round(count))?;
    }
    Ok(())
}

pub(crate) fn of_many_threads(provider: &dyn Provider) -> Outcome {
    let bytes = granularity(provider)?;
    let work = || -> devmem_provider::Result<()> {
        for pages in 1..=20 {
            let buffer = provider.allocate(&Request::bytes(pages * bytes))?;
            let dma_buf = buffer.export()?;
            assert_eq!(dma_buf.inode(), buffer.export()?.inode());
            let first = buffer.residency()?;
            assert_eq!(first, buffer.residency()?, "another thread's buffer was looked at");
            buffer.flush_peer_writes()?;
        }
        Ok(())
    };
    let round = || {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(work)).collect();
            threads.into_iter().try_for_each(|thread| match thread.join() {
                Ok(result) => Ok(result?),
                Err(_) => Err(Failure::from("a thread panicked")),
            })
        })
    };
    round()?;
    nothing_is_left(provider, round)
}
