//! Either receive path, chosen by a value.
//!
//! What a program does with a NIC and a buffer is the same on both paths: [`Path`] says which one it is, and
//! [`Binding`] and [`Stream`] stand for those of [devmem TCP](crate::devmem) and of
//! [zero-copy receive](crate::zcrx). What the paths do differently is told in [`zcrx`].

use std::fmt;
use std::net::TcpStream;
use std::time::Duration;

use devmem_provider::{
    Attachment, Buffer, DmaBuf, Error, Importer, PciAddress, PeerToPeer, Pin, Require, Result,
};

use crate::devmem::{self, DevmemTcp, Statistics, StreamOptions};
use crate::nic::{Nic, Prepared};
use crate::stream::{Fragment, Part};
use crate::zcrx::{self, Zcrx};

/// A way in which a NIC receives into a DMA-buf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Path {
    /// The kernel's TCP, with `recvmsg()`.
    DevmemTcp,
    /// io_uring zero-copy receive.
    Zcrx,
}

impl Path {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::DevmemTcp, Self::Zcrx];

    /// Its name, as options and reports write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::DevmemTcp => "devmem-tcp",
            Self::Zcrx => "zcrx",
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Receive queues of a NIC that a DMA-buf can be bound to, by either path.
#[derive(Debug, Clone)]
pub enum Queues {
    /// By devmem TCP.
    DevmemTcp(DevmemTcp),
    /// By zero-copy receive.
    Zcrx(Zcrx),
}

impl Queues {
    /// The queues `queues` of `nic`, which somebody has set up.
    #[must_use]
    pub fn new(path: Path, nic: &Nic, queues: impl Into<Vec<u32>>) -> Self {
        match path {
            Path::DevmemTcp => Self::DevmemTcp(DevmemTcp::new(nic, queues)),
            Path::Zcrx => Self::Zcrx(Zcrx::new(nic, queues)),
        }
    }

    /// The queues that a set-up has reserved.
    #[must_use]
    pub fn on(path: Path, prepared: &Prepared) -> Self {
        Self::new(path, prepared.nic(), prepared.queues())
    }
}

/// Does the same with whichever path it is.
macro_rules! either {
    ($enumeration:ident, $value:expr, $inner:ident => $does:expr) => {
        match $value {
            $enumeration::DevmemTcp($inner) => $does,
            $enumeration::Zcrx($inner) => $does,
        }
    };
}

impl Importer for Queues {
    type Attachment = Binding;

    fn describe(&self) -> String {
        either!(Queues, self, queues => queues.describe())
    }

    fn peer_to_peer(&self) -> PeerToPeer {
        either!(Queues, self, queues => queues.peer_to_peer())
    }

    fn device(&self) -> Option<PciAddress> {
        either!(Queues, self, queues => queues.device())
    }

    fn is_refusal_of_exporter(&self, error: &Error) -> bool {
        either!(Queues, self, queues => queues.is_refusal_of_exporter(error))
    }

    fn attach(&mut self, dma_buf: &DmaBuf) -> Result<Binding> {
        Ok(match self {
            Self::DevmemTcp(queues) => Binding::DevmemTcp(queues.attach(dma_buf)?),
            Self::Zcrx(queue) => Binding::Zcrx(queue.attach(dma_buf)?),
        })
    }
}

impl Prepared {
    /// Binds `buffer` to the queues that were set up, by either path, and looks where its pages are before and
    /// after.
    ///
    /// # Errors
    ///
    /// As [`Pin::new`]; a refusal by the kernel carries a [`BindRefusal`](devmem::BindRefusal).
    pub fn pin_by(&self, path: Path, buffer: &dyn Buffer, require: Require) -> Result<Pin<Binding>> {
        Pin::new(&mut Queues::on(path, self), buffer, require)
    }
}

/// A DMA-buf that is bound to receive queues by either path. Dropping it unbinds.
#[derive(Debug)]
pub enum Binding {
    /// By devmem TCP.
    DevmemTcp(devmem::Binding),
    /// By zero-copy receive.
    Zcrx(zcrx::Binding),
}

impl Attachment for Binding {}

