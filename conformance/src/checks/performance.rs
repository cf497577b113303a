//! How fast; reported, never judged.

use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use devmem_provider::Request;

use super::pin::ONE_BUFFER;
use super::receive::{NEEDS, ONE_MEBIBYTE};
use crate::check::{Check, Group};
use crate::context::Context;
use crate::ensure;
use crate::faults::Fault;
use crate::need::Need;
use crate::nic_under_test::Family;
use crate::peer::Session;
use crate::setup::{BUFFER_BYTES, Setup, accepted, pin, prepare, script, sends};
use crate::verdict::{Figure, Finding, Outcome, Stop};

/// How much is received, in bytes.
const BYTES: u64 = 16 << 20;

/// How often is bound.
const BINDS: u32 = 8;

pub(super) const CHECKS: &[Check] = &[
    Check {
        group: Group::Performance,
        name: "rate",
        proves: "A stream is received, and it is measured how fast, beside one of ordinary TCP over the same NIC.",
        needs: NEEDS,
        after: &[ONE_MEBIBYTE],
        limit: Duration::from_secs(60),
        catches: &[Fault::InventsEnd, Fault::BindsNothing],
        run: rate,
    },
    Check {
        group: Group::Performance,
        name: "bind_time",
        proves: "A buffer is bound to a queue and detached, and it is measured how long each takes.",
        needs: &[Need::Nic],
        after: &[ONE_BUFFER],
        limit: Duration::from_secs(60),
        catches: &[Fault::RefusesBind, Fault::ExportsNoDmaBuf],
        run: bind_time,
    },
];

const MEBIBYTE: f64 = (1 << 20) as f64;

fn rate(context: &Context<'_>) -> Outcome {
    let mut session = context.peer()?;
    let ordinary = ordinary_rate(context, &mut session)?;
    let setup = Setup::new(context)?;
    let mut connection = setup.connect(context, &mut session, sends(BYTES))?;
    let mut received = 0;
    let started = Instant::now();
    // The bytes are not looked at: comparing them would be measured as well.
    while let Some(pieces) = connection.incoming.next()? {
        received += pieces.iter().map(|piece| piece.length() as u64).sum::<u64>();
        connection.incoming.release(&crate::setup::places(&pieces))?;
    }
    connection.incoming.flush()?;
    let taken = started.elapsed();
    ensure!(received == BYTES, "{received} of {BYTES} bytes arrived");
    let rate = per_second(received, taken);
    let mut figures = vec![
        Figure::new("received into the buffer", rate, "MiB/s"),
        Figure::new("received by ordinary TCP", ordinary, "MiB/s"),
        Figure::new("compared with ordinary TCP", rate / ordinary, "times as fast"),
    ];
    if let Some(calls) = connection.incoming.system_calls() {
        let calls = calls as f64 * MEBIBYTE / received as f64;
        figures.push(Figure::new("system calls", calls, "per MiB"));
    }
    Ok(Finding::Measured(figures))
}

/// In MiB/s.
fn per_second(bytes: u64, taken: Duration) -> f64 {
    bytes as f64 / MEBIBYTE / taken.as_secs_f64().max(f64::MIN_POSITIVE)
}

/// Receives as much over the same NIC, which is not set up for anything, into host memory.
fn ordinary_rate(context: &Context<'_>, session: &mut Session) -> Result<f64, Stop> {
    let under_test = context.nic()?;
    let address = under_test.address(&under_test.open()?, Family::V4).map_err(|error| Stop::skip(&error))?;
    let listener = TcpListener::bind(SocketAddr::new(address, under_test.port))?;
    let running = session.start(&script(listener.local_addr()?, sends(BYTES)))?;
    let mut socket = accepted(&listener)?;
    let mut room = vec![0; 1 << 20];
    let (mut received, started) = (0, Instant::now());
    loop {
        match socket.read(&mut room)? {
            0 => break,
            count => received += count as u64,
        }
    }
    let taken = started.elapsed();
    ensure!(received == BYTES, "{received} of {BYTES} bytes arrived over ordinary TCP");
    drop((socket, running));
    Ok(per_second(received, taken))
}

fn bind_time(context: &Context<'_>) -> Outcome {
    let size = BUFFER_BYTES.next_multiple_of(context.granularity()?.max(1));
    let nic = prepare(context, 1, size)?;
    let (mut binding, mut detaching) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..BINDS {
        let buffer = context.provider().allocate(&Request::bytes(size))?;
        let started = Instant::now();
        let pinned = pin(context, &nic, nic.queues(), &*buffer)?;
        binding += started.elapsed();
        let started = Instant::now();
        drop(pinned);
        detaching += started.elapsed();
    }
    nic.restore()?;
    let milliseconds = |taken: Duration| taken.as_secs_f64() * 1000.0 / f64::from(BINDS);
    Ok(Finding::Measured(vec![
        Figure::new("exporting and binding", milliseconds(binding), "ms"),
        Figure::new("detaching", milliseconds(detaching), "ms"),
    ]))
}
