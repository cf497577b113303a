//! devmem TCP as a receive path.

use std::net::TcpStream;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use devmem_provider::{DmaBuf, Error, Importer, PeerToPeer, Result};
use devmem_receive::devmem::{self, BindRefusal, Binding, DevmemSocket, Stream, StreamOptions};
use devmem_receive::nic::Nic;

use super::{Attached, Feature, Holder, Incoming, Piece, Place, RawSocket, ReceivePath};

/// devmem TCP (`Documentation/networking/devmem.rst` in the kernel).
#[derive(Debug, Clone, Copy, Default)]
pub struct DevmemTcp;

impl ReceivePath for DevmemTcp {
    fn name(&self) -> &'static str {
        "devmem-tcp"
    }

    fn has(&self, feature: Feature) -> bool {
        feature != Feature::Rings
    }

    /// As [`devmem::DevmemTcp`] says: the kernel attaches statically.
    fn peer_to_peer(&self) -> PeerToPeer {
        PeerToPeer::Never
    }

    fn is_refusal_of_exporter(&self, error: &Error) -> bool {
        BindRefusal::of(error) == Some(BindRefusal::ExporterRefusedAttachment)
    }

    fn attach(&self, nic: &Nic, queues: &[u32], dma_buf: &DmaBuf) -> Result<Box<dyn Attached>> {
        Ok(Box::new(devmem::DevmemTcp::new(nic, queues).attach(dma_buf)?))
    }

    fn raw<'socket>(&self, socket: BorrowedFd<'socket>) -> Option<Box<dyn RawSocket + 'socket>> {
        Some(Box::new(DevmemSocket::new(socket)))
    }
}

impl Attached for Binding {
    fn holder(&self) -> Holder {
        Holder::Binding(self.id())
    }

    fn receive(&self, socket: TcpStream, options: StreamOptions) -> Result<Box<dyn Incoming>> {
        Ok(Box::new(Binding::receive(self, socket, options)?))
    }

    fn detach(self: Box<Self>, limit: Duration) -> Result<bool> {
        self.unbind(limit)
    }
}

impl Incoming for Stream {
    fn next(&mut self) -> Result<Option<Vec<Piece>>> {
        Ok(Stream::next(self)?.map(|parts| parts.map(Piece::from).collect()))
    }

    fn peek(&mut self) -> Result<Option<Vec<Piece>>> {
        Ok(Stream::peek(self)?.map(|parts| parts.map(Piece::from).collect()))
    }

    fn release(&mut self, places: &[Place]) -> Result<()> {
        Stream::release(self, places.iter().map(|place| place.fragment))
    }

    fn flush(&mut self) -> Result<()> {
        Stream::flush(self)
    }

    fn limit_idle(&mut self, limit: Duration) {
        Stream::limit_idle(self, limit);
    }

    fn system_calls(&self) -> Option<u64> {
        Some(self.statistics().system_calls())
    }

    fn release_calls(&self) -> Option<u64> {
        Some(self.statistics().release_calls)
    }

    fn raw(&self) -> Option<Box<dyn RawSocket + '_>> {
        Some(Box::new(DevmemSocket::new(self.socket())))
    }
}
