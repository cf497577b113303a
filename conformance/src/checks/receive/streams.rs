//! How a stream goes on, stops and ends.

use std::time::Duration;

use devmem_provider::ErrorKind;
use nix::sys::socket::{setsockopt, sockopt};

use super::{NEEDS_A_SOCKET, check};
use crate::check::Check;
use crate::context::Context;
use crate::ensure;
use crate::faults::Fault;
use crate::peer::Step;
use crate::setup::{BUFFER_BYTES, Setup, compared, places, sends};
use crate::verdict::{Finding, Outcome, Stop};

pub(super) const CHECKS: &[Check] = &[
    check(
        "empty_stream",
        "A connection over which nothing is sent ends, and that is no error.",
        &[Fault::HidesEnd],
        empty_stream,
    ),
    check(
        "reset_is_an_error",
        "A connection that the peer resets is an error, and not taken for the end.",
        &[Fault::SwallowsErrors, Fault::InventsEnd],
        reset_is_an_error,
    ),
    check(
        "answers_after_the_end",
        "When the peer has sent all, it can still be sent something.",
        &[Fault::HidesEnd, Fault::ClosesAtEnd],
        answers_after_the_end,
    ),
    check(
        "both_directions",
        "While a stream is received, another one is sent over the same connection.",
        &[Fault::WrongOffset],
        both_directions,
    ),
    check(
        "slow_reader",
        "A reader that waits until the peer may send no more finds everything.",
        &[Fault::DropsBytes],
        slow_reader,
    ),
    check(
        "pauses",
        "A sender that pauses between its writes is waited for.",
        &[Fault::InventsEnd, Fault::DropsBytes],
        pauses,
    ),
    Check {
        needs: NEEDS_A_SOCKET,
        ..check(
            "peek_takes_nothing",
            "What is only shown is the stream's next bytes, and comes again.",
            &[Fault::PeekTakes],
            peek_takes_nothing,
        )
    },
    check(
        "partial_reads",
        "Receiving less than a packet at a time takes a page apart, and loses nothing.",
        &[Fault::DropsBytes],
        partial_reads,
    ),
    check(
        "few_fragments_at_a_time",
        "A reader that takes a few fragments at a time, of much that waits, finds all of it.",
        &[Fault::DropsBytes, Fault::SwapsFragments],
        few_fragments_at_a_time,
    ),
];

fn empty_stream(context: &Context<'_>) -> Outcome {
    let (setup, mut session) = (Setup::new(context)?, context.peer()?);
    let mut connection = setup.connect(context, &mut session, sends(0))?;
    connection.drain(&setup.mapping, 0)?;
    connection.finish()?;
    Ok(Finding::Pass)
}

fn reset_is_an_error(context: &Context<'_>) -> Outcome {
    let (setup, mut session) = (Setup::new(context)?, context.peer()?);
    let bytes = 64 << 10;
    let steps = vec![Step::Write { bytes, chunk: 64 << 10 }, Step::Barrier, Step::Reset];
    let mut connection = setup.connect(context, &mut session, steps)?;
    while connection.position < bytes {
        let places = connection.read(&setup.mapping)?;
        let places = places.ok_or_else(|| Stop::fail("the stream ended before its end"))?;
        connection.incoming.release(&places)?;
    }
    connection.incoming.flush()?;
    connection.proceed()?;
    match connection.incoming.next() {
        Ok(None) => Err(Stop::fail("the reset was taken for the end of the stream")),
        Ok(Some(_)) => Err(Stop::fail("something arrived that was not sent")),
        Err(error) => {
            ensure!(error.kind() == ErrorKind::Gone, "it is {:?}: {error}", error.kind());
            Ok(Finding::Pass)
        }
    }
}

fn answers_after_the_end(context: &Context<'_>) -> Outcome {
    let (setup, mut session) = (Setup::new(context)?, context.peer()?);
    let bytes = 64 << 10;
    let steps = vec![
        Step::Write { bytes, chunk: 64 << 10 },
        Step::FinishWriting,
        Step::Read { bytes },
        Step::AwaitEnd,
    ];
    let mut connection = setup.connect(context, &mut session, steps)?;
    connection.drain(&setup.mapping, bytes)?;
    connection.answer(bytes)?;
    connection.finish()?;
    Ok(Finding::Pass)
}

