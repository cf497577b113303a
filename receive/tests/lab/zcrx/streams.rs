//! What a stream yields, and what becomes of its fragments.

use std::time::{Duration, Instant};

use devmem_receive::devmem::StreamOptions;

use super::setup::Setup;
use crate::harness::{Outcome, ensure};

const MEBIBYTE: u64 = 1 << 20;

pub(crate) fn every_byte_in_order_in_any_batch() -> Outcome {
    let setup = Setup::new(16 * MEBIBYTE)?;
    for options in [
        StreamOptions::default(),
        StreamOptions::default().linger(Duration::ZERO),
        StreamOptions::default().linger(Duration::from_secs(20)),
        StreamOptions::default().batch_bytes(1000),
        StreamOptions::default().batch_fragments(1),
    ] {
        let started = Instant::now();
        let mut incoming = setup.connect(MEBIBYTE, options)?;
        incoming.drain(&setup.mapping, MEBIBYTE)?;
        let statistics = incoming.stream.statistics();
        println!("{options:?}: {statistics:?} {:?}", started.elapsed());
        ensure!(statistics.fragment_bytes == MEBIBYTE, "{options:?}: {statistics:?}");
        ensure!(statistics.released == statistics.fragments, "{options:?}: {statistics:?}");
    }
    Ok(())
}