impl Binding {
    /// The path.
    #[must_use]
    pub fn path(&self) -> Path {
        match self {
            Self::DevmemTcp(_) => Path::DevmemTcp,
            Self::Zcrx(_) => Path::Zcrx,
        }
    }

    /// The queues that are bound.
    #[must_use]
    pub fn queues(&self) -> &[u32] {
        either!(Binding, self, binding => binding.queues())
    }

    /// Receives a connection, whose packets arrive on the bound queues, into the buffer.
    ///
    /// # Errors
    ///
    /// As [`devmem::Binding::receive`] and [`zcrx::Binding::receive`].
    pub fn receive(&self, socket: TcpStream, options: StreamOptions) -> Result<Stream> {
        Ok(match self {
            Self::DevmemTcp(binding) => Stream::DevmemTcp(binding.receive(socket, options)?),
            Self::Zcrx(binding) => Stream::Zcrx(binding.receive(socket, options)?),
        })
    }

    /// Bytes that the kernel copied into the buffer; `None` where it does not count them.
    #[must_use]
    pub fn copied_bytes(&self) -> Option<u64> {
        match self {
            Self::DevmemTcp(_) => None,
            Self::Zcrx(binding) => binding.copy_statistics().map(|statistics| statistics.bytes),
        }
    }

    /// Unbinds, and waits at most `limit` until the kernel has let go of the buffer. Returns whether it has.
    ///
    /// # Errors
    ///
    /// If the kernel cannot be asked.
    pub fn unbind(self, limit: Duration) -> Result<bool> {
        either!(Binding, self, binding => binding.unbind(limit))
    }
}

/// A TCP connection whose payload lands in a bound buffer, by either path.
#[derive(Debug)]
pub enum Stream {
    /// By devmem TCP.
    DevmemTcp(devmem::Stream),
    /// By zero-copy receive.
    Zcrx(zcrx::Stream),
}

impl Stream {
    /// Waits for the next bytes. `None` is the end of the stream.
    ///
    /// # Errors
    ///
    /// As [`devmem::Stream::next`] and [`zcrx::Stream::next`].
    #[expect(clippy::should_implement_trait, reason = "the parts borrow the stream")]
    pub fn next(&mut self) -> Result<Option<Parts<'_>>> {
        Ok(match self {
            Self::DevmemTcp(stream) => stream.next()?.map(Parts::DevmemTcp),
            Self::Zcrx(stream) => stream.next()?.map(Parts::Zcrx),
        })
    }

    /// Gives fragments back to the NIC.
    ///
    /// # Errors
    ///
    /// As [`devmem::Stream::release`] and [`zcrx::Stream::release`].
    pub fn release(&mut self, fragments: impl IntoIterator<Item = Fragment>) -> Result<()> {
        either!(Stream, self, stream => stream.release(fragments))
    }

    /// Gives back now what was released.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](devmem_provider::ErrorKind::InvalidInput) if something was released that was not
    /// held.
    pub fn flush(&mut self) -> Result<()> {
        either!(Stream, self, stream => stream.flush())
    }

    /// Changes what one receive gathers, up to what the stream was made with.
    pub fn limit_batch(&mut self, bytes: usize) {
        either!(Stream, self, stream => stream.limit_batch(bytes));
    }

    /// Changes how long the next bytes are waited for: see
    /// [`limit_idle`](devmem::Stream::limit_idle) of devmem TCP.
    pub fn limit_idle(&mut self, limit: Duration) {
        either!(Stream, self, stream => stream.limit_idle(limit));
    }

    /// What has been done so far.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        either!(Stream, self, stream => stream.statistics())
    }
}

/// What one receive brought, by either path.
#[derive(Debug, Clone)]
pub enum Parts<'stream> {
    /// By devmem TCP.
    DevmemTcp(devmem::Parts<'stream>),
    /// By zero-copy receive.
    Zcrx(zcrx::Parts<'stream>),
}

impl Parts<'_> {
    /// How many bytes this receive brought.
    #[must_use]
    pub fn bytes(&self) -> usize {
        either!(Parts, self, parts => parts.bytes())
    }
}

impl<'stream> Iterator for Parts<'stream> {
    type Item = Part<'stream>;

    fn next(&mut self) -> Option<Part<'stream>> {
        either!(Parts, self, parts => parts.next())
    }
}
