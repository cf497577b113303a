//! What the kernel does with each way of asking: flags, lengths, control buffers.

use std::time::Duration;

use devmem_receive::devmem::{ETOOSMALL, RawErrno};
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};

use super::NEEDS_A_SOCKET;
use crate::check::Check;
use crate::context::Context;
use crate::ensure;
use crate::faults::Fault;
use crate::nic_under_test::Family;
use crate::path::{RawReceive, RawReceived, RawSocket};
use crate::peer::{Session, Step};
use crate::setup::{Connection, PATIENCE, Setup, compared, is_ready, options, places, script, sends};
use crate::verdict::{Finding, Outcome, Stop};

pub(super) const CHECKS: &[Check] = &[
    check(
        "thrown_away_bytes",
        "Bytes that are thrown away (MSG_TRUNC) leave no fragment to be given back, and the stream goes on behind them.",
        &[Fault::IgnoresFlags],
        thrown_away_bytes,
    ),
    check(
        "waiting_for_all",
        "A receive that waits for all (MSG_WAITALL) returns that much, though it comes in small parts.",
        &[Fault::IgnoresFlags],
        waiting_for_all,
    ),
    check(
        "short_lengths",
        "A receive never returns more than was asked for, wherever it lies, and the rest comes with the next ones.",
        &[Fault::IgnoresLength, Fault::DropsBytes],
        short_lengths,
    ),
    check(
        "short_control_buffers",
        "Without room for a control message a receive is refused (ETOOSMALL), with room for one it returns one piece; nothing is lost.",
        &[Fault::SwallowsErrors, Fault::DropsBytes],
        short_control_buffers,
    ),
    check(
        "not_asking_for_device_memory",
        "A receive that does not ask for device memory is refused (EFAULT), and what it would have had comes afterwards.",
        &[Fault::SwallowsErrors],
        not_asking_for_device_memory,
    ),
    check(
        "timestamps",
        "Timestamps of packets (SO_TIMESTAMPNS) come beside the fragments, and cost none of them.",
        &[Fault::LosesMessages, Fault::DropsBytes],
        timestamps,
    ),
    check(
        "without_blocking",
        "A receive that must not wait says so (EAGAIN) where there is nothing; poll() tells when there is, and the end.",
        &[Fault::SwallowsErrors, Fault::DropsBytes],
        without_blocking,
    ),
];

const fn check(
    name: &'static str,
    proves: &'static str,
    catches: &'static [Fault],
    run: fn(&Context<'_>) -> Outcome,
) -> Check {
    super::check(name, proves, catches, run).needing(NEEDS_A_SOCKET)
}

/// A connection whose socket waits as long as it is told to.
fn connect(
    context: &Context<'_>,
    setup: &Setup,
    session: &mut Session,
    steps: Vec<Step>,
) -> Result<Connection, Stop> {
    let listener = setup.listen(context, Family::V4)?;
    let options = options().linger(Duration::ZERO);
    setup.accept(&listener, session, script(listener.local_addr()?, steps), options)
}

/// The system calls below a connection.
fn raw(connection: &Connection) -> Result<Box<dyn RawSocket + '_>, Stop> {
    connection.incoming.raw().ok_or_else(|| Stop::fail("the path has no socket, and says that it has"))
}

fn receive(connection: &Connection, request: RawReceive) -> Result<RawReceived, Stop> {
    raw(connection)?.receive(request).map_err(|error| Stop::fail(format!("{request:?}: {error}")))
}

/// Receives once, checks every byte, and gives everything back.
fn take(setup: &Setup, connection: &mut Connection, request: RawReceive) -> Result<RawReceived, Stop> {
    let received = receive(connection, request)?;
    let told: usize = received.pieces.iter().map(|piece| piece.length()).sum();
    ensure!(
        told == received.bytes,
        "{request:?}: the pieces have {told} bytes of the {} that were received",
        received.bytes
    );
    connection.position = compared(&received.pieces, connection.position, &setup.mapping)?;
    connection.incoming.release(&places(&received.pieces))?;
    connection.incoming.flush()?;
    Ok(received)
}

/// A receive must be refused in this way.
fn refused(connection: &Connection, request: RawReceive, expected: i32) -> Result<(), Stop> {
    match raw(connection)?.receive(request) {
        Err(error) if error == RawErrno(expected) => Ok(()),
        Err(error) => Err(Stop::fail(format!("refused with {error} and not with {}", RawErrno(expected)))),
        Ok(received) => Err(Stop::fail(format!(
            "{} bytes were received and not refused with {}",
            received.bytes,
            RawErrno(expected)
        ))),
    }
}

fn wait(connection: &Connection) -> Result<(), Stop> {
    ensure!(is_ready(&connection.socket, PATIENCE)?, "nothing came within {} s", PATIENCE.as_secs());
    Ok(())
}

fn thrown_away_bytes(context: &Context<'_>) -> Outcome {
    let (setup, mut session) = (Setup::new(context)?, context.peer()?);
    let bytes = 128 << 10;
    let mut connection = connect(context, &setup, &mut session, sends(bytes))?;
    while connection.position < 50_000 {
        let received = receive(&connection, RawReceive::bytes(5000).flags(libc::MSG_TRUNC))?;
        ensure!(received.bytes > 0, "the stream ended before its end");
        ensure!(received.pieces.is_empty(), "thrown away, and handed out: {:?}", received.pieces);
        connection.position += received.bytes as u64;
    }
    connection.drain(&setup.mapping, bytes)?;
    connection.finish()?;
    Ok(Finding::Pass)
}

