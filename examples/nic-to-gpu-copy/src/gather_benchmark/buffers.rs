//! Source and destination.

use anyhow::{Context, Result, bail};
use devmem_provider::dma_buf::{Access, Mapping};
use devmem_provider::{DeviceKind, DmaBuf, Placement, Provider, Request};

use super::content::source;
use super::verification::PART;

/// How much is written at once.
const CHUNK: usize = 1 << 20;

/// A source with its content, and as large a destination.
#[derive(Debug)]
pub(super) struct Buffers {
    pub(super) source: DmaBuf,
    pub(super) destination: DmaBuf,
}

impl Buffers {
    pub(super) fn new(provider: &dyn Provider, placement: Option<Placement>, bytes: u64) -> Result<Self> {
        // Beside the two there is what they are compared with.
        check_memory(provider, bytes.saturating_mul(2).saturating_add(bytes.min(PART)))?;
        let buffers = Self {
            source: allocate(provider, placement, bytes)?,
            destination: allocate(provider, placement, bytes)?,
        };
        fill(&buffers.source.map(Access::ReadWrite)?, bytes, source)?;
        // Pages that nobody has touched yet cost time at the first touch.
        fill(&buffers.destination.map(Access::ReadWrite)?, bytes, |_, bytes| bytes.fill(0xa5))?;
        Ok(buffers)
    }
}

/// A buffer of at least so many bytes.
pub(super) fn allocate(provider: &dyn Provider, placement: Option<Placement>, bytes: u64) -> Result<DmaBuf> {
    let granularity = provider.heaps()?.iter().map(|heap| heap.granularity).max().unwrap_or(1).max(1);
    let size = bytes.checked_next_multiple_of(granularity).context("no buffer is that large")?;
    let request = Request::bytes(size).name("gather benchmark");
    let request = match placement {
        Some(placement) => request.prefer(placement),
        None => request,
    };
    Ok(provider.allocate(&request)?.export()?)
}

/// Writes what `content` computes for each offset.
pub(super) fn fill(mapping: &Mapping, bytes: u64, content: impl Fn(u64, &mut [u8])) -> Result<()> {
    let access = mapping.write()?;
    let mut chunk = vec![0; CHUNK];
    let mut done = 0;
    while done < bytes {
        let length = usize::try_from(bytes - done).map_or(CHUNK, |left| left.min(CHUNK));
        content(done, &mut chunk[..length]);
        access.copy_from(usize::try_from(done)?, &chunk[..length])?;
        done += length as u64;
    }
    Ok(access.finish()?)
}

/// Where memory is taken from the system, the kernel may kill programs rather than refuse.
fn check_memory(provider: &dyn Provider, bytes: u64) -> Result<()> {
    if provider.identity().kind == DeviceKind::Discrete {
        return Ok(());
    }
    let information = std::fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    let available = information
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok())
        .map_or(u64::MAX, |kibibytes| kibibytes.saturating_mul(1024));
    if bytes > available / 4 * 3 {
        bail!("it takes {bytes} bytes of memory, of which {available} are available");
    }
    Ok(())
}
