//! A NIC that is set up, a buffer that is registered, a connection that arrives there.

use std::net::TcpListener;
use std::process::Child;

use devmem_provider::dma_buf::{Access, Mapping};
use devmem_provider::{Pin, Request, Require};
use devmem_receive::devmem::StreamOptions;
use devmem_receive::nic::Prepared;
use devmem_receive::stream::Fragment;
use devmem_receive::zcrx::{Binding, Parts, Stream, Zcrx};

use crate::devmem::sender;
use crate::devmem::setup::{ADDRESS, accept, check};
use crate::harness::{Failure, Outcome, ensure};
use crate::machine::{prepare, provider};

/// The receiving side. The order of the fields is the order of release.
pub(crate) struct Setup {
    pub(crate) mapping: Mapping,
    pub(crate) pin: Pin<Binding>,
    pub(crate) nic: Prepared,
}

impl Setup {
    pub(crate) fn new(buffer_bytes: u64) -> Result<Self, Failure> {
        Self::with(buffer_bytes, |importer| importer)
    }

    /// Registers a new buffer in another way.
    pub(crate) fn with(buffer_bytes: u64, how: impl FnOnce(Zcrx) -> Zcrx) -> Result<Self, Failure> {
        let nic = prepare(1)?;
        let buffer = provider()?.allocate(&Request::bytes(buffer_bytes))?;
        let pin = Pin::new(&mut how(Zcrx::on(&nic)), &*buffer, Require::Anywhere)?;
        let mapping = pin.dma_buf().map(Access::Read)?;
        Ok(Self { mapping, pin, nic })
    }

    /// A connection from the peer, which sends `bytes` bytes.
    pub(crate) fn connect(&self, bytes: u64, options: StreamOptions) -> Result<Incoming, Failure> {
        let (socket, sender) = connection(bytes)?;
        let stream = self.pin.receive(socket, options)?;
        Ok(Incoming { stream, position: 0, sender })
    }
}

/// A connection from the peer, which sends `bytes` bytes.
pub(crate) fn connection(bytes: u64) -> Result<(std::net::TcpStream, Child), Failure> {
    let listener = TcpListener::bind(ADDRESS)?;
    let mut sender = sender::start(ADDRESS, bytes)?;
    let accepted = accept(&listener);
    if accepted.is_err() {
        sender.kill()?;
        sender.wait()?;
    }
    Ok((accepted?, sender))
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
                let parts: Parts<'_> = parts;
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

impl Drop for Incoming {
    fn drop(&mut self) {
        let _ = self.sender.kill();
        let _ = self.sender.wait();
    }
}
