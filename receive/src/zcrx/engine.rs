//! Receiving connections with a ring.

use std::net::TcpStream;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use devmem_provider::{Error, ErrorKind, Result};
use nix::errno::Errno;

use super::connection::{Connection, End, State};
use super::held::Held;
use super::queue::{InterfaceQueue, RingFor, detached};
use super::ring::{Completion, Ring, Waited};
use super::slot::Slot;
use super::uapi::AREA_SHIFT;
use crate::devmem::{Statistics, StreamOptions};
use crate::stream::Fragment;

/// Numbers for connections, of which none is given twice: 2³² connections are more than a process has.
static NEXT_NUMBER: AtomicU32 = AtomicU32::new(0);

/// A queue in a ring.
#[derive(Debug)]
pub(crate) struct JoinedQueue {
    pub(crate) queue: Arc<InterfaceQueue>,
    /// Its number in the ring.
    pub(crate) id: u32,
}

/// A ring, the queues in it, and the connections that it receives.
#[derive(Debug)]
pub(crate) struct Engine {
    slot: Arc<Slot>,
    /// Nobody else will use the ring.
    own_ring: bool,
    queues: Vec<JoinedQueue>,
    /// In the order of their numbers.
    connections: Vec<Connection>,
    options: StreamOptions,
    /// The most that one batch takes.
    batch_bytes: usize,
    batch_fragments: usize,
    /// What the last batch brought, in order.
    pub(crate) fragments: Vec<Fragment>,
    /// Connections that ended with the last batch, behind its fragments.
    pub(crate) ended: Vec<(u32, End)>,
    pub(crate) statistics: Statistics,
    /// Fragments that were released and not held.
    unknown: u64,
    /// How often a request ended because there was no room for completions.
    pub(crate) restarts: u64,
}

impl Engine {
    /// Receives with a ring of its own from one queue.
    pub(crate) fn new(queue: Arc<InterfaceQueue>, options: StreamOptions) -> Result<Self> {
        let batch_fragments = options.batch_fragments;
        // Twice what a batch takes: while it is looked at the kernel tells of more.
        let RingFor { slot, id, own } = queue.ring_for(batch_fragments.saturating_mul(2))?;
        Ok(Self {
            slot,
            own_ring: own,
            queues: vec![JoinedQueue { queue, id }],
            connections: Vec::new(),
            options,
            batch_bytes: options.batch_bytes,
            batch_fragments,
            fragments: Vec::with_capacity(batch_fragments),
            ended: Vec::new(),
            statistics: Statistics::default(),
            unknown: 0,
            restarts: 0,
        })
    }

    /// Receives from another queue as well.
    pub(crate) fn join(&mut self, queue: Arc<InterfaceQueue>) -> Result<()> {
        let id = queue.join(&self.slot)?;
        self.queues.push(JoinedQueue { queue, id });
        Ok(())
    }

    pub(crate) fn queues(&self) -> &[JoinedQueue] {
        &self.queues
    }

    /// Receives a connection whose packets arrive on one of the queues, by its place. Returns the connection's
    /// number.
    pub(crate) fn add(&mut self, socket: TcpStream, queue: usize) -> Result<u32> {
        let Some(JoinedQueue { queue: joined, .. }) = self.queues.get(queue) else {
            return Err(Error::new(ErrorKind::InvalidInput, "receive a connection")
                .because("it arrives on none of the queues"));
        };
        // A request on a socket that does not block would end where it is to wait.
        let set_up = |error| Error::from_io(error, "set the socket up for receiving");
        socket.set_nonblocking(false).map_err(set_up)?;
        let number = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
        let held = Held::new(joined.area.size(), joined.buffer_bytes());
        let socket = Arc::new(socket);
        self.slot.add(&socket);
        self.connections.push(Connection {
            number,
            socket,
            queue,
            held,
            state: State::Idle,
            abandoned: false,
        });
        // All of them may end at once.
        self.ended.reserve(self.connections.len());
        Ok(number)
    }

    fn place(&self, number: u32) -> Option<usize> {
        match self.connections.as_slice() {
            [only] => (only.number == number).then_some(0),
            all => all.binary_search_by_key(&number, |connection| connection.number).ok(),
        }
    }

    pub(crate) fn connection(&self, number: u32) -> Option<&Connection> {
        self.connections.get(self.place(number)?)
    }

    /// How many connections there are.
    pub(crate) fn len(&self) -> usize {
        self.connections.len()
    }

    /// How a connection ended, as the result of its stream.
    pub(crate) fn result(&self, number: u32, end: End) -> Result<()> {
        match self.connection(number).and_then(|connection| self.queues.get(connection.queue)) {
            Some(joined) => end.result(&joined.queue.area),
            None => Err(detached()),
        }
    }

