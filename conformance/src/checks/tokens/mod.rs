//! Giving memory back to the NIC.
//!
//! What the kernel takes and counts is in `net/core/sock.c` (`sock_devmem_dontneed()`).

mod counts;
pub(super) mod holding;
mod refill_ring;
mod refusals;

use std::time::Duration;

use devmem_provider::{Error, ErrorKind};

use super::receive::{NEEDS, NEEDS_A_SOCKET, ONE_MEBIBYTE};
use super::{all, count, path_check};
use crate::check::{Check, Group};
use crate::context::Context;
use crate::ensure;
use crate::faults::Fault;
use crate::path::Place;
use crate::setup::{Connection, Setup, compared, places, sends};
use crate::verdict::{Finding, Outcome, Stop};

/// How long the kernel may take to let go of a buffer that nothing holds.
const DETACH_LIMIT: Duration = Duration::from_secs(5);

const fn check(
    name: &'static str,
    proves: &'static str,
    catches: &'static [Fault],
    run: fn(&Context<'_>) -> Outcome,
) -> Check {
    path_check(Group::Tokens, name, proves, NEEDS, &[ONE_MEBIBYTE], catches, run)
}

/// A check of tokens, which takes the connection's socket.
const fn of_a_socket(
    name: &'static str,
    proves: &'static str,
    catches: &'static [Fault],
    run: fn(&Context<'_>) -> Outcome,
) -> Check {
    check(name, proves, catches, run).needing(NEEDS_A_SOCKET)
}

const PARTS: &[&[Check]] = &[STREAMS, counts::CHECKS, refusals::CHECKS, refill_ring::CHECKS];

pub(super) const CHECKS: &[Check] = &all::<{ count(PARTS) }>(PARTS);

/// By way of a stream, which tells what it gave back in vain.
const STREAMS: &[Check] = &[
    check(
        "exhaustion_and_recovery",
        "A buffer that is held whole stalls the stream, which goes on when the places come back.",
        &[Fault::LosesTokens, Fault::ReleasesEarly],
        exhaustion_and_recovery,
    ),
    check("any_order", "Places may be given back in any order.", &[Fault::LosesTokens], any_order),
    check(
        "released_twice",
        "That a place is given back twice is told, and harms nothing.",
        &[Fault::SwallowsErrors, Fault::LosesTokens],
        released_twice,
    ),
    check(
        "of_another_connection",
        "A place that another connection holds is not given back, and that is told.",
        &[Fault::SwallowsErrors, Fault::LosesTokens],
        of_another_connection,
    ),
    check(
        "closing_gives_back",
        "Connections that are closed give back all that they hold, to the next one and to the kernel.",
        &[Fault::DeniesDetached, Fault::KeepsConnection],
        closing_gives_back,
    ),
];

/// Reads until something arrives, or the stream ends.
fn first(connection: &mut Connection, setup: &Setup) -> Result<Vec<Place>, Stop> {
    connection.read(&setup.mapping)?.ok_or_else(|| Stop::fail("the stream ended before it began"))
}

/// How long nothing arrives at a connection that has no memory left.
const STALLED: Duration = Duration::from_secs(1);

/// How long after a stall the peer may take to send again what found no memory: it waits twice as long each time.
const RECOVERS: Duration = Duration::from_secs(5);

/// Holds all that arrives until nothing arrives any more. Returns what is held, and how the stall was told.
fn starve(connection: &mut Connection, setup: &Setup) -> Result<(Vec<Place>, Error), Stop> {
    let mut held = Vec::new();
    loop {
        match connection.incoming.next() {
            Ok(Some(pieces)) => {
                connection.position = compared(&pieces, connection.position, &setup.mapping)?;
                held.extend(places(&pieces));
                connection.incoming.limit_idle(STALLED);
            }
            Ok(None) => return Err(Stop::fail("more than the buffer arrived in it, and all of it is held")),
            Err(error) if held.is_empty() => return Err(error.into()),
            Err(error) => {
                connection.incoming.limit_idle(RECOVERS);
                return Ok((held, error));
            }
        }
    }
}

fn exhaustion_and_recovery(context: &Context<'_>) -> Outcome {
    let (setup, mut session) = (Setup::new(context)?, context.peer()?);
    let bytes = 2 * setup.buffer.size();
    let mut connection = setup.connect(context, &mut session, sends(bytes))?;
    let (held, stalled) = starve(&mut connection, &setup)?;
    ensure!(connection.position <= setup.buffer.size(), "{} bytes are held: {stalled}", connection.position);
    connection.incoming.release(&held)?;
    connection.incoming.flush()?;
    connection.drain(&setup.mapping, bytes)?;
    Ok(Finding::Pass)
}

fn any_order(context: &Context<'_>) -> Outcome {
    let (setup, mut session) = (Setup::new(context)?, context.peer()?);
    let bytes = 2 * setup.buffer.size();
    let mut connection = setup.connect(context, &mut session, sends(bytes))?;
    while let Some(mut places) = connection.read(&setup.mapping)? {
        places.reverse();
        let (even, odd): (Vec<_>, Vec<_>) =
            places.into_iter().enumerate().partition(|(index, _)| index.is_multiple_of(2));
        for (_, place) in odd.into_iter().chain(even) {
            connection.incoming.release(&[place])?;
        }
    }
    ensure!(connection.position == bytes, "{} of {bytes} bytes arrived", connection.position);
    connection.incoming.flush()?;
    Ok(Finding::Pass)
}

/// Stops unless an error says that something was given back that was not held.
fn told(result: devmem_provider::Result<()>, what: &str) -> Result<(), Stop> {
    let Err(error) = result else { return Err(Stop::fail(format!("{what} went unnoticed"))) };
    ensure!(error.kind() == ErrorKind::InvalidInput, "{what} is {:?}: {error}", error.kind());
    Ok(())
}

fn released_twice(context: &Context<'_>) -> Outcome {
    let (setup, mut session) = (Setup::new(context)?, context.peer()?);
    let bytes = 1 << 20;
    let mut connection = setup.connect(context, &mut session, sends(bytes))?;
    let places = first(&mut connection, &setup)?;
    connection.incoming.release(&places)?;
    connection.incoming.flush()?;
    let again = connection.incoming.release(&places).and_then(|()| connection.incoming.flush());
    told(again, "a second release")?;
    connection.drain(&setup.mapping, bytes)?;
    Ok(Finding::Pass)
}

fn of_another_connection(context: &Context<'_>) -> Outcome {
    let (setup, mut session) = (Setup::of(context, 1, 8 << 20)?, context.peer()?);
    let bytes = 256 << 10;
    let mut owner = setup.connect(context, &mut session, sends(bytes))?;
    let mut other = setup.connect_beside(context, &mut session, sends(bytes))?;
    let places = first(&mut owner, &setup)?;
    let result = other.incoming.release(&places).and_then(|()| other.incoming.flush());
    told(result, "the release by another connection")?;
    owner.incoming.release(&places)?;
    owner.drain(&setup.mapping, bytes)?;
    other.drain(&setup.mapping, bytes)?;
    Ok(Finding::Pass)
}

fn closing_gives_back(context: &Context<'_>) -> Outcome {
    let (setup, mut session) = (Setup::new(context)?, context.peer()?);
    let bytes = 1 << 20;
    // Were they to keep it, there would be nothing left for the last ones.
    for number in 0..2 * setup.buffer.size() / bytes {
        let mut connection = setup.connect(context, &mut session, sends(bytes))?;
        let mut held = 0;
        let read = |connection: &mut Connection| connection.read(&setup.mapping);
        while let Some(places) = read(&mut connection).map_err(|stop| in_connection(number, stop))? {
            held += places.len();
        }
        ensure!(held > 0, "nothing was held");
    }
    let told = setup.pin.into_attachment().detach(DETACH_LIMIT)?;
    ensure!(told, "the kernel still holds the buffer after {} s", DETACH_LIMIT.as_secs());
    Ok(Finding::Pass)
}

fn in_connection(number: u64, stop: Stop) -> Stop {
    match stop {
        Stop::Fail(reason) => Stop::Fail(format!("after {number} connections that were closed: {reason}")),
        skip @ Stop::Skip(_) => skip,
    }
}
