//! The receiving side: places in the buffer, and what lands there.

use std::collections::HashSet;
use std::fmt;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use devmem_provider::{Buffer, Extent, base_page_size};
use devmem_receive::rdma::verbs::{
    Completed, Completion, CompletionQueue, Completions, MemoryRegion, Peer, ProtectionDomain, QueuePair,
    QueuePairOptions, Woken,
};

use super::handshake::{Hello, Offer};
use super::window::Window;
use super::{PIECE, PLACES};
use crate::failure;

/// The fewest places with which sender and receiver work at the same time.
const FEWEST_PLACES: u64 = 2;

/// A buffer that is registered with a device, for the connections of a transfer.
pub(crate) struct Receiver<'session> {
    domain: &'session ProtectionDomain,
    region: &'session MemoryRegion,
    buffer: &'session dyn Buffer,
    /// The stripes that have a part of the buffer.
    stripes: Mutex<HashSet<u32>>,
}

impl fmt::Debug for Receiver<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("region", self.region).finish_non_exhaustive()
    }
}

impl<'session> Receiver<'session> {
    pub(crate) fn new(
        domain: &'session ProtectionDomain,
        region: &'session MemoryRegion,
        buffer: &'session dyn Buffer,
    ) -> Self {
        Self { domain, region, buffer, stripes: Mutex::default() }
    }

    /// Agrees with a sender. An idle peer is waited for as long as `idle_limit`.
    pub(crate) fn accept(&self, mut socket: TcpStream, idle_limit: Duration) -> Result<Landing<'_>> {
        socket.set_read_timeout(Some(idle_limit)).context("cannot set the socket up for receiving")?;
        socket.set_nodelay(true).context("cannot set the socket up for receiving")?;
        let hello = Hello::receive(&mut socket)?;
        if !self.stripes.lock().map_err(|_| anyhow!("a receiving thread panicked"))?.insert(hello.stripe) {
            bail!("the connections belong to different transfers; let one sender send at a time");
        }
        let (base, piece_bytes, places) = self.places(&hello)?;
        let completions = self.domain.context().completion_queue(2 * places)?;
        let options = QueuePairOptions::default().requests(1).receives(places);
        let pair = self.domain.queue_pair(&completions, &completions, options)?;
        let peer = pair.connect(&hello.endpoint)?;
        let mut landing = Landing {
            receiver: self,
            window: Window::new(base, piece_bytes, places),
            socket,
            idle_limit,
            base,
            piece_bytes,
            places,
            freed: Freed::default(),
            ended: false,
            pieces: 0,
            bytes: 0,
            written_messages: 0,
            pair,
            completions,
            _peer: peer,
        };
        for place in 0..places {
            landing.post(place.into())?;
        }
        let memory = self.region.remote().at(base);
        let offer = Offer { endpoint: landing.pair.endpoint(), memory, piece_bytes, places };
        offer.send(&mut landing.socket)?;
        Ok(landing)
    }

    /// The part of the buffer for a stripe: where it begins, how long a piece is, and how many there are at once.
    fn places(&self, hello: &Hello) -> Result<(u64, u32, u32)> {
        let capabilities = self.domain.context().capabilities();
        let page = base_page_size();
        let share = self.region.registration().length() / u64::from(hello.stripes) / page * page;
        let longest = PIECE.min(hello.longest).min(capabilities.maximum_rdma_bytes);
        let piece = u64::from(longest).min(share / FEWEST_PLACES) / page * page;
        if piece == 0 {
            bail!(
                "cannot divide a buffer of {} bytes among {} connections; use a larger one (--size) or fewer",
                self.region.registration().length(),
                hello.stripes
            );
        }
        let most = u64::from(PLACES.min(capabilities.maximum_receives));
        let places = (share / piece).min(most);
        Ok((u64::from(hello.stripe) * share, u32::try_from(piece)?, u32::try_from(places)?))
    }
}

/// Pieces that nothing reads any more.
#[derive(Debug, Default)]
struct Freed {
    total: u64,
    told: u64,
}

