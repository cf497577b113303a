//! Buffers that run out, and how they come back.

use std::time::Duration;

use devmem_receive::devmem::StreamOptions;
use devmem_receive::path::Path;
use devmem_receive::stream::Fragment;

use super::{MEBIBYTE, setup};
use crate::harness::{Failure, Outcome, ensure};
use crate::setup::{Incoming, Receives, Setup, Streams};

/// Longer than the peer waits until it sends again what found no memory. Only a test that has failed waits that long.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection that sends `bytes` bytes, and waits since all of the smaller buffer is held.
pub(crate) fn starved<Binding: Receives>(
    setup: &Setup<Binding>,
    bytes: u64,
) -> Result<(Incoming<Binding::Stream>, Vec<Fragment>), Failure> {
    let mut incoming = setup.connect(bytes, StreamOptions::default().idle_limit(PATIENCE))?;
    let mut held = Vec::new();
    let stalled = loop {
        match incoming.read(&setup.mapping) {
            Ok(Some(fragments)) => {
                held.extend(fragments);
                incoming.stream.limit_idle(Duration::from_secs(1));
            }
            Ok(None) => return Err("all arrived in a buffer that is too small".into()),
            Err(error) => break error,
        }
    };
    ensure!(stalled.to_string().contains("nothing arrived"), "{stalled}");
    let buffer = setup.buffer.size();
    ensure!(incoming.position <= buffer, "{} bytes in {buffer}", incoming.position);
    Ok((incoming, held))
}

pub(super) fn an_exhausted_buffer_recovers_when_fragments_come_back(path: Path) -> Outcome {
    let bytes = 8 * MEBIBYTE;
    let setup = setup(path, 2 * MEBIBYTE)?;
    let (mut incoming, held) = starved(&setup, bytes)?;
    incoming.stream.limit_idle(PATIENCE);
    incoming.stream.release(held)?;
    incoming.stream.flush()?;
    incoming.drain(&setup.mapping, bytes)
}

/// Were one of these to keep its fragments, the last could not receive.
pub(super) fn a_closed_connection_gives_its_fragments_back(path: Path) -> Outcome {
    let setup = setup(path, 4 * MEBIBYTE)?;
    for _ in 0..6 {
        let mut incoming = setup.connect(MEBIBYTE, StreamOptions::default())?;
        while incoming.read(&setup.mapping)?.is_some() {}
        ensure!(incoming.stream.held() > 0, "nothing was held");
        // Half of a stream, of which the kernel may have told more than was taken.
        let mut incoming = setup.connect(MEBIBYTE, StreamOptions::default().batch_fragments(8))?;
        std::thread::sleep(Duration::from_millis(50));
        incoming.read(&setup.mapping)?.ok_or("no data")?;
    }
    setup.connect(2 * MEBIBYTE, StreamOptions::default())?.drain(&setup.mapping, 2 * MEBIBYTE)?;
    let unbound = setup.pin.into_attachment().unbind(Duration::from_secs(10))?;
    ensure!(unbound, "the kernel still holds the buffer");
    Ok(())
}

pub(super) fn unbinding_is_complete_once_nothing_is_held(path: Path) -> Outcome {
    let setup = setup(path, 4 * MEBIBYTE)?;
    let mut incoming = setup.connect(MEBIBYTE, StreamOptions::default())?;
    incoming.drain(&setup.mapping, MEBIBYTE)?;
    drop(incoming);
    let unbound = setup.pin.into_attachment().unbind(Duration::from_secs(10))?;
    ensure!(unbound, "the kernel still holds the buffer");
    Ok(())
}
