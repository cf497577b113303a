//! Fills and copies of the copy engine. Surfaces are linear: drivers use no others for their own moves.

use super::addressing::{Address, Addressing, Space};
use super::memory::Fault;

/// Operations: bits 28 to 22 of a command of type 2.
mod operation {
    /// From graphics version 12.50 on.
    pub(super) const XY_BLOCK_COPY: u32 = 0x41;
    pub(super) const XY_FAST_COPY: u32 = 0x42;
    pub(super) const XY_FAST_COLOR: u32 = 0x44;
    /// Moves compression metadata, of which there is none.
    pub(super) const XY_CONTROL_SURFACE_COPY: u32 = 0x48;
    pub(super) const XY_COLOR: u32 = 0x50;
    pub(super) const XY_SOURCE_COPY: u32 = 0x53;
    pub(super) const MEMORY_COPY: u32 = 0x5a;
    pub(super) const MEMORY_SET: u32 = 0x5b;
}

/// Bytes that one command may touch: no surface of a driver's own moves is larger.
pub(super) const LARGEST: u64 = 128 << 20;
/// Bytes that are copied at once.
const CHUNK: u64 = 64 << 10;

/// What finding a row costs, in bytes that could have been moved.
const WORK_OF_A_ROW: u64 = 4096;

/// Rows of bytes in an address space.
#[derive(Clone, Copy, Debug)]
struct Surface {
    /// Of the first byte.
    start: Address,
    /// Bytes from one row to the next.
    pitch: u64,
}

/// Bytes to touch: rows of a surface.
#[derive(Clone, Copy, Debug)]
struct Extent {
    bytes_per_row: u64,
    rows: u64,
}

/// Executes a command of the copy engine: the words of it, in the address space of a process. Returns the
/// work that it was, in bytes.
pub(super) fn execute(addressing: &Addressing, space: Space, command: &[u32]) -> Result<u64, Fault> {
    let header = command.first().copied().unwrap_or(0);
    let Some(blit) = Blit::decode(space, command)? else { return Ok(0) };
    let extent = blit.extent();
    let bytes = extent.bytes_per_row * extent.rows;
    if bytes > LARGEST {
        return Err(Fault::UnfitCommand(header));
    }
    match blit {
        Blit::Fill { target, pattern, pattern_size, .. } => {
            fill(addressing, target, extent, &pattern[..pattern_size])?;
        }
        Blit::Copy { source, target, .. } => copy(addressing, source, target, extent)?,
    }
    Ok(bytes + extent.rows * WORK_OF_A_ROW)
}

/// What a command asks for.
enum Blit {
    Fill { target: Surface, extent: Extent, pattern: [u8; 16], pattern_size: usize },
    Copy { source: Surface, target: Surface, extent: Extent },
}

/// Words of a command.
struct Words<'a>(&'a [u32]);

impl Words<'_> {
    fn get(&self, index: usize) -> Result<u32, Fault> {
        self.0.get(index).copied().ok_or(Fault::ShortCommand(self.0.first().copied().unwrap_or(0)))
    }

    /// A 57-bit address in two words.
    fn address(&self, index: usize) -> Result<u64, Fault> {
        Ok(u64::from(self.get(index)?) | u64::from(self.get(index + 1)? & 0x01ff_ffff) << 32)
    }

    /// Coordinates: x in the lower half, y in the upper.
    fn point(&self, index: usize) -> Result<(u64, u64), Fault> {
        let word = self.get(index)?;
        Ok((u64::from(word & 0xffff), u64::from(word >> 16)))
    }

    fn unfit(&self) -> Fault {
        Fault::UnfitCommand(self.0.first().copied().unwrap_or(0))
    }
}

impl Blit {
    /// What it touches. Rows that follow each other without a gap are one.
    fn extent(&self) -> Extent {
        let (extent, gapless) = match self {
            Blit::Fill { target, extent, .. } => (*extent, target.pitch == extent.bytes_per_row),
            Blit::Copy { source, target, extent } => {
                (*extent, [source.pitch, target.pitch] == [extent.bytes_per_row; 2])
            }
        };
        if gapless {
            return Extent { bytes_per_row: extent.bytes_per_row * extent.rows, rows: 1 };
        }
        extent
    }