fn waiting_for_all(context: &Context<'_>) -> Outcome {
    let (setup, mut session) = (Setup::new(context)?, context.peer()?);
    let (parts, bytes) = (8, 3000);
    let part = [Step::Write { bytes, chunk: 3000 }, Step::Pause { milliseconds: 10 }];
    let mut steps: Vec<Step> = (0..parts).flat_map(|_| part.clone()).collect();
    steps.extend([Step::FinishWriting, Step::AwaitEnd]);
    let mut connection = connect(context, &setup, &mut session, steps)?;
    let all = 8 * 3000;
    let received = take(&setup, &mut connection, RawReceive::bytes(all).flags(libc::MSG_WAITALL))?;
    ensure!(received.bytes == all, "{} of {all} bytes were waited for", received.bytes);
    connection.drain(&setup.mapping, parts * bytes)?;
    connection.finish()?;
    Ok(Finding::Pass)
}

fn short_lengths(context: &Context<'_>) -> Outcome {
    let (setup, mut session) = (Setup::new(context)?, context.peer()?);
    let bytes = 64 << 10;
    let mut connection = connect(context, &setup, &mut session, sends(bytes))?;
    for length in [1, 2, 7, 100, 1000, 4096, 5000].into_iter().cycle() {
        let received = take(&setup, &mut connection, RawReceive::bytes(length))?;
        ensure!(
            received.bytes <= length,
            "{} bytes were received where {length} were asked for",
            received.bytes
        );
        if received.bytes == 0 {
            break;
        }
    }
    ensure!(connection.position == bytes, "{} of {bytes} bytes arrived", connection.position);
    connection.finish()?;
    Ok(Finding::Pass)
}

fn short_control_buffers(context: &Context<'_>) -> Outcome {
    let (setup, mut session) = (Setup::new(context)?, context.peer()?);
    let bytes = 64 << 10;
    let mut connection = connect(context, &setup, &mut session, sends(bytes))?;
    while connection.position < bytes {
        wait(&connection)?;
        refused(&connection, RawReceive::bytes(1 << 20).fragments(0), ETOOSMALL)?;
        let received = take(&setup, &mut connection, RawReceive::bytes(1 << 20).fragments(1))?;
        ensure!(received.pieces.len() == 1, "room for one piece, and there are {}", received.pieces.len());
    }
    connection.drain(&setup.mapping, bytes)?;
    connection.finish()?;
    Ok(Finding::Pass)
}

fn not_asking_for_device_memory(context: &Context<'_>) -> Outcome {
    let (setup, mut session) = (Setup::new(context)?, context.peer()?);
    let bytes = 64 << 10;
    let mut connection = connect(context, &setup, &mut session, sends(bytes))?;
    wait(&connection)?;
    for _ in 0..3 {
        refused(&connection, RawReceive::bytes(1000).ordinary(), libc::EFAULT)?;
    }
    connection.drain(&setup.mapping, bytes)?;
    connection.finish()?;
    Ok(Finding::Pass)
}

fn timestamps(context: &Context<'_>) -> Outcome {
    let (setup, mut session) = (Setup::new(context)?, context.peer()?);
    let (parts, bytes) = (5, 10_000);
    let part = [Step::Write { bytes, chunk: 10_000 }, Step::Pause { milliseconds: 20 }];
    let mut steps = vec![Step::Barrier];
    steps.extend((0..parts).flat_map(|_| part.clone()));
    steps.extend([Step::FinishWriting, Step::AwaitEnd]);
    let mut connection = connect(context, &setup, &mut session, steps)?;
    setsockopt(&connection.socket, sockopt::ReceiveTimestampns, &true).map_err(std::io::Error::from)?;
    connection.proceed()?;
    let mut timestamps = 0;
    loop {
        let received = take(&setup, &mut connection, RawReceive::bytes(1 << 20))?;
        timestamps += received.others;
        if received.bytes == 0 {
            break;
        }
    }
    ensure!(connection.position == parts * bytes, "{} of {} bytes", connection.position, parts * bytes);
    ensure!(timestamps > 0, "no timestamp came");
    connection.finish()?;
    Ok(Finding::Pass)
}

fn without_blocking(context: &Context<'_>) -> Outcome {
    let (setup, mut session) = (Setup::new(context)?, context.peer()?);
    let bytes = 10_000;
    let steps = vec![
        Step::Barrier,
        Step::Write { bytes, chunk: 10_000 },
        Step::Barrier,
        Step::FinishWriting,
        Step::AwaitEnd,
    ];
    let mut connection = connect(context, &setup, &mut session, steps)?;
    let request = RawReceive::bytes(1 << 20).flags(libc::MSG_DONTWAIT);
    refused(&connection, request, libc::EAGAIN)?;
    ensure!(!is_ready(&connection.socket, Duration::ZERO)?, "poll() tells of data before any was sent");
    connection.proceed()?;
    while connection.position < bytes {
        wait(&connection)?;
        take(&setup, &mut connection, request)?;
    }
    refused(&connection, request, libc::EAGAIN)?;
    ensure!(!is_ready(&connection.socket, Duration::ZERO)?, "poll() tells of data that was received already");
    connection.proceed()?;
    wait(&connection)?;
    let received = take(&setup, &mut connection, request)?;
    ensure!(received.bytes == 0, "{} bytes at the end of the stream", received.bytes);
    connection.finish()?;
    Ok(Finding::Pass)
}
