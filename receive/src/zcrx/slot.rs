//! The place of a ring, from which it can be taken away.
//!
//! A queue is free again when the last ring that has it is closed. A NIC whose settings are to be put back cannot
//! wait for that until every connection has been dropped, so that whoever receives holds only the place of a ring.

use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::ring::Ring;

/// The place of a ring; `None` once it was closed.
#[derive(Debug)]
pub(crate) struct Slot {
    ring: Mutex<Option<Ring>>,
    /// The connections that are received with it.
    sockets: Mutex<Vec<Weak<TcpStream>>>,
    closing: AtomicBool,
}

impl Slot {
    pub(crate) fn new(ring: Ring) -> Self {
        Self {
            ring: Mutex::new(Some(ring)),
            sockets: Mutex::new(Vec::new()),
            closing: AtomicBool::new(false),
        }
    }

    /// The ring, for as long as it is held.
    pub(crate) fn ring(&self) -> MutexGuard<'_, Option<Ring>> {
        lock(&self.ring)
    }

    /// Adds a connection.
    pub(crate) fn add(&self, socket: &Arc<TcpStream>) {
        let mut sockets = lock(&self.sockets);
        sockets.retain(|socket| socket.strong_count() > 0);
        sockets.push(Arc::downgrade(socket));
    }

    /// Whether it is being closed: then the ends of its connections are none.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Ends the connections, so that nobody waits for them, and closes the ring.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Release);
        for socket in lock(&self.sockets).iter().filter_map(Weak::upgrade) {
            // One that is closed already has nobody waiting.
            let _ = socket.shutdown(Shutdown::Both);
        }
        drop(self.ring().take());
    }
}

/// Locks what stays valid whatever a panicking holder did.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
