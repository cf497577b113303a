//! Where fragments lie, and what becomes of their bytes.

use devmem_provider::base_page_size;

use super::check;
use crate::check::Check;
use crate::context::Context;
use crate::ensure;
use crate::faults::Fault;
use crate::nic_under_test::Family;
use crate::path::Place;
use crate::setup::{BUFFER_BYTES, Setup, options, script, sends};
use crate::verdict::{Finding, Outcome, Stop};

pub(super) const CHECKS: &[Check] = &[
    check(
        "inside_the_buffer",
        "Every fragment lies inside of the buffer, within one page, and is not empty.",
        &[Fault::OutsideBuffer],
        inside_the_buffer,
    ),
    check(
        "never_twice_at_once",
        "No place of the buffer is handed out a second time while it is held.",
        &[Fault::ReportsTwice],
        never_twice_at_once,
    ),
    check(
        "held_is_kept",
        "What is held keeps its content while four times the buffer's size passes through the rest.",
        &[Fault::ReleasesEarly],
        held_is_kept,
    ),
    check(
        "more_than_the_buffer",
        "Three times the buffer's size passes through it.",
        &[Fault::LosesTokens],
        more_than_the_buffer,
    ),
];

fn inside_the_buffer(context: &Context<'_>) -> Outcome {
    let (setup, mut session) = (Setup::new(context)?, context.peer()?);
    let size = setup.buffer.size();
    let mut connection = setup.connect(context, &mut session, sends(1 << 20))?;
    while let Some(places) = connection.read(&setup.mapping)? {
        for place in &places {
            let end = place.offset.checked_add(place.length.into());
            ensure!(end.is_some_and(|end| end <= size), "{place:?} in a buffer of {size} bytes");
            ensure!(place.length > 0, "{place:?}");
            let page = base_page_size();
            let last = (place.offset + u64::from(place.length) - 1) / page;
            ensure!(place.offset / page == last, "{place:?} is in two pages");
        }
        connection.incoming.release(&places)?;
    }
    Ok(Finding::Pass)
}

/// Reads until at least `bytes` bytes are held, or all are.
fn held(setup: &Setup, connection: &mut crate::setup::Connection, bytes: u64) -> Result<Vec<Place>, Stop> {
    let mut held = Vec::new();
    while connection.position < bytes {
        match connection.read(&setup.mapping)? {
            Some(places) => held.extend(places),
            None => break,
        }
    }
    Ok(held)
}

fn never_twice_at_once(context: &Context<'_>) -> Outcome {
    let (setup, mut session) = (Setup::new(context)?, context.peer()?);
    let bytes = 1 << 20;
    let mut connection = setup.connect(context, &mut session, sends(bytes))?;
    let mut held = held(&setup, &mut connection, bytes)?;
    ensure!(connection.position == bytes, "{} of {bytes} bytes arrived", connection.position);
    held.sort_by_key(|place| place.offset);
    for pair in held.windows(2) {
        let [first, second] = pair else { continue };
        ensure!(first.offset + u64::from(first.length) <= second.offset, "{first:?} and {second:?} overlap");
    }
    connection.incoming.release(&held)?;
    Ok(connection.incoming.flush().map(|()| Finding::Pass)?)
}

fn held_is_kept(context: &Context<'_>) -> Outcome {
    let (setup, mut session) = (Setup::new(context)?, context.peer()?);
    let bytes = 4 * BUFFER_BYTES;
    let listener = setup.listen(context, Family::V4)?;
    let script = script(listener.local_addr()?, sends(bytes));
    // Small batches, so that a little more than is wanted is held, and not the whole buffer.
    let options = options().batch_bytes(64 << 10);
    let mut connection = setup.accept(&listener, &mut session, script, options)?;
    let held = held(&setup, &mut connection, 256 << 10)?;
    let content = |places: &[Place]| -> Result<Vec<u8>, Stop> {
        let access = setup.mapping.read()?;
        let mut all = Vec::new();
        for place in places {
            let mut bytes = vec![0; place.length as usize];
            access.copy_to(usize::try_from(place.offset).unwrap_or(usize::MAX), &mut bytes)?;
            all.extend(bytes);
        }
        access.finish()?;
        Ok(all)
    };
    let before = content(&held)?;
    connection.drain(&setup.mapping, bytes)?;
    let after = content(&held)?;
    let changed = before.iter().zip(&after).position(|(before, after)| before != after);
    ensure!(changed.is_none(), "byte {} of what is held was overwritten", changed.unwrap_or_default());
    connection.incoming.release(&held)?;
    connection.incoming.flush()?;
    Ok(Finding::Pass)
}

fn more_than_the_buffer(context: &Context<'_>) -> Outcome {
    let (setup, mut session) = (Setup::new(context)?, context.peer()?);
    setup.transfer(context, &mut session, 3 * setup.buffer.size())?;
    Ok(Finding::Pass)
}
