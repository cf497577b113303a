//! What a path that receives with rings of io_uring does besides.

use std::fmt;
use std::time::Duration;

use devmem_provider::{DmaBuf, Result};
use devmem_receive::nic::Nic;
use devmem_receive::zcrx::{Event, RawRegistration, RefillEntry};
use nix::errno::Errno;

use super::Attached;

/// Registering queues with rings of io_uring, in ways that [`ReceivePath::attach`](super::ReceivePath::attach) has not.
pub trait Rings: fmt::Debug {
    /// Asks the kernel to register a queue, on a ring of its own that is closed at once.
    ///
    /// # Errors
    ///
    /// In the outer result, there is no ring to be had; in the inner one, what the kernel answers.
    fn attempt(&self, registration: &RawRegistration) -> Result<Result<(), Errno>>;

    /// Attaches a buffer to a queue, with a refill ring of so many entries.
    ///
    /// # Errors
    ///
    /// As [`ReceivePath::attach`](super::ReceivePath::attach).
    fn attach_with_refill_ring(
        &self,
        nic: &Nic,
        queue: u32,
        dma_buf: &DmaBuf,
        entries: u32,
    ) -> Result<Box<dyn Attached>>;
}

/// What the kernel tells of a queue that is registered with a ring.
pub trait Registered: fmt::Debug {
    /// Waits at most `limit` for an event. `None` if there was none.
    ///
    /// # Errors
    ///
    /// If the kernel tells none.
    fn next_event(&self, limit: Duration) -> Result<Option<Event>>;

    /// How many bytes the kernel has copied into the buffer; `None` if it does not count them.
    fn copied_bytes(&self) -> Option<u64>;

    /// Puts an entry into the refill ring as it is.
    fn put_refill_entry(&self, entry: RefillEntry);

    /// How many fragments were given back that the kernel has not taken yet.
    fn given_back(&self) -> u64;
}