/// One stripe that lands in the buffer.
pub(crate) struct Landing<'session> {
    receiver: &'session Receiver<'session>,
    window: Window,
    socket: TcpStream,
    idle_limit: Duration,
    base: u64,
    piece_bytes: u32,
    places: u32,
    freed: Freed,
    /// The sender has closed its side.
    ended: bool,
    pieces: u64,
    bytes: u64,
    /// System calls that told the sender what is free.
    written_messages: u64,
    pair: QueuePair,
    completions: CompletionQueue,
    /// A device answers only those that it knows.
    _peer: Peer,
}

impl fmt::Debug for Landing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Landing").field("pair", &self.pair).finish_non_exhaustive()
    }
}

impl Landing<'_> {
    /// Waits for the next piece in order: where it lies. `None` if the sender has ended.
    pub(crate) fn next(&mut self) -> Result<Option<Extent>> {
        let deadline = Instant::now() + self.idle_limit;
        loop {
            if let Some(piece) = self.window.take()? {
                return Ok(Some(piece));
            }
            let found = self.completions.poll()?;
            if !found.is_empty() {
                self.arrive(found)?;
                continue;
            }
            // What was written before the sender ended was completed here before: there is nothing more.
            if self.ended {
                return Ok(None);
            }
            self.tell_freed()?;
            let left = deadline.saturating_duration_since(Instant::now());
            match self.completions.wait(Some(self.socket.as_fd()), left)? {
                Woken::Completions(found) => self.arrive(found)?,
                Woken::Other => self.hear()?,
                Woken::TimedOut => bail!("nothing arrived for {} s", self.idle_limit.as_secs()),
            }
        }
    }

    fn arrive(&mut self, found: Completions) -> Result<()> {
        for completion in found {
            let Completion { id, operation, bytes, immediate, .. } =
                completion.ok("receive what the sender writes")?;
            let (Some(Completed::WrittenByPeer), Some(number)) = (operation, immediate) else {
                bail!("the peer sent something else than a piece");
            };
            self.window.arrive(number, bytes)?;
            self.pieces += 1;
            self.bytes += u64::from(bytes);
            self.post(id)?;
        }
        // Before anybody looks at it.
        Ok(self.receiver.buffer.flush_peer_writes()?)
    }

    /// Posts a receive, which a write's immediate data takes. Nothing is received into its memory.
    fn post(&self, place: u64) -> Result<()> {
        let offset = self.base + place * u64::from(self.piece_bytes);
        Ok(self.pair.receive(place, self.receiver.region.part(offset, self.piece_bytes)?)?)
    }

    /// The sender has said something: it says nothing but that it has ended.
    fn hear(&mut self) -> Result<()> {
        match self.socket.read(&mut [0]) {
            Ok(0) => self.ended = true,
            Ok(_) => bail!("the peer does not keep to the protocol"),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("the connection is lost"),
        }
        Ok(())
    }

    /// Nothing reads the next so many pieces any more.
    pub(crate) fn release(&mut self, pieces: u64) -> Result<()> {
        self.freed.total = self.window.release(pieces);
        if self.freed.total - self.freed.told >= u64::from(self.places.div_ceil(4)) {
            self.tell_freed()?;
        }
        Ok(())
    }

    fn tell_freed(&mut self) -> Result<()> {
        if self.freed.total > self.freed.told && !self.ended {
            self.written_messages += 1;
            self.freed.told = self.freed.total;
            match self.socket.write_all(&self.freed.total.to_le_bytes()) {
                // Whether it had sent everything shows in what has arrived.
                Err(error) if failure::is_gone(&error) => self.ended = true,
                result => result.context("the connection is lost")?,
            }
        }
        Ok(())
    }

    /// Waits until the sender knows that all is here: a queue pair that is destroyed before answers it no more.
    pub(crate) fn finish(&mut self) -> Result<()> {
        match self.next()? {
            None => Ok(()),
            Some(_) => bail!("the peer sent more than it announced"),
        }
    }

    /// How many pieces may be held while others arrive.
    pub(crate) fn most_held(&self) -> usize {
        self.places as usize / 2
    }

    pub(crate) fn pieces(&self) -> u64 {
        self.pieces
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn system_calls(&self) -> u64 {
        self.completions.system_calls() + self.written_messages
    }
}
