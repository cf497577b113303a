//! Work for a device's queue: recorded, submitted, and then waited for.
//!
//! Recorded work holds everything that it uses until it is over.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use ash::prelude::VkResult;
use ash::vk;

use super::copy_memory_indirect::IndirectCopy;
use super::device::{Device, QueueRole};
use super::memory::BoundBuffer;
use super::pipeline::Bindings;
use super::semaphore::{BinarySemaphore, TimelineSemaphore};

/// How many sync_files a submission can wait for.
const MOST_WAITS: usize = 4;

/// Reads and writes by anything on the device.
const ALL_ACCESS: vk::AccessFlags =
    vk::AccessFlags::from_raw(vk::AccessFlags::MEMORY_READ.as_raw() | vk::AccessFlags::MEMORY_WRITE.as_raw());

/// How far the work has come that was submitted with it, in submissions.
#[derive(Debug)]
pub(crate) struct Progress {
    timeline: Arc<TimelineSemaphore>,
    submitted: u64,
}

impl Progress {
    pub(crate) fn new(device: &Arc<Device>) -> VkResult<Self> {
        Ok(Self { timeline: Arc::new(TimelineSemaphore::new(device, 0)?), submitted: 0 })
    }

    /// How many submissions there were.
    pub(crate) fn submitted(&self) -> u64 {
        self.submitted
    }

    /// How many of them are completed.
    pub(crate) fn completed(&self) -> VkResult<u64> {
        match self.timeline.value()? {
            // Some drivers tell the end of time when the device is lost.
            value if value > self.submitted => Err(vk::Result::ERROR_DEVICE_LOST),
            value => Ok(value),
        }
    }

    /// Waits until so many are completed, at most `limit`. Returns whether they are.
    pub(crate) fn wait(&self, submissions: u64, limit: Duration) -> VkResult<bool> {
        self.timeline.wait(submissions, limit)
    }

    /// Waits until so many are completed, however long that takes.
    pub(crate) fn wait_to_the_end(&self, submissions: u64) -> VkResult<()> {
        self.timeline.wait_to_the_end(submissions)
    }
}

/// What recorded work uses.
#[derive(Debug)]
enum Used {
    Buffer { _held: Arc<BoundBuffer> },
    Bindings { _held: Arc<Bindings> },
}

#[derive(Debug)]
enum State {
    Empty,
    Recorded,
    /// Completed when the timeline has reached the value.
    Submitted(Arc<TimelineSemaphore>, u64),
}

/// A list of commands for a device's queue, which can be used again when it is completed. Dropping it waits until then.
pub(crate) struct Commands {
    raw: vk::CommandBuffer,
    pool: vk::CommandPool,
    state: State,
    uses: Vec<Used>,
    /// Those that are waited for come first.
    waits: Vec<BinarySemaphore>,
    waiting: usize,
    signal: Option<BinarySemaphore>,
    queue: QueueRole,
    device: Arc<Device>,
}

impl Commands {
    /// Makes an empty list for a queue of the device.
    pub(crate) fn new(device: &Arc<Device>, queue: QueueRole) -> VkResult<Self> {
        let information = vk::CommandPoolCreateInfo::default()
            .flags(vk::CommandPoolCreateFlags::TRANSIENT)
            .queue_family_index(device.queue(queue).family());
        // SAFETY: the structure lives through the call; the family has a queue.
        let pool = unsafe { device.raw().create_command_pool(&information, None) }?;
        let mut commands = Self {
            raw: vk::CommandBuffer::null(),
            pool,
            state: State::Empty,
            // Two buffers by each of a few commands.
            uses: Vec::with_capacity(16),
            waits: Vec::new(),
            waiting: 0,
            signal: None,
            queue,
            device: Arc::clone(device),
        };
        let information = vk::CommandBufferAllocateInfo::default()
            .command_pool(pool)
            .level(vk::CommandBufferLevel::PRIMARY)
            .command_buffer_count(1);
        // SAFETY: as above.
        let made = unsafe { device.raw().allocate_command_buffers(&information) }?;
        commands.raw = made.first().copied().ok_or(vk::Result::ERROR_UNKNOWN)?;
        Ok(commands)
    }

    /// Whether it may be recorded again: it is not submitted, or is completed.
    pub(crate) fn is_free(&self) -> VkResult<bool> {
        match &self.state {
            State::Submitted(timeline, value) => Ok(timeline.value()? >= *value),
            State::Empty | State::Recorded => Ok(true),
        }
    }

