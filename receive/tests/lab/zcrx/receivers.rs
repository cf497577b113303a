//! Several connections, several queues, several threads.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;

use devmem_provider::dma_buf::Access;
use devmem_provider::{ErrorKind, Pin, Request, Require};
use devmem_receive::devmem::StreamOptions;
use devmem_receive::stream::Part;
use devmem_receive::zcrx::{Receiver, Zcrx};

use super::{setup, setup_with};
use crate::harness::{Outcome, ensure};
use crate::machine::{prepare, provider};
use crate::sender;
use crate::setup::{ADDRESS, accept, connection};

const MEBIBYTE: u64 = 1 << 20;

pub(crate) fn streams_share_a_queue_between_threads() -> Outcome {
    let setup = setup(16 * MEBIBYTE)?;
    let mut connections = Vec::new();
    for _ in 0..4 {
        connections
            .push(setup.connect(2 * MEBIBYTE, StreamOptions::default().batch_bytes(MEBIBYTE as usize))?);
    }
    let mapping = &setup.mapping;
    std::thread::scope(|scope| {
        let threads: Vec<_> = connections
            .iter_mut()
            .map(|incoming| {
                scope.spawn(move || incoming.drain(mapping, 2 * MEBIBYTE).map_err(|error| error.to_string()))
            })
            .collect();
        threads.into_iter().try_for_each(|thread| {
            thread.join().map_err(|_| "a thread panicked")?.map_err(crate::harness::Failure::from)
        })
    })
}

pub(crate) fn one_ring_receives_many_connections_from_two_queues() -> Outcome {
    let nic = prepare(2)?;
    let provider = provider()?;
    let mut pins = Vec::new();
    for &queue in nic.queues() {
        let buffer = provider.allocate(&Request::bytes(8 * MEBIBYTE))?;
        pins.push(Pin::new(&mut Zcrx::new(nic.nic(), [queue]), &*buffer, Require::Anywhere)?);
    }
    let [first, second] = pins.as_slice() else { return Err("two queues were asked for".into()) };
    let mappings = [first.dma_buf().map(Access::Read)?, second.dma_buf().map(Access::Read)?];
    let mut receiver = Receiver::new(first, StreamOptions::default())?;
    receiver.join(second)?;
    let listener = TcpListener::bind(ADDRESS)?;
    let mut senders = Vec::new();
    // How far each connection was read, and out of which buffer.
    let mut connections = BTreeMap::new();
    // The NIC spreads connections over both queues by the sender's port, so that eight may all arrive on one.
    let mut places = BTreeSet::new();
    while senders.len() < 8 || (places.len() < 2 && senders.len() < 40) {
        senders.push(sender::start(ADDRESS, MEBIBYTE)?);
        let number = receiver.add(accept(&listener)?)?;
        let place = receiver.place_of(number).ok_or("no place")?;
        connections.insert(number, (0, place));
        places.insert(place);
    }
    ensure!(places.len() == 2, "one queue receives all of {} connections", senders.len());
    let mut ended = 0;
    let mut fragments = Vec::new();
    let mut bytes = vec![0; 4096];
    while let Some(batch) = receiver.next()? {
        for part in batch.parts() {
            let Part::Fragment(fragment) = part else { return Err("linear data".into()) };
            let (position, place) = connections.get_mut(&fragment.token()).ok_or("an unknown connection")?;
            let content = &mut bytes[..fragment.length() as usize];
            let offset = usize::try_from(fragment.offset())?;
            let access = mappings[*place].read()?;
            access.copy_to(offset, content)?;
            access.finish()?;
            let right = |(at, &byte): (usize, &u8)| byte == sender::pattern(*position + at as u64);
            ensure!(content.iter().enumerate().all(right), "{fragment:?} at {position} of buffer {place}");
            *position += u64::from(fragment.length());
            fragments.push(fragment);
        }
        let over: Vec<_> = batch.ended().map(|(number, result)| result.map(|()| number)).collect();
        receiver.release(fragments.drain(..))?;
        for number in over {
            receiver.remove(number?);
            ended += 1;
        }
    }
    receiver.flush()?;
    ensure!(ended == senders.len(), "{ended} of {} connections ended", senders.len());
    ensure!(connections.values().all(|&(position, _)| position == MEBIBYTE), "{connections:?}");
    senders.into_iter().try_for_each(|mut sender| sender.wait().map(drop))?;
    let statistics = receiver.statistics();
    ensure!(statistics.released == statistics.fragments, "{statistics:?}");
    Ok(())
}

/// As kernels do it that let rings share nothing: the ring that registered the queue receives.
pub(crate) fn one_ring_is_for_one_after_the_other() -> Outcome {
    let setup = setup_with(8 * MEBIBYTE, Zcrx::one_ring)?;
    let options = StreamOptions::default().batch_bytes(64 << 10);
    let mut first = setup.connect(MEBIBYTE, options)?;
    let fragments = first.read(&setup.mapping)?.ok_or("no data")?;
    let (socket, mut sender) = connection(MEBIBYTE)?;
    let error = setup.pin.receive(socket, options).err().ok_or("two streams had one ring")?;
    sender.kill()?;
    sender.wait()?;
    ensure!(error.kind() == ErrorKind::Unsupported, "{error}");
    ensure!(error.to_string().contains("one receiver"), "{error}");
    first.stream.release(fragments)?;
    // Given up midway; what was not taken goes back, for eight times as much would not fit.
    drop(first);
    for _ in 0..8 {
        let mut incoming = setup.connect(2 * MEBIBYTE, StreamOptions::default())?;
        incoming.read(&setup.mapping)?.ok_or("no data")?;
    }
    setup.connect(2 * MEBIBYTE, StreamOptions::default())?.drain(&setup.mapping, 2 * MEBIBYTE)?;
    let mut receiver = Receiver::new(&setup.pin, StreamOptions::default())?;
    let mut senders = Vec::new();
    for _ in 0..3 {
        let (socket, sender) = connection(MEBIBYTE)?;
        receiver.add(socket)?;
        senders.push(sender);
    }
    let (mut bytes, mut fragments) = (0, Vec::new());
    while let Some(batch) = receiver.next()? {
        bytes += batch.parts().bytes() as u64;
        for part in batch.parts() {
            if let Part::Fragment(fragment) = part {
                fragments.push(fragment);
            }
        }
        batch.ended().try_for_each(|(_, result)| result)?;
        receiver.release(fragments.drain(..))?;
    }
    ensure!(bytes == 3 * MEBIBYTE, "{bytes} bytes");
    senders.into_iter().try_for_each(|mut sender| sender.wait().map(drop))?;
    Ok(())
}
