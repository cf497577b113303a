//! Receive paths: the ways in which a NIC receives into a buffer, behind one interface that the checks use.

mod devmem_tcp;
mod feature;
mod holder;
mod raw;
mod rings;
mod zcrx;

use std::fmt;
use std::net::TcpStream;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use devmem_provider::{Attachment, DmaBuf, Error, ErrorKind, Importer, PciAddress, PeerToPeer, Result};
use devmem_receive::devmem::StreamOptions;
use devmem_receive::nic::Nic;
use devmem_receive::stream::{Fragment, Part};

use crate::verdict::Skip;

pub use devmem_tcp::DevmemTcp;
pub use feature::Feature;
pub use holder::Holder;
pub use raw::{RawReceive, RawReceived, RawSocket};
pub use rings::{Registered, Rings};
pub use zcrx::Zcrx;

/// Every receive path that there is.
#[must_use]
pub fn all() -> Vec<Arc<dyn ReceivePath>> {
    vec![Arc::new(DevmemTcp), Arc::new(Zcrx)]
}

/// A way in which a NIC receives into a buffer.
pub trait ReceivePath: fmt::Debug + Send + Sync {
    /// Its name, as reports print it: `devmem-tcp`.
    fn name(&self) -> &'static str;

    /// Whether it has something that not all paths have. Checks that need what it has not are skipped.
    fn has(&self, feature: Feature) -> bool;

    /// Why this kernel does not have the path at all; `None` if it has, or if only a bind can tell.
    fn lack(&self) -> Option<Skip> {
        None
    }

    /// See [`Importer::peer_to_peer`].
    fn peer_to_peer(&self) -> PeerToPeer;

    /// See [`Importer::is_refusal_of_exporter`].
    fn is_refusal_of_exporter(&self, error: &Error) -> bool;

    /// Attaches a buffer to receive queues of a NIC, which is set up for it.
    ///
    /// # Errors
    ///
    /// What the kernel says, with what to do.
    fn attach(&self, nic: &Nic, queues: &[u32], dma_buf: &DmaBuf) -> Result<Box<dyn Attached>>;

    /// A socket of any kind, to call the kernel directly. `None` without [`Feature::Socket`].
    fn raw<'socket>(&self, _socket: BorrowedFd<'socket>) -> Option<Box<dyn RawSocket + 'socket>> {
        None
    }

    /// Its rings. `None` without [`Feature::Rings`].
    fn rings(&self) -> Option<Box<dyn Rings + '_>> {
        None
    }
}

/// A buffer that is attached to receive queues. Dropping it detaches.
pub trait Attached: fmt::Debug + Send {
    /// Who the kernel must say has the queues.
    fn holder(&self) -> Holder;

    /// Receives a connection whose packets arrive on the queues.
    ///
    /// # Errors
    ///
    /// If the socket's options cannot be set.
    fn receive(&self, socket: TcpStream, options: StreamOptions) -> Result<Box<dyn Incoming>>;

    /// Detaches, and waits at most `limit` until the kernel has let go of the buffer. Returns whether it has.
    ///
    /// # Errors
    ///
    /// If the kernel cannot be asked.
    fn detach(self: Box<Self>, limit: Duration) -> Result<bool>;

    /// What the kernel tells of the queue. `None` without [`Feature::Rings`].
    fn registered(&self) -> Option<Box<dyn Registered + '_>> {
        None
    }
}

/// A connection that is received.
pub trait Incoming: fmt::Debug + Send {
    /// Waits for the next bytes. `None` is the end of the stream.
    ///
    /// # Errors
    ///
    /// If the connection was reset, or the kernel or the NIC did something that cannot be.
    fn next(&mut self) -> Result<Option<Vec<Piece>>>;

    /// Shows the next bytes without taking them. What it shows must be given back as well.
    ///
    /// # Errors
    ///
    /// As [`next`](Self::next); [`ErrorKind::Unsupported`] without [`Feature::Socket`].
    fn peek(&mut self) -> Result<Option<Vec<Piece>>> {
        Err(Error::new(ErrorKind::Unsupported, "look at the next bytes").because("this path cannot"))
    }

