//! A buffer of which every byte is known.

use std::ops::Range;

use devmem_provider::dma_buf::{Access, Mapping};
use devmem_provider::{Buffer, Capabilities, DmaBuf, Placement, Request};

use crate::context::Context;
use crate::peer::fill;
use crate::verdict::Stop;

/// A buffer, in the device's memory if there is any, with what it must contain.
#[derive(Debug)]
pub(super) struct Content {
    buffer: Box<dyn Buffer>,
    dma_buf: DmaBuf,
    mapping: Mapping,
    expected: Vec<u8>,
}

impl Content {
    /// A buffer that the CPU has filled.
    pub(super) fn new(context: &Context<'_>) -> Result<Self, Stop> {
        let mut request = Request::bytes(context.size()?);
        if context.provider().capabilities().contains(Capabilities::DEVICE_LOCAL) {
            request = request.prefer(Placement::DeviceLocalVisible);
        }
        let buffer = context.provider().allocate(&request)?;
        let dma_buf = buffer.export()?;
        let mapping = dma_buf.map(Access::ReadWrite)?;
        let expected = vec![0; mapping.length()];
        let mut content = Self { buffer, dma_buf, mapping, expected };
        content.fill(0)?;
        Ok(content)
    }

    /// Has the CPU fill it with the pattern that begins at `position`.
    pub(super) fn fill(&mut self, position: u64) -> Result<(), Stop> {
        fill(position, &mut self.expected);
        let access = self.mapping.write()?;
        access.copy_from(0, &self.expected)?;
        Ok(access.finish()?)
    }

    pub(super) fn dma_buf(&self) -> &DmaBuf {
        &self.dma_buf
    }

    pub(super) fn size(&self) -> u64 {
        self.expected.len() as u64
    }

    /// What must be in a part of it.
    pub(super) fn expected(&self, part: Range<u64>) -> Vec<u8> {
        self.expected.get(part.start as usize..part.end as usize).unwrap_or_default().to_vec()
    }

    /// Bytes for a part of it that are all others than those that are there.
    pub(super) fn others(&self, part: Range<u64>) -> Vec<u8> {
        let mut bytes = self.expected(part);
        bytes.iter_mut().for_each(|byte| *byte = !*byte);
        bytes
    }

    /// From now on these bytes must be at `offset`.
    pub(super) fn expect(&mut self, offset: u64, bytes: &[u8]) {
        let end = offset as usize + bytes.len();
        if let Some(part) = self.expected.get_mut(offset as usize..end) {
            part.copy_from_slice(bytes);
        }
    }

    /// What is in a part of it.
    pub(super) fn found(&self, part: Range<u64>) -> Result<Vec<u8>, Stop> {
        self.buffer.flush_peer_writes()?;
        let mut found = vec![0; (part.end - part.start) as usize];
        let access = self.mapping.read()?;
        access.copy_to(part.start as usize, &mut found)?;
        access.finish()?;
        Ok(found)
    }

    /// Looks at every byte, after `what`.
    pub(super) fn verify(&self, what: &str) -> Result<(), Stop> {
        let found = self.found(0..self.size())?;
        let mut wrong =
            found.iter().zip(&self.expected).enumerate().filter(|(_, (found, expected))| found != expected);
        match wrong.next() {
            None => Ok(()),
            Some((first, (found, expected))) => Err(Stop::Fail(format!(
                "{what}: byte {first} of the buffer is {found:#04x} and not {expected:#04x}, and {} others are wrong",
                wrong.count()
            ))),
        }
    }
}
