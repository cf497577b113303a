//! Registering a DMA-buf, or host memory, as what a receive queue receives into.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use devmem_provider::{Attachment, DmaBuf, Error, ErrorKind, Importer, PciAddress, PeerToPeer, Result};
use nix::errno::Errno;

use super::events::{self, Event};
use super::host_memory::HostMemory;
use super::queue::{Area, InterfaceQueue, Registration};
use super::stream::Stream;
use super::uapi::{CopyStatistics, RefillEntry};
use super::{capability, refusal};
use crate::deadline::Deadline;
use crate::devmem::{BindRefusal, StreamOptions};
use crate::nic::{Capability, Nic, Prepared};
use crate::parked_packets::ParkedPackets;

/// How often a release is looked for.
const RELEASE_POLL: Duration = Duration::from_millis(5);

/// A receive queue of a NIC that a DMA-buf can be registered with: the importer of zero-copy receive.
///
/// There is one queue for a DMA-buf: the kernel registers queues one by one, each with all of the buffer, and would
/// hand out each page once for every queue. To receive from several queues, give each a buffer.
#[derive(Debug, Clone)]
pub struct Zcrx {
    nic: Nic,
    queues: Vec<u32>,
    registration: Registration,
}

impl Zcrx {
    /// A queue of `nic`, which somebody else has set up.
    #[must_use]
    pub fn new(nic: &Nic, queues: impl Into<Vec<u32>>) -> Self {
        Self { nic: nic.clone(), queues: queues.into(), registration: Registration::default() }
    }

    /// The queue that a set-up has reserved.
    #[must_use]
    pub fn on(prepared: &Prepared) -> Self {
        Self::new(prepared.nic(), prepared.queues())
    }

    /// The size of a receive buffer in bytes: a power of two, by default a page. Larger ones take a driver that can,
    /// and memory that is contiguous in pieces of that size.
    #[must_use]
    pub fn receive_buffer_bytes(mut self, bytes: u32) -> Self {
        self.registration.buffer_bytes = Some(bytes);
        self
    }

    /// The room of the refill ring, in fragments; by default one for each receive buffer. The kernel rounds it up to
    /// a power of two.
    #[must_use]
    pub fn refill_entries(mut self, entries: u32) -> Self {
        self.registration.refill_entries = Some(entries);
        self
    }

    /// Does not share the queue between rings, as older kernels cannot: one [`Stream`] or one
    /// [`Receiver`](super::Receiver) at a time receives from it, with the ring that registers it.
    #[must_use]
    pub fn one_ring(mut self) -> Self {
        self.registration.one_ring = true;
        self
    }

    /// Registers host memory.
    ///
    /// # Errors
    ///
    /// As [`attach`](Importer::attach).
    pub fn attach_host(&mut self, memory: Arc<HostMemory>) -> Result<Binding> {
        let queue = self.register(Area::Host(memory))?;
        Ok(Binding { queue, dma_buf: None })
    }

    fn register(&self, area: Area) -> Result<Arc<InterfaceQueue>> {
        let dma_buf = matches!(area, Area::DmaBuf(_));
        let &[queue] = self.queues.as_slice() else {
            return Err(Error::new(ErrorKind::Unsupported, self.operation(dma_buf))
                .on(&self.nic)
                .because("zero-copy receive takes one queue for a buffer")
                .remedy("use one queue, or give each a buffer of its own"));
        };
        match InterfaceQueue::register(&self.nic, queue, area, self.registration)? {
            Ok(queue) => Ok(queue),
            Err(errno) => Err(self.refused(queue, dma_buf, errno)),
        }
    }

    fn operation(&self, dma_buf: bool) -> String {
        let what = if dma_buf { "a DMA-buf" } else { "host memory" };
        format!("register {what} with io_uring for receive queue {}", list(&self.queues))
    }

