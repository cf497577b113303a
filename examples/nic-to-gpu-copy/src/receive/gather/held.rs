//! Fragments that a copy still reads: they go back to the NIC when it is completed.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::Result;
use devmem_provider::base_page_size;
use devmem_provider::device_copy::Ticket;
use devmem_receive::devmem::StreamOptions;

use super::stripe::StripeGather;

/// The most fragments that are held when a receive begins, whatever the size of the buffer. Copies that are further
/// behind are waited for.
const MOST_FRAGMENTS: usize = 8192;

/// The most receives whose fragments are held: while one is copied, the next one waits for it and another one arrives.
/// More would help nobody, and take more of the device's lists.
const MOST_BATCHES: usize = 3;

/// How many fragments one receive returns at most.
const FRAGMENTS_OF_A_RECEIVE: usize = 1024;

/// How much of a buffer one of the connections that share it may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    /// How many bytes one receive gathers at most.
    pub(crate) batch_bytes: usize,
    /// How many fragments may be held while the next receive goes on.
    pub(crate) held_fragments: usize,
}

impl Share {
    /// For fragments that go back as soon as a receive has returned.
    pub(crate) fn without_copies(buffer_bytes: u64, connections: usize) -> Self {
        Self { batch_bytes: StreamOptions::fair_batch(buffer_bytes, connections), held_fragments: 0 }
    }

    /// For fragments that copies read. Half of the share is left for the NIC to write to; what is held and what the
    /// next receive returns fit into the other half.
    pub(crate) fn with_copies(buffer_bytes: u64, connections: usize) -> Self {
        let connections = connections.max(1);
        let batch_bytes = StreamOptions::fair_batch(buffer_bytes, connections.saturating_mul(2));
        let half = buffer_bytes / 2 / u64::try_from(connections).unwrap_or(u64::MAX);
        // Small packets take a page each.
        let held = half.saturating_sub(batch_bytes as u64) / base_page_size();
        let held_fragments = usize::try_from(held).unwrap_or(usize::MAX).min(MOST_FRAGMENTS);
        Self { batch_bytes, held_fragments }
    }
}

/// What one receive returned.
#[derive(Debug)]
struct Batch {
    /// The last copy that reads its fragments.
    ticket: Ticket,
    fragments: usize,
}

/// Fragments in the order of their arrival, and the copies that they wait for.
#[derive(Debug)]
pub(crate) struct Held<T> {
    fragments: VecDeque<T>,
    batches: VecDeque<Batch>,
    /// Fragments of the receive that is being looked at.
    open: usize,
}

impl<T> Held<T> {
    /// For fragments that copies read, or for those that go back at once.
    pub(crate) fn new(copies: bool) -> Self {
        let fragments = if copies { MOST_FRAGMENTS + FRAGMENTS_OF_A_RECEIVE } else { FRAGMENTS_OF_A_RECEIVE };
        Self {
            fragments: VecDeque::with_capacity(fragments),
            batches: VecDeque::with_capacity(MOST_BATCHES + 1),
            open: 0,
        }
    }

    /// Adds a fragment of the present receive.
    pub(crate) fn push(&mut self, fragment: T) {
        self.fragments.push_back(fragment);
        self.open += 1;
    }

    /// Ends the present receive: its fragments are read until `ticket` is completed.
    pub(crate) fn close(&mut self, ticket: Ticket) {
        if self.open > 0 {
            self.batches.push_back(Batch { ticket, fragments: std::mem::take(&mut self.open) });
        }
    }

    /// Hands fragments that nothing reads any more to `release`, and waits for copies, each at most `limit`, while
    /// more is held than `share` allows.
    pub(crate) fn release_completed(
        &mut self,
        gathering: Option<&mut StripeGather<'_>>,
        share: Share,
        limit: Duration,
        mut release: impl FnMut(&mut dyn Iterator<Item = T>) -> Result<()>,
    ) -> Result<()> {
        let Some(gathering) = gathering else { return release(&mut self.take_completed(Ticket::NONE)) };
        release(&mut self.take_completed(gathering.completed()?))?;
        while let Some(ticket) = self.must_wait_for(share) {
            gathering.wait(ticket, limit)?;
            release(&mut self.take_completed(ticket))?;
        }
        Ok(())
    }

    /// All fragments, when nothing reads any of them.
    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = T> {
        self.batches.clear();
        self.open = 0;
        self.fragments.drain(..)
    }

    /// The fragments that nothing reads any more when all copies up to `ticket` are completed.
    fn take_completed(&mut self, ticket: Ticket) -> impl Iterator<Item = T> {
        let mut count = 0;
        while let Some(batch) = self.batches.front().filter(|batch| batch.ticket <= ticket) {
            count += batch.fragments;
            self.batches.pop_front();
        }
        self.fragments.drain(..count)
    }

    /// The copy to wait for before the next receive, if too much is held.
    fn must_wait_for(&self, share: Share) -> Option<Ticket> {
        let too_much = self.fragments.len() > share.held_fragments || self.batches.len() > MOST_BATCHES;
        self.batches.front().filter(|_| too_much).map(|batch| batch.ticket)
    }
}
