//! What a stream yields, and what becomes of its fragments.

use std::collections::HashSet;
use std::net::TcpListener;
use std::time::Duration;

use devmem_provider::ErrorKind;
use devmem_receive::devmem::StreamOptions;
use devmem_receive::stream::Fragment;
use devmem_receive::zcrx::LinearData;
use nix::sys::socket::{setsockopt, sockopt};

use super::setup::{Incoming, Setup};
use crate::devmem::sender;
use crate::devmem::setup::{ADDRESS, accept};
use crate::harness::{Outcome, ensure};
use crate::machine::set_link;

const MEBIBYTE: u64 = 1 << 20;

/// A long linger shows that the end of a stream ends a wait.
pub(crate) fn every_byte_in_order_in_any_batch() -> Outcome {
    let setup = Setup::new(16 * MEBIBYTE)?;
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
        ensure!(statistics.release_calls == 0, "{options:?}: {statistics:?}");
        ensure!(incoming.stream.next()?.is_none(), "the end is not the end");
    }
    Ok(())
}

pub(crate) fn a_fragment_that_is_held_is_not_overwritten() -> Outcome {
    let setup = Setup::new(16 * MEBIBYTE)?;
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
    Ok(())
}

pub(crate) fn a_fragment_released_twice_is_told() -> Outcome {
    let setup = Setup::new(4 * MEBIBYTE)?;
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

pub(crate) fn another_connections_fragment_is_not_released() -> Outcome {
    let setup = Setup::new(8 * MEBIBYTE)?;
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

/// The kernel finds more in the socket than the ring has room for: nobody receives until all of it is on its way.
pub(crate) fn a_full_completion_queue_loses_nothing() -> Outcome {
    let bytes = 8 * MEBIBYTE;
    // A fragment may take a page, however short it is.
    let setup = Setup::new(4 * bytes)?;
    let listener = TcpListener::bind(ADDRESS)?;
    // A connection inherits it, and with it a window for everything.
    setsockopt(&listener, sockopt::RcvBufForce, &usize::try_from(4 * bytes)?)?;
    let mut sender = sender::start(ADDRESS, bytes)?;
    let stream = setup.pin.receive(accept(&listener)?, StreamOptions::default().batch_fragments(8))?;
    // The sender ends when the rest of the stream fits into its own socket, which is half of it at most.
    let status = sender.wait()?;
    ensure!(status.success(), "sender: {status}");
    let mut incoming = Incoming { stream, position: 0, sender };
    incoming.drain(&setup.mapping, bytes)?;
    ensure!(incoming.stream.restarts() > 0, "the completion queue was never full");
    Ok(())
}

/// No flow rule sends this connection to the queue.
pub(crate) fn payload_in_host_memory_ends_the_stream() -> Outcome {
    let setup = Setup::new(4 * MEBIBYTE)?;
    let address = "10.77.0.1:5999";
    let listener = TcpListener::bind(address)?;
    let mut sender = sender::start(address, MEBIBYTE)?;
    let socket = accept(&listener)?;
    let mut stream = setup.pin.receive(socket, StreamOptions::default())?;
    let error = stream.next().err().ok_or("payload in host memory was received")?;
    sender.kill()?;
    sender.wait()?;
    ensure!(error.kind() == ErrorKind::Protocol && LinearData::is_source_of(&error), "{error:?}");
    ensure!(error.to_string().contains("host memory") && error.remedy_text().is_some(), "{error}");
    drop(stream);
    // The queue is unharmed.
    setup.connect(MEBIBYTE, StreamOptions::default())?.drain(&setup.mapping, MEBIBYTE)
}

pub(crate) fn a_stream_stays_in_its_thread() -> Outcome {
    let setup = Setup::new(4 * MEBIBYTE)?;
    let mut incoming = setup.connect(MEBIBYTE, StreamOptions::default().batch_bytes(64 << 10))?;
    let fragments = incoming.read(&setup.mapping)?.ok_or("no data")?;
    let refused = std::thread::scope(|scope| {
        // Giving back is free to everybody.
        let elsewhere = scope.spawn(|| {
            incoming.stream.release(fragments)?;
            while incoming.stream.next()?.is_some() {}
            Ok::<_, devmem_provider::Error>(())
        });
        elsewhere.join().map_err(|_| "the thread panicked")
    })?;
    let error = refused.err().ok_or("two threads received one stream")?;
    ensure!(error.kind() == ErrorKind::WrongState, "{error}");
    ensure!(error.to_string().contains("one thread"), "{error}");
    Ok(())
}

pub(crate) fn the_link_may_go_down_and_up() -> Outcome {
    let setup = Setup::new(16 * MEBIBYTE)?;
    let bytes = 8 * MEBIBYTE;
    let mut incoming = setup.connect(bytes, StreamOptions::default())?;
    let fragments = incoming.read(&setup.mapping)?.ok_or("no data")?;
    incoming.stream.release(fragments)?;
    for direction in ["down", "up"] {
        set_link(direction)?;
    }
    incoming.drain(&setup.mapping, bytes)
}
