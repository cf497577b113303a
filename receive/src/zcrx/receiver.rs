//! Receiving many connections with one ring.

use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::Duration;

use devmem_provider::{Error, ErrorKind, Result};

use super::binding::Binding;
use super::engine::Engine;
use super::parts::Parts;
use super::sys;
use crate::devmem::{Statistics, StreamOptions};
use crate::netdev::QueueKind;
use crate::stream::Fragment;

/// Many connections, and several queues, received by one thread with one ring: one system call brings what has
/// arrived for any of them.
///
/// Fragments say by their [token](Fragment::token) which connection they belong to.
#[derive(Debug)]
pub struct Receiver {
    engine: Engine,
}

/// The number of a connection of a [`Receiver`]; the token of its fragments.
pub type ConnectionNumber = u32;

/// What a receiver brought.
#[derive(Debug)]
pub struct Batch<'receiver> {
    engine: &'receiver Engine,
}

impl Receiver {
    /// Receives what arrives on a queue.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] if rings do not share the queue, and one receives from it already.
    pub fn new(binding: &Binding, options: StreamOptions) -> Result<Self> {
        Ok(Self { engine: Engine::new(binding.queue().clone(), options)? })
    }

    /// Receives what arrives on another queue as well. Its area is another one.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn join(&mut self, binding: &Binding) -> Result<()> {
        self.engine.join(binding.queue().clone())
    }

    /// Receives a connection. The queue is the one that its last packet arrived on, as the socket tells.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if that is none of the receiver's queues: flow steering is wrong.
    pub fn add(&mut self, socket: TcpStream) -> Result<ConnectionNumber> {
        let place = self.arrives_at(&socket)?;
        self.engine.add(socket, place)
    }

    /// The place of the queue that a connection arrives on.
    fn arrives_at(&self, socket: &TcpStream) -> Result<usize> {
        let queues = self.engine.queues();
        if queues.len() == 1 {
            return Ok(0);
        }
        let napi = sys::incoming_napi(socket.as_fd())
            .map_err(|errno| Error::from_errno(errno, "find the queue that a connection arrives on"))?;
        let polled_by = |joined: &super::engine::JoinedQueue| {
            let queue = &joined.queue;
            let answer = queue.nic.netdev().queue(queue.nic.ifindex(), QueueKind::Receive, queue.number);
            answer.is_ok_and(|answer| answer.napi_id == Some(napi))
        };
        queues.iter().position(polled_by).ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, "receive a connection")
                .because(format!("its packets are polled by NAPI {napi}, which polls none of the queues"))
                .remedy("steer this connection's packets to one of the queues")
        })
    }

    /// Waits for the next bytes of any connection. `None` if there is no connection any more.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Gone`] if nothing came within the idle limit; [`ErrorKind::WrongState`] if an area was detached,
    /// or another thread receives; [`ErrorKind::InvalidInput`] if something was released that was not held. The
    /// errors of single connections are in the [`Batch`].
    #[expect(clippy::should_implement_trait, reason = "the batch borrows the receiver")]
    pub fn next(&mut self) -> Result<Option<Batch<'_>>> {
        if self.engine.len() == 0 {
            return Ok(None);
        }
        self.engine.next_batch()?;
        let nothing = self.engine.fragments.is_empty() && self.engine.ended.is_empty();
        Ok((!nothing).then_some(Batch { engine: &self.engine }))
    }

    /// Gives fragments back to the NIC, of any of the connections: see [`Stream::release`](super::Stream::release).
    /// It costs least if those of a connection follow each other.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn release(&mut self, fragments: impl IntoIterator<Item = Fragment>) -> Result<()> {
        self.engine.release(fragments)
    }

    /// See [`Stream::flush`](super::Stream::flush).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn flush(&mut self) -> Result<()> {
        self.engine.flush()
    }

    /// Closes a connection, and gives back everything of it that was not released. To be called for connections
    /// that have ended as well, when nobody reads their bytes any more.
    pub fn remove(&mut self, connection: ConnectionNumber) {
        self.engine.remove(connection);
    }

    /// In which memory the fragments of a connection lie: 0 for the binding that the receiver was made with, 1 for the
    /// first that joined, and so on. `None` if the connection was removed.
    #[must_use]
    pub fn place_of(&self, connection: ConnectionNumber) -> Option<usize> {
        self.engine.connection(connection).map(|connection| connection.queue)
    }

    /// See [`Stream::limit_idle`](super::Stream::limit_idle).
    pub fn limit_idle(&mut self, limit: Duration) {
        self.engine.limit_idle(limit);
    }

    /// What has been done so far.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.engine.statistics
    }
}

impl<'receiver> Batch<'receiver> {
    /// Where the bytes lie: those of a connection in their order.
    #[must_use]
    pub fn parts(&self) -> Parts<'receiver> {
        Parts::new(&self.engine.fragments)
    }

    /// The connections that ended behind these bytes, and whether all of them arrived.
    pub fn ended(&self) -> impl Iterator<Item = (ConnectionNumber, Result<()>)> {
        self.engine.ended.iter().map(|&(number, end)| (number, self.engine.result(number, end)))
    }
}
