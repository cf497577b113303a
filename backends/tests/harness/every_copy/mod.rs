//! What everything must do that copies and compares.

mod bytes;
mod comparisons;
mod fences;
mod gathers;
mod vgem_fence;

use std::sync::Arc;

use devmem_provider::{DeviceCopy, DmaBuf, Extent, Provider, Request};

use crate::harness::{Failure, Outcome};

/// A device, and from where to where it copies.
pub(crate) struct Copies {
    pub(crate) copy: Arc<dyn DeviceCopy>,
    pub(crate) source: Arc<dyn Provider>,
    pub(crate) destination: Arc<dyn Provider>,
}

/// A test of what copies, by its name.
pub(crate) type CopyTest = (&'static str, fn(&Copies) -> Outcome);

pub(crate) const COPY_TESTS: &[CopyTest] = &[
    ("gathers_fragments_of_any_alignment", gathers::of_any_alignment),
    ("gathers_within_one_buffer", gathers::within_one_buffer),
    ("gathers_a_batch_of_any_length", gathers::a_batch_of_any_length),
    ("gathers_a_fragment_of_any_length", gathers::a_fragment_of_any_length),
    ("gathers_many_batches_at_once", gathers::many_batches_at_once),
    ("gathers_in_order", gathers::in_order),
    ("completes_an_empty_batch", gathers::an_empty_batch),
    ("refuses_what_is_outside_or_overlaps", gathers::what_is_outside_or_overlaps),
    ("refuses_a_ticket_of_no_batch", gathers::a_ticket_of_no_batch),
    ("refuses_what_is_no_dma_buf", gathers::what_is_no_dma_buf),
    ("leaves_nothing_behind", gathers::leaves_nothing_behind),
    ("hashes_pieces_of_any_length", comparisons::hashes_of_any_length),
    ("hashes_long_pieces", comparisons::hashes_of_long_pieces),
    ("finds_the_first_difference", comparisons::first_differences),
    ("waits_for_writers_of_the_source", fences::of_the_source),
    ("waits_for_users_of_the_destination", fences::of_the_destination),
    ("waits_for_nobody_unless_told", fences::of_nobody),
    ("waits_for_a_sync_file", fences::of_a_sync_file),
    ("lets_others_wait", fences::for_others),
    ("makes_a_sync_file_of_a_batch", fences::of_a_batch),
];

impl Copies {
    /// A buffer of each provider, the first with random content, the second with another.
    fn buffers(&self, size: u64) -> Result<[DmaBuf; 2], Failure> {
        let source = self.source.allocate(&Request::bytes(size))?.export()?;
        let destination = self.destination.allocate(&Request::bytes(size))?.export()?;
        bytes::write(&source, &bytes::random(1, size))?;
        bytes::write(&destination, &bytes::random(2, size))?;
        Ok([source, destination])
    }
}

/// What gathering makes of the content of a buffer.
fn expect(source: &[u8], destination: &mut [u8], fragments: &[Extent], offset: u64) {
    let mut at = offset as usize;
    for fragment in fragments {
        let (from, length) = (fragment.offset as usize, fragment.length as usize);
        destination[at..at + length].copy_from_slice(&source[from..from + length]);
        at += length;
    }
}
