//! What a stream yields, and what becomes of its fragments.

use std::collections::HashSet;
use std::time::Duration;

use devmem_provider::{ErrorKind, Pin, Request, Require};
use devmem_receive::devmem::{DevmemTcp, StreamOptions};
use devmem_receive::netdev::Netdev;
use devmem_receive::nic::Nic;
use devmem_receive::stream::Fragment;

use super::sender;
use super::setup::{ADDRESS, Incoming, PAGE, Setup, check};
use crate::harness::{Failure, Outcome, ensure};
use crate::machine::{NIC, plan, prepare, provider, set_link};

const MEBIBYTE: u64 = 1 << 20;

pub(crate) fn every_byte_in_order_in_any_batch() -> Outcome {
    let setup = Setup::new(16 * MEBIBYTE)?;
    for options in [
        StreamOptions::default(),
        StreamOptions::default().linger(Duration::ZERO),
        StreamOptions::default().batch_bytes(1000),
        StreamOptions::default().batch_fragments(1),
    ] {
        let mut incoming = setup.connect(MEBIBYTE, options)?;
        incoming.drain(&setup.mapping, MEBIBYTE)?;
        let statistics = incoming.stream.statistics();
        ensure!(statistics.fragment_bytes == MEBIBYTE, "{options:?}: {statistics:?}");
        ensure!(statistics.released == statistics.fragments, "{options:?}: {statistics:?}");
    }
    Ok(())
}

pub(crate) fn a_fragment_that_is_held_is_not_overwritten() -> Outcome {
    let setup = Setup::new(16 * MEBIBYTE)?;
    let bytes = 8 * MEBIBYTE;
    let mut incoming = setup.connect(bytes, StreamOptions::default())?;
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
    incoming.stream.release(held.into_iter().map(|(fragment, _)| fragment))?;
    incoming.stream.flush()?;
    Ok(())
}

