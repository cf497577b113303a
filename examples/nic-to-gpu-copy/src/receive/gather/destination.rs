//! The buffer in which the file ends contiguous.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};
use devmem_provider::dma_buf::{Access, Mapping};
use devmem_provider::{Buffer, DmaBuf, Extent, Placement, Provider, Request};

use crate::transfer::Header;

/// How much is read back at once.
const CHUNK: usize = 1 << 20;

/// A buffer for a file, which begins at its first byte.
#[derive(Debug)]
pub(crate) struct Destination {
    buffer: Box<dyn Buffer>,
    dma_buf: DmaBuf,
    file_bytes: u64,
    transfer: [u8; 16],
    /// Made when the CPU has something to write: most files need none, and some memory has none.
    mapping: OnceLock<Mapping>,
}

/// What a peer may make this machine allocate, and where.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// The size of the largest file.
    pub(crate) limit: u64,
    pub(crate) placement: Option<Placement>,
}

impl Destination {
    /// Makes room for the file that `header` announces.
    pub(crate) fn allocate(provider: &dyn Provider, room: Room, header: &Header) -> Result<Self> {
        let bytes = header.file_bytes;
        if bytes > room.limit {
            bail!(
                "the peer announces a file of {bytes} bytes, of which at most {} are gathered; allow more with \
                 --gather-limit",
                room.limit
            );
        }
        let announced = || format!("cannot gather the {bytes} bytes that the peer announces");
        let buffer = allocate(provider, room.placement, bytes).with_context(announced)?;
        let dma_buf = buffer.export().with_context(announced)?;
        let transfer = header.transfer;
        Ok(Self { buffer, dma_buf, file_bytes: bytes, transfer, mapping: OnceLock::new() })
    }

    pub(crate) fn buffer(&self) -> &dyn Buffer {
        &*self.buffer
    }

    pub(crate) fn dma_buf(&self) -> &DmaBuf {
        &self.dma_buf
    }

    /// Whether a stripe is one of the file that there is room for.
    pub(crate) fn expects(&self, header: &Header) -> bool {
        (header.transfer, header.file_bytes) == (self.transfer, self.file_bytes)
    }

    /// Writes bytes with the CPU.
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let access = self.mapping()?.write()?;
        access.copy_from(usize::try_from(offset)?, bytes)?;
        Ok(access.finish()?)
    }

    /// Reads the file back with the CPU, into `output`.
    pub(crate) fn read_back(&self, output: &File) -> Result<()> {
        if self.file_bytes == 0 {
            return Ok(());
        }
        let access = self.mapping()?.read()?;
        let mut chunk = vec![0; CHUNK];
        let mut done = 0;
        while done < self.file_bytes {
            let length = usize::try_from(self.file_bytes - done).map_or(CHUNK, |left| left.min(CHUNK));
            access.copy_to(usize::try_from(done)?, &mut chunk[..length])?;
            output.write_all_at(&chunk[..length], done).context("cannot write the output file")?;
            done += length as u64;
        }
        Ok(access.finish()?)
    }

    fn mapping(&self) -> Result<&Mapping> {
        if let Some(mapping) = self.mapping.get() {
            return Ok(mapping);
        }
        let mapping = self
            .dma_buf
            .map(Access::ReadWrite)
            .context("cannot reach the gathered file with the CPU; try --gather-placement system")?;
        // Another connection may have been faster; one mapping is as good as the other.
        Ok(self.mapping.get_or_init(|| mapping))
    }
}

/// A buffer of at least `bytes` bytes, as large as the provider's heaps demand.
pub(crate) fn allocate(
    provider: &dyn Provider,
    placement: Option<Placement>,
    bytes: u64,
) -> Result<Box<dyn Buffer>> {
    let granularity = provider.heaps()?.iter().map(|heap| heap.granularity).max().unwrap_or(1).max(1);
    let size = bytes.max(1).checked_next_multiple_of(granularity).context("no buffer is that large")?;
    let request = Request::bytes(size).name("gathered file");
    let request = match placement {
        Some(placement) => request.prefer(placement),
        None => request,
    };
    Ok(provider.allocate(&request)?)
}

/// Where a stripe lies in the file, and so in the destination.
pub(crate) fn place(header: &Header) -> Extent {
    Extent::new(header.offset, header.length)
}