    /// `None` for a command that moves no bytes of surfaces.
    fn decode(space: Space, command: &[u32]) -> Result<Option<Blit>, Fault> {
        let words = Words(command);
        let header = words.get(0)?;
        let blit = match header >> 22 & 0x7f {
            operation::XY_CONTROL_SURFACE_COPY => return Ok(None),
            operation::XY_FAST_COPY => {
                const TILED: u32 = 0x3 << 20 | 0x3 << 13;
                if header & TILED != 0 {
                    return Err(words.unfit());
                }
                let depth = [1, 2, 4, 4, 8, 16, 0, 0][(words.get(1)? >> 24 & 0x7) as usize];
                Blit::rectangle_copy(space, &words, depth)?
            }
            operation::XY_BLOCK_COPY => Blit::block_copy(space, &words)?,
            operation::XY_SOURCE_COPY => {
                let depth = [1, 2, 2, 4][(words.get(1)? >> 24 & 0x3) as usize];
                Blit::rectangle_copy(space, &words, depth)?
            }
            operation::XY_COLOR => {
                let depth = [1, 2, 2, 4][(words.get(1)? >> 24 & 0x3) as usize];
                let pitch = u64::from(words.get(1)? & 0xffff);
                Blit::rectangle_fill(space, &words, depth, pitch, 6)?
            }
            operation::XY_FAST_COLOR => {
                let depth = [1, 2, 4, 8, 0, 16, 0, 0][(header >> 19 & 0x7) as usize];
                let pitch = u64::from(words.get(1)? & 0x3_ffff) + 1;
                Blit::rectangle_fill(space, &words, depth, pitch, 7)?
            }
            operation::MEMORY_COPY => Blit::memory_copy(space, &words)?,
            operation::MEMORY_SET => Blit::memory_set(space, &words)?,
            _ => return Err(Fault::UnknownCommand(header)),
        };
        Ok(Some(blit))
    }

    /// Part of a surface: with the first pixel at (x, y).
    fn surface(space: Space, start: u64, pitch: u64, (x, y): (u64, u64), depth: u64) -> Surface {
        let start = Address { space, at: start }.plus(y * pitch + x * depth);
        Surface { start, pitch }
    }

    fn rectangle(words: &Words<'_>, depth: u64) -> Result<((u64, u64), Extent), Fault> {
        let (left, top) = words.point(2)?;
        let (right, bottom) = words.point(3)?;
        if depth == 0 || right < left || bottom < top {
            return Err(words.unfit());
        }
        Ok(((left, top), Extent { bytes_per_row: (right - left) * depth, rows: bottom - top }))
    }

    fn rectangle_copy(space: Space, words: &Words<'_>, depth: u64) -> Result<Blit, Fault> {
        let (to, extent) = Blit::rectangle(words, depth)?;
        let pitch = u64::from(words.get(1)? & 0xffff);
        let target = Blit::surface(space, words.address(4)?, pitch, to, depth);
        let from = words.point(6)?;
        let pitch = u64::from(words.get(7)? & 0xffff);
        let source = Blit::surface(space, words.address(8)?, pitch, from, depth);
        Ok(Blit::Copy { source, target, extent })
    }

    /// XY_BLOCK_COPY_BLT: each surface has an origin besides the coordinates.
    fn block_copy(space: Space, words: &Words<'_>) -> Result<Blit, Fault> {
        // Neither tiled nor compressed.
        const LINEAR: u32 = 3 << 30 | 1 << 29;
        let depth = [1, 2, 4, 8, 12, 16, 0, 0][(words.get(0)? >> 19 & 0x7) as usize];
        let (to, extent) = Blit::rectangle(words, depth)?;
        let from = words.point(7)?;
        let surface = |layout: usize, address: usize, origin: usize, (x, y): (u64, u64)| {
            let (layout, (left, top)) = (words.get(layout)?, words.point(origin)?);
            if layout & LINEAR != 0 {
                return Err(words.unfit());
            }
            let pitch = u64::from(layout & 0x3_ffff) + 1;
            let at = (x + (left & 0x3fff), y + (top & 0x3fff));
            Ok(Blit::surface(space, words.address(address)?, pitch, at, depth))
        };
        let (target, source) = (surface(1, 4, 6, to)?, surface(8, 9, 11, from)?);
        Ok(Blit::Copy { source, target, extent })
    }

