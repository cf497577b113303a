//! A NIC that is set up, a buffer that is bound to it, a connection that arrives there: by either path, or by whichever.

use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::Child;
use std::time::Duration;

use devmem_provider::dma_buf::{Access, Mapping};
use devmem_provider::{Attachment, Buffer, Importer, Pin, Request, Require, Result};
use devmem_receive::devmem::StreamOptions;
use devmem_receive::nic::Prepared;
use devmem_receive::stream::{Fragment, Part};
use devmem_receive::{devmem, path, zcrx};
use nix::poll::{PollFd, PollFlags, poll};

use crate::harness::{Failure, Outcome, ensure};
use crate::machine::provider;
use crate::sender;

pub(crate) const ADDRESS: &str = "10.77.0.1:5201";

/// Only a test that has failed waits that long.
const ACCEPT_TIMEOUT_MS: u16 = 30_000;

/// A binding of a path, or of either.
pub(crate) trait Receives: Attachment {
    type Stream: Streams;

    fn receive(&self, socket: TcpStream, options: StreamOptions) -> Result<Self::Stream>;
}

/// A stream of such a binding.
pub(crate) trait Streams {
    fn next(&mut self) -> Result<Option<impl Iterator<Item = Part<'_>>>>;

    fn release(&mut self, fragments: Vec<Fragment>) -> Result<()>;

    fn flush(&mut self) -> Result<()>;

    fn limit_idle(&mut self, limit: Duration);

    /// How many fragments were received and not released.
    fn held(&self) -> u64;
}

macro_rules! by {
    ($($path:ident, $held:expr;)+) => {$(
        impl Receives for $path::Binding {
            type Stream = $path::Stream;

            fn receive(&self, socket: TcpStream, options: StreamOptions) -> Result<Self::Stream> {
                $path::Binding::receive(self, socket, options)
            }
        }

        impl Streams for $path::Stream {
            fn next(&mut self) -> Result<Option<impl Iterator<Item = Part<'_>>>> {
                $path::Stream::next(self)
            }

            fn release(&mut self, fragments: Vec<Fragment>) -> Result<()> {
                $path::Stream::release(self, fragments)
            }

            fn flush(&mut self) -> Result<()> {
                $path::Stream::flush(self)
            }

            fn limit_idle(&mut self, limit: Duration) {
                $path::Stream::limit_idle(self, limit);
            }

            fn held(&self) -> u64 {
                $held(self)
            }
        }
    )+};
}

by! {
    devmem, counted;
    zcrx, zcrx::Stream::held;
    path, |stream: &path::Stream| match stream {
        path::Stream::DevmemTcp(stream) => counted(stream),
        path::Stream::Zcrx(stream) => stream.held(),
    };
}

/// What was only shown may be released as well.
fn counted(stream: &devmem::Stream) -> u64 {
    let statistics = stream.statistics();
    statistics.fragments.saturating_sub(statistics.released)
}

/// The receiving side. The order of the fields is the order of release.
pub(crate) struct Setup<Binding> {
    pub(crate) mapping: Mapping,
    pub(crate) pin: Pin<Binding>,
    pub(crate) nic: Prepared,
    pub(crate) buffer: Box<dyn Buffer>,
}

impl<Binding: Receives> Setup<Binding> {
    /// Binds a new buffer to the queues of a NIC.
    pub(crate) fn of(
        nic: Prepared,
        mut queues: impl Importer<Attachment = Binding>,
        buffer_bytes: u64,
    ) -> Result<Self, Failure> {
        let buffer = provider()?.allocate(&Request::bytes(buffer_bytes))?;
        let pin = Pin::new(&mut queues, &*buffer, Require::Anywhere)?;
        let mapping = pin.dma_buf().map(Access::Read)?;
        Ok(Self { mapping, pin, nic, buffer })
    }

    /// A connection from the peer, which sends `bytes` bytes.
    pub(crate) fn connect(
        &self,
        bytes: u64,
        options: StreamOptions,
    ) -> Result<Incoming<Binding::Stream>, Failure> {
        let (socket, sender) = connection(bytes)?;
        Ok(Incoming::new(self.pin.receive(socket, options)?, sender))
    }
}

/// A connection from the peer, which sends `bytes` bytes.
pub(crate) fn connection(bytes: u64) -> Result<(TcpStream, Child), Failure> {
    let listener = TcpListener::bind(ADDRESS)?;
    let mut sender = sender::start(ADDRESS, bytes)?;
    let accepted = accept(&listener);
    if accepted.is_err() {
        sender.kill()?;
        sender.wait()?;
    }
    Ok((accepted?, sender))
}

/// Accepts a connection. A queue without pages would keep the test waiting for ever.
pub(crate) fn accept(listener: &TcpListener) -> Result<TcpStream, Failure> {
    let mut ready = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    ensure!(poll(&mut ready, ACCEPT_TIMEOUT_MS)? == 1, "nobody connected");
    Ok(listener.accept()?.0)
}

/// A connection, and how far it was read.
pub(crate) struct Incoming<Stream> {
    pub(crate) stream: Stream,
    pub(crate) position: u64,
    pub(crate) sender: Child,
}

impl<Stream: Streams> Incoming<Stream> {
    pub(crate) fn new(stream: Stream, sender: Child) -> Self {
        Self { stream, position: 0, sender }
    }

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
        ensure!(self.stream.held() == 0, "{} fragments are held", self.stream.held());
        let status = self.sender.wait()?;
        ensure!(status.success(), "sender: {status}");
        Ok(())
    }
}

impl<Stream> Drop for Incoming<Stream> {
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
