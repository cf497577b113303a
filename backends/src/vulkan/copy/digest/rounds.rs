//! Which blocks of which messages are hashed with one dispatch.
//!
//! A dispatch is short: GPUs stop work that seems to hang, and lavapipe before Mesa 23 ends loops after 65535 turns.

use devmem_provider::Extent;

use crate::vulkan::sys::pipeline::Window;

/// The size of a block (FIPS 180-4, section 1).
const BLOCK: u64 = 64;

/// How many whole blocks of a message are hashed with one dispatch.
const MOST_BLOCKS: u64 = 8192;

/// The size of `Job` in `sha256.wgsl`.
pub(crate) const JOB_BYTES: u64 = 24;

/// What `sha256.wgsl` calls `NOT_LAST`.
const NOT_LAST: u32 = u32::MAX;

/// How far a message is hashed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message {
    length: u64,
    /// What is left of it in the buffer; `None` when all is hashed.
    rest: Option<Extent>,
}

impl Message {
    pub(crate) fn new(piece: Extent) -> Self {
        Self { length: piece.length, rest: Some(piece) }
    }
}

/// What a dispatch is called with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Round {
    /// What the shader sees of the buffer.
    pub(crate) window: Window,
    pub(crate) jobs: u32,
}

/// Replaces `jobs` by those of the next dispatch, as the shader reads them. `None` if all is hashed.
pub(crate) fn next(
    messages: &mut [Message],
    buffer: u64,
    alignment: u64,
    most_window: u64,
    jobs: &mut Vec<u8>,
) -> Option<Round> {
    jobs.clear();
    let first = messages.iter().find_map(|message| message.rest)?;
    // Offsets in a window are words of 32 bits.
    let most_window = most_window.min(u64::from(u32::MAX)) / 4 * 4;
    let alignment = alignment.max(4);
    let offset = if buffer <= most_window { 0 } else { first.offset / alignment * alignment };
    // A message of no bytes may lie at the end, and a window has some.
    let offset = offset.min(buffer.saturating_sub(1) / alignment * alignment);
    let end = (offset + most_window).min(buffer);
    let mut count = 0;
    for (state, message) in (0_u32..).zip(messages) {
        let Some(rest) = message.rest.filter(|rest| (offset..=end).contains(&rest.offset)) else { continue };
        let room = end - rest.offset;
        let blocks = (rest.length.min(room) / BLOCK).min(MOST_BLOCKS);
        let ends = rest.length <= room && rest.length - blocks * BLOCK < BLOCK;
        if blocks == 0 && !ends {
            continue;
        }
        let bits = message.length.wrapping_mul(8);
        let tail = if ends { (rest.length % BLOCK) as u32 } else { NOT_LAST };
        let start = (rest.offset - offset) as u32;
        for word in [start, blocks as u32, state, tail, bits as u32, (bits >> 32) as u32] {
            jobs.extend_from_slice(&word.to_ne_bytes());
        }
        count += 1;
        let done = blocks * BLOCK;
        message.rest = (!ends).then(|| Extent::new(rest.offset + done, rest.length - done));
    }
    Some(Round { window: Window { offset, length: end - offset }, jobs: count })
}

#[cfg(test)]
mod tests;
