//! Buffers and rings that run out.

use std::time::Duration;

use devmem_receive::devmem::StreamOptions;
use devmem_receive::zcrx::Event;

use super::{setup, setup_with};
use crate::harness::{Outcome, ensure};
use crate::paths::starved;

const MEBIBYTE: u64 = 1 << 20;

pub(crate) fn an_exhausted_buffer_is_told() -> Outcome {
    let setup = setup(2 * MEBIBYTE)?;
    // The receive ring of the NIC took what there was from the beginning.
    while setup.pin.next_event(Duration::ZERO)?.is_some() {}
    let _starved = starved(&setup, 8 * MEBIBYTE)?;
    let event = setup.pin.next_event(Duration::from_secs(5))?;
    ensure!(event == Some(Event::AllocationFailure), "{event:?}");
    Ok(())
}

pub(crate) fn a_full_refill_ring_is_flushed() -> Outcome {
    let setup = setup_with(16 * MEBIBYTE, |importer| importer.refill_entries(16))?;
    ensure!(setup.pin.refill_entries() == 16, "{} entries", setup.pin.refill_entries());
    let mut incoming = setup.connect(4 * MEBIBYTE, StreamOptions::default())?;
    incoming.drain(&setup.mapping, 4 * MEBIBYTE)?;
    let statistics = incoming.stream.statistics();
    ensure!(statistics.release_calls > 0, "the refill ring was never full: {statistics:?}");
    ensure!(statistics.released == statistics.fragments, "{statistics:?}");
    ensure!(setup.pin.given_back() <= 16, "{} wait", setup.pin.given_back());
    Ok(())
}