    /// Changes what one batch takes, within what the engine was made with.
    pub(crate) fn limit_batch(&mut self, bytes: usize) {
        self.batch_bytes = bytes.clamp(1, self.options.batch_bytes);
        self.batch_fragments = self.options.fragments_for(bytes);
    }

    /// Changes how long the next batch is waited for.
    pub(crate) fn limit_idle(&mut self, limit: Duration) {
        self.options.idle_limit = Some(limit);
    }

    /// Waits for the next batch: fragments, or ends of connections, or both. There is neither if there is no
    /// connection left to wait for.
    pub(crate) fn next_batch(&mut self) -> Result<()> {
        self.fragments.clear();
        self.ended.clear();
        if self.unknown > 0 {
            return Err(self.tell_unknown());
        }
        let slot = self.slot.clone();
        let mut guard = slot.ring();
        let Some(ring) = guard.as_mut() else { return Err(detached()) };
        ring.enable()?;
        let mut bytes = 0;
        let mut waited = false;
        loop {
            bytes += self.take_completions(ring, self.batch_bytes.saturating_sub(bytes));
            self.start(ring)?;
            let room = self.batch_fragments.saturating_sub(self.fragments.len());
            let full = room == 0 || bytes >= self.batch_bytes;
            let receiving = self.connections.iter().any(|connection| connection.state == State::Receiving);
            let empty = self.fragments.is_empty() && self.ended.is_empty();
            if full || !receiving || !self.ended.is_empty() || (waited && !empty) {
                return Ok(());
            }
            // As many whole receive buffers as are still wanted.
            let wanted = room.min(self.buffers_for(self.batch_bytes.saturating_sub(bytes)));
            let linger = self.options.linger;
            let outcome = match (empty, linger.is_zero()) {
                (true, true) => ring.wait(1, None, self.options.idle_limit),
                (true, false) => ring.wait(wanted, Some(linger), self.options.idle_limit),
                (false, true) => return Ok(()),
                (false, false) => ring.wait(wanted, None, Some(linger)),
            };
            self.statistics.receive_calls += 1;
            waited = true;
            if slot.is_closing() {
                return Err(detached());
            }
            let nothing = outcome? == Waited::Nothing && empty && ring.available() == 0;
            if nothing && self.options.idle_limit.is_some() {
                return Err(self.idle());
            }
        }
    }

    fn buffers_for(&self, bytes: usize) -> usize {
        let buffer_bytes = self.queues.iter().map(|joined| joined.queue.buffer_bytes()).max().unwrap_or(1);
        bytes.div_ceil(buffer_bytes.max(1) as usize).max(1)
    }

    /// Asks the kernel to receive what it does not receive yet.
    fn start(&mut self, ring: &mut Ring) -> Result<()> {
        for connection in &mut self.connections {
            if connection.state != State::Idle {
                continue;
            }
            let Some(joined) = self.queues.get(connection.queue) else { continue };
            ring.receive(connection.socket.as_fd(), joined.id, connection.number.into())?;
            connection.state = State::Receiving;
        }
        Ok(())
    }

    /// Takes completions up to the limits of a batch. Returns how many bytes they brought.
    fn take_completions(&mut self, ring: &mut Ring, limit: usize) -> usize {
        let mut bytes = 0;
        while bytes < limit && self.fragments.len() < self.batch_fragments {
            let Some(completion) = ring.next() else { break };
            if let Some(fragment) = self.take(completion) {
                bytes += fragment.length() as usize;
                self.fragments.push(fragment);
                self.statistics.fragments += 1;
            }
        }
        self.statistics.fragment_bytes += bytes as u64;
        bytes
    }

    /// Takes one completion. Returns the fragment that it tells of, if somebody wants it.
    fn take(&mut self, completion: Completion) -> Option<Fragment> {
        // Events have numbers that no connection has.
        let number = u32::try_from(completion.user_data).ok()?;
        let Some(place) = self.place(number) else {
            // A connection of an earlier receiver, which had the same ring.
            if let (true, [only]) = (completion.result > 0, self.queues.as_slice()) {
                only.queue.give_back(|give| give(completion.offset));
            }
            return None;
        };
        let connection = self.connections.get_mut(place)?;
        let joined = self.queues.get(connection.queue)?;
        let mut fragment = None;
        if completion.result > 0 {
            // There is one area, with the number 0.
            let area_bytes = joined.queue.area.size().min(1 << AREA_SHIFT);
            fragment = connection.take(completion.offset, completion.result, area_bytes);
            match fragment {
                Some(unwanted) if connection.abandoned => {
                    connection.held.give(unwanted);
                    joined.queue.give_back(|give| give(unwanted.offset()));
                    fragment = None;
                }
                Some(_) => {}
                None => {
                    let end = End::Outside { offset: completion.offset, length: completion.result };
                    connection.state = State::Ended(end);
                    self.ended.push((connection.number, end));
                }
            }
        }
        if !completion.more && connection.state == State::Receiving {
            connection.stopped(completion.result.min(0));
            match connection.state {
                State::Ended(_) if connection.abandoned => {
                    self.connections.remove(place);
                }
                State::Ended(end) => self.ended.push((connection.number, end)),
                State::Idle => self.restarts += 1,
                State::Receiving => {}
            }
        }
        fragment
    }

