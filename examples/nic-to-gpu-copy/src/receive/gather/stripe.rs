//! Bringing the payload of one connection to its place.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use devmem_provider::Extent;
use devmem_provider::device_copy::{Gather, Ticket, Worker};

use super::destination::Destination;

/// Pieces for which room is made at the beginning: one for each fragment of a receive.
const PIECES: usize = 1024;

/// What was brought to its place, and by whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Placed {
    /// Bytes that a device copied.
    pub(crate) by_device: u64,
    /// Bytes that the CPU copied.
    pub(crate) by_cpu: u64,
    /// Batches that were gathered.
    pub(crate) batches: u64,
    /// How long the copies went on after the last byte had arrived.
    pub(crate) tail: Duration,
}

/// Brings payload to its place: pieces of the receive buffer by gathering, host memory by the CPU.
#[derive(Debug)]
pub(crate) struct StripeGather<'session> {
    /// None where nothing arrives in a receive buffer.
    gather: Option<Box<dyn Gather>>,
    worker: Worker,
    destination: &'session Destination,
    /// Pieces that follow each other in the file and are not submitted yet, where they go, and their length together.
    pieces: Vec<Extent>,
    target: u64,
    bytes: u64,
    last: Ticket,
    placed: Placed,
}

impl<'session> StripeGather<'session> {
    pub(crate) fn new(
        gather: Option<Box<dyn Gather>>,
        worker: Worker,
        destination: &'session Destination,
    ) -> Self {
        Self {
            gather,
            worker,
            destination,
            pieces: Vec::with_capacity(PIECES),
            target: 0,
            bytes: 0,
            last: Ticket::NONE,
            placed: Placed::default(),
        }
    }

    /// Payload in the receive buffer, whose place in the file is `offset`.
    pub(crate) fn add(&mut self, piece: Extent, offset: u64) -> Result<()> {
        if !self.pieces.is_empty() && offset != self.target + self.bytes {
            self.submit()?;
        }
        if self.pieces.is_empty() {
            self.target = offset;
        }
        self.bytes += piece.length;
        self.pieces.push(piece);
        Ok(())
    }

    /// Payload in host memory, whose place in the file is `offset`.
    pub(crate) fn write(&mut self, bytes: &[u8], offset: u64) -> Result<()> {
        self.destination.write(offset, bytes)?;
        self.placed.by_cpu += bytes.len() as u64;
        Ok(())
    }

    /// Lets the copies of all that was added begin. Returns what to wait for.
    pub(crate) fn submit(&mut self) -> Result<Ticket> {
        if self.pieces.is_empty() {
            return Ok(self.last);
        }
        let Some(gather) = &mut self.gather else { bail!("there is no receive buffer to gather from") };
        self.last = gather.submit(&self.pieces, self.target).context("cannot gather")?;
        match self.worker {
            Worker::Device => self.placed.by_device += self.bytes,
            _ => self.placed.by_cpu += self.bytes,
        }
        self.placed.batches += 1;
        self.pieces.clear();
        self.bytes = 0;
        Ok(self.last)
    }

    /// The last copy that is completed with all before it.
    pub(crate) fn completed(&mut self) -> Result<Ticket> {
        match &mut self.gather {
            Some(gather) => gather.completed().context("the copies cannot be completed"),
            None => Ok(Ticket::NONE),
        }
    }

    /// Waits for a copy.
    pub(crate) fn wait(&mut self, ticket: Ticket, limit: Duration) -> Result<()> {
        let Some(gather) = &mut self.gather else { return Ok(()) };
        if !gather.wait(ticket, limit).context("the copies cannot be completed")? {
            bail!("the copies were not completed within {} s; see --timeout", limit.as_secs_f64());
        }
        Ok(())
    }

    /// What was brought to its place, once everything that was submitted is completed.
    pub(crate) fn finish(mut self, limit: Duration) -> Result<Placed> {
        let started = std::time::Instant::now();
        let last = self.submit()?;
        self.wait(last, limit)?;
        Ok(Placed { tail: started.elapsed(), ..self.placed })
    }
}
