//! Streams of io_uring, which end with their binding.

use std::time::Duration;

use devmem_provider::ErrorKind;

use super::super::receive::NEEDS_RINGS;
use super::check;
use super::processes::is_bound;
use crate::check::Check;
use crate::context::Context;
use crate::ensure;
use crate::faults::Fault;
use crate::peer::Step;
use crate::setup::{Connection, Setup, compared, places, sends};
use crate::verdict::{Finding, Outcome, Stop};

pub(super) const CHECKS: &[Check] = &[
    check(
        "ends_with_its_binding",
        "Detaching is complete though places are held; a stream ends then, with an error that says so, and the buffer \
         keeps its content.",
        &[Fault::SwallowsErrors, Fault::DeniesDetached],
        ends_with_its_binding,
    )
    .needing(NEEDS_RINGS),
    check(
        "ends_while_it_waits",
        "A stream that waits when its binding is detached ends, and the queue is free.",
        &[Fault::SwallowsErrors, Fault::LeaksBinding],
        ends_while_it_waits,
    )
    .needing(NEEDS_RINGS),
];

const FIRST: u64 = 256 << 10;

/// How long the kernel may take to let go of a buffer.
const LIMIT: Duration = Duration::from_secs(10);

/// The first part of a stream, whose peer waits then.
fn first_part() -> Vec<Step> {
    let mut steps = vec![Step::Write { bytes: FIRST, chunk: 64 << 10 }, Step::Barrier];
    steps.extend(sends(FIRST));
    steps
}

/// Stops unless the stream ends because its binding is gone.
fn ended(connection: &mut Connection) -> Result<(), Stop> {
    match connection.incoming.next() {
        Ok(Some(_)) => Err(Stop::fail("something arrived without a binding")),
        Ok(None) => Err(Stop::fail("it was taken for the end of the stream")),
        Err(error) => {
            ensure!(error.kind() == ErrorKind::WrongState, "it is {:?}: {error}", error.kind());
            Ok(())
        }
    }
}

fn ends_with_its_binding(context: &Context<'_>) -> Outcome {
    let (setup, mut session) = (Setup::new(context)?, context.peer()?);
    let mut connection = setup.connect(context, &mut session, first_part())?;
    let mut held = Vec::new();
    while connection.position < FIRST {
        let pieces = connection.incoming.next()?;
        held.extend(pieces.ok_or_else(|| Stop::fail("the stream ended before its end"))?);
        connection.position = compared(&held, 0, &setup.mapping)?;
    }
    let Setup { mapping, pin, nic, buffer, .. } = setup;
    let holder = pin.holder();
    let told = pin.into_attachment().detach(LIMIT)?;
    ensure!(told, "the kernel still holds the buffer after {} s", LIMIT.as_secs());
    ensure!(!is_bound(nic.nic(), holder)?, "{holder} still has a queue");
    compared(&held, 0, &mapping)?;
    // What was held is nobody's any more.
    connection.incoming.release(&places(&held))?;
    ended(&mut connection)?;
    drop(connection);
    nic.restore()?;
    drop(buffer);
    Ok(Finding::Pass)
}

fn ends_while_it_waits(context: &Context<'_>) -> Outcome {
    let (setup, mut session) = (Setup::new(context)?, context.peer()?);
    let mut connection = setup.connect(context, &mut session, first_part())?;
    while connection.position < FIRST {
        let places = connection.read(&setup.mapping)?;
        let places = places.ok_or_else(|| Stop::fail("the stream ended before its end"))?;
        connection.incoming.release(&places)?;
    }
    let Setup { mapping, pin, nic, buffer, .. } = setup;
    let holder = pin.holder();
    let detaching = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        drop(pin);
    });
    // The stream gives up by itself after a longer time, with another error.
    let ended = ended(&mut connection);
    detaching.join().map_err(|_| Stop::fail("the thread panicked"))?;
    ended?;
    ensure!(!is_bound(nic.nic(), holder)?, "{holder} still has a queue");
    drop((connection, mapping));
    nic.restore()?;
    drop(buffer);
    Ok(Finding::Pass)
}