pub(crate) fn an_exhausted_buffer_recovers_when_fragments_come_back() -> Outcome {
    let buffer = 2 * MEBIBYTE;
    let bytes = 8 * MEBIBYTE;
    let setup = Setup::new(buffer)?;
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
    incoming.stream.release(held)?;
    incoming.stream.flush()?;
    incoming.drain(&setup.mapping, bytes)
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

pub(crate) fn a_peek_shows_the_same_bytes_again() -> Outcome {
    let setup = Setup::new(4 * MEBIBYTE)?;
    let mut incoming = setup.connect(MEBIBYTE, StreamOptions::default())?;
    let parts = incoming.stream.peek()?.ok_or("no data")?;
    let (fragments, end) = check(parts, 0, &setup.mapping)?;
    ensure!(end > 0 && !fragments.is_empty(), "nothing was shown");
    // The kernel handed out tokens for what it only showed.
    incoming.stream.release(fragments)?;
    incoming.drain(&setup.mapping, MEBIBYTE)
}

pub(crate) fn what_was_received_outlives_the_binding() -> Outcome {
    let setup = Setup::new(4 * MEBIBYTE)?;
    let mut incoming = setup.connect(256 << 10, StreamOptions::default())?;
    let mut held = Vec::new();
    while let Some(fragments) = incoming.read(&setup.mapping)? {
        held.extend(fragments);
    }
    let Setup { mapping, pin, nic, buffer } = setup;
    let binding = pin.into_attachment();
    let id = binding.id();
    // Tokens are out: the kernel keeps the buffer.
    ensure!(!binding.unbind(Duration::from_millis(500))?, "the kernel let go of a buffer in use");
    ensure!(!is_bound(id)?, "a queue is still bound");
    let access = mapping.read()?;
    let mut byte = [0];
    let first = held.first().ok_or("no fragment")?;
    access.copy_to(usize::try_from(first.offset())?, &mut byte)?;
    ensure!(byte[0] == sender::pattern(0), "the first byte changed");
    access.finish()?;
    // Giving them back lets it go.
    let references = buffer.export()?.file_information()?.count;
    incoming.stream.release(held)?;
    incoming.stream.flush()?;
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while buffer.export()?.file_information()?.count >= references {
        ensure!(std::time::Instant::now() < deadline, "the kernel never let go of the buffer");
        std::thread::sleep(Duration::from_millis(10));
    }
    ensure!(nic.restore()?.is_complete(), "the NIC was not restored");
    Ok(())
}

fn is_bound(id: u32) -> Result<bool, Failure> {
    let queues = Netdev::open()?.queues(Nic::open(NIC)?.ifindex())?;
    Ok(queues.iter().any(|queue| queue.dmabuf == Some(id)))
}

pub(crate) fn unbinding_is_complete_once_nothing_is_held() -> Outcome {
    let setup = Setup::new(4 * MEBIBYTE)?;
    let mut incoming = setup.connect(MEBIBYTE, StreamOptions::default())?;
    incoming.drain(&setup.mapping, MEBIBYTE)?;
    drop(incoming);
    ensure!(
        setup.pin.into_attachment().unbind(Duration::from_secs(10))?,
        "the kernel still holds the buffer"
    );
    Ok(())
}

pub(crate) fn a_closed_connection_gives_its_fragments_back() -> Outcome {
    let setup = Setup::new(4 * MEBIBYTE)?;
    let mut incoming = setup.connect(MEBIBYTE, StreamOptions::default())?;
    while incoming.read(&setup.mapping)?.is_some() {}
    drop(incoming);
    ensure!(
        setup.pin.into_attachment().unbind(Duration::from_secs(10))?,
        "the kernel still holds the buffer"
    );
    Ok(())
}

pub(crate) fn a_small_buffer_feeds_every_queue() -> Outcome {
    let plan = plan(3).buffer_bytes(2 * MEBIBYTE);
    let setup = Setup::on(Nic::open(NIC)?.prepare(&plan)?, 2 * MEBIBYTE)?;
    // Connections are spread over the queues by the sender's port, of which each has another.
    for _ in 0..12 {
        let mut incoming = setup.connect(256 << 10, StreamOptions::default())?;
        incoming.drain(&setup.mapping, 256 << 10)?;
    }
    Ok(())
}

pub(crate) fn a_fragment_of_another_binding_is_refused() -> Outcome {
    let nic = prepare(2)?;
    let provider = provider()?;
    let mut pins = Vec::new();
    for &queue in nic.queues() {
        let buffer = provider.allocate(&Request::bytes(4 * MEBIBYTE))?;
        pins.push(Pin::new(&mut DevmemTcp::new(nic.nic(), [queue]), &*buffer, Require::Anywhere)?);
    }
    let [first, _second] = pins.as_slice() else { return Err("two queues were asked for".into()) };
    let (mut accepted, mut refused) = (0, 0);
    // Connections are spread over both queues by the sender's port, so that some arrive on the other one.
    for _ in 0..32 {
        let listener = std::net::TcpListener::bind(ADDRESS)?;
        let sender = sender::start(ADDRESS, 256 << 10)?;
        let stream = first.receive(listener.accept()?.0, StreamOptions::default())?;
        let mut incoming = Incoming { stream, position: 0, sender };
        match incoming.stream.next() {
            Ok(_) => accepted += 1,
            Err(error) => {
                ensure!(error.kind() == ErrorKind::Protocol, "{error}");
                let words = error.to_string();
                ensure!(words.contains("another") || words.contains("binding"), "{error}");
                refused += 1;
            }
        }
        if accepted > 0 && refused > 0 {
            return Ok(());
        }
    }
    Err(format!("{accepted} connections were accepted, {refused} refused").into())
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
    incoming.drain(&setup.mapping, bytes)?;
    let statistics = incoming.stream.statistics();
    ensure!(statistics.fragment_bytes == bytes, "the queue lost its binding: {statistics:?}");
    Ok(())
}

pub(crate) fn fragments_stay_within_a_page() -> Outcome {
    let setup = Setup::new(4 * MEBIBYTE)?;
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
