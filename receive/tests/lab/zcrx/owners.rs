//! Who has a queue, and how it becomes free again.

use std::thread;
use std::time::Duration;

use devmem_provider::{Error, ErrorKind, Importer};
use devmem_receive::devmem::StreamOptions;
use devmem_receive::netdev::QueueKind;
use devmem_receive::nic::{Nic, restore, restore_on_signals};
use devmem_receive::zcrx::{Binding, Stream, Zcrx};

use super::setup;
use crate::harness::nic::{restored, restores_on_signals, unchanged};
use crate::harness::{Actor, Failure, Outcome, Role, ensure, say_ready, wait_for_end};
use crate::machine::{self, NIC, prepare};
use crate::setup::{Setup, connection};

const MEBIBYTE: u64 = 1 << 20;

pub(crate) const ROLES: &[Role] = &[HOLD, WAIT];

/// Registers a queue, and waits.
const HOLD: Role = Role { name: "role-zcrx-hold", play: hold };
/// Registers a queue and receives from it; the NIC is restored when a signal comes.
const WAIT: Role = Role { name: "role-zcrx-wait", play: receive_until_signal };

fn hold() -> Outcome {
    let nic = prepare(1)?;
    let _binding = Zcrx::on(&nic).attach(&machine::dma_buf(4 * MEBIBYTE)?)?;
    wait_for_end()
}

fn receive_until_signal() -> Outcome {
    restore_on_signals()?;
    let setup = setup(4 * MEBIBYTE)?;
    // Its sender says nothing for ever.
    let mut incoming = setup.connect(u64::MAX, StreamOptions::default())?;
    let fragments = incoming.read(&setup.mapping)?.ok_or("no data")?;
    say_ready()?;
    drop(fragments);
    while incoming.stream.next()?.is_some() {}
    Ok(())
}

fn is_free(nic: &Nic, queue: u32) -> Result<bool, Failure> {
    Ok(!nic.netdev().queue(nic.ifindex(), QueueKind::Receive, queue)?.io_uring)
}

pub(crate) fn unbinding_is_complete_with_fragments_held() -> Outcome {
    let setup = setup(4 * MEBIBYTE)?;
    let mut incoming = setup.connect(MEBIBYTE, StreamOptions::default())?;
    while incoming.read(&setup.mapping)?.is_some() {}
    ensure!(incoming.stream.held() > 0, "nothing is held");
    let Setup { pin, nic, .. } = setup;
    let binding = pin.into_attachment();
    let queue = binding.queues()[0];
    ensure!(binding.unbind(Duration::from_secs(10))?, "the kernel still holds the buffer");
    ensure!(is_free(nic.nic(), queue)?, "the queue is not free");
    // What was held is nobody's any more, and a stream without its queue ends.
    incoming.stream.release([])?;
    restored(nic)
}

/// What a stream that waits comes to when `end` is called.
fn ended_by(setup: Setup<Binding>, end: impl FnOnce(Setup<Binding>) -> Outcome) -> Result<Error, Failure> {
    let (socket, mut sender) = connection(u64::MAX)?;
    let mut stream = setup.pin.receive(socket, StreamOptions::default())?;
    let error = thread::scope(|scope| {
        let waiting = scope.spawn(move || wait_for_end_of(&mut stream));
        thread::sleep(Duration::from_millis(300));
        let ended = end(setup);
        let error = waiting.join().map_err(|_| "the thread panicked")?;
        ended.map(|()| error)
    })?;
    sender.kill()?;
    sender.wait()?;
    error.ok_or_else(|| "the stream ended as if the peer had ended it".into())
}

/// Holds what it receives, so that it comes to wait.
fn wait_for_end_of(stream: &mut Stream) -> Option<Error> {
    loop {
        match stream.next() {
            Ok(Some(_)) => {}
            Ok(None) => return None,
            Err(error) => return Some(error),
        }
    }
}

pub(crate) fn dropping_the_binding_ends_a_stream_that_waits() -> Outcome {
    let setup = setup(4 * MEBIBYTE)?;
    let error = ended_by(setup, |setup| {
        let Setup { pin, nic, .. } = setup;
        let queue = pin.queues()[0];
        drop(pin);
        ensure!(is_free(nic.nic(), queue)?, "the queue is not free");
        restored(nic)
    })?;
    ensure!(error.kind() == ErrorKind::WrongState, "{error}");
    ensure!(error.to_string().contains("detached"), "{error}");
    Ok(())
}

pub(crate) fn restoring_ends_a_stream_that_waits() -> Outcome {
    let setup = setup(4 * MEBIBYTE)?;
    let error = ended_by(setup, |setup| {
        // The binding is still there.
        let Setup { pin, nic, .. } = setup;
        restored(nic)?;
        drop(pin);
        Ok(())
    })?;
    ensure!(error.kind() == ErrorKind::WrongState, "{error}");
    Ok(())
}

pub(crate) fn killed_while_a_queue_is_registered() -> Outcome {
    for _ in 0..3 {
        unchanged(NIC, |_, _| {
            Actor::start(HOLD)?.kill()?;
            let report = restore(NIC)?.ok_or("no journal was left")?;
            ensure!(report.is_complete(), "{report}");
            Ok(())
        })?;
    }
    Ok(())
}

pub(crate) fn a_signal_frees_the_queue_of_a_stream_that_waits() -> Outcome {
    restores_on_signals(NIC, WAIT)
}
