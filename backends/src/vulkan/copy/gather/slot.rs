//! One submission's worth of commands and lists, used again and again.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use ash::prelude::VkResult;
use ash::vk;
use devmem_provider::Result;

use super::{GATHER, Route, Shared};
use crate::vulkan::copy::GatherMethod;
use crate::vulkan::copy::plan::{
    FRAGMENT_BYTES, IndirectList, MOST_ALIGNMENT, MOST_PIECES, ShaderList, ShaderRange, Span, TILE_BYTES,
};
use crate::vulkan::copy::scratch;
use crate::vulkan::sys::commands::{Commands, Progress};
use crate::vulkan::sys::copy_memory_indirect::IndirectCopy;
use crate::vulkan::sys::device::QueueRole;
use crate::vulkan::sys::mapping::MappedBuffer;
use crate::vulkan::sys::memory::BoundBuffer;
use crate::vulkan::sys::pipeline::{Bindings, Window};

/// Where the tiles begin in a slot's list.
const TILES: u64 = (FRAGMENT_BYTES as u64).next_multiple_of(MOST_ALIGNMENT);

#[derive(Debug)]
pub(crate) struct Slot {
    commands: Commands,
    shader: Option<ShaderSlot>,
    indirect: Option<IndirectSlot>,
}

impl Slot {
    pub(crate) fn new(shared: &Arc<Shared>, queue: QueueRole) -> Result<Self> {
        let commands = Commands::new(&shared.device, queue).map_err(|code| shared.failed(code, GATHER))?;
        Ok(Self { commands, shader: None, indirect: None })
    }

    pub(crate) fn is_free(&self) -> VkResult<bool> {
        self.commands.is_free()
    }

    /// Waits until it is free.
    pub(crate) fn wait(&self) -> VkResult<()> {
        self.commands.wait()
    }

    /// Records the copy of pieces that follow each other in the destination.
    pub(crate) fn record(
        &mut self,
        shared: &Arc<Shared>,
        route: &Route,
        pieces: &[vk::BufferCopy],
    ) -> Result<()> {
        self.commands.clear().map_err(|code| shared.failed(code, GATHER))?;
        let list = match route.conditions.choose(pieces) {
            GatherMethod::Shader => self.shader(shared)?.prepare(shared, route, pieces)?,
            GatherMethod::Indirect => self.indirect(shared)?.prepare(shared, route, pieces)?,
            _ => None,
        };
        let (source, destination) = (&route.source, &route.destination);
        let commands = &mut self.commands;
        let mut record = || {
            let mut recording = commands.record()?;
            recording.acquire(&[source, destination]);
            match &list {
                Some(List::Shader { bindings, range }) => {
                    recording.dispatch(bindings, &[range.first, range.count], range.groups())?;
                }
                Some(List::Indirect { memory, count }) => {
                    recording.copy_indirect(source, destination, memory, *count)?;
                }
                None => recording.copy(source, destination, pieces)?,
            }
            let rest = match &list {
                Some(List::Shader { .. }) => self.shader.as_ref().map(|shader| &shader.list.edges),
                Some(List::Indirect { .. }) => self.indirect.as_ref().map(|indirect| &indirect.list.rest),
                None => None,
            };
            recording.copy(source, destination, rest.map_or(&[][..], Vec::as_slice))?;
            recording.release(&[source, destination]);
            recording.finish()
        };
        record().map_err(|code| shared.failed(code, GATHER))
    }

    fn shader(&mut self, shared: &Arc<Shared>) -> Result<&mut ShaderSlot> {
        match &mut self.shader {
            Some(shader) => Ok(shader),
            none => Ok(none.insert(ShaderSlot::new(shared)?)),
        }
    }

    fn indirect(&mut self, shared: &Arc<Shared>) -> Result<&mut IndirectSlot> {
        match &mut self.indirect {
            Some(indirect) => Ok(indirect),
            none => Ok(none.insert(IndirectSlot::new(shared)?)),
        }
    }

    /// Records nothing, for what a submission alone does.
    pub(crate) fn record_nothing(&mut self) -> VkResult<()> {
        self.commands.record()?.finish()
    }

