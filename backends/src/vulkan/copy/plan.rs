//! From fragments to what a device is told: regions of copy commands, or lists for the shader `gather.wgsl`.

use std::fmt;

use ash::vk::BufferCopy;
use devmem_provider::Extent;

use super::GatherMethod;
use crate::vulkan::sys::copy_memory_indirect::{ALIGNMENT, IndirectCopy};

/// How many pieces there is room for from the beginning: as many fragments as one receive of devmem TCP returns.
pub(crate) const USUAL_PIECES: usize = 1024;

/// How many pieces are copied with one submission.
pub(crate) const MOST_PIECES: usize = 16 << 10;

/// How many bytes the shader copies with one submission: little enough for any device's `maxStorageBufferRange`, number
/// of workgroups, and patience with work that does not end.
pub(crate) const MOST_SHADER_BYTES: u64 = 64 << 20;

/// The bytes that an invocation of the shader makes.
const UNIT: u64 = 16;

/// The bytes that a workgroup of the shader makes.
pub(crate) const TILE: u64 = 256 * UNIT;

/// The largest offset alignment that a device may demand (Vulkan specification, "Required Limits").
pub(crate) const MOST_ALIGNMENT: u64 = 256;

/// The size of the largest list of fragments.
pub(crate) const FRAGMENT_BYTES: usize = (MOST_PIECES + 1) * 8;

/// The size of the largest list of tiles.
pub(crate) const TILE_BYTES: usize = (MOST_SHADER_BYTES.div_ceil(TILE) as usize + 2) * 4;

/// Fewer pieces are not worth a list.
const FEW_PIECES: usize = 32;

/// What a device needs at least for a region, in the time for so many bytes.
const REGION_COST: u64 = 64 << 10;

/// What is to be copied, in pieces that are as large as can be.
#[derive(Debug)]
pub(crate) struct Pieces<'list> {
    fragments: std::slice::Iter<'list, Extent>,
    /// What is left of the fragment that was looked at last.
    rest: Option<Extent>,
    destination: u64,
}

impl<'list> Pieces<'list> {
    /// Copies `fragments`, one behind the other, to `destination`. The caller has checked them.
    pub(crate) fn new(fragments: &'list [Extent], destination: u64) -> Self {
        Self { fragments: fragments.iter(), rest: None, destination }
    }

    /// Replaces the content of `pieces` with the next ones: fragments that follow each other in the source too are one.
    /// Stops at the limits. Leaves it empty at the end.
    pub(crate) fn fill(&mut self, pieces: &mut Vec<BufferCopy>, most_pieces: usize, most_bytes: u64) {
        pieces.clear();
        let mut room = most_bytes;
        while room > 0 {
            let Some(fragment) = self.rest.take().or_else(|| self.fragments.next().copied()) else { return };
            let length = fragment.length.min(room);
            let is_full = pieces.len() == most_pieces;
            match pieces.last_mut() {
                Some(last) if last.src_offset + last.size == fragment.offset => last.size += length,
                _ if is_full => {
                    self.rest = Some(fragment);
                    return;
                }
                _ => pieces.push(BufferCopy {
                    src_offset: fragment.offset,
                    dst_offset: self.destination,
                    size: length,
                }),
            }
            self.destination += length;
            room -= length;
            if length < fragment.length {
                self.rest = Some(Extent::new(fragment.offset + length, fragment.length - length));
            }
        }
    }
}

/// What decides between the ways to gather.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Conditions {
    pub(crate) method: GatherMethod,
    /// The queue computes, and shaders reach both buffers.
    pub(crate) shaders: bool,
    /// Copies may be told by a list in memory.
    pub(crate) indirect: bool,
    /// The device's shaders are executed by the CPU.
    pub(crate) software: bool,
    /// What offsets of a window are multiples of, in bytes.
    pub(crate) alignment: u64,
    /// How large a window can be, in bytes.
    pub(crate) most_window: u64,
}

impl Conditions {
    /// How pieces are copied if they are many and small.
    ///
    /// A GPU needs some microseconds for each region of a copy command, whatever its size, while the shader reads a list at
    /// the speed of memory. A device that the CPU executes is slow with shaders, which fetch every word by itself, and fast
    /// with a list of copies, each of which is a `memcpy`.
    pub(crate) fn of_many(&self) -> GatherMethod {
        match self.method {
            GatherMethod::Shader if self.shaders => GatherMethod::Shader,
            GatherMethod::Indirect if self.indirect => GatherMethod::Indirect,
            GatherMethod::Automatic if self.shaders && !self.software => GatherMethod::Shader,
            GatherMethod::Automatic if self.indirect => GatherMethod::Indirect,
            _ => GatherMethod::Commands,
        }
    }

    /// How these pieces are copied.
    pub(crate) fn choose(&self, pieces: &[BufferCopy]) -> GatherMethod {
        let bytes: u64 = pieces.iter().map(|piece| piece.size).sum();
        let are_many = pieces.len() >= FEW_PIECES && bytes / pieces.len() as u64 <= REGION_COST;
        if are_many || self.method != GatherMethod::Automatic {
            self.of_many()
        } else {
            GatherMethod::Commands
        }
    }
}

/// What the device reads indirect copies from. Vectors keep their room from call to call.
#[derive(Default)]
pub(crate) struct IndirectList {
    /// `IndirectCopy`, as the device reads them.
    pub(crate) copies: Vec<u8>,
    /// What is not aligned, for a copy command.
    pub(crate) rest: Vec<BufferCopy>,
}