    fn rectangle_fill(
        space: Space,
        words: &Words<'_>,
        depth: u64,
        pitch: u64,
        color: usize,
    ) -> Result<Blit, Fault> {
        let (to, extent) = Blit::rectangle(words, depth)?;
        let target = Blit::surface(space, words.address(4)?, pitch, to, depth);
        let mut pattern = [0; 16];
        for (index, bytes) in pattern.chunks_exact_mut(4).enumerate().take(depth.div_ceil(4) as usize) {
            bytes.copy_from_slice(&words.get(color + index)?.to_le_bytes());
        }
        Ok(Blit::Fill { target, extent, pattern, pattern_size: depth as usize })
    }

    fn memory_copy(space: Space, words: &Words<'_>) -> Result<Blit, Fault> {
        const PAGES: u32 = 1 << 19;
        const MATRIX: u32 = 1 << 17;
        let header = words.get(0)?;
        let unit = if header & PAGES != 0 { 256 } else { 1 };
        let bytes_per_row = (u64::from(words.get(1)? & 0x00ff_ffff) + 1) * unit;
        let matrix = header & MATRIX != 0;
        let rows = if matrix { u64::from(words.get(2)? & 0x3_ffff) + 1 } else { 1 };
        let pitch = |index| Ok::<u64, Fault>(u64::from(words.get(index)? & 0x3_ffff) + 1);
        let start = |index| Ok::<Address, Fault>(Address { space, at: words.address(index)? });
        let source = Surface { start: start(5)?, pitch: pitch(3)? };
        let target = Surface { start: start(7)?, pitch: pitch(4)? };
        Ok(Blit::Copy { source, target, extent: Extent { bytes_per_row, rows } })
    }

    fn memory_set(space: Space, words: &Words<'_>) -> Result<Blit, Fault> {
        const MATRIX: u32 = 1 << 17;
        let bytes_per_row = u64::from(words.get(1)? & 0x00ff_ffff) + 1;
        let matrix = words.get(0)? & MATRIX != 0;
        let rows = if matrix { u64::from(words.get(2)? & 0x3_ffff) + 1 } else { 1 };
        let pitch = u64::from(words.get(3)? & 0x3_ffff) + 1;
        let target = Surface { start: Address { space, at: words.address(4)? }, pitch };
        let value = (words.get(6)? >> 24) as u8;
        let extent = Extent { bytes_per_row, rows };
        Ok(Blit::Fill { target, extent, pattern: [value; 16], pattern_size: 1 })
    }
}

fn fill(addressing: &Addressing, target: Surface, extent: Extent, pattern: &[u8]) -> Result<(), Fault> {
    let length = CHUNK.min(extent.bytes_per_row.next_multiple_of(16)) as usize;
    let bytes: Vec<u8> = pattern.iter().copied().cycle().take(length).collect();
    for row in 0..extent.rows {
        let start = target.start.plus(row * target.pitch);
        let mut done = 0;
        while done < extent.bytes_per_row {
            let part = CHUNK.min(extent.bytes_per_row - done);
            addressing.write(start.plus(done), &bytes[..part as usize])?;
            done += part;
        }
    }
    Ok(())
}

fn copy(addressing: &Addressing, source: Surface, target: Surface, extent: Extent) -> Result<(), Fault> {
    let mut bytes = vec![0; CHUNK.min(extent.bytes_per_row) as usize];
    for row in 0..extent.rows {
        let (from, to) = (source.start.plus(row * source.pitch), target.start.plus(row * target.pitch));
        let mut done = 0;
        while done < extent.bytes_per_row {
            let part = &mut bytes[..CHUNK.min(extent.bytes_per_row - done) as usize];
            addressing.read(from.plus(done), part)?;
            addressing.write(to.plus(done), part)?;
            done += part.len() as u64;
        }
    }
    Ok(())
}
