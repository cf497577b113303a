//! Connections, bindings and data in another order than usual.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use devmem_provider::Request;

use super::{NEEDS_HOST_MEMORY, NEEDS_OUTLIVING_STREAMS, check};
use crate::check::Check;
use crate::context::Context;
use crate::ensure;
use crate::faults::Fault;
use crate::nic_under_test::Family;
use crate::path::Piece;
use crate::peer::Step;
use crate::setup::{
    BUFFER_BYTES, Connection, PATIENCE, Setup, accepted, compared, is_ready, options, places, prepare,
    script, sends,
};
use crate::verdict::{Finding, Outcome, Stop};

pub(super) const CHECKS: &[Check] = &[
    check(
        "sent_before_accepting",
        "What arrives before the connection is accepted is received from the first byte on.",
        &[Fault::DropsBytes, Fault::WrongOffset],
        sent_before_accepting,
    ),
    Check {
        needs: NEEDS_HOST_MEMORY,
        ..check(
            "sent_before_binding",
            "What arrives before the buffer is bound comes to host memory, what arrives afterwards into the buffer.",
            &[Fault::LinearInstead],
            sent_before_binding,
        )
    },
    Check {
        needs: NEEDS_OUTLIVING_STREAMS,
        ..check(
            "outlives_its_binding",
            "A connection whose queue is bound to another buffer goes on in that one, with the next byte.",
            &[Fault::LeaksBinding, Fault::WrongOffset],
            outlives_its_binding,
        )
    },
];

/// Half of the stream, and the other half when it is let go on. So little that the peer may send it before anything
/// is read.
const HALF: u32 = 16 << 10;

fn in_halves() -> Vec<Step> {
    let half = Step::Write { bytes: HALF.into(), chunk: HALF };
    vec![half.clone(), Step::Barrier, half, Step::FinishWriting, Step::AwaitEnd]
}

fn sent_before_accepting(context: &Context<'_>) -> Outcome {
    let (setup, mut session) = (Setup::new(context)?, context.peer()?);
    let listener = setup.listen(context, Family::V4)?;
    let running = session.start(&script(listener.local_addr()?, sends(HALF.into())))?;
    ensure!(is_ready(&listener, PATIENCE)?, "the peer's connection did not arrive");
    std::thread::sleep(Duration::from_millis(100));
    let mut connection = setup.receive(accepted(&listener)?, running, options())?;
    connection.drain(&setup.mapping, HALF.into())?;
    connection.finish()?;
    Ok(Finding::Pass)
}

fn sent_before_binding(context: &Context<'_>) -> Outcome {
    let nic = prepare(context, 1, BUFFER_BYTES)?;
    let mut session = context.peer()?;
    let address = context.nic()?.address(nic.nic(), Family::V4).map_err(|error| Stop::skip(&error))?;
    let listener = TcpListener::bind((address, context.nic()?.port))?;
    let running = session.start(&script(listener.local_addr()?, in_halves()))?;
    let socket = accepted(&listener)?;
    let mut shown = vec![0; HALF as usize];
    let deadline = Instant::now() + PATIENCE;
    while socket.peek(&mut shown)? < shown.len() {
        ensure!(Instant::now() < deadline, "the first half did not arrive");
        std::thread::sleep(Duration::from_millis(5));
    }
    let size = BUFFER_BYTES.next_multiple_of(context.granularity()?.max(1));
    let setup = Setup::with(context, nic, context.provider().allocate(&Request::bytes(size))?)?;
    let mut connection = setup.receive(socket, running, options())?;
    let before = counted_until(&mut connection, &setup, HALF.into())?;
    ensure!(before == 0, "{before} bytes lie in a buffer that was bound after they had come");
    connection.proceed()?;
    let after = counted_until(&mut connection, &setup, 2 * u64::from(HALF))?;
    ensure!(after == u64::from(HALF), "of {HALF} bytes that came after the bind {after} lie in the buffer");
    connection.drain(&setup.mapping, 2 * u64::from(HALF))?;
    connection.finish()?;
    Ok(Finding::Pass)
}

/// Reads until `end`. Returns how many of the bytes lie in the buffer.
fn counted_until(connection: &mut Connection, setup: &Setup, end: u64) -> Result<u64, Stop> {
    let mut in_buffer = 0;
    while connection.position < end {
        let pieces = connection.incoming.next()?;
        let pieces = pieces.ok_or_else(|| Stop::fail("the stream ended before its end"))?;
        connection.position = compared(&pieces, connection.position, &setup.mapping)?;
        let fragments = pieces.iter().filter(|piece| matches!(piece, Piece::Fragment(_)));
        in_buffer += fragments.map(|piece| piece.length() as u64).sum::<u64>();
        connection.incoming.release(&places(&pieces))?;
    }
    connection.incoming.flush()?;
    Ok(in_buffer)
}

fn outlives_its_binding(context: &Context<'_>) -> Outcome {
    let (setup, mut session) = (Setup::new(context)?, context.peer()?);
    let mut connection = setup.connect(context, &mut session, in_halves())?;
    counted_until(&mut connection, &setup, HALF.into())?;
    let Setup { mapping, pin, nic, buffer, .. } = setup;
    drop((mapping, pin));
    let another = context.provider().allocate(&Request::bytes(buffer.size()))?;
    let setup = Setup::with(context, nic, another)?;
    connection.incoming = setup.pin.receive(connection.socket.try_clone()?, options())?;
    connection.proceed()?;
    let after = counted_until(&mut connection, &setup, 2 * u64::from(HALF))?;
    ensure!(
        after == u64::from(HALF),
        "of {HALF} bytes that came after the change {after} lie in the new buffer"
    );
    connection.drain(&setup.mapping, 2 * u64::from(HALF))?;
    connection.finish()?;
    Ok(Finding::Pass)
}