    /// Gives fragments back.
    pub(crate) fn release(&mut self, fragments: impl IntoIterator<Item = Fragment>) -> Result<()> {
        let mut fragments = fragments.into_iter().peekable();
        let mut crowded = None;
        while let Some(first) = fragments.peek().copied() {
            let Some(place) = self.place(first.token()) else {
                self.unknown += 1;
                fragments.next();
                continue;
            };
            let (Some(connection), queues) = (self.connections.get_mut(place), &self.queues) else { break };
            let Some(joined) = queues.get(connection.queue) else { break };
            let (mut unknown, mut released) = (0, 0);
            let has_room = joined.queue.give_back(|give| {
                while let Some(fragment) = fragments.next_if(|next| next.token() == connection.number) {
                    if connection.held.give(fragment) {
                        give(fragment.offset());
                        released += 1;
                    } else {
                        unknown += 1;
                    }
                }
            });
            self.unknown += unknown;
            self.statistics.released += released;
            if !has_room {
                crowded = Some(connection.queue);
            }
        }
        match crowded {
            Some(queue) => self.make_room(queue),
            None => Ok(()),
        }
    }

    /// Lets the kernel take what does not fit into the refill ring. Where it cannot be asked to, it waits until
    /// the kernel takes some by itself.
    fn make_room(&mut self, queue: usize) -> Result<()> {
        let Some(joined) = self.queues.get(queue) else { return Ok(()) };
        let guard = self.slot.ring();
        let Some(ring) = guard.as_ref() else { return Ok(()) };
        loop {
            let before = joined.queue.refill_state();
            self.statistics.release_calls += 1;
            match joined.queue.flush(ring, joined.id) {
                Ok(true) => return Ok(()),
                // It took nothing: another flush would not either.
                Ok(false) if joined.queue.refill_state() >= before => return Ok(()),
                Ok(false) => {}
                // No such operation, or another thread's ring.
                Err(Errno::EINVAL | Errno::EOPNOTSUPP | Errno::EEXIST) => return Ok(()),
                Err(errno) => return Err(Error::from_errno(errno, "give fragments back to the NIC")),
            }
        }
    }

    /// Gives back what still waits for room, and tells what was wrong with what was released.
    pub(crate) fn flush(&mut self) -> Result<()> {
        for queue in 0..self.queues.len() {
            if self.queues.get(queue).is_some_and(|joined| !joined.queue.give_back(|_| ())) {
                self.make_room(queue)?;
            }
        }
        if self.unknown > 0 { Err(self.tell_unknown()) } else { Ok(()) }
    }

    fn tell_unknown(&mut self) -> Error {
        let unknown = std::mem::take(&mut self.unknown);
        Error::new(ErrorKind::InvalidInput, "give fragments back to the NIC").because(format!(
            "{unknown} of them were not held: they were released before or belong to another connection"
        ))
    }

    fn idle(&self) -> Error {
        let limit = self.options.idle_limit.unwrap_or_default().as_secs_f64();
        Error::new(ErrorKind::Gone, "wait for data").because(format!("nothing arrived for {limit} s"))
    }

    /// Gives up a connection: closes it, and gives everything back that was received.
    pub(crate) fn remove(&mut self, number: u32) {
        let Some(place) = self.place(number) else { return };
        let Some(connection) = self.connections.get_mut(place) else { return };
        if let Some(joined) = self.queues.get(connection.queue) {
            joined.queue.give_back(|give| connection.held.give_all(give));
        }
        if connection.state == State::Receiving {
            // The request ends with the connection, and is forgotten then.
            let _ = connection.socket.shutdown(std::net::Shutdown::Both);
            connection.abandoned = true;
        } else {
            self.connections.remove(place);
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let slot = self.slot.clone();
        let mut guard = slot.ring();
        // What the kernel has told of and nobody has taken is held as well. It tells no more: only a wait does that.
        if let Some(ring) = guard.as_mut() {
            while let Some(completion) = ring.next() {
                self.take(completion);
            }
        }
        if self.own_ring {
            drop(guard.take());
        }
        for connection in &mut self.connections {
            // The ring may live on, and its requests with it.
            let _ = connection.socket.shutdown(std::net::Shutdown::Both);
            if let Some(joined) = self.queues.get(connection.queue) {
                joined.queue.give_back(|give| connection.held.give_all(give));
            }
        }
    }
}