    fn refused(&self, queue: u32, dma_buf: bool, errno: Errno) -> Error {
        let error = Error::from_errno(errno, self.operation(dma_buf)).on(&self.nic);
        let capabilities = capability::probe();
        // A kernel without zero-copy receive has nothing to say about the queue.
        if let Some(lack) = capabilities.lack(dma_buf) {
            return not_available(error, lack);
        }
        let refusal = refusal::reason(&self.nic, queue, dma_buf, self.registration, errno);
        let error = error.with_kind(refusal.kind()).with_source(refusal);
        match refusal.remedy() {
            Some(remedy) => error.remedy(remedy),
            None => error,
        }
    }
}

impl Importer for Zcrx {
    type Attachment = Binding;

    fn describe(&self) -> String {
        format!("io_uring zero-copy receive on {} queue {}", self.nic.name(), list(&self.queues))
    }

    /// `io_import_dmabuf()` in `io_uring/zcrx.c` attaches statically, without peer-to-peer, up to Linux 7.3 at least.
    fn peer_to_peer(&self) -> PeerToPeer {
        PeerToPeer::Never
    }

    fn device(&self) -> Option<PciAddress> {
        self.nic.identity().pci
    }

    /// `EOPNOTSUPP` alone does not tell: it is the answer for NICs without queue management as well.
    fn is_refusal_of_exporter(&self, error: &Error) -> bool {
        BindRefusal::of(error) == Some(BindRefusal::ExporterRefusedAttachment)
    }

    fn attach(&mut self, dma_buf: &DmaBuf) -> Result<Binding> {
        let queue = self
            .register(Area::DmaBuf(dma_buf.try_clone()?))
            .map_err(|error| beside_others(error, dma_buf))?;
        Ok(Binding { queue, dma_buf: Some(dma_buf.try_clone()?) })
    }
}

/// The kernel has no word for a buffer that the exporter cannot move because another importer has pinned it: where
/// nothing else explains `EINVAL` and somebody else is attached, that is why.
fn beside_others(error: Error, dma_buf: &DmaBuf) -> Error {
    let has_others = || dma_buf.attached().devices().is_some_and(|devices| !devices.is_empty());
    if BindRefusal::of(&error) != Some(BindRefusal::NotUsable) || !has_others() {
        return error;
    }
    let refusal = BindRefusal::ExporterRefusedMapping;
    let error = error.with_kind(refusal.kind()).because(refusal.to_string()).with_source(refusal);
    match refusal.remedy() {
        Some(remedy) => error.remedy(remedy),
        None => error,
    }
}

/// Memory that a receive queue receives into. Dropping it frees the queue, which gets ordinary memory again, and
/// ends the streams that receive from it; it waits until the kernel has done so.
#[derive(Debug)]
pub struct Binding {
    queue: Arc<InterfaceQueue>,
    dma_buf: Option<DmaBuf>,
}

impl Binding {
    pub(super) fn queue(&self) -> &Arc<InterfaceQueue> {
        &self.queue
    }

    /// The queue.
    #[must_use]
    pub fn queues(&self) -> &[u32] {
        std::slice::from_ref(&self.queue.number)
    }

    /// The size of a receive buffer in bytes: no fragment is larger.
    #[must_use]
    pub fn receive_buffer_bytes(&self) -> u32 {
        self.queue.buffer_bytes()
    }

    /// The room of the refill ring, in fragments.
    #[must_use]
    pub fn refill_entries(&self) -> u32 {
        self.queue.refill_state().1
    }

    /// How many fragments were given back that the kernel has not taken yet: it takes them when the NIC needs
    /// buffers.
    #[must_use]
    pub fn given_back(&self) -> u64 {
        self.queue.refill_state().0
    }

    /// Receives a connection, whose packets arrive on the queue, with a ring of its own.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] if rings do not share the queue, and another stream is received already: a [`Receiver`](super::Receiver) receives several with one ring. Otherwise, if the socket's options
    /// cannot be set.
    pub fn receive(&self, socket: TcpStream, options: StreamOptions) -> Result<Stream> {
        Stream::new(self.queue.clone(), socket, options)
    }

    /// What the kernel has copied into the area since it was registered; `None` if it does not count that.
    ///
    /// It counts payload that arrived in other pages than the area's, and not what arrived beside the headers
    /// (`io_zcrx_copy_frag()` in `io_uring/zcrx.c`). Nothing can be copied into a DMA-buf.
    #[must_use]
    pub fn copy_statistics(&self) -> Option<CopyStatistics> {
        self.queue.copy_statistics()
    }

