//! Taking received bytes, wherever they lie.

use anyhow::{Result, bail};
use devmem_provider::Extent;
use devmem_provider::device_copy::Ticket;
use devmem_provider::dma_buf::{Mapping, ReadAccess};
use devmem_receive::stream::{Fragment, Part};

use super::gather::{Gatherer, StripeGather};
use super::stripe::{Next, StripeReader};
use crate::transfer::Header;

/// How much of the buffer is looked at in one copy.
const LOOK: usize = 64 << 10;

/// Takes the bytes of one connection in their order.
#[derive(Debug)]
pub(super) struct Taker<'session, F> {
    pub(super) reader: StripeReader,
    scratch: Vec<u8>,
    announce: F,
    announced: bool,
    gatherer: Option<&'session Gatherer>,
    /// Whether there is a receive buffer to gather from.
    from_buffer: bool,
    /// Begins when the header has arrived.
    pub(super) gathering: Option<StripeGather<'session>>,
}

impl<'session, F: FnMut(&Header)> Taker<'session, F> {
    /// `announce` is told the header as soon as it is known.
    pub(super) fn new(
        reader: StripeReader,
        announce: F,
        gatherer: Option<&'session Gatherer>,
        from_buffer: bool,
    ) -> Self {
        let scratch = vec![0; LOOK];
        Self { reader, scratch, announce, announced: false, gatherer, from_buffer, gathering: None }
    }

    /// Takes what a receive returned. `hold` is handed the fragments, which must not go back to the NIC before the
    /// copy whose ticket is returned is completed.
    pub(super) fn take_parts<'stream>(
        &mut self,
        parts: impl Iterator<Item = Part<'stream>>,
        mapping: &Mapping,
        mut hold: impl FnMut(Fragment),
    ) -> Result<Ticket> {
        // Begun only when bytes are to be looked at, and once for all fragments of a receive.
        let mut access = None;
        for part in parts {
            match part {
                Part::Linear(bytes) => self.take(bytes)?,
                Part::Fragment(fragment) => {
                    self.take_fragment(fragment.range().into(), mapping, &mut access)?;
                    hold(fragment);
                }
            }
        }
        if let Some(access) = access {
            access.finish()?;
        }
        self.gathering.as_mut().map_or(Ok(Ticket::NONE), StripeGather::submit)
    }

    /// Takes bytes that lie in the buffer. They must stay there until the copy whose ticket is returned is completed.
    pub(super) fn take_extent(&mut self, extent: Extent, mapping: &Mapping) -> Result<Ticket> {
        let mut access = None;
        self.take_fragment(extent, mapping, &mut access)?;
        if let Some(access) = access {
            access.finish()?;
        }
        self.gathering.as_mut().map_or(Ok(Ticket::NONE), StripeGather::submit)
    }

    /// Takes bytes that arrived in host memory.
    pub(super) fn take(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let used = match self.step(bytes.len())? {
                Step::Look(length) => {
                    self.reader.take(&bytes[..length])?;
                    length
                }
                Step::Pass { length, place } => {
                    if let Some(gathering) = &mut self.gathering {
                        gathering.write(&bytes[..length], place)?;
                    }
                    length
                }
            };
            self.announce_once()?;
            bytes = &bytes[used..];
        }
        Ok(())
    }

    fn take_fragment<'mapping>(
        &mut self,
        fragment: Extent,
        mapping: &'mapping Mapping,
        access: &mut Option<ReadAccess<'mapping>>,
    ) -> Result<()> {
        let mut offset = usize::try_from(fragment.offset)?;
        let end = offset + usize::try_from(fragment.length)?;
        while offset < end {
            offset += match self.step(end - offset)? {
                Step::Look(length) => {
                    let length = length.min(self.scratch.len());
                    if access.is_none() {
                        *access = Some(mapping.read()?);
                    }
                    if let Some(access) = access {
                        access.copy_to(offset, &mut self.scratch[..length])?;
                    }
                    self.reader.take(&self.scratch[..length])?;
                    length
                }
                Step::Pass { length, place } => {
                    if let Some(gathering) = &mut self.gathering {
                        gathering.add(Extent::new(offset as u64, length as u64), place)?;
                    }
                    length
                }
            };
            self.announce_once()?;
        }
        Ok(())
    }

    /// What to do with up to `available` bytes.
    fn step(&mut self, available: usize) -> Result<Step> {
        match self.reader.next() {
            Next::Look(wanted) => Ok(Step::Look(wanted.min(available))),
            Next::Pass(wanted) => {
                let length = usize::try_from(wanted).map_or(available, |wanted| wanted.min(available));
                let place = self.reader.pass(length as u64);
                Ok(Step::Pass { length, place })
            }
            Next::Nothing => bail!("the peer sent more than it announced"),
        }
    }

    fn announce_once(&mut self) -> Result<()> {
        if let (false, Some(header)) = (self.announced, self.reader.header()) {
            if let Some(gatherer) = self.gatherer {
                self.gathering = Some(gatherer.begin(header, self.from_buffer)?);
            }
            (self.announce)(header);
            self.announced = true;
        }
        Ok(())
    }
}

enum Step {
    Look(usize),
    /// Payload, and its place in the file.
    Pass {
        length: usize,
        place: u64,
    },
}
