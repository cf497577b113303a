//! What outlives what, and what is torn away meanwhile.

mod privilege;
mod processes;
mod rings;
mod settings;
mod threads;
mod unplugged;

use std::time::Duration;

use super::pin::settled;
use super::receive::{NEEDS, NEEDS_OUTLIVING_STREAMS, ONE_MEBIBYTE};
use super::{all, count, path_check};
use crate::check::{Check, Group};
use crate::context::Context;
use crate::ensure;
use crate::faults::Fault;
use crate::setup::{Setup, compared, pin, sends};
use crate::verdict::{Finding, Outcome, Stop};

/// Long enough to see that the kernel does not let go.
const SHORT: Duration = Duration::from_millis(300);

const fn check(
    name: &'static str,
    proves: &'static str,
    catches: &'static [Fault],
    run: fn(&Context<'_>) -> Outcome,
) -> Check {
    path_check(Group::Lifetime, name, proves, NEEDS, &[ONE_MEBIBYTE], catches, run)
}

const fn of_outliving_streams(
    name: &'static str,
    proves: &'static str,
    catches: &'static [Fault],
    run: fn(&Context<'_>) -> Outcome,
) -> Check {
    check(name, proves, catches, run).needing(NEEDS_OUTLIVING_STREAMS)
}

pub(super) use privilege::UNPRIVILEGED;
pub(super) use processes::{BINDER, CONSUMER, EXPORTER, IDLER, RECEIVER};
pub(super) use unplugged::{COMES_BACK, FINDER, LIMIT, can_come_back, spared};

/// What takes devices away comes last.
const PARTS: &[&[Check]] = &[
    OBJECTS,
    rings::CHECKS,
    processes::CHECKS,
    settings::CHECKS,
    threads::CHECKS,
    privilege::CHECKS,
    unplugged::CHECKS,
];

pub(super) const CHECKS: &[Check] = &all::<{ count(PARTS) }>(PARTS);

/// Buffers, bindings, connections and mappings.
const OBJECTS: &[Check] = &[
    check(
        "buffer_dropped",
        "A buffer that is dropped while it is attached is received into all the same.",
        &[Fault::DropsBytes, Fault::WrongOffset],
        buffer_dropped,
    ),
    of_outliving_streams(
        "held_outlives_the_binding",
        "What is held keeps its content and the buffer when its binding goes, until it is given back.",
        &[Fault::ClaimsDetached],
        held_outlives_the_binding,
    ),
    of_outliving_streams(
        "stream_outlives_the_binding",
        "A stream whose binding goes midway is received to its end, the rest in host memory.",
        &[Fault::DropsBytes],
        stream_outlives_the_binding,
    ),
    check(
        "bound_again_and_again",
        "A buffer can be attached to a queue and detached twenty times in a row.",
        &[Fault::LeaksBinding],
        bound_again_and_again,
    ),
    check(
        "mapping_outlives_everything",
        "A mapping shows what was received when connection, binding and buffer are gone.",
        &[Fault::DropsBytes, Fault::WrongOffset],
        mapping_outlives_everything,
    ),
];

fn buffer_dropped(context: &Context<'_>) -> Outcome {
    let (setup, mut session) = (Setup::new(context)?, context.peer()?);
    let bytes = 256 << 10;
    let mut connection = setup.connect(context, &mut session, sends(bytes))?;
    let Setup { mapping, pin, nic, buffer, .. } = setup;
    drop(buffer);
    connection.drain(&mapping, bytes)?;
    drop((connection, pin, nic));
    Ok(Finding::Pass)
}

fn held_outlives_the_binding(context: &Context<'_>) -> Outcome {
    let (setup, mut session) = (Setup::new(context)?, context.peer()?);
    let mut connection = setup.connect(context, &mut session, sends(64 << 10))?;
    let mut held = Vec::new();
    while let Some(pieces) = connection.incoming.next()? {
        held.extend(pieces);
    }
    let Setup { mapping, pin, nic, buffer, .. } = setup;
    let references = buffer.export()?.file_information()?.count;
    ensure!(!pin.into_attachment().detach(SHORT)?, "the kernel let go of a buffer of which places are held");
    compared(&held, 0, &mapping)?;
    connection.incoming.release(&crate::setup::places(&held))?;
    connection.incoming.flush()?;
    settled(|| Ok(buffer.export()?.file_information()?.count < references), "the kernel keeps the buffer")?;
    nic.restore()?;
    Ok(Finding::Pass)
}

fn stream_outlives_the_binding(context: &Context<'_>) -> Outcome {
    let (setup, mut session) = (Setup::new(context)?, context.peer()?);
    let (half, whole) = (256 << 10, 512 << 10);
    let mut steps =
        vec![crate::peer::Step::Write { bytes: half, chunk: 64 << 10 }, crate::peer::Step::Barrier];
    steps.extend(sends(whole - half));
    let mut connection = setup.connect(context, &mut session, steps)?;
    while connection.position < half {
        let places = connection.read(&setup.mapping)?;
        let places = places.ok_or_else(|| Stop::fail("the stream ended before its end"))?;
        connection.incoming.release(&places)?;
    }
    connection.incoming.flush()?;
    let Setup { mapping, pin, nic, buffer, .. } = setup;
    drop(pin);
    connection.proceed()?;
    connection.drain(&mapping, whole)?;
    drop((connection, nic, buffer));
    Ok(Finding::Pass)
}

fn bound_again_and_again(context: &Context<'_>) -> Outcome {
    let setup = Setup::new(context)?;
    let Setup { mapping, pin: first, nic, buffer, .. } = setup;
    drop((mapping, first));
    for round in 1..=20 {
        pin(context, &nic, nic.queues(), &*buffer).map(drop).map_err(|stop| match stop {
            Stop::Fail(reason) => Stop::Fail(format!("in round {round}: {reason}")),
            skip => skip,
        })?;
    }
    Ok(Finding::Pass)
}

fn mapping_outlives_everything(context: &Context<'_>) -> Outcome {
    let (setup, mut session) = (Setup::new(context)?, context.peer()?);
    let bytes = 64 << 10;
    let mut connection = setup.connect(context, &mut session, sends(bytes))?;
    let mut held = Vec::new();
    while let Some(pieces) = connection.incoming.next()? {
        held.extend(pieces);
    }
    let Setup { mapping, pin, nic, buffer, .. } = setup;
    drop((connection, pin, nic, buffer));
    let end = compared(&held, 0, &mapping)?;
    ensure!(end == bytes, "{end} of {bytes} bytes arrived");
    Ok(Finding::Pass)
}
