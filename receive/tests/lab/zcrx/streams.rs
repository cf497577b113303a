//! What a stream yields, and what becomes of its fragments.

use std::net::TcpListener;

use devmem_provider::ErrorKind;
use devmem_receive::devmem::StreamOptions;
use devmem_receive::zcrx::LinearData;
use nix::sys::socket::{setsockopt, sockopt};

use super::setup;
use crate::harness::{Outcome, ensure};
use crate::sender;
use crate::setup::{ADDRESS, Incoming, accept};

const MEBIBYTE: u64 = 1 << 20;

/// The kernel finds more in the socket than the ring has room for: nobody receives until all of it is on its way.
pub(crate) fn a_full_completion_queue_loses_nothing() -> Outcome {
    let bytes = 8 * MEBIBYTE;
    // A fragment may take a page, however short it is.
    let setup = setup(4 * bytes)?;
    let listener = TcpListener::bind(ADDRESS)?;
    // A connection inherits it, and with it a window for everything.
    setsockopt(&listener, sockopt::RcvBufForce, &usize::try_from(4 * bytes)?)?;
    let mut sender = sender::start(ADDRESS, bytes)?;
    let stream = setup.pin.receive(accept(&listener)?, StreamOptions::default().batch_fragments(8))?;
    // The sender ends when the rest of the stream fits into its own socket, which is half of it at most.
    let status = sender.wait()?;
    ensure!(status.success(), "sender: {status}");
    let mut incoming = Incoming::new(stream, sender);
    incoming.drain(&setup.mapping, bytes)?;
    ensure!(incoming.stream.restarts() > 0, "the completion queue was never full");
    Ok(())
}

/// No flow rule sends this connection to the queue.
pub(crate) fn payload_in_host_memory_ends_the_stream() -> Outcome {
    let setup = setup(4 * MEBIBYTE)?;
    let address = "10.77.0.1:5999";
    let listener = TcpListener::bind(address)?;
    let mut sender = sender::start(address, MEBIBYTE)?;
    let socket = accept(&listener)?;
    let mut stream = setup.pin.receive(socket, StreamOptions::default())?;
    let error = stream.next().err().ok_or("payload in host memory was received")?;
    sender.kill()?;
    sender.wait()?;
    ensure!(error.kind() == ErrorKind::Protocol && LinearData::is_source_of(&error), "{error:?}");
    ensure!(error.to_string().contains("host memory") && error.remedy_text().is_some(), "{error}");
    drop(stream);
    // The queue is unharmed.
    setup.connect(MEBIBYTE, StreamOptions::default())?.drain(&setup.mapping, MEBIBYTE)
}

pub(crate) fn a_stream_stays_in_its_thread() -> Outcome {
    let setup = setup(4 * MEBIBYTE)?;
    let mut incoming = setup.connect(MEBIBYTE, StreamOptions::default().batch_bytes(64 << 10))?;
    let fragments = incoming.read(&setup.mapping)?.ok_or("no data")?;
    let refused = std::thread::scope(|scope| {
        // Giving back is free to everybody.
        let elsewhere = scope.spawn(|| {
            incoming.stream.release(fragments)?;
            while incoming.stream.next()?.is_some() {}
            Ok::<_, devmem_provider::Error>(())
        });
        elsewhere.join().map_err(|_| "the thread panicked")
    })?;
    let error = refused.err().ok_or("two threads received one stream")?;
    ensure!(error.kind() == ErrorKind::WrongState, "{error}");
    ensure!(error.to_string().contains("one thread"), "{error}");
    Ok(())
}
