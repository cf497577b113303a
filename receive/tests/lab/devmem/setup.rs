//! A NIC that is set up, a buffer that is bound, a connection that arrives there.

use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::Child;

use devmem_provider::dma_buf::{Access, Mapping};
use devmem_provider::{Buffer, Pin, Request, Require};
use devmem_receive::devmem::{Binding, Stream, StreamOptions};
use devmem_receive::nic::Prepared;
use devmem_receive::stream::{Fragment, Part};
use nix::poll::{PollFd, PollFlags, poll};

use super::sender;
use crate::harness::{Failure, Outcome, ensure};
use crate::machine::{prepare, provider};

pub(crate) const ADDRESS: &str = "10.77.0.1:5201";
pub(crate) const PAGE: u64 = 4096;

/// Only a test that has failed waits that long.
const ACCEPT_TIMEOUT_MS: u16 = 30_000;

/// The receiving side. The order of the fields is the order of release.
pub(crate) struct Setup {
    pub(crate) mapping: Mapping,
    pub(crate) pin: Pin<Binding>,
    pub(crate) nic: Prepared,
    pub(crate) buffer: Box<dyn Buffer>,
}

impl Setup {
    pub(crate) fn new(buffer_bytes: u64) -> Result<Self, Failure> {
        Self::on(prepare(1)?, buffer_bytes)
    }

    /// Binds a new buffer to the queues of a NIC.
    pub(crate) fn on(nic: Prepared, buffer_bytes: u64) -> Result<Self, Failure> {
        let buffer = provider()?.allocate(&Request::bytes(buffer_bytes))?;
        let pin = nic.pin(&*buffer, Require::Anywhere)?;
        let mapping = pin.dma_buf().map(Access::Read)?;
        Ok(Self { mapping, pin, nic, buffer })
    }

    /// A connection from the peer, which sends `bytes` bytes.
    pub(crate) fn connect(&self, bytes: u64, options: StreamOptions) -> Result<Incoming, Failure> {
        let listener = TcpListener::bind(ADDRESS)?;
        let mut sender = sender::start(ADDRESS, bytes)?;
        let accepted = accept(&listener);
        if accepted.is_err() {
            sender.kill()?;
            sender.wait()?;
        }
        let stream = self.pin.receive(accepted?, options)?;
        Ok(Incoming { stream, position: 0, sender })
    }
}

/// Accepts a connection. A queue without pages would keep the test waiting for ever.
pub(crate) fn accept(listener: &TcpListener) -> Result<TcpStream, Failure> {
    let mut ready = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    ensure!(poll(&mut ready, ACCEPT_TIMEOUT_MS)? == 1, "nobody connected");
    Ok(listener.accept()?.0)
}

/// A connection, and how far it was read.
pub(crate) struct Incoming {
    pub(crate) stream: Stream,
    pub(crate) position: u64,
    pub(crate) sender: Child,
}

impl Incoming {
    /// Reads once. Checks every byte, and returns the fragments; `None` at the end.
    pub(crate) fn read(&mut self, mapping: &Mapping) -> Result<Option<Vec<Fragment>>, Failure> {
        match self.stream.next()? {
            None => Ok(None),
            Some(parts) => {
                let (fragments, end) = check(parts, self.position, mapping)?;
                self.position = end;
                Ok(Some(fragments))
            }
        }
    }

    /// Reads to the end, giving everything back, and checks that all has arrived.
    pub(crate) fn drain(&mut self, mapping: &Mapping, bytes: u64) -> Outcome {
        while let Some(fragments) = self.read(mapping)? {
            self.stream.release(fragments)?;
        }
        ensure!(self.position == bytes, "{} of {bytes} bytes", self.position);
        self.stream.flush()?;
        let status = self.sender.wait()?;
        ensure!(status.success(), "sender: {status}");
        Ok(())
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let _ = self.sender.kill();
        let _ = self.sender.wait();
    }
}

/// Compares what was received with what the sender sends at `position`.
pub(crate) fn check<'stream>(
    parts: impl Iterator<Item = Part<'stream>>,
    mut position: u64,
    mapping: &Mapping,
) -> Result<(Vec<Fragment>, u64), Failure> {
    let access = mapping.read()?;
    let mut fragments = Vec::new();
    let mut bytes = vec![0; 64 << 10];
    for part in parts {
        let length = part.length();
        match part {
            Part::Linear(linear) => {
                bytes.resize(bytes.len().max(length), 0);
                bytes[..length].copy_from_slice(linear);
            }
            Part::Fragment(fragment) => {
                access.copy_to(usize::try_from(fragment.offset())?, &mut bytes[..length])?;
                fragments.push(fragment);
            }
        }
        for (at, &byte) in bytes[..length].iter().enumerate() {
            let here = position + at as u64;
            ensure!(byte == sender::pattern(here), "byte {here} is {byte}");
        }
        position += length as u64;
    }
    access.finish()?;
    Ok((fragments, position))
}