    /// Gives places back to the NIC; those that are not given back at once with the next call, or by
    /// [`flush`](Self::flush).
    ///
    /// # Errors
    ///
    /// What the kernel says.
    fn release(&mut self, places: &[Place]) -> Result<()>;

    /// Gives back now what was released.
    ///
    /// # Errors
    ///
    /// If something was released that was not held, or what the kernel says.
    fn flush(&mut self) -> Result<()>;

    /// Changes how long the next bytes are waited for. When nothing has come within the limit, [`next`](Self::next) is
    /// an error, and may be called again.
    fn limit_idle(&mut self, limit: Duration);

    /// How many system calls it has made. `None` for a path that does not count them.
    fn system_calls(&self) -> Option<u64> {
        None
    }

    /// How often the kernel stopped because it had told of more than there was room for, and was asked to go on. `None`
    /// for a path where that cannot be.
    fn restarts(&self) -> Option<u64> {
        None
    }

    /// How many system calls it has made to give something back. `None` for a path that does not count them.
    fn release_calls(&self) -> Option<u64> {
        None
    }

    /// Its socket, to call the kernel directly. `None` without [`Feature::Socket`].
    fn raw(&self) -> Option<Box<dyn RawSocket + '_>> {
        None
    }
}

/// The next bytes of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// They lie in the buffer.
    Fragment(Place),
    /// They arrived in host memory instead.
    Linear(Vec<u8>),
}

impl From<Part<'_>> for Piece {
    fn from(part: Part<'_>) -> Self {
        match part {
            Part::Fragment(fragment) => Self::Fragment(fragment.into()),
            Part::Linear(bytes) => Self::Linear(bytes.to_vec()),
        }
    }
}

impl Piece {
    /// How many bytes there are.
    #[must_use]
    pub fn length(&self) -> usize {
        match self {
            Self::Fragment(place) => place.length as usize,
            Self::Linear(bytes) => bytes.len(),
        }
    }
}

/// Where received bytes lie in the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Where they begin, in bytes.
    pub offset: u64,
    /// How many there are.
    pub length: u32,
    /// What gives the place back.
    pub fragment: Fragment,
}

impl From<Fragment> for Place {
    fn from(fragment: Fragment) -> Self {
        Self { offset: fragment.offset(), length: fragment.length(), fragment }
    }
}

/// Queues of a NIC as an importer, by whichever receive path.
#[derive(Debug)]
pub(crate) struct QueuesOf<'path> {
    pub(crate) path: &'path dyn ReceivePath,
    pub(crate) nic: Nic,
    pub(crate) queues: Vec<u32>,
}

impl Attachment for Box<dyn Attached> {}

impl Importer for QueuesOf<'_> {
    type Attachment = Box<dyn Attached>;

    fn describe(&self) -> String {
        let queues: Vec<String> = self.queues.iter().map(u32::to_string).collect();
        format!("{} on {} queue {}", self.path.name(), self.nic.name(), queues.join(", "))
    }

    fn peer_to_peer(&self) -> PeerToPeer {
        self.path.peer_to_peer()
    }

    fn device(&self) -> Option<PciAddress> {
        self.nic.identity().pci
    }

    fn is_refusal_of_exporter(&self, error: &Error) -> bool {
        self.path.is_refusal_of_exporter(error)
    }

    fn attach(&mut self, dma_buf: &DmaBuf) -> Result<Box<dyn Attached>> {
        self.path.attach(&self.nic, &self.queues, dma_buf)
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_path_gives_what_it_says_that_it_has() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        for path in all() {
            let name = path.name();
            assert_eq!(path.raw(socket.as_fd()).is_some(), path.has(Feature::Socket), "{name}");
            assert_eq!(path.rings().is_some(), path.has(Feature::Rings), "{name}");
        }
    }

    #[test]
    fn a_path_that_is_not_there_says_what_was_tried() {
        for path in all() {
            if let Some(lack) = path.lack() {
                assert!(lack.reason.contains("not available") && !lack.found_by.is_empty(), "{lack:?}");
                assert!(lack.remedy.is_some(), "{lack:?}");
            }
        }
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<&str> = all().iter().map(|path| path.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all().len());
    }
}
