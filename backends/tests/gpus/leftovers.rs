//! What buffers leave behind: nothing.

use std::time::{Duration, Instant};

use devmem_provider::{Buffer, DmaBuf, Heap, Placement, Provider, Request};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::ensure;
use crate::harness::{Failure, Outcome, descriptors};

/// Drivers free memory a little after its last user let go.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whether it is a device of Vulkan, and not of a driver's own interface.
fn is_of_vulkan(provider: &dyn Provider) -> bool {
    provider.identity().name.starts_with("vulkan:")
}

/// What is in use of each heap that is not the machine's own memory, in which others allocate meanwhile.
fn used(provider: &dyn Provider) -> Result<Vec<u64>, Failure> {
    let is_own = |heap: &Heap| match is_of_vulkan(provider) {
        true => heap.placement != Placement::System,
        false => heap.name != "shmem" && heap.name != "guest",
    };
    let heaps = provider.heaps()?.into_iter();
    Ok(heaps.filter(is_own).filter_map(|heap| heap.used).collect())
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
    let of_vulkan = is_of_vulkan(provider);
    let round = |count: usize| -> Outcome {
        let open = descriptors()?;
        let held = (0..count)
            .map(|_| {
                let buffer = provider.allocate(&Request::bytes(bytes))?;
                let dma_buf = buffer.export()?;
                Ok((buffer, dma_buf))
            })
            .collect::<devmem_provider::Result<Vec<(Box<dyn Buffer>, DmaBuf)>>>()?;
        // Drivers of Vulkan have others besides.
        ensure!(
            of_vulkan || descriptors()? == open + count,
            "{count} exports have {} descriptors",
            descriptors()? - open
        );
        drop(held);
        Ok(())
    };
    if of_vulkan {
        // The kernel keeps the page tables of as many buffers as there have ever been.
        round(1000)?;
    } else {
        // What a driver keeps for whoever has ever allocated.
        provider.allocate(&Request::bytes(bytes))?.residency()?;
    }
    for count in [1, 100, 1000, 1000] {
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
    // A driver's files, in which buffers are looked for, are kept for as many threads as have ever looked.
    round()?;
    nothing_is_left(provider, round)
}