    pub(crate) fn wait_for(&mut self, sync_file: OwnedFd) -> VkResult<()> {
        self.commands.wait_for(sync_file)
    }

    pub(crate) fn submit(&mut self, progress: &mut Progress) -> VkResult<()> {
        self.commands.submit(progress)
    }

    pub(crate) fn submit_for_sync_file(&mut self, progress: &mut Progress) -> VkResult<Option<OwnedFd>> {
        self.commands.submit_for_sync_file(progress)
    }
}

/// What the shader reads its list from.
#[derive(Debug)]
struct ShaderSlot {
    list: ShaderList,
    memory: MappedBuffer,
    bindings: Arc<Bindings>,
}

/// What the device reads a list of copies from.
#[derive(Debug)]
struct IndirectSlot {
    list: IndirectList,
    memory: MappedBuffer,
}

/// What is recorded where a list is copied; what it leaves is copied otherwise.
enum List {
    Shader { bindings: Arc<Bindings>, range: ShaderRange },
    Indirect { memory: Arc<BoundBuffer>, count: u32 },
}

impl IndirectSlot {
    fn new(shared: &Arc<Shared>) -> Result<Self> {
        let bytes = (MOST_PIECES * size_of::<IndirectCopy>()) as u64;
        let memory = scratch::list(shared, bytes, scratch::FOR_INDIRECT_COPIES)?;
        Ok(Self { list: IndirectList::default(), memory })
    }

    /// Writes the list. `None` if no piece is aligned.
    fn prepare(
        &mut self,
        shared: &Arc<Shared>,
        route: &Route,
        pieces: &[vk::BufferCopy],
    ) -> Result<Option<List>> {
        let addresses = route.source.address().zip(route.destination.address());
        let Some((source, destination)) = addresses else { return Ok(None) };
        let count = self.list.build(pieces, source, destination);
        if count == 0 {
            return Ok(None);
        }
        scratch::write(shared, &mut self.memory, 0, &self.list.copies)?;
        Ok(Some(List::Indirect { memory: Arc::clone(self.memory.buffer()), count }))
    }
}

impl ShaderSlot {
    fn new(shared: &Arc<Shared>) -> Result<Self> {
        let pipeline = shared.pipeline(&shared.gather)?;
        let bindings = Bindings::new(&pipeline).map_err(|code| shared.failed(code, GATHER))?;
        Ok(Self {
            list: ShaderList::default(),
            memory: scratch::list(shared, TILES + TILE_BYTES as u64, scratch::FOR_SHADERS)?,
            bindings: Arc::new(bindings),
        })
    }

    /// Writes the list. `None` if the shader cannot copy these pieces.
    fn prepare(
        &mut self,
        shared: &Arc<Shared>,
        route: &Route,
        pieces: &[vk::BufferCopy],
    ) -> Result<Option<List>> {
        let Some(range) = self.list.build(pieces, &route.conditions) else { return Ok(None) };
        scratch::write(shared, &mut self.memory, 0, &self.list.fragments)?;
        scratch::write(shared, &mut self.memory, TILES, &self.list.tiles)?;
        let memory = self.memory.buffer();
        // Nobody else has them: what was recorded before is cleared.
        let Some(bindings) = Arc::get_mut(&mut self.bindings) else { return Ok(None) };
        let window = |span: Span| Window { offset: span.start, length: span.end - span.start };
        let list = |start: u64, bytes: &[u8]| Window { offset: start, length: bytes.len() as u64 };
        let windows: [(&Arc<BoundBuffer>, Window); 4] = [
            (&route.source, window(range.source)),
            (&route.destination, window(range.destination)),
            (memory, list(0, &self.list.fragments)),
            (memory, list(TILES, &self.list.tiles)),
        ];
        for (binding, (buffer, window)) in (0..).zip(windows) {
            bindings.bind(binding, buffer, window).map_err(|code| shared.failed(code, GATHER))?;
        }
        Ok(Some(List::Shader { bindings: Arc::clone(&self.bindings), range }))
    }
}
