//! What a stream yields, and what becomes of its fragments.

use std::time::Duration;

use devmem_receive::devmem::{Binding, DevmemTcp, StreamOptions};
use devmem_receive::netdev::Netdev;
use devmem_receive::nic::{Nic, Prepared};

use crate::harness::{Failure, Outcome, ensure};
use crate::machine::{NIC, plan, prepare};
use crate::sender;
use crate::setup::{Setup, check};

const MEBIBYTE: u64 = 1 << 20;

fn setup(nic: Prepared, buffer_bytes: u64) -> Result<Setup<Binding>, Failure> {
    let queues = DevmemTcp::on(&nic);
    Setup::of(nic, queues, buffer_bytes)
}

pub(crate) fn a_peek_shows_the_same_bytes_again() -> Outcome {
    let setup = setup(prepare(1)?, 4 * MEBIBYTE)?;
    let mut incoming = setup.connect(MEBIBYTE, StreamOptions::default())?;
    let parts = incoming.stream.peek()?.ok_or("no data")?;
    let (fragments, end) = check(parts, 0, &setup.mapping)?;
    ensure!(end > 0 && !fragments.is_empty(), "nothing was shown");
    // The kernel handed out tokens for what it only showed.
    incoming.stream.release(fragments)?;
    incoming.drain(&setup.mapping, MEBIBYTE)
}

pub(crate) fn what_was_received_outlives_the_binding() -> Outcome {
    let setup = setup(prepare(1)?, 4 * MEBIBYTE)?;
    let mut incoming = setup.connect(256 << 10, StreamOptions::default())?;
    let mut held = Vec::new();
    while let Some(fragments) = incoming.read(&setup.mapping)? {
        held.extend(fragments);
    }
    let Setup { mapping, pin, nic, buffer } = setup;
    let binding = pin.into_attachment();
    let id = binding.id();
    // Tokens are out: the kernel keeps the buffer.
    ensure!(!binding.unbind(Duration::from_millis(500))?, "the kernel let go of a buffer in use");
    ensure!(!is_bound(id)?, "a queue is still bound");
    let access = mapping.read()?;
    let mut byte = [0];
    let first = held.first().ok_or("no fragment")?;
    access.copy_to(usize::try_from(first.offset())?, &mut byte)?;
    ensure!(byte[0] == sender::pattern(0), "the first byte changed");
    access.finish()?;
    // Giving them back lets it go.
    let references = buffer.export()?.file_information()?.count;
    incoming.stream.release(held)?;
    incoming.stream.flush()?;
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while buffer.export()?.file_information()?.count >= references {
        ensure!(std::time::Instant::now() < deadline, "the kernel never let go of the buffer");
        std::thread::sleep(Duration::from_millis(10));
    }
    ensure!(nic.restore()?.is_complete(), "the NIC was not restored");
    Ok(())
}

fn is_bound(id: u32) -> Result<bool, Failure> {
    let queues = Netdev::open()?.queues(Nic::open(NIC)?.ifindex())?;
    Ok(queues.iter().any(|queue| queue.dmabuf == Some(id)))
}

pub(crate) fn a_small_buffer_feeds_every_queue() -> Outcome {
    let plan = plan(3).buffer_bytes(2 * MEBIBYTE);
    let setup = setup(Nic::open(NIC)?.prepare(&plan)?, 2 * MEBIBYTE)?;
    // Connections are spread over the queues by the sender's port, of which each has another.
    for _ in 0..12 {
        let mut incoming = setup.connect(256 << 10, StreamOptions::default())?;
        incoming.drain(&setup.mapping, 256 << 10)?;
    }
    Ok(())
}
