//! What one fragment costs, in gathers of few and of many.

use anyhow::Result;
use devmem_provider::device_copy::DeviceCopy;
use devmem_provider::{Placement, Provider};
use serde::Serialize;

use super::buffers::Buffers;
use super::content::Order;
use super::verification::Reference;
use super::ways::{Spread, Way, fragments};
use crate::failure;

/// How many fragments a batch has.
const COUNTS: [u32; 6] = [16, 256, 4096, 16384, 65536, 262_144];

/// Small batches follow each other until so many fragments are copied, so that they find as little in the
/// processor's caches as large ones.
const AT_LEAST: u32 = 16384;

/// What a fragment costs in batches of one size.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    /// Fragments in a batch.
    pub(super) fragments: u32,
    /// Batches that were submitted, one behind the other.
    pub(super) batches: u32,
    /// Nanoseconds for each fragment when the next batch is submitted while the last one is copied, as when receiving.
    pub(super) nanoseconds_per_fragment: Spread,
    /// Nanoseconds for each fragment of a batch that is waited for before anything else is done.
    pub(super) nanoseconds_per_fragment_alone: Spread,
}

/// A size that was not measured.
#[derive(Debug, Serialize)]
pub(super) struct LeftOut {
    pub(super) fragments: u32,
    pub(super) reason: String,
}

/// All sizes.
#[derive(Debug, Default, Serialize)]
pub(super) struct Sweep {
    pub(super) rows: Vec<Row>,
    pub(super) left_out: Vec<LeftOut>,
}

impl Sweep {
    /// The dearest fragment against the cheapest, by the medians.
    pub(super) fn largest_ratio(&self) -> Option<f64> {
        let medians = self.rows.iter().map(|row| row.nanoseconds_per_fragment.median);
        Some(medians.clone().reduce(f64::max)? / medians.reduce(f64::min)?)
    }
}

/// Measures as many sizes as there is memory for.
pub(super) fn measure(
    provider: &dyn Provider,
    copy: &dyn DeviceCopy,
    placement: Option<Placement>,
    fragment_bytes: u64,
    seed: u64,
    rounds: u32,
) -> Result<Sweep> {
    let mut sweep = Sweep::default();
    let mut counts = COUNTS.to_vec();
    let buffers = loop {
        let Some(&most) = counts.last() else { return Ok(sweep) };
        match Buffers::new(provider, placement, u64::from(most.max(AT_LEAST)) * fragment_bytes) {
            Ok(buffers) => break buffers,
            Err(error) => {
                sweep.left_out.push(LeftOut { fragments: most, reason: failure::line(&error) });
                counts.pop();
            }
        }
    };
    let most = counts.last().map_or(AT_LEAST, |&count| count.max(AT_LEAST));
    let order = Order::shuffled(most, fragment_bytes, seed);
    let pieces = fragments(&order);
    let mut reference = Reference::new(provider, copy, placement, order.bytes())?;
    let mut way = Way::new(copy, &buffers)?;
    for count in counts {
        let all = &pieces[..count.max(AT_LEAST) as usize];
        let batch = count as usize;
        let (mut following, mut alone) = (Vec::new(), Vec::new());
        // The first round makes ready what later ones find.
        for round in 0..=rounds {
            let seconds = way.time_batches(all, batch)?;
            let seconds_alone = if batch == all.len() { seconds } else { way.time(&all[..batch])? };
            if round > 0 {
                following.push(seconds * 1e9 / all.len() as f64);
                alone.push(seconds_alone * 1e9 / f64::from(count));
            }
        }
        reference.gathered(&buffers.destination, &order, all.len() as u64 * fragment_bytes)?;
        if let (Some(following), Some(alone)) = (Spread::of(following), Spread::of(alone)) {
            sweep.rows.push(Row {
                fragments: count,
                batches: (all.len() / batch) as u32,
                nanoseconds_per_fragment: following,
                nanoseconds_per_fragment_alone: alone,
            });
        }
    }
    Ok(sweep)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_batches_divide_what_is_copied_at_least() {
        assert!(COUNTS.iter().all(|&count| count.max(AT_LEAST).is_multiple_of(count)));
        assert!(COUNTS.is_sorted());
    }
}