    /// Puts an entry into the refill ring as it is, for test suites: what is held is not looked at.
    ///
    /// The kernel skips entries that are wrong. One that names a fragment which somebody holds gives it back, so that the
    /// NIC may overwrite it.
    pub fn put_refill_entry(&self, entry: RefillEntry) {
        self.queue.put_refill_entry(entry);
    }

    /// Waits at most `limit` for an event. `None` if there was none.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] if the kernel tells no events; [`ErrorKind::WrongState`] in another thread than
    /// the first that asked.
    pub fn next_event(&self, limit: Duration) -> Result<Option<Event>> {
        events::next(&self.queue, limit)
    }

    /// Frees the queue, and waits at most `limit` until the kernel has let go of the buffer. Returns whether it has.
    ///
    /// What was not given back is taken back. While bytes wait in a socket to be received, the kernel keeps the
    /// buffer mapped: memory must not be used for something else before. Packets that the kernel has done with and has
    /// not freed, for want of traffic, are seen to.
    ///
    /// # Errors
    ///
    /// If the kernel cannot be asked.
    pub fn unbind(mut self, limit: Duration) -> Result<bool> {
        let deadline = Deadline::after(limit);
        let Some(dma_buf) = self.dma_buf.take() else { return Ok(self.queue.close()) };
        // The registration has one reference, our copies of the descriptor share another.
        let references = dma_buf.file_information()?.count;
        let free = self.queue.close();
        let mut parked = ParkedPackets::new();
        // The registration lives until the queue's page pool goes, with its last page (`io_pp_zc_destroy()`).
        while !free || dma_buf.file_information()?.count >= references {
            if deadline.is_over() {
                return Ok(false);
            }
            parked.free_if_due();
            std::thread::sleep(RELEASE_POLL);
        }
        Ok(true)
    }
}

impl Drop for Binding {
    fn drop(&mut self) {
        // If it does not become free, there is nobody to tell; the kernel's refusal of the next change will.
        self.queue.close();
    }
}

impl Attachment for Binding {}

/// The kernel does not have what it takes: what that is, and what was tried to find out.
fn not_available(error: Error, lack: &Capability) -> Error {
    let error = error.with_kind(ErrorKind::Unsupported).because(lack.not_available());
    match lack.remedy {
        Some(remedy) => error.remedy(remedy),
        None => error,
    }
}

fn list(queues: &[u32]) -> String {
    queues.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_takes_one_queue() {
        let nic = Nic::open("lo").unwrap();
        let memory = Arc::new(HostMemory::allocate(4096).unwrap());
        for queues in [vec![], vec![1, 2]] {
            let error = Zcrx::new(&nic, queues).attach_host(memory.clone()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(error.to_string().contains("one queue"), "{error}");
        }
    }

    #[test]
    fn a_kernel_without_it_is_told_with_what_was_tried() {
        let lack = Capability {
            name: "zcrx",
            support: crate::nic::Support::No,
            reason: "the kernel does not have the request".to_owned(),
            found_by: "IORING_REGISTER_PROBE on a ring",
            remedy: Some("use a newer kernel"),
        };
        let error = not_available(Error::from_errno(Errno::EINVAL, "register a DMA-buf"), &lack);
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        let told = error.to_string();
        for words in ["zcrx is not available", "IORING_REGISTER_PROBE on a ring", "EINVAL"] {
            assert!(told.contains(words), "{told}");
        }
        assert_eq!(told.matches("use a newer kernel").count(), 1, "{told}");
    }

    #[test]
    fn a_refusal_says_what_was_tried_and_why() {
        let nic = Nic::open("lo").unwrap();
        let memory = Arc::new(HostMemory::allocate(1 << 20).unwrap());
        let error = Zcrx::new(&nic, [0]).attach_host(memory).unwrap_err();
        let kinds = [ErrorKind::PermissionDenied, ErrorKind::Unsupported];
        assert!(kinds.contains(&error.kind()), "{error}");
    }
}