    /// Waits until it is free. A device that does not end its work is lost, and its driver says so.
    pub(crate) fn wait(&self) -> VkResult<()> {
        match &self.state {
            State::Submitted(timeline, value) => timeline.wait_to_the_end(*value),
            State::Empty | State::Recorded => Ok(()),
        }
    }

    /// Lets go of what was recorded, and of all that it used. `NOT_READY` if it is not completed.
    pub(crate) fn clear(&mut self) -> VkResult<()> {
        if !self.is_free()? {
            return Err(vk::Result::NOT_READY);
        }
        // SAFETY: the only command buffer of the pool is not in use by the device.
        unsafe { self.device.raw().reset_command_pool(self.pool, vk::CommandPoolResetFlags::empty()) }?;
        self.state = State::Empty;
        self.uses.clear();
        self.waiting = 0;
        Ok(())
    }

    /// Begins to record, after [`clear`](Self::clear).
    pub(crate) fn record(&mut self) -> VkResult<Recording<'_>> {
        self.clear()?;
        let information =
            vk::CommandBufferBeginInfo::default().flags(vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT);
        // SAFETY: the command buffer was reset and is not in use.
        unsafe { self.device.raw().begin_command_buffer(self.raw, &information) }?;
        Ok(Recording { commands: self })
    }

    /// Lets the next submission wait for the fences of a sync_file. `ERROR_TOO_MANY_OBJECTS` for the fifth.
    pub(crate) fn wait_for(&mut self, sync_file: OwnedFd) -> VkResult<()> {
        if self.waiting == MOST_WAITS {
            return Err(vk::Result::ERROR_TOO_MANY_OBJECTS);
        }
        if self.waits.len() == self.waiting {
            self.waits.push(BinarySemaphore::new(&self.device)?);
        }
        if let Some(semaphore) = self.waits.get(self.waiting) {
            semaphore.import_sync_file(sync_file)?;
            self.waiting += 1;
        }
        Ok(())
    }

    /// Submits what was recorded; it counts as one submission of `progress`. `NOT_READY` if nothing is recorded.
    pub(crate) fn submit(&mut self, progress: &mut Progress) -> VkResult<()> {
        self.submit_with(progress, None)
    }

    /// As [`submit`](Self::submit), and returns the sync_file that signals when it is completed with all that was
    /// submitted to the queue before; `None` if that is so already.
    pub(crate) fn submit_for_sync_file(&mut self, progress: &mut Progress) -> VkResult<Option<OwnedFd>> {
        let signal = match self.signal.take() {
            Some(signal) => signal,
            None => BinarySemaphore::exportable(&self.device)?,
        };
        self.submit_with(progress, Some(signal.raw()))?;
        // Exporting leaves it as it was, to be signalled again.
        let exported = signal.export_sync_file();
        self.signal = Some(signal);
        exported
    }

    fn submit_with(&mut self, progress: &mut Progress, signal: Option<vk::Semaphore>) -> VkResult<()> {
        if !matches!(self.state, State::Recorded) {
            return Err(vk::Result::NOT_READY);
        }
        let mut waits = [vk::Semaphore::null(); MOST_WAITS];
        for (raw, wait) in waits.iter_mut().zip(&self.waits) {
            *raw = wait.raw();
        }
        let waits = waits.get(..self.waiting).unwrap_or_default();
        let stages = [vk::PipelineStageFlags::ALL_COMMANDS; MOST_WAITS];
        let stages = stages.get(..self.waiting).unwrap_or_default();
        let value = progress.submitted + 1;
        let signals = [progress.timeline.raw(), signal.unwrap_or_default()];
        // The value of a binary semaphore is ignored.
        let values = [value, 0];
        let signalled = 1 + usize::from(signal.is_some());
        let mut timeline = vk::TimelineSemaphoreSubmitInfo::default()
            .signal_semaphore_values(values.get(..signalled).unwrap_or_default());
        let commands = [self.raw];
        let submission = vk::SubmitInfo::default()
            .wait_semaphores(waits)
            .wait_dst_stage_mask(stages)
            .command_buffers(&commands)
            .signal_semaphores(signals.get(..signalled).unwrap_or_default())
            .push_next(&mut timeline);
        self.device.queue(self.queue).with(|queue| {
            // SAFETY: the structures live through the call; the command buffer is recorded, and it and the semaphores
            // are held until the work is over; the value is greater than any before; the queue is used by nobody else.
            unsafe { self.device.raw().queue_submit(queue, &[submission], vk::Fence::null()) }
        })?;
        progress.submitted = value;
        self.state = State::Submitted(Arc::clone(&progress.timeline), value);
        Ok(())
    }
}

