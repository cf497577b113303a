//! Fragments made contiguous by a device.

mod fences;
mod pending;
mod slot;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use ash::vk;
use devmem_provider::device_copy::{Fences, Gather, Ticket, check_gather, check_ticket};
use devmem_provider::dma_buf::{FenceUse, SyncFile};
use devmem_provider::{DmaBuf, Error, Extent, Result};

use super::plan::{Conditions, MOST_PIECES, MOST_SHADER_BYTES, Pieces, USUAL_PIECES};
use super::{GatherMethod, Shared};
use crate::vulkan::import;
use crate::vulkan::sys::commands::Progress;
use crate::vulkan::sys::device::QueueRole;
use crate::vulkan::sys::memory::BoundBuffer;
use fences::Reservations;
use pending::Pending;
use slot::Slot;

/// How many submissions may be in flight before another slot is made: a caller that waits for earlier batches before it
/// has more is spared that.
const FIRST_SLOTS: usize = 4;

/// How many submissions are in flight at most before a further one waits for the first of them.
const MOST_SLOTS: usize = 64;

/// With fewer submissions in flight the device may run out of work.
const ENOUGH_IN_FLIGHT: u64 = 2;

const GATHER: &str = "gather fragments";

/// The two buffers, and how to copy between them.
#[derive(Debug)]
struct Route {
    source: Arc<BoundBuffer>,
    destination: Arc<BoundBuffer>,
    conditions: Conditions,
}

/// Gathers from one imported buffer into another.
pub(crate) struct VulkanGather {
    // Dropped first: a slot waits for its work.
    slots: Vec<Slot>,
    /// The slot that was submitted longest ago.
    oldest: usize,
    queue: QueueRole,
    progress: Progress,
    batches: u64,
    completed: u64,
    /// Batches that were not completed when it was last looked: their numbers, and after how many submissions they are.
    unfinished: VecDeque<(u64, u64)>,
    pieces: Vec<vk::BufferCopy>,
    pending: Pending,
    route: Route,
    reservations: Option<Reservations>,
    destination: DmaBuf,
    shared: Arc<Shared>,
}

impl fmt::Debug for VulkanGather {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VulkanGather")
            .field("route", &self.route)
            .field("slots", &self.slots.len())
            .field("progress", &self.progress)
            .field("batches", &self.batches)
            .field("completed", &self.completed)
            .finish_non_exhaustive()
    }
}

impl VulkanGather {
    pub(crate) fn new(
        shared: &Arc<Shared>,
        source: &DmaBuf,
        destination: &DmaBuf,
        fences: Fences,
    ) -> Result<Self> {
        shared.check_alive(GATHER)?;
        let reservations = match fences {
            Fences::Explicit => None,
            _ => Some(Reservations::new(shared, source, destination)?),
        };
        let from = import::import(&shared.device, source)?;
        let to = if source.inode() == destination.inode() {
            Arc::clone(&from)
        } else {
            import::import(&shared.device, destination)?
        };
        Self::between(shared, from, to, destination, reservations)
    }

    /// From one buffer of the device to another; `destination` is what sync_files are made of.
    fn between(
        shared: &Arc<Shared>,
        from: Arc<BoundBuffer>,
        to: Arc<BoundBuffer>,
        destination: &DmaBuf,
        reservations: Option<Reservations>,
    ) -> Result<Self> {
        let Some(queue) = shared.trials.queue_that_copies(shared)? else {
            let reason = "a trial copy came back as it was, although its driver reported success";
            return Err(shared.refuse(GATHER, reason).remedy("gather on another device"));
        };
        let limits = shared.device.limits();
        let computes = queue == QueueRole::Main;
        let wanted = [GatherMethod::Automatic, GatherMethod::Shader].contains(&shared.options.gather);
        // A device that the CPU executes is gathered on otherwise, unless somebody asks for it.
        let useful = wanted && (!shared.software || shared.options.gather == GatherMethod::Shader);
        let shaders = computes && useful && shared.shaders_reach(&from) && shared.shaders_reach(&to);
        let conditions = Conditions {
            method: shared.options.gather,
            shaders: shaders && shared.trials.shaders_work(shared)?,
            indirect: computes && from.address().is_some() && to.address().is_some(),
            software: shared.software,
            alignment: limits.min_storage_buffer_offset_alignment,
            most_window: limits.max_storage_buffer_range.into(),
        };
        if ![GatherMethod::Automatic, conditions.of_many()].contains(&conditions.method) {
            let reason = format!("it has not what it takes for {:?}", conditions.method);
            return Err(shared.refuse("gather in the way that was asked for", reason));
        }
        let slots: Result<Vec<Slot>> = (0..FIRST_SLOTS).map(|_| Slot::new(shared, queue)).collect();
        Ok(Self {
            slots: slots?,
            oldest: 0,
            queue,
            progress: Progress::new(&shared.device).map_err(|code| shared.failed(code, GATHER))?,
            batches: 0,
            completed: 0,
            unfinished: VecDeque::with_capacity(FIRST_SLOTS),
            pieces: Vec::with_capacity(USUAL_PIECES),
            pending: Pending::default(),
            route: Route { source: from, destination: to, conditions },
            reservations,
            destination: destination.clone(),
            shared: Arc::clone(shared),
        })
    }

