//! What a stream yields, and what becomes of its fragments.

use std::collections::HashSet;
use std::time::Duration;

use devmem_provider::{ErrorKind, Pin, Request, Require};
use devmem_receive::devmem::StreamOptions;
use devmem_receive::path::{Path, Queues};
use devmem_receive::stream::Fragment;

use super::{MEBIBYTE, setup};
use crate::harness::{Outcome, ensure};
use crate::machine::{prepare, provider, set_link};
use crate::setup::{Incoming, Streams, connection};

const PAGE: u64 = 4096;

/// A long linger shows that the end of a stream ends a wait.
pub(super) fn every_byte_in_order_in_any_batch(path: Path) -> Outcome {
    let setup = setup(path, 16 * MEBIBYTE)?;
    for options in [
        StreamOptions::default(),
        StreamOptions::default().linger(Duration::ZERO),
        StreamOptions::default().linger(Duration::from_secs(600)),
        StreamOptions::default().batch_bytes(1000),
        StreamOptions::default().batch_fragments(1),
    ] {
        let mut incoming = setup.connect(MEBIBYTE, options)?;
        incoming.drain(&setup.mapping, MEBIBYTE)?;
        let statistics = incoming.stream.statistics();
        ensure!(statistics.fragment_bytes == MEBIBYTE, "{options:?}: {statistics:?}");
        ensure!(statistics.released == statistics.fragments, "{options:?}: {statistics:?}");
        if path == Path::Zcrx {
            ensure!(statistics.release_calls == 0, "{options:?}: {statistics:?}");
        }
        ensure!(incoming.stream.next()?.is_none(), "the end is not the end");
    }
    Ok(())
}

pub(super) fn a_fragment_that_is_held_is_not_overwritten(path: Path) -> Outcome {
    let setup = setup(path, 16 * MEBIBYTE)?;
    let mut incoming = setup.connect(8 * MEBIBYTE, StreamOptions::default())?;
    let mut held: Vec<(Fragment, Vec<u8>)> = Vec::new();
    let mut places = HashSet::new();
    while let Some(fragments) = incoming.read(&setup.mapping)? {
        let access = setup.mapping.read()?;
        for (number, fragment) in fragments.into_iter().enumerate() {
            ensure!(!places.contains(&fragment.range().start), "{fragment:?} lies where another is held");
            if number % 8 == 0 {
                let mut content = vec![0; fragment.length() as usize];
                access.copy_to(usize::try_from(fragment.offset())?, &mut content)?;
                places.insert(fragment.range().start);
                held.push((fragment, content));
            } else {
                incoming.stream.release([fragment])?;
            }
        }
    }
    let access = setup.mapping.read()?;
    for (fragment, expected) in &held {
        let mut content = vec![0; expected.len()];
        access.copy_to(usize::try_from(fragment.offset())?, &mut content)?;
        ensure!(&content == expected, "{fragment:?} was overwritten");
    }
    ensure!(incoming.stream.held() == held.len() as u64, "{} are held", incoming.stream.held());
    incoming.stream.release(held.into_iter().map(|(fragment, _)| fragment))?;
    incoming.stream.flush()?;
    ensure!(incoming.stream.held() == 0, "{} are held", incoming.stream.held());
    Ok(())
}

pub(super) fn a_fragment_released_twice_is_told(path: Path) -> Outcome {
    let setup = setup(path, 4 * MEBIBYTE)?;
    let mut incoming = setup.connect(MEBIBYTE, StreamOptions::default().batch_bytes(64 << 10))?;
    let fragments = incoming.read(&setup.mapping)?.ok_or("no data")?;
    incoming.stream.release(fragments.clone())?;
    incoming.stream.flush()?;
    incoming.stream.release(fragments)?;
    let error = incoming.stream.flush().err().ok_or("a second release went unnoticed")?;
    ensure!(error.kind() == ErrorKind::InvalidInput, "{error}");
    ensure!(error.to_string().contains("released before"), "{error}");
    // The stream itself is unharmed.
    incoming.drain(&setup.mapping, MEBIBYTE)
}

pub(super) fn another_connections_fragment_is_not_released(path: Path) -> Outcome {
    let setup = setup(path, 8 * MEBIBYTE)?;
    let options = StreamOptions::default().batch_bytes(64 << 10);
    let mut first = setup.connect(MEBIBYTE, options)?;
    let mut second = setup.connect(MEBIBYTE, options)?;
    let foreign = first.read(&setup.mapping)?.ok_or("no data")?;
    second.stream.release(foreign.clone())?;
    ensure!(second.stream.flush().is_err(), "a foreign fragment was accepted");
    first.stream.release(foreign)?;
    first.drain(&setup.mapping, MEBIBYTE)?;
    second.drain(&setup.mapping, MEBIBYTE)
}

pub(super) fn what_came_by_another_queue_is_refused(path: Path) -> Outcome {
    let nic = prepare(2)?;
    let provider = provider()?;
    let mut pins = Vec::new();
    for &queue in nic.queues() {
        let buffer = provider.allocate(&Request::bytes(4 * MEBIBYTE))?;
        pins.push(Pin::new(&mut Queues::new(path, nic.nic(), [queue]), &*buffer, Require::Anywhere)?);
    }
    let [first, _second] = pins.as_slice() else { return Err("two queues were asked for".into()) };
    let words = if path == Path::Zcrx { "another queue" } else { "binding" };
    let (mut accepted, mut refused) = (0, 0);
    // Connections are spread over both queues by the sender's port, so that some arrive on the other one.
    for _ in 0..32 {
        let (socket, sender) = connection(256 << 10)?;
        let mut incoming = Incoming::new(first.receive(socket, StreamOptions::default())?, sender);
        match incoming.stream.next() {
            Ok(_) => accepted += 1,
            Err(error) => {
                ensure!(error.kind() == ErrorKind::Protocol, "{error}");
                ensure!(error.to_string().contains(words), "{error}");
                refused += 1;
            }
        }
        if accepted > 0 && refused > 0 {
            return Ok(());
        }
    }
    Err(format!("{accepted} connections were accepted, {refused} refused").into())
}

pub(super) fn fragments_stay_within_a_page(path: Path) -> Outcome {
    let setup = setup(path, 4 * MEBIBYTE)?;
    let mut incoming = setup.connect(MEBIBYTE, StreamOptions::default())?;
    while let Some(fragments) = incoming.read(&setup.mapping)? {
        for fragment in &fragments {
            let range = fragment.range();
            ensure!(range.start / PAGE == (range.end - 1) / PAGE, "{fragment:?}");
        }
        incoming.stream.release(fragments)?;
    }
    Ok(())
}

pub(super) fn the_link_may_go_down_and_up(path: Path) -> Outcome {
    let setup = setup(path, 16 * MEBIBYTE)?;
    let bytes = 8 * MEBIBYTE;
    let mut incoming = setup.connect(bytes, StreamOptions::default())?;
    let fragments = incoming.read(&setup.mapping)?.ok_or("no data")?;
    incoming.stream.release(fragments)?;
    for direction in ["down", "up"] {
        set_link(direction)?;
    }
    incoming.drain(&setup.mapping, bytes)?;
    let statistics = incoming.stream.statistics();
    ensure!(statistics.fragment_bytes == bytes, "the queue lost its binding: {statistics:?}");
    Ok(())
}
