//! Comparing what was copied with what the CPU computes, on the device that copied.

use anyhow::{Result, bail};
use devmem_provider::device_copy::DeviceCopy;
use devmem_provider::dma_buf::{Access, Mapping};
use devmem_provider::{DmaBuf, Extent, Placement, Provider};

use super::buffers::{allocate, fill};
use super::content::{Order, source};

/// The largest part that is compared at once.
pub(super) const PART: u64 = 64 << 20;

/// A buffer with what the CPU computed.
#[derive(Debug)]
pub(super) struct Reference<'benchmark> {
    copy: &'benchmark dyn DeviceCopy,
    dma_buf: DmaBuf,
    mapping: Mapping,
    /// Which part of the gathered bytes it has now.
    has: Option<Extent>,
}

impl<'benchmark> Reference<'benchmark> {
    pub(super) fn new(
        provider: &dyn Provider,
        copy: &'benchmark dyn DeviceCopy,
        placement: Option<Placement>,
        bytes: u64,
    ) -> Result<Self> {
        let dma_buf = allocate(provider, placement, bytes.min(PART))?;
        let mapping = dma_buf.map(Access::ReadWrite)?;
        Ok(Self { copy, dma_buf, mapping, has: None })
    }

    /// Fails unless `destination` begins with the first `bytes` gathered bytes.
    pub(super) fn gathered(&mut self, destination: &DmaBuf, order: &Order, bytes: u64) -> Result<()> {
        let mut done = 0;
        while done < bytes {
            let part = Extent::new(done, (bytes - done).min(PART));
            if self.has != Some(part) {
                self.has = None;
                fill(&self.mapping, part.length, |at, bytes| order.gathered(part.offset + at, bytes))?;
                self.has = Some(part);
            }
            if let Some(at) = self.copy.first_difference(destination, part, &self.dma_buf, 0)? {
                bail!("the gathered bytes are wrong from offset {} on", part.offset + at);
            }
            done += part.length;
        }
        Ok(())
    }

    /// Fails unless `destination` has the source's bytes in the source's order; and unless the device finds where they
    /// differ from the gathered ones: a comparison that sees nothing would prove nothing.
    pub(super) fn contiguous(&mut self, destination: &DmaBuf, order: &Order) -> Result<()> {
        let part = Extent::new(0, order.bytes().min(PART));
        self.has = None;
        fill(&self.mapping, part.length, source)?;
        if let Some(at) = self.copy.first_difference(destination, part, &self.dma_buf, 0)? {
            bail!("the contiguous copy is wrong from offset {at} on");
        }
        fill(&self.mapping, part.length, |at, bytes| order.gathered(at, bytes))?;
        self.has = Some(part);
        let expected = order.first_difference().filter(|&at| at < part.length);
        let found = self.copy.first_difference(destination, part, &self.dma_buf, 0)?;
        if found != expected {
            bail!("the comparison is wrong: the first difference is at {expected:?}, not at {found:?}");
        }
        Ok(())
    }
}