impl fmt::Debug for IndirectList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IndirectList").field("bytes", &self.copies.len()).finish_non_exhaustive()
    }
}

impl IndirectList {
    /// Lists pieces of buffers that have these addresses. Returns how many copies that makes.
    pub(crate) fn build(&mut self, pieces: &[BufferCopy], source: u64, destination: u64) -> u32 {
        self.copies.clear();
        self.rest.clear();
        // Room for the most that so many pieces can make, so that it does not depend on where they lie.
        let most = pieces.len().next_power_of_two().max(USUAL_PIECES);
        self.copies.reserve(most * size_of::<IndirectCopy>());
        self.rest.reserve(most * 2);
        let mut count = 0;
        for piece in pieces {
            let head = (ALIGNMENT - (source + piece.src_offset) % ALIGNMENT) % ALIGNMENT;
            let body = piece.size.saturating_sub(head) / ALIGNMENT * ALIGNMENT;
            let is_aligned = (destination + piece.dst_offset + head).is_multiple_of(ALIGNMENT);
            if body == 0 || !is_aligned {
                self.rest.push(*piece);
                continue;
            }
            let part = |from: u64, size: u64| BufferCopy {
                src_offset: piece.src_offset + from,
                dst_offset: piece.dst_offset + from,
                size,
            };
            let edges = [part(0, head), part(head + body, piece.size - head - body)];
            self.rest.extend(edges.into_iter().filter(|edge| edge.size > 0));
            let copy = part(head, body);
            for word in [source + copy.src_offset, destination + copy.dst_offset, copy.size] {
                self.copies.extend_from_slice(&word.to_ne_bytes());
            }
            count += 1;
        }
        count
    }
}

/// A piece of a buffer that the shader is to see: where it begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// What the shader is called with. Vectors keep their room from call to call.
#[derive(Default)]
pub(crate) struct ShaderList {
    /// Pairs of words, in bytes as the device reads them.
    pub(crate) fragments: Vec<u8>,
    /// Words, likewise.
    pub(crate) tiles: Vec<u8>,
    /// What lies beside the units that the shader writes, for a copy command.
    pub(crate) edges: Vec<BufferCopy>,
}

impl fmt::Debug for ShaderList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShaderList").field("fragments", &(self.fragments.len() / 8)).finish_non_exhaustive()
    }
}

/// The rest of what the shader is called with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ShaderRange {
    pub(crate) source: Span,
    pub(crate) destination: Span,
    /// The first unit of the destination that is written, and how many there are.
    pub(crate) first: u32,
    pub(crate) count: u32,
}

impl ShaderRange {
    /// How many workgroups make it.
    pub(crate) fn groups(&self) -> u32 {
        self.count.div_ceil((TILE / UNIT) as u32)
    }
}

impl ShaderList {
    /// Lists pieces that follow each other in the destination, at most [`MOST_SHADER_BYTES`]. `None` if the shader cannot
    /// copy them: there is no whole unit, or they lie too far apart for one window.
    pub(crate) fn build(&mut self, pieces: &[BufferCopy], conditions: &Conditions) -> Option<ShaderRange> {
        self.fragments.clear();
        self.tiles.clear();
        self.edges.clear();
        let alignment = conditions.alignment.max(UNIT);
        let (first, last) = (pieces.first()?, pieces.last()?);
        let (start, end) = (first.dst_offset, last.dst_offset + last.size);
        let body = Span { start: start.next_multiple_of(UNIT), end: end - end % UNIT };
        let source = Span {
            start: pieces.iter().map(|piece| piece.src_offset).min()? / alignment * alignment,
            // The shader reads whole words.
            end: pieces.iter().map(|piece| piece.src_offset + piece.size).max()?.next_multiple_of(4),
        };
        let destination = Span { start: start / alignment * alignment, end: body.end };
        // Offsets in a window are words of 32 bits.
        let most = conditions.most_window.min(u64::from(u32::MAX));
        if body.start >= body.end
            || source.end - source.start > most
            || destination.end - destination.start > most
        {
            return None;
        }
        let mut tile = body.start;
        for (index, piece) in (0_u32..).zip(pieces) {
            let piece_end = piece.dst_offset + piece.size;
            push(&mut self.fragments, piece.dst_offset - destination.start);
            push(&mut self.fragments, piece.src_offset - source.start);
            while tile < piece_end && tile < body.end {
                push(&mut self.tiles, index.into());
                tile += TILE;
            }
            self.push_edge(piece, start, body.start);
            self.push_edge(piece, body.end, end);
        }
        push(&mut self.fragments, end - destination.start);
        push(&mut self.fragments, 0);
        push(&mut self.tiles, pieces.len() as u64 - 1);
        Some(ShaderRange {
            source,
            destination,
            first: ((body.start - destination.start) / UNIT) as u32,
            count: ((body.end - body.start) / UNIT) as u32,
        })
    }

    /// What of a piece goes between two offsets of the destination.
    fn push_edge(&mut self, piece: &BufferCopy, start: u64, end: u64) {
        let start = start.max(piece.dst_offset);
        let end = end.min(piece.dst_offset + piece.size);
        if start < end {
            self.edges.push(BufferCopy {
                src_offset: piece.src_offset + (start - piece.dst_offset),
                dst_offset: start,
                size: end - start,
            });
        }
    }
}

/// Adds a number that is known to fit into a word of the device.
fn push(bytes: &mut Vec<u8>, word: u64) {
    bytes.extend_from_slice(&(word as u32).to_ne_bytes());
}

#[cfg(test)]
mod tests;
