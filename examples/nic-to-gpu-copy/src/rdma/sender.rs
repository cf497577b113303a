//! The sending side: the stream in pieces, each written into the receiver's buffer.

use std::fmt;
use std::io::Read;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use devmem_receive::rdma::AccessFlags;
use devmem_receive::rdma::verbs::{
    CompletionQueue, Completions, Context, HostRegion, Peer, ProtectionDomain, QueuePair, QueuePairOptions,
    Woken,
};

use super::PIECE;
use super::handshake::{Hello, Offer};
use super::window::low;
use crate::failure;
use crate::transfer::Header;

/// Pieces that are on their way at once. Their memory is locked, of which an ordinary user may have 8 MiB.
const BUFFERS: u32 = 4;

/// How long is waited before the connection is looked at again.
const PATIENCE: Duration = Duration::from_secs(60);

/// One stripe that is sent.
pub(crate) struct Sender {
    socket: TcpStream,
    offer: Offer,
    pair: QueuePair,
    peer: Peer,
    completions: CompletionQueue,
    memory: HostRegion,
    /// Which parts of it no write reads.
    free: Vec<u32>,
    /// The part that is being filled, and how far.
    filling: Option<u32>,
    filled: u32,
    /// Pieces written, and those that the receiver has released.
    written: u64,
    released: u64,
    /// The beginning of a number that the receiver is telling.
    heard: Vec<u8>,
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("pair", &self.pair).finish_non_exhaustive()
    }
}

impl Sender {
    /// What all stripes are sent with. That the device cannot do it is found before anybody is asked.
    pub(crate) fn prepare(context: &Context) -> Result<ProtectionDomain> {
        context.require_rdma_write()?;
        Ok(context.protection_domain()?)
    }

    /// Agrees with the receiver at the other end of `socket`.
    pub(crate) fn connect(domain: &ProtectionDomain, mut socket: TcpStream, header: &Header) -> Result<Self> {
        socket.set_nodelay(true).context("cannot set the socket up for sending")?;
        let context = domain.context();
        // It is also how much memory the receiver may make this side lock for a piece.
        let longest = PIECE.min(context.capabilities().maximum_rdma_bytes);
        let completions = context.completion_queue(2 * BUFFERS)?;
        let options = QueuePairOptions::default().requests(BUFFERS).receives(1);
        let pair = domain.queue_pair(&completions, &completions, options)?;
        let Header { stripe, stripes, .. } = *header;
        Hello { endpoint: pair.endpoint(), stripe, stripes, longest }.send(&mut socket)?;
        let offer = Offer::receive(&mut socket)?;
        if offer.piece_bytes > longest {
            bail!("the peer wants pieces of {} bytes; this side writes {longest} at once", offer.piece_bytes);
        }
        let peer = pair.connect(&offer.endpoint)?;
        let bytes = usize::try_from(u64::from(offer.piece_bytes) * u64::from(BUFFERS))?;
        // The device reads it, and nobody writes to it.
        let memory = domain.host_memory(bytes, AccessFlags::empty())?;
        Ok(Self {
            socket,
            offer,
            pair,
            peer,
            completions,
            memory,
            free: (0..BUFFERS).collect(),
            filling: None,
            filled: 0,
            written: 0,
            released: 0,
            heard: Vec::with_capacity(size_of::<u64>()),
        })
    }

    /// Sends the next bytes of the stream; some may wait for more, up to a piece.
    pub(crate) fn send(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let buffer = self.buffer()?;
            let room = (self.offer.piece_bytes - self.filled) as usize;
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            let start = u64::from(buffer) * u64::from(self.offer.piece_bytes);
            self.memory.copy_from(start + u64::from(self.filled), now)?;
            self.filled += u32::try_from(now.len())?;
            if self.filled == self.offer.piece_bytes {
                self.write(buffer)?;
            }
            bytes = later;
        }
        Ok(())
    }

    /// The part that is being filled, or a free one.
    fn buffer(&mut self) -> Result<u32> {
        loop {
            if let Some(buffer) = self.filling {
                return Ok(buffer);
            }
            self.filling = self.free.pop();
            if self.filling.is_none() {
                self.wait()?;
            }
        }
    }

    /// Writes what was filled to its place in the receiver's buffer, as soon as there is one.
    fn write(&mut self, buffer: u32) -> Result<()> {
        let Offer { memory, piece_bytes, places, .. } = self.offer;
        while self.written - self.released >= u64::from(places) {
            self.wait()?;
        }
        let place = self.written % u64::from(places);
        let target = memory.at(place * u64::from(piece_bytes));
        let part = self.memory.region().part(u64::from(buffer) * u64::from(piece_bytes), self.filled)?;
        self.pair.write(buffer.into(), part, target, Some(low(self.written)), &self.peer)?;
        self.written += 1;
        (self.filling, self.filled) = (None, 0);
        Ok(())
    }

    /// Waits until a write is completed, or the receiver says something.
    fn wait(&mut self) -> Result<()> {
        match self.completions.wait(Some(self.socket.as_fd()), PATIENCE)? {
            Woken::Completions(found) => self.complete(found),
            Woken::Other => self.hear(),
            Woken::TimedOut => Ok(()),
        }
    }

    fn complete(&mut self, found: Completions) -> Result<()> {
        for completion in found {
            let completion = completion.ok("write into the receiver's buffer")?;
            self.free.push(u32::try_from(completion.id)?);
        }
        Ok(())
    }

    /// The receiver tells how many pieces it has released.
    fn hear(&mut self) -> Result<()> {
        let mut bytes = [0; size_of::<u64>()];
        let wanted = bytes.len() - self.heard.len();
        match self.socket.read(&mut bytes[..wanted]) {
            Ok(0) => bail!(failure::RECEIVER_GAVE_UP),
            Ok(count) => self.heard.extend_from_slice(&bytes[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return failure::of_connection_to_receiver(Err(error)),
        }
        if let Ok(number) = <[u8; 8]>::try_from(self.heard.as_slice()) {
            self.heard.clear();
            let released = u64::from_le_bytes(number);
            if released < self.released || released > self.written {
                bail!("the peer does not keep to the protocol");
            }
            self.released = released;
        }
        Ok(())
    }

    /// Sends what waits, and waits until all is in the receiver's buffer and the receiver has it.
    pub(crate) fn finish(mut self) -> Result<()> {
        if let Some(buffer) = self.filling.filter(|_| self.filled > 0) {
            self.write(buffer)?;
        } else if let Some(buffer) = self.filling.take() {
            self.free.push(buffer);
        }
        while self.free.len() < BUFFERS as usize {
            self.wait()?;
        }
        // The receiver closes when it has everything: waiting for that turns an abort on its side into an error here.
        failure::of_connection_to_receiver(self.socket.shutdown(Shutdown::Write))?;
        let mut rest = [0; 256];
        loop {
            match self.socket.read(&mut rest) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return failure::of_connection_to_receiver(Err(error)),
            }
        }
    }
}