    fn failed(&self, code: vk::Result) -> Error {
        self.shared.failed(code, GATHER)
    }

    /// The slot to use next. After the first submissions there is one whose work is done, unless more work is in flight
    /// than ever before.
    fn slot(&mut self) -> Result<usize> {
        let free = match self.slots.get(self.oldest) {
            Some(slot) => slot.is_free().map_err(|code| self.failed(code))?,
            None => false,
        };
        if !free && self.slots.len() < MOST_SLOTS {
            self.slots.insert(self.oldest, Slot::new(&self.shared, self.queue)?);
        } else if let (false, Some(slot)) = (free, self.slots.get(self.oldest)) {
            slot.wait().map_err(|code| self.failed(code))?;
        }
        let slot = self.oldest;
        self.oldest = (slot + 1) % self.slots.len();
        Ok(slot)
    }

    fn wait_for(&self, submissions: u64) -> Result<()> {
        self.progress.wait_to_the_end(submissions).map_err(|code| self.failed(code))
    }

    /// Submits the batches that were held back.
    fn flush(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let index = self.slot()?;
        let Self { slots, progress, route, shared, pending, .. } = self;
        let Some(slot) = slots.get_mut(index) else { return Ok(()) };
        slot.record(shared, route, pending.pieces())?;
        slot.submit(progress).map_err(|code| shared.failed(code, GATHER))?;
        pending.clear();
        Ok(())
    }

    /// Submits them if the device may run out of work, or they are many.
    fn flush_if_due(&mut self, completed: u64) -> Result<()> {
        let in_flight = self.progress.submitted().saturating_sub(completed);
        if in_flight < ENOUGH_IN_FLIGHT || self.pending.is_enough() { self.flush() } else { Ok(()) }
    }

    /// The submission with which everything is done that was asked for until now.
    fn last_submission(&self) -> u64 {
        self.progress.submitted() + u64::from(!self.pending.is_empty())
    }

    /// Submits a batch, in as many submissions as it takes.
    fn submit_batch(
        &mut self,
        mut waits: [Option<OwnedFd>; 3],
        fragments: &[Extent],
        offset: u64,
    ) -> Result<()> {
        let mut plan = Pieces::new(fragments, offset);
        let most_bytes = match self.route.conditions.of_many() {
            GatherMethod::Shader => MOST_SHADER_BYTES,
            _ => u64::MAX,
        };
        plan.fill(&mut self.pieces, MOST_PIECES, most_bytes);
        loop {
            let index = self.slot()?;
            let Self { slots, progress, route, shared, pieces, .. } = self;
            let Some(slot) = slots.get_mut(index) else { return Ok(()) };
            slot.record(shared, route, pieces)?;
            for wait in waits.iter_mut().filter_map(Option::take) {
                slot.wait_for(wait).map_err(|code| shared.failed(code, "wait for a sync_file"))?;
            }
            plan.fill(pieces, MOST_PIECES, most_bytes);
            if !pieces.is_empty() {
                slot.submit(progress).map_err(|code| shared.failed(code, GATHER))?;
                continue;
            }
            // The last one ends the batch.
            let Some(reservations) = &self.reservations else {
                return slot.submit(progress).map_err(|code| shared.failed(code, GATHER));
            };
            let before = progress.submitted();
            let exported = slot.submit_for_sync_file(progress);
            if progress.submitted() == before {
                return exported.map(drop).map_err(|code| shared.failed(code, GATHER));
            }
            let added = match exported {
                Ok(Some(fence)) => reservations.add(&SyncFile::from_fd(fence)).is_ok(),
                Ok(None) => true,
                Err(_) => false,
            };
            // What nobody can be told to wait for must be over when this returns.
            return if added { Ok(()) } else { self.wait_for(before + 1) };
        }
    }

