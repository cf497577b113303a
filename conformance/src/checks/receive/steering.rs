//! Which packets come into which buffer.

use std::io::Read;
use std::net::TcpListener;

use devmem_provider::dma_buf::Access;
use devmem_provider::{ErrorKind, Request};

use super::check;
use crate::check::Check;
use crate::context::Context;
use crate::ensure;
use crate::faults::Fault;
use crate::nic_under_test::Family;
use crate::peer::fill;
use crate::setup::{BUFFER_BYTES, Setup, accepted, compared, options, pin, prepare, script, sends};
use crate::verdict::{Finding, Outcome, Stop};

pub(super) const CHECKS: &[Check] = &[
    check(
        "other_connections_stay_out",
        "A connection to another port comes to host memory, beside one that comes into the buffer.",
        &[Fault::TakesOthers],
        other_connections_stay_out,
    ),
    check(
        "fragments_of_another_binding",
        "Two queues have a buffer each: what arrives by the other queue is refused, and never read from this buffer.",
        &[Fault::SwallowsErrors],
        fragments_of_another_binding,
    ),
];

fn other_connections_stay_out(context: &Context<'_>) -> Outcome {
    let (setup, mut session) = (Setup::new(context)?, context.peer()?);
    let bytes = 64 << 10;
    let mut connection = setup.connect(context, &mut session, sends(bytes))?;
    let address = context.nic()?.address(setup.nic.nic(), Family::V4).map_err(|error| Stop::skip(&error))?;
    let listener = TcpListener::bind((address, 0))?;
    let running = session.start(&script(listener.local_addr()?, sends(bytes)))?;
    let mut other = accepted(&listener)?;
    let mut found = Vec::new();
    other.read_to_end(&mut found).map_err(|error| {
        Stop::fail(format!("a connection to port {} cannot be read: {error}", listener_port(&listener)))
    })?;
    let mut expected = vec![0; 64 << 10];
    fill(0, &mut expected);
    ensure!(found == expected, "the connection to another port brought other bytes than were sent");
    drop((other, running));
    connection.drain(&setup.mapping, bytes)?;
    connection.finish()?;
    Ok(Finding::Pass)
}

fn listener_port(listener: &TcpListener) -> u16 {
    listener.local_addr().map_or(0, |address| address.port())
}

fn fragments_of_another_binding(context: &Context<'_>) -> Outcome {
    let nic = prepare(context, 2, BUFFER_BYTES)?;
    let [own_queue, other_queue] = nic.queues() else {
        return Err(Stop::fail(format!("two queues were prepared and {:?} are named", nic.queues())));
    };
    let request = Request::bytes(BUFFER_BYTES.next_multiple_of(context.granularity()?.max(1)));
    let (own_buffer, other_buffer) =
        (context.provider().allocate(&request)?, context.provider().allocate(&request)?);
    let own = pin(context, &nic, &[*own_queue], &*own_buffer)?;
    let _other = pin(context, &nic, &[*other_queue], &*other_buffer)?;
    let mapping = own.dma_buf().map(Access::Read)?;
    let address = context.nic()?.address(nic.nic(), Family::V4).map_err(|error| Stop::skip(&error))?;
    let listener = TcpListener::bind((address, context.nic()?.port))?;
    let mut session = context.peer()?;
    let (mut received, mut refused) = (0, 0);
    // Connections are spread over both queues by the peer's port.
    for _ in 0..32 {
        let running = session.start(&script(listener.local_addr()?, sends(10_000)))?;
        let mut incoming = own.receive(accepted(&listener)?, options())?;
        match incoming.next() {
            Ok(Some(pieces)) => {
                compared(&pieces, 0, &mapping)?;
                received += 1;
            }
            Ok(None) => return Err(Stop::fail("a stream that came by the other queue was told to be empty")),
            Err(error) => {
                ensure!(error.kind() == ErrorKind::Protocol, "refused as {:?}: {error}", error.kind());
                refused += 1;
            }
        }
        drop((incoming, running));
        if received > 0 && refused > 0 {
            return Ok(Finding::Pass);
        }
    }
    Err(Stop::fail(format!("of 32 connections {received} came by the own queue, {refused} by the other")))
}
