//! Receiving one TCP connection into an area.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use devmem_provider::{Error, ErrorKind, Result};

use super::connection::End;
use super::engine::Engine;
use super::parts::Parts;
use super::queue::InterfaceQueue;
use crate::devmem::{Statistics, StreamOptions};
use crate::stream::Fragment;

/// A TCP connection whose payload lands in an area, received with a ring of its own.
///
/// It is used as a [`Stream`](crate::devmem::Stream) of devmem TCP. What differs:
///
/// - A thread receives: the one that calls [`next`](Self::next) first. In others it fails.
/// - All bytes lie in the area. Payload that arrived in host memory ends the stream with an error that has
///   [`LinearData`](super::LinearData) as its source, if the area is a DMA-buf.
/// - Fragments go back without a system call, and at once, unless the refill ring is full.
/// - It does not outlive its [`Binding`](super::Binding): when that is dropped, it ends with an error. What it has
///   received stays where it is until the memory is used for something else.
///
/// Dropping it closes the connection and gives everything back that was not released. After the first calls
/// nothing is allocated. While data flows, a receive of 4 MiB takes one system call.
#[derive(Debug)]
pub struct Stream {
    engine: Engine,
    number: u32,
    end: Option<End>,
    at_end: bool,
}

impl Stream {
    pub(super) fn new(queue: Arc<InterfaceQueue>, socket: TcpStream, options: StreamOptions) -> Result<Self> {
        let mut engine = Engine::new(queue, options)?;
        let number = engine.add(socket, 0)?;
        Ok(Self { engine, number, end: None, at_end: false })
    }

    /// Waits for the next bytes. `None` is the end of the stream.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Gone`] if the peer reset the connection, or nothing came within the idle limit;
    /// [`ErrorKind::Protocol`] if payload came otherwise than through the queue, or lies outside of the area;
    /// [`ErrorKind::WrongState`] if the area was detached, or another thread receives;
    /// [`ErrorKind::InvalidInput`] if something was released that was not held, as [`flush`](Self::flush). After the
    /// idle limit the stream is still whole.
    #[expect(clippy::should_implement_trait, reason = "the parts borrow the stream")]
    pub fn next(&mut self) -> Result<Option<Parts<'_>>> {
        if self.at_end {
            return Ok(None);
        }
        if self.end.is_none() {
            self.engine.next_batch()?;
            self.end = self.engine.ended.first().map(|&(_, end)| end);
            if !self.engine.fragments.is_empty() {
                return Ok(Some(Parts::new(&self.engine.fragments)));
            }
        }
        match self.end {
            Some(end) => {
                self.engine.result(self.number, end)?;
                self.at_end = true;
                Ok(None)
            }
            None => Err(Error::new(ErrorKind::Protocol, "receive into device memory")
                .because("the kernel has ended the request without a word")),
        }
    }

    /// Gives fragments back to the NIC: see [`flush`](Self::flush) for those that were not held.
    ///
    /// # Errors
    ///
    /// What the kernel says if the refill ring is full and it was asked to take what is in it.
    pub fn release(&mut self, fragments: impl IntoIterator<Item = Fragment>) -> Result<()> {
        self.engine.release(fragments)
    }

    /// Tells whether all that was released was held. There is nothing else to do: what is released goes back at
    /// once, except what finds no room in the refill ring, which is tried again.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if some were released before or belong to another connection. The others were
    /// released nevertheless.
    pub fn flush(&mut self) -> Result<()> {
        self.engine.flush()
    }

    /// Changes what one receive gathers, up to what the stream was made with: see
    /// [`limit_batch`](crate::devmem::Stream::limit_batch) of devmem TCP. A fragment is never divided.
    pub fn limit_batch(&mut self, bytes: usize) {
        self.engine.limit_batch(bytes);
    }

    /// Changes how long the next bytes are waited for: see [`limit_idle`](crate::devmem::Stream::limit_idle) of devmem
    /// TCP.
    pub fn limit_idle(&mut self, limit: Duration) {
        self.engine.limit_idle(limit);
    }

    /// What has been done so far.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.engine.statistics
    }

    /// How often the kernel stopped because it had told of more than was taken, and was asked to go on. Each costs a
    /// part of a system call; larger batches make it rarer.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        self.engine.restarts
    }

    /// How many fragments are held.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.engine.connection(self.number).map_or(0, |connection| connection.held.total())
    }
}
