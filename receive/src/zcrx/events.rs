//! What the kernel tells of a queue that receives.

use std::sync::Arc;
use std::time::Duration;

use devmem_provider::{Error, ErrorKind, Result};
use nix::errno::Errno;

use super::queue::{InterfaceQueue, detached};
use super::ring::EVENT;
use super::{sys, uapi};

/// Something that went less well than it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Event {
    /// The area had no receive buffer left for the NIC: more is held than should be.
    AllocationFailure,
    /// Payload that arrived elsewhere was copied into the area.
    Copy,
    /// Another one, by the kernel's number.
    Other(u32),
}

impl Event {
    fn of(number: u32) -> Self {
        match number {
            uapi::EVENT_ALLOCATION_FAILURE => Self::AllocationFailure,
            uapi::EVENT_COPY => Self::Copy,
            other => Self::Other(other),
        }
    }
}

/// Waits for an event. Each is told once until it is armed again, which is done when it is told.
pub(super) fn next(queue: &Arc<InterfaceQueue>, limit: Duration) -> Result<Option<Event>> {
    let Some((slot, id)) = queue.event_ring()? else {
        return Err(Error::new(ErrorKind::Unsupported, "wait for events of zero-copy receive")
            .because("this kernel tells none, or rings do not share the queue, so that the ring that receives has them"));
    };
    let mut guard = slot.ring();
    let Some(ring) = guard.as_mut() else { return Err(detached()) };
    ring.enable()?;
    ring.wait(1, None, Some(limit))?;
    while let Some(completion) = ring.next() {
        let (EVENT, Ok(number)) = (completion.user_data, u32::try_from(completion.result)) else { continue };
        match sys::arm_event(ring.as_fd(), id, number) {
            // It was armed already.
            Ok(()) | Err(Errno::EINVAL) => {}
            Err(errno) => return Err(Error::from_errno(errno, "arm an event of zero-copy receive")),
        }
        return Ok(Some(Event::of(number)));
    }
    Ok(None)
}