impl Drop for Commands {
    fn drop(&mut self) {
        // An error says that the device is lost, and nothing of it executes any more.
        let _ = self.wait();
        // SAFETY: nobody else has the handles, and the device does not use them any more.
        unsafe { self.device.raw().destroy_command_pool(self.pool, None) };
    }
}

impl fmt::Debug for Commands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Commands")
            .field("state", &self.state)
            .field("uses", &self.uses.len())
            .finish_non_exhaustive()
    }
}

/// Commands being recorded.
#[derive(Debug)]
pub(crate) struct Recording<'commands> {
    commands: &'commands mut Commands,
}

impl Recording<'_> {
    /// Takes two buffers, or one named twice, over from those who share them (Vulkan specification, "Queue Family Ownership Transfer"), and
    /// orders what follows behind everything that was submitted to the queue before.
    pub(crate) fn acquire(&mut self, buffers: &[&Arc<BoundBuffer>; 2]) {
        let after = vk::MemoryBarrier::default()
            .src_access_mask(vk::AccessFlags::MEMORY_WRITE)
            .dst_access_mask(ALL_ACCESS);
        let (own, others) = (self.family(), self.outside());
        self.barrier(&[after], buffers, |barrier| {
            barrier.src_queue_family_index(others).dst_queue_family_index(own).dst_access_mask(ALL_ACCESS)
        });
    }

    /// Hands buffers back, with what was written, and makes what was written to others visible to the CPU.
    pub(crate) fn release(&mut self, buffers: &[&Arc<BoundBuffer>; 2]) {
        let to_host = vk::MemoryBarrier::default()
            .src_access_mask(vk::AccessFlags::MEMORY_WRITE)
            .dst_access_mask(vk::AccessFlags::HOST_READ);
        let (own, others) = (self.family(), self.outside());
        self.barrier(&[to_host], buffers, |barrier| {
            barrier.src_queue_family_index(own).dst_queue_family_index(others).src_access_mask(ALL_ACCESS)
        });
    }

    /// The family of the queue that this is for.
    fn family(&self) -> u32 {
        self.commands.device.queue(self.commands.queue).family()
    }

    /// The family that stands for everybody who is not this device's driver.
    fn outside(&self) -> u32 {
        if self.commands.device.extensions().queue_family_foreign {
            vk::QUEUE_FAMILY_FOREIGN_EXT
        } else {
            vk::QUEUE_FAMILY_EXTERNAL
        }
    }

    fn barrier(
        &mut self,
        memory: &[vk::MemoryBarrier<'_>],
        buffers: &[&Arc<BoundBuffer>; 2],
        direct: impl for<'a> Fn(vk::BufferMemoryBarrier<'a>) -> vk::BufferMemoryBarrier<'a>,
    ) {
        let mut barriers = [vk::BufferMemoryBarrier::default(); 2];
        let mut count = 0;
        for (index, buffer) in buffers.iter().enumerate() {
            let is_first = buffers.iter().position(|other| Arc::ptr_eq(other, buffer)) == Some(index);
            if let Some(barrier) = barriers.get_mut(count).filter(|_| is_first && buffer.is_shared()) {
                *barrier =
                    direct(vk::BufferMemoryBarrier::default().buffer(buffer.raw()).size(vk::WHOLE_SIZE));
                count += 1;
            }
            self.hold(buffer);
        }
        let stages = vk::PipelineStageFlags::ALL_COMMANDS;
        // SAFETY: the command buffer is being recorded, and the buffers are held.
        unsafe {
            self.commands.device.raw().cmd_pipeline_barrier(
                self.commands.raw,
                stages,
                stages | vk::PipelineStageFlags::HOST,
                vk::DependencyFlags::empty(),
                memory,
                barriers.get(..count).unwrap_or_default(),
                &[],
            );
        }
    }

    /// Copies regions, which do not overlap their targets. Regions outside, or of buffers that cannot be copied, answer
    /// `ERROR_FEATURE_NOT_PRESENT`.
    pub(crate) fn copy(
        &mut self,
        source: &Arc<BoundBuffer>,
        destination: &Arc<BoundBuffer>,
        regions: &[vk::BufferCopy],
    ) -> VkResult<()> {
        if regions.is_empty() {
            return Ok(());
        }
        let inside = |offset: u64, size: u64, buffer: &BoundBuffer| {
            offset.checked_add(size).is_some_and(|end| end <= buffer.size())
        };
        let possible = self.is_of_this_device(source)
            && self.is_of_this_device(destination)
            && source.usage().contains(vk::BufferUsageFlags::TRANSFER_SRC)
            && destination.usage().contains(vk::BufferUsageFlags::TRANSFER_DST)
            && regions.iter().all(|region| {
                region.size > 0
                    && inside(region.src_offset, region.size, source)
                    && inside(region.dst_offset, region.size, destination)
            });
        if !possible {
            return Err(vk::Result::ERROR_FEATURE_NOT_PRESENT);
        }
        self.hold(source);
        self.hold(destination);
        let (from, to) = (source.raw(), destination.raw());
        // SAFETY: the command buffer is being recorded; the regions are inside of the buffers, which are held.
        unsafe { self.commands.device.raw().cmd_copy_buffer(self.commands.raw, from, to, regions) };
        Ok(())
    }

    /// Copies what `count` of [`IndirectCopy`] tell that lie at the beginning of `list`, from `source` to `destination`. The
    /// caller sees to it that they are inside of the buffers, do not overlap, and are aligned. Buffers without an address
    /// answer `ERROR_FEATURE_NOT_PRESENT`.
    pub(crate) fn copy_indirect(
        &mut self,
        source: &Arc<BoundBuffer>,
        destination: &Arc<BoundBuffer>,
        list: &Arc<BoundBuffer>,
        count: u32,
    ) -> VkResult<()> {
        let function = self.commands.device.copy_memory_indirect();
        let size = u64::from(count) * size_of::<IndirectCopy>() as u64;
        let possible = [source, destination, list].iter().all(|buffer| self.is_of_this_device(buffer))
            && list.usage().contains(vk::BufferUsageFlags::INDIRECT_BUFFER)
            && size <= list.size();
        let (Some(function), Some(address), true) = (function, list.address(), possible) else {
            return Err(vk::Result::ERROR_FEATURE_NOT_PRESENT);
        };
        // SAFETY: the command buffer is being recorded, and the list and the buffers are held, of which the caller says that
        // the copies are inside.
        unsafe { function.record(self.commands.raw, address, count) };
        for buffer in [source, destination, list] {
            self.hold(buffer);
        }
        Ok(())
    }

    /// Runs a shader on its buffers with so many workgroups. A binding that has no buffer, too many workgroups or the
    /// wrong number of immediates answer `ERROR_FEATURE_NOT_PRESENT`.
    pub(crate) fn dispatch(
        &mut self,
        bindings: &Arc<Bindings>,
        immediates: &[u32],
        groups: u32,
    ) -> VkResult<()> {
        let device = &self.commands.device;
        let pipeline = bindings.pipeline();
        let possible = Arc::ptr_eq(pipeline.device(), device)
            && self.commands.queue == QueueRole::Main
            && device.computes()
            && bindings.are_complete()
            && immediates.len() == pipeline.shader().immediates() as usize
            && (1..=device.limits().max_compute_work_group_count[0]).contains(&groups);
        if !possible {
            return Err(vk::Result::ERROR_FEATURE_NOT_PRESENT);
        }
        let (functions, commands) = (device.raw(), self.commands.raw);
        let point = vk::PipelineBindPoint::COMPUTE;
        let stage = vk::ShaderStageFlags::COMPUTE;
        let (layout, sets) = (pipeline.layout(), [bindings.raw()]);
        // SAFETY: the command buffer is being recorded, and the bindings are held, which hold the pipeline and its
        // buffers; the words are initialised and as many as the layout has.
        unsafe {
            functions.cmd_bind_pipeline(commands, point, pipeline.raw());
            functions.cmd_bind_descriptor_sets(commands, point, layout, 0, &sets, &[]);
            let bytes = std::slice::from_raw_parts(immediates.as_ptr().cast(), size_of_val(immediates));
            functions.cmd_push_constants(commands, layout, stage, 0, bytes);
            functions.cmd_dispatch(commands, groups, 1, 1);
        }
        self.commands.uses.push(Used::Bindings { _held: Arc::clone(bindings) });
        Ok(())
    }

    /// Ends the recording, for [`Commands::submit`].
    pub(crate) fn finish(self) -> VkResult<()> {
        // SAFETY: the command buffer is being recorded.
        unsafe { self.commands.device.raw().end_command_buffer(self.commands.raw) }?;
        self.commands.state = State::Recorded;
        Ok(())
    }

    fn is_of_this_device(&self, buffer: &BoundBuffer) -> bool {
        Arc::ptr_eq(buffer.device(), &self.commands.device)
    }

    fn hold(&mut self, buffer: &Arc<BoundBuffer>) {
        self.commands.uses.push(Used::Buffer { _held: Arc::clone(buffer) });
    }
}
