//! io_uring zero-copy receive as a receive path.

use std::net::TcpStream;
use std::time::Duration;

use devmem_provider::{DmaBuf, Error, Importer, PeerToPeer, Result};
use devmem_receive::devmem::{BindRefusal, StreamOptions};
use devmem_receive::nic::{Nic, Support};
use devmem_receive::zcrx::{self, Binding, Event, RawRegistration, RefillEntry, Stream};
use nix::errno::Errno;

use super::{Attached, Feature, Holder, Incoming, Piece, Place, ReceivePath, Registered, Rings};
use crate::verdict::Skip;

/// io_uring zero-copy receive (`Documentation/networking/iou-zcrx.rst` in the kernel).
#[derive(Debug, Clone, Copy, Default)]
pub struct Zcrx;

impl ReceivePath for Zcrx {
    fn name(&self) -> &'static str {
        "zcrx"
    }

    fn has(&self, feature: Feature) -> bool {
        feature == Feature::Rings
    }

    fn lack(&self) -> Option<Skip> {
        let can = zcrx::capabilities();
        let lack = [&can.receive, &can.dmabuf_areas].into_iter().find(|one| one.support == Support::No)?;
        Some(Skip {
            reason: lack.not_available(),
            found_by: lack.found_by.to_owned(),
            remedy: lack.remedy.map(str::to_owned),
        })
    }

    /// As [`zcrx::Zcrx`] says: the kernel attaches statically.
    fn peer_to_peer(&self) -> PeerToPeer {
        PeerToPeer::Never
    }

    fn is_refusal_of_exporter(&self, error: &Error) -> bool {
        BindRefusal::of(error) == Some(BindRefusal::ExporterRefusedAttachment)
    }

    fn attach(&self, nic: &Nic, queues: &[u32], dma_buf: &DmaBuf) -> Result<Box<dyn Attached>> {
        Ok(Box::new(zcrx::Zcrx::new(nic, queues).attach(dma_buf)?))
    }

    fn rings(&self) -> Option<Box<dyn Rings + '_>> {
        Some(Box::new(*self))
    }
}

impl Rings for Zcrx {
    fn attempt(&self, registration: &RawRegistration) -> Result<Result<(), Errno>> {
        registration.attempt()
    }

    fn attach_with_refill_ring(
        &self,
        nic: &Nic,
        queue: u32,
        dma_buf: &DmaBuf,
        entries: u32,
    ) -> Result<Box<dyn Attached>> {
        Ok(Box::new(zcrx::Zcrx::new(nic, [queue]).refill_entries(entries).attach(dma_buf)?))
    }
}

impl Attached for Binding {
    fn holder(&self) -> Holder {
        Holder::IoUring
    }

    fn receive(&self, socket: TcpStream, options: StreamOptions) -> Result<Box<dyn Incoming>> {
        Ok(Box::new(Binding::receive(self, socket, options)?))
    }

    fn detach(self: Box<Self>, limit: Duration) -> Result<bool> {
        self.unbind(limit)
    }

    fn registered(&self) -> Option<Box<dyn Registered + '_>> {
        Some(Box::new(self))
    }
}

impl Registered for &Binding {
    fn next_event(&self, limit: Duration) -> Result<Option<Event>> {
        Binding::next_event(self, limit)
    }

    fn copied_bytes(&self) -> Option<u64> {
        self.copy_statistics().map(|statistics| statistics.bytes)
    }

    fn put_refill_entry(&self, entry: RefillEntry) {
        Binding::put_refill_entry(self, entry);
    }

    fn given_back(&self) -> u64 {
        Binding::given_back(self)
    }
}

impl Incoming for Stream {
    fn next(&mut self) -> Result<Option<Vec<Piece>>> {
        Ok(Stream::next(self)?.map(|parts| parts.map(Piece::from).collect()))
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

    fn restarts(&self) -> Option<u64> {
        Some(Stream::restarts(self))
    }

    fn release_calls(&self) -> Option<u64> {
        Some(self.statistics().release_calls)
    }
}
