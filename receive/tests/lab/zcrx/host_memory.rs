//! Receiving into memory of the process.

use std::net::TcpListener;
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;

use devmem_receive::devmem::StreamOptions;
use devmem_receive::stream::Part;
use devmem_receive::zcrx::{Event, HostMemory, Stream, Zcrx};

use crate::harness::{Outcome, ensure};
use crate::machine::prepare;
use crate::sender;
use crate::setup::{accept, connection};

const MEBIBYTE: usize = 1 << 20;

fn drain(mut stream: Stream, memory: &HostMemory, mut sender: Child, bytes: usize) -> Outcome {
    let mut position = 0;
    let mut content = vec![0; 4096];
    let mut fragments = Vec::new();
    while let Some(parts) = stream.next()? {
        for part in parts {
            let Part::Fragment(fragment) = part else { return Err("linear data".into()) };
            let content = &mut content[..fragment.length() as usize];
            memory.copy_to(fragment.offset(), content)?;
            for &byte in content.iter() {
                ensure!(byte == sender::pattern(position), "byte {position} is {byte}");
                position += 1;
            }
            fragments.push(fragment);
        }
        stream.release(fragments.drain(..))?;
    }
    ensure!(position == bytes as u64, "{position} of {bytes} bytes");
    stream.flush()?;
    ensure!(sender.wait()?.success(), "the sender failed");
    Ok(())
}

pub(crate) fn every_byte_arrives_without_a_copy() -> Outcome {
    let nic = prepare(1)?;
    let memory = Arc::new(HostMemory::allocate(8 * MEBIBYTE)?);
    let binding = Zcrx::on(&nic).attach_host(memory.clone())?;
    let (socket, sender) = connection(4 * MEBIBYTE as u64)?;
    drain(binding.receive(socket, StreamOptions::default())?, &memory, sender, 4 * MEBIBYTE)?;
    let copied = binding.copy_statistics().ok_or("the kernel counts nothing")?;
    ensure!(copied.bytes == 0 && copied.count == 0, "{copied:?}");
    ensure!(binding.unbind(Duration::from_secs(5))?, "the queue is not free");
    Ok(())
}

/// No flow rule sends this connection to the queue.
pub(crate) fn payload_that_arrived_elsewhere_is_copied_and_counted() -> Outcome {
    let nic = prepare(1)?;
    let memory = Arc::new(HostMemory::allocate(8 * MEBIBYTE)?);
    let binding = Zcrx::on(&nic).attach_host(memory.clone())?;
    let address = "10.77.0.1:5999";
    let listener = TcpListener::bind(address)?;
    let sender = sender::start(address, MEBIBYTE as u64)?;
    drain(binding.receive(accept(&listener)?, StreamOptions::default())?, &memory, sender, MEBIBYTE)?;
    let copied = binding.copy_statistics().ok_or("the kernel counts nothing")?;
    ensure!(copied.bytes == MEBIBYTE as u64 && copied.count > 0, "{copied:?}");
    let mut events = Vec::new();
    while let Some(event) = binding.next_event(Duration::from_millis(10))? {
        events.push(event);
    }
    ensure!(events.contains(&Event::Copy), "{events:?}");
    Ok(())
}