    fn check(&self, ticket: Ticket) -> Result<()> {
        check_ticket(ticket, self.batches).map_err(|error| error.on(&self.shared.name))
    }

    /// Counts what is completed when so many submissions are.
    fn count(&mut self, submissions: u64) {
        while let Some((batch, _)) =
            self.unfinished.front().copied().filter(|&(_, after)| after <= submissions)
        {
            self.completed = batch;
            self.unfinished.pop_front();
        }
    }
}

impl Gather for VulkanGather {
    fn submit_after(
        &mut self,
        fence: Option<&SyncFile>,
        fragments: &[Extent],
        offset: u64,
    ) -> Result<Ticket> {
        self.shared.check_alive(GATHER)?;
        let Route { source, destination, .. } = &self.route;
        let same = Arc::ptr_eq(source, destination);
        check_gather(fragments, source.size(), offset, destination.size(), same)?;
        let mut waits = [None, None, None];
        if let Some(fence) = fence {
            let [wait, ..] = &mut waits;
            *wait = Some(fences::to_import(&self.shared, fence)?);
        }
        if let (Some(reservations), false) = (&self.reservations, fragments.is_empty()) {
            let [_, source, destination] = &mut waits;
            (*source, *destination) = reservations.fences()?;
        }
        let may_be_held = fence.is_none() && self.reservations.is_none() && !same;
        let mut is_held = may_be_held && self.pending.add(fragments, offset);
        if !is_held {
            self.flush()?;
            is_held = may_be_held && self.pending.add(fragments, offset);
        }
        if !is_held && (!fragments.is_empty() || fence.is_some()) {
            self.submit_batch(waits, fragments, offset)?;
        }
        self.batches += 1;
        self.unfinished.push_back((self.batches, self.last_submission()));
        if is_held {
            let completed = self.progress.completed().map_err(|code| self.failed(code))?;
            self.flush_if_due(completed)?;
        }
        Ok(Ticket::new(self.batches))
    }

    fn completed(&mut self) -> Result<Ticket> {
        self.shared.check_alive(GATHER)?;
        let submissions = self.progress.completed().map_err(|code| self.failed(code))?;
        self.count(submissions);
        self.flush_if_due(submissions)?;
        Ok(Ticket::new(self.completed))
    }

    fn wait(&mut self, ticket: Ticket, limit: Duration) -> Result<bool> {
        self.check(ticket)?;
        self.shared.check_alive(GATHER)?;
        let awaited = self.unfinished.iter().find(|(batch, _)| *batch == ticket.number()).copied();
        let Some((_, submissions)) = awaited else { return Ok(true) };
        if submissions > self.progress.submitted() {
            self.flush()?;
        }
        let reached = self.progress.wait(submissions, limit).map_err(|code| self.failed(code))?;
        if reached {
            self.count(submissions);
        }
        Ok(reached)
    }

    fn sync_file(&mut self, ticket: Ticket) -> Result<SyncFile> {
        self.check(ticket)?;
        fences::check_exports(&self.shared)?;
        if self.completed()? < ticket {
            self.flush()?;
            let index = self.slot()?;
            let Self { slots, progress, shared, .. } = self;
            if let Some(slot) = slots.get_mut(index) {
                let failed = |code| shared.failed(code, "make a sync_file of a batch");
                slot.record_nothing().map_err(failed)?;
                if let Some(fence) = slot.submit_for_sync_file(progress).map_err(failed)? {
                    return Ok(SyncFile::from_fd(fence));
                }
            }
        }
        // The copy is done, so that nothing but the work of others on the destination is left to wait for.
        self.destination.export_sync_file(FenceUse::Read)
    }
}

impl Drop for VulkanGather {
    fn drop(&mut self) {
        if !self.shared.device.is_lost() {
            // What fails here could not be told, and has no ticket that anybody waits for.
            let _ = self.flush();
        }
    }
}
