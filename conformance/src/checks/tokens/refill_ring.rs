//! Giving back through a refill ring, and what the kernel tells of buffers that run out.

use std::time::Duration;

use devmem_provider::Request;
use devmem_provider::dma_buf::Access;
use devmem_receive::zcrx::{Event, RefillEntry};

use super::super::receive::NEEDS_RINGS;
use super::{check, starve};
use crate::check::Check;
use crate::context::Context;
use crate::ensure;
use crate::faults::Fault;
use crate::nic_under_test::Family;
use crate::path::Feature;
use crate::peer::Step;
use crate::setup::{BUFFER_BYTES, Setup, accepted, compared, options, places, prepare, script, sends};
use crate::verdict::{Finding, Outcome, Stop};

pub(super) const CHECKS: &[Check] = &[
    check(
        "full_refill_ring",
        "When more is given back than the refill ring has room for the kernel is asked to take it, and nothing is lost.",
        &[Fault::LosesTokens, Fault::DropsBytes],
        full_refill_ring,
    )
    .needing(NEEDS_RINGS),
    check(
        "wrong_refill_entries",
        "Entries of the refill ring with another area, an offset outside or padding give nothing back, and harm nothing.",
        &[Fault::ReleasesEarly, Fault::DropsBytes],
        wrong_refill_entries,
    )
    .needing(NEEDS_RINGS),
    check(
        "exhaustion_is_told",
        "That a buffer has run out is told by an event, once, and again when it has run out again.",
        &[Fault::LosesMessages, Fault::ReleasesEarly],
        exhaustion_is_told,
    )
    .needing(NEEDS_RINGS),
];

/// A refill ring that is much smaller than a batch.
const ENTRIES: u32 = 16;

fn full_refill_ring(context: &Context<'_>) -> Outcome {
    let path = context.path()?;
    let rings = path.rings().ok_or_else(|| Stop::Skip(Feature::Rings.missing_in(path.name())))?;
    let bytes = BUFFER_BYTES.next_multiple_of(context.granularity()?.max(1));
    let dma_buf = context.provider().allocate(&Request::bytes(bytes))?.export()?;
    let nic = prepare(context, 1, bytes)?;
    let attached = rings.attach_with_refill_ring(nic.nic(), nic.queues()[0], &dma_buf, ENTRIES)?;
    let mapping = dma_buf.map(Access::Read)?;
    let address = context.nic()?.address(nic.nic(), Family::V4).map_err(|error| Stop::skip(&error))?;
    let listener = std::net::TcpListener::bind((address, context.nic()?.port))?;
    let mut session = context.peer()?;
    let sent = 2 * bytes;
    let running = session.start(&script(listener.local_addr()?, sends(sent)))?;
    let mut incoming = attached.receive(accepted(&listener)?, options())?;
    let mut position = 0;
    while let Some(pieces) = incoming.next()? {
        position = compared(&pieces, position, &mapping)?;
        incoming.release(&places(&pieces))?;
    }
    ensure!(position == sent, "{position} of {sent} bytes arrived");
    incoming.flush()?;
    let calls = incoming.release_calls().unwrap_or_default();
    ensure!(calls > 0, "the refill ring was never full: nothing is proven");
    let waiting = attached.registered().map_or(u64::MAX, |registered| registered.given_back());
    ensure!(waiting <= ENTRIES.into(), "{waiting} fragments wait for a ring of {ENTRIES}");
    drop((incoming, attached, running));
    Ok(Finding::Pass)
}

fn wrong_refill_entries(context: &Context<'_>) -> Outcome {
    let (setup, mut session) = (Setup::new(context)?, context.peer()?);
    let (first, whole) = (256 << 10, 2 * setup.buffer.size());
    let mut steps = vec![Step::Write { bytes: first, chunk: 64 << 10 }, Step::Barrier];
    steps.extend(sends(whole - first));
    let mut connection = setup.connect(context, &mut session, steps)?;
    let mut held = Vec::new();
    while connection.position < first {
        let pieces = connection.incoming.next()?;
        held.extend(pieces.ok_or_else(|| Stop::fail("the stream ended before its end"))?);
        connection.position = compared(&held, 0, &setup.mapping)?;
    }
    let registered = setup.pin.registered().ok_or_else(|| Stop::fail("nothing is registered"))?;
    for place in places(&held) {
        let entry = RefillEntry { offset: place.offset, length: place.length, padding: 0 };
        for wrong in [
            RefillEntry { offset: place.offset | 1 << AREA_SHIFT, ..entry },
            RefillEntry { offset: place.offset + setup.buffer.size(), ..entry },
            RefillEntry { offset: u64::MAX, ..entry },
            RefillEntry { padding: 1, ..entry },
        ] {
            registered.put_refill_entry(wrong);
        }
    }
    drop(registered);
    // The kernel takes entries when the NIC needs buffers, and needs them all before all has arrived.
    connection.proceed()?;
    while let Some(places) = connection.read(&setup.mapping)? {
        connection.incoming.release(&places)?;
    }
    ensure!(connection.position == whole, "{} of {whole} bytes arrived", connection.position);
    compared(&held, 0, &setup.mapping).map_err(|stop| match stop {
        Stop::Fail(reason) => Stop::Fail(format!("what is held was overwritten: {reason}")),
        skip @ Stop::Skip(_) => skip,
    })?;
    connection.incoming.release(&places(&held))?;
    connection.incoming.flush()?;
    Ok(Finding::Pass)
}

/// Where the number of an area begins in an offset (`IORING_ZCRX_AREA_SHIFT`).
const AREA_SHIFT: u32 = 48;

/// How long the kernel may take to tell of an event.
const SOON: Duration = Duration::from_secs(5);

fn exhaustion_is_told(context: &Context<'_>) -> Outcome {
    let (setup, mut session) = (Setup::new(context)?, context.peer()?);
    let next = |limit: Duration| -> Result<Option<Event>, Stop> {
        let registered = setup.pin.registered().ok_or_else(|| Stop::fail("nothing is registered"))?;
        registered.next_event(limit).map_err(Stop::unless_supported)
    };
    // The rings of the NIC took what there was from the beginning.
    while next(Duration::ZERO)?.is_some() {}
    let bytes = 3 * setup.buffer.size();
    let mut connection = setup.connect(context, &mut session, sends(bytes))?;
    for time in ["first", "second"] {
        let (held, stalled) = starve(&mut connection, &setup)?;
        let mut told = Vec::new();
        while let Some(event) = next(if told.is_empty() { SOON } else { Duration::ZERO })? {
            told.push(event);
        }
        let is_told = told.contains(&Event::AllocationFailure);
        ensure!(is_told, "that the buffer has run out the {time} time is not told ({stalled}), but {told:?}");
        connection.incoming.release(&held)?;
        connection.incoming.flush()?;
    }
    connection.drain(&setup.mapping, bytes)?;
    Ok(Finding::Pass)
}