fn both_directions(context: &Context<'_>) -> Outcome {
    let (setup, mut session) = (Setup::new(context)?, context.peer()?);
    let (rounds, bytes) = (16, 16 << 10);
    let round = [Step::Write { bytes, chunk: 16 << 10 }, Step::Read { bytes }];
    let mut steps: Vec<Step> = (0..rounds).flat_map(|_| round.clone()).collect();
    steps.extend([Step::FinishWriting, Step::AwaitEnd]);
    let mut connection = setup.connect(context, &mut session, steps)?;
    for round in 1..=rounds {
        while connection.position < round * bytes {
            let places = connection.read(&setup.mapping)?;
            let places = places.ok_or_else(|| Stop::fail("the stream ended before its end"))?;
            connection.incoming.release(&places)?;
        }
        connection.answer(bytes)?;
    }
    connection.drain(&setup.mapping, rounds * bytes)?;
    connection.finish()?;
    Ok(Finding::Pass)
}

fn slow_reader(context: &Context<'_>) -> Outcome {
    let (setup, mut session) = (Setup::new(context)?, context.peer()?);
    let bytes = 2 * BUFFER_BYTES;
    let mut connection = setup.connect(context, &mut session, sends(bytes))?;
    std::thread::sleep(Duration::from_millis(300));
    connection.drain(&setup.mapping, bytes)?;
    connection.finish()?;
    Ok(Finding::Pass)
}

fn pauses(context: &Context<'_>) -> Outcome {
    let (setup, mut session) = (Setup::new(context)?, context.peer()?);
    let (rounds, bytes) = (5, 5000);
    let round = [Step::Write { bytes, chunk: 5000 }, Step::Pause { milliseconds: 50 }];
    let mut steps: Vec<Step> = (0..rounds).flat_map(|_| round.clone()).collect();
    steps.extend([Step::FinishWriting, Step::AwaitEnd]);
    let mut connection = setup.connect(context, &mut session, steps)?;
    connection.drain(&setup.mapping, rounds * bytes)?;
    connection.finish()?;
    Ok(Finding::Pass)
}

fn peek_takes_nothing(context: &Context<'_>) -> Outcome {
    let (setup, mut session) = (Setup::new(context)?, context.peer()?);
    let bytes = 256 << 10;
    let mut connection = setup.connect(context, &mut session, sends(bytes))?;
    for _ in 0..3 {
        let shown = connection.incoming.peek()?;
        let shown = shown.ok_or_else(|| Stop::fail("nothing was shown of a stream that has begun"))?;
        compared(&shown, connection.position, &setup.mapping)?;
        connection.incoming.release(&places(&shown))?;
        connection.incoming.flush()?;
    }
    connection.drain(&setup.mapping, bytes)?;
    connection.finish()?;
    Ok(Finding::Pass)
}

fn partial_reads(context: &Context<'_>) -> Outcome {
    let (setup, mut session) = (Setup::new(context)?, context.peer()?);
    let bytes = setup.buffer.size() + (1 << 20);
    let listener = setup.listen(context, crate::Family::V4)?;
    let script = crate::setup::script(listener.local_addr()?, sends(bytes));
    let options = crate::setup::options().batch_bytes(9000);
    let mut connection = setup.accept(&listener, &mut session, script, options)?;
    connection.drain(&setup.mapping, bytes)?;
    connection.finish()?;
    Ok(Finding::Pass)
}

fn few_fragments_at_a_time(context: &Context<'_>) -> Outcome {
    let (setup, mut session) = (Setup::of(context, 1, 16 << 20)?, context.peer()?);
    let bytes = 12 << 20;
    let listener = setup.listen(context, crate::Family::V4)?;
    // The connection inherits it, and with it a window in which more may wait than a path has room to tell of, and less
    // than the buffer holds.
    setsockopt(&listener, sockopt::RcvBufForce, &(4 << 20)).map_err(std::io::Error::from)?;
    let script = crate::setup::script(listener.local_addr()?, sends(bytes));
    let options = crate::setup::options().batch_fragments(8);
    let mut connection = setup.accept(&listener, &mut session, script, options)?;
    let mut rested = 0;
    while let Some(places) = connection.read(&setup.mapping)? {
        connection.incoming.release(&places)?;
        // Until more waits than a path has room to tell of.
        if connection.position - rested >= 2 << 20 {
            rested = connection.position;
            std::thread::sleep(Duration::from_millis(200));
        }
    }
    connection.incoming.flush()?;
    ensure!(connection.position == bytes, "{} of {bytes} bytes arrived", connection.position);
    if connection.incoming.restarts() == Some(0) {
        // The kernel looks at few packets at a time, and where the NIC joins none they have few fragments.
        println!("the completion queue was never full: that the stream goes on after that is not shown here");
    }
    connection.finish()?;
    Ok(Finding::Pass)
}
