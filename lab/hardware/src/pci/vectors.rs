//! The MSI-X vectors of a function, each an event descriptor of the client.
//!
//! The client keeps the vector table itself: it gives a descriptor for a vector that is in use.

use std::fs::File;
use std::io::Write;
use std::sync::Mutex;

use crate::lock;

/// The vectors of a function.
pub(crate) struct Vectors {
    events: Mutex<Vec<Option<File>>>,
}

impl Vectors {
    /// `count` vectors that are not in use.
    pub(crate) fn new(count: usize) -> Vectors {
        let mut events = Vec::new();
        events.resize_with(count, || None);
        Vectors { events: Mutex::new(events) }
    }

    /// How many vectors there are.
    pub(crate) fn count(&self) -> usize {
        lock(&self.events).len()
    }

    /// Signals a vector. False when it is not in use, and nobody was told.
    pub(crate) fn signal(&self, vector: usize) -> bool {
        let events = lock(&self.events);
        let Some(Some(event)) = events.get(vector) else { return false };
        let mut event: &File = event;
        event.write(&1u64.to_ne_bytes()).is_ok()
    }

    /// Replaces the descriptors of vectors from `start` on. `None` when there are not so many vectors.
    pub(crate) fn set(&self, start: usize, new: Vec<Option<File>>) -> Option<()> {
        let mut events = lock(&self.events);
        let end = start.checked_add(new.len())?;
        events.get_mut(start..end)?.iter_mut().zip(new).for_each(|(event, new)| *event = new);
        Some(())
    }

    /// Forgets all descriptors.
    pub(super) fn clear(&self) {
        lock(&self.events).iter_mut().for_each(|event| *event = None);
    }
}
