//! Buffers that run out, and how they come back.

use std::time::Duration;

use devmem_receive::devmem::StreamOptions;
use devmem_receive::zcrx::Event;

use super::setup::Setup;
use crate::harness::{Outcome, ensure};

const MEBIBYTE: u64 = 1 << 20;

pub(crate) fn an_exhausted_buffer_recovers_and_is_told() -> Outcome {
    let buffer = 2 * MEBIBYTE;
    let bytes = 8 * MEBIBYTE;
    let setup = Setup::new(buffer)?;
    // The receive ring of the NIC took what there was from the beginning.
    while setup.pin.next_event(Duration::ZERO)?.is_some() {}
    let options = StreamOptions::default().idle_limit(Duration::from_secs(1));
    let mut incoming = setup.connect(bytes, options)?;
    // Holding everything starves the NIC: the stream stalls with less than the buffer received.
    let mut held = Vec::new();
    let stalled = loop {
        match incoming.read(&setup.mapping) {
            Ok(Some(fragments)) => held.extend(fragments),
            Ok(None) => return Err("all arrived in a buffer that is too small".into()),
            Err(error) => break error,
        }
    };
    ensure!(stalled.to_string().contains("nothing arrived"), "{stalled}");
    ensure!(incoming.position <= buffer, "{} bytes in {buffer}", incoming.position);
    let event = setup.pin.next_event(Duration::from_secs(5))?;
    ensure!(event == Some(Event::AllocationFailure), "{event:?}");
    incoming.stream.release(held)?;
    incoming.stream.flush()?;
    incoming.drain(&setup.mapping, bytes)
}

pub(crate) fn a_full_refill_ring_is_flushed() -> Outcome {
    let setup = Setup::with(16 * MEBIBYTE, |importer| importer.refill_entries(16))?;
    ensure!(setup.pin.refill_entries() == 16, "{} entries", setup.pin.refill_entries());
    let mut incoming = setup.connect(4 * MEBIBYTE, StreamOptions::default())?;
    incoming.drain(&setup.mapping, 4 * MEBIBYTE)?;
    let statistics = incoming.stream.statistics();
    ensure!(statistics.release_calls > 0, "the refill ring was never full: {statistics:?}");
    ensure!(statistics.released == statistics.fragments, "{statistics:?}");
    ensure!(setup.pin.given_back() <= 16, "{} wait", setup.pin.given_back());
    Ok(())
}

/// Were one of these to keep its fragments, the last could not receive.
pub(crate) fn a_closed_connection_gives_its_fragments_back() -> Outcome {
    let setup = Setup::new(4 * MEBIBYTE)?;
    for _ in 0..6 {
        let mut incoming = setup.connect(MEBIBYTE, StreamOptions::default())?;
        while incoming.read(&setup.mapping)?.is_some() {}
        ensure!(incoming.stream.held() > 0, "nothing was held");
        // Half of a stream, of which the ring tells more than was taken.
        let mut incoming = setup.connect(MEBIBYTE, StreamOptions::default().batch_fragments(8))?;
        std::thread::sleep(Duration::from_millis(50));
        incoming.read(&setup.mapping)?.ok_or("no data")?;
    }
    setup.connect(2 * MEBIBYTE, StreamOptions::default())?.drain(&setup.mapping, 2 * MEBIBYTE)
}
