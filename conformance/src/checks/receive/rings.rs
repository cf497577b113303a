//! What streams of io_uring do otherwise.

use std::net::TcpListener;
use std::time::Duration;

use devmem_provider::{Error, ErrorKind};
use devmem_receive::zcrx::LinearData;

use super::{NEEDS_RINGS, check};
use crate::check::Check;
use crate::context::Context;
use crate::ensure;
use crate::faults::Fault;
use crate::nic_under_test::Family;
use crate::setup::{Setup, accepted, options, script, sends};
use crate::verdict::{Finding, Outcome, Stop};

pub(super) const CHECKS: &[Check] = &[
    check(
        "host_memory_ends_the_stream",
        "Payload that arrived in host memory, which cannot be put into a DMA-buf, ends a stream with an error that says \
         so, and no other stream.",
        &[Fault::SwallowsErrors],
        host_memory_ends_the_stream,
    )
    .needing(NEEDS_RINGS),
    check(
        "another_thread",
        "A stream that one thread has begun to receive is refused to another, which may give fragments back; no other stream \
         is harmed.",
        &[Fault::SwallowsErrors, Fault::InventsEnd],
        another_thread,
    )
    .needing(NEEDS_RINGS),
    check(
        "nothing_is_copied",
        "By the kernel's own count it copies nothing into the buffer.",
        &[Fault::TellsCopies],
        nothing_is_copied,
    )
    .needing(NEEDS_RINGS),
];

const BYTES: u64 = 256 << 10;

fn host_memory_ends_the_stream(context: &Context<'_>) -> Outcome {
    let (setup, mut session) = (Setup::new(context)?, context.peer()?);
    // No flow rule sends a connection to another port to the queue.
    let address = context.nic()?.address(setup.nic.nic(), Family::V4).map_err(|error| Stop::skip(&error))?;
    let listener = TcpListener::bind((address, 0))?;
    let running = session.start(&script(listener.local_addr()?, sends(BYTES)))?;
    let mut incoming = setup.pin.receive(accepted(&listener)?, options())?;
    let error = match incoming.next() {
        Err(error) => error,
        Ok(found) => {
            return Err(Stop::fail(format!("payload of host memory was received: {}", found.is_some())));
        }
    };
    let is_told = error.kind() == ErrorKind::Protocol && LinearData::is_source_of(&error);
    ensure!(is_told, "it is {:?}: {error}", error.kind());
    ensure!(error.remedy_text().is_some(), "the error says nothing of what to do: {error}");
    drop((incoming, running));
    setup.transfer(context, &mut session, BYTES)?;
    Ok(Finding::Pass)
}

fn another_thread(context: &Context<'_>) -> Outcome {
    let (setup, mut session) = (Setup::new(context)?, context.peer()?);
    let listener = setup.listen(context, Family::V4)?;
    let script = script(listener.local_addr()?, sends(4 * BYTES));
    let options = options().batch_bytes(64 << 10).linger(Duration::ZERO);
    let mut connection = setup.accept(&listener, &mut session, script, options)?;
    let first = connection.read(&setup.mapping)?;
    let first = first.ok_or_else(|| Stop::fail("the stream ended before its end"))?;
    let incoming = &mut connection.incoming;
    let elsewhere = move || -> Result<(), Error> {
        incoming.release(&first)?;
        incoming.flush()?;
        while let Some(pieces) = incoming.next()? {
            incoming.release(&crate::setup::places(&pieces))?;
        }
        Ok(())
    };
    let result = std::thread::scope(|scope| scope.spawn(elsewhere).join())
        .map_err(|_| Stop::fail("the thread panicked"))?;
    let Err(error) = result else { return Err(Stop::fail("two threads have received one stream")) };
    ensure!(error.kind() == ErrorKind::WrongState, "it is {:?}: {error}", error.kind());
    drop((connection, listener));
    setup.transfer(context, &mut session, BYTES)?;
    Ok(Finding::Pass)
}

fn nothing_is_copied(context: &Context<'_>) -> Outcome {
    let (setup, mut session) = (Setup::new(context)?, context.peer()?);
    setup.transfer(context, &mut session, 4 * BYTES)?;
    let registered = setup.pin.registered().ok_or_else(|| Stop::fail("nothing is registered"))?;
    match registered.copied_bytes() {
        Some(0) => Ok(Finding::Pass),
        Some(bytes) => Err(Stop::fail(format!("{bytes} bytes were copied"))),
        None => Err(Stop::Skip(crate::Skip {
            reason: "the kernel does not count what it copies".to_owned(),
            found_by: "asking for the events of zero-copy receive".to_owned(),
            remedy: Some("use a newer kernel".to_owned()),
        })),
    }
}
