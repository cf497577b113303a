//! The ways to copy, timed.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use devmem_provider::Extent;
use devmem_provider::device_copy::{DeviceCopy, Fences, Gather, Ticket};

use super::buffers::Buffers;
use super::content::Order;

/// How long a copy may take.
const LIMIT: Duration = Duration::from_secs(600);

/// Copies between two buffers, by a device or by the CPU.
#[derive(Debug)]
pub(super) struct Way(Box<dyn Gather>);

impl Way {
    pub(super) fn new(copy: &dyn DeviceCopy, buffers: &Buffers) -> Result<Self> {
        Ok(Self(copy.gather(&buffers.source, &buffers.destination, Fences::Explicit)?))
    }

    /// Copies a list of pieces in one batch, from the beginning of the destination on.
    pub(super) fn time(&mut self, pieces: &[Extent]) -> Result<f64> {
        let started = Instant::now();
        let ticket = self.0.submit(pieces, 0)?;
        self.wait(ticket)?;
        Ok(started.elapsed().as_secs_f64())
    }

    /// Copies a list of pieces of the same size in batches of `count`, and waits for the last one only.
    pub(super) fn time_batches(&mut self, pieces: &[Extent], count: usize) -> Result<f64> {
        let started = Instant::now();
        let mut last = Ticket::NONE;
        let mut offset = 0;
        for batch in pieces.chunks(count) {
            last = self.0.submit(batch, offset)?;
            offset += batch.iter().map(|piece| piece.length).sum::<u64>();
        }
        self.wait(last)?;
        Ok(started.elapsed().as_secs_f64())
    }

    fn wait(&mut self, ticket: Ticket) -> Result<()> {
        if !self.0.wait(ticket, LIMIT).context("the copy cannot be completed")? {
            bail!("the copy was not completed within {} s", LIMIT.as_secs());
        }
        Ok(())
    }
}

/// The source's fragments, in the order in which they are gathered.
pub(super) fn fragments(order: &Order) -> Vec<Extent> {
    let bytes = order.fragment_bytes;
    order.numbers.iter().map(|&number| Extent::new(u64::from(number) * bytes, bytes)).collect()
}

/// The middle one of several figures, and the least and the largest.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub(super) struct Spread {
    pub(super) minimum: f64,
    pub(super) median: f64,
    pub(super) maximum: f64,
}

impl Spread {
    pub(super) fn of(mut figures: Vec<f64>) -> Option<Self> {
        figures.sort_unstable_by(f64::total_cmp);
        let median = *figures.get(figures.len() / 2)?;
        Some(Self { minimum: *figures.first()?, median, maximum: *figures.last()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_that_of_the_sorted_figures() {
        let spread = Spread::of(vec![5.0, 1.0, 3.0, 9.0, 2.0]);
        assert_eq!(spread, Some(Spread { minimum: 1.0, median: 3.0, maximum: 9.0 }));
        assert_eq!(Spread::of(Vec::new()), None);
    }
}
