//! Small batches that are handed to the device together.
//!
//! A submission costs a driver as much as copying some hundred fragments. While the device has enough to do, small
//! batches that follow each other in the destination become one submission.

use ash::vk::BufferCopy;
use devmem_provider::Extent;

use crate::vulkan::copy::plan::{MOST_SHADER_BYTES, Pieces};

/// A batch of more fragments is worth a submission of its own.
pub(crate) const SMALL: usize = 256;

/// So many pieces are worth a submission whatever the device does.
const ENOUGH: usize = 2048;

/// What is not submitted yet.
#[derive(Default)]
pub(crate) struct Pending {
    pieces: Vec<BufferCopy>,
    batch: Vec<BufferCopy>,
    bytes: u64,
}

impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pending").field("pieces", &self.pieces.len()).field("bytes", &self.bytes).finish()
    }
}

impl Pending {
    pub(crate) fn pieces(&self) -> &[BufferCopy] {
        &self.pieces
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    pub(crate) fn is_enough(&self) -> bool {
        self.pieces.len() >= ENOUGH
    }

    pub(crate) fn clear(&mut self) {
        self.pieces.clear();
        self.bytes = 0;
    }

    /// Adds a batch. Returns whether it could: it must follow what is there, so that the copies may be made in any order.
    pub(crate) fn add(&mut self, fragments: &[Extent], offset: u64) -> bool {
        let bytes: u64 = fragments.iter().map(|fragment| fragment.length).sum();
        let follows = self.pieces.last().is_none_or(|last| last.dst_offset + last.size == offset);
        if !follows
            || fragments.len() > SMALL
            || self.is_enough()
            || self.bytes.saturating_add(bytes) > MOST_SHADER_BYTES
        {
            return false;
        }
        Pieces::new(fragments, offset).fill(&mut self.batch, SMALL, u64::MAX);
        self.pieces.extend_from_slice(&self.batch);
        self.bytes += bytes;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_that_follow_each_other_are_added() {
        let mut pending = Pending::default();
        let batch = [Extent::new(100, 10), Extent::new(110, 10), Extent::new(50, 5)];
        assert!(pending.is_empty() && pending.add(&batch, 1000) && pending.add(&batch, 1025));
        let pieces: Vec<_> =
            pending.pieces().iter().map(|piece| (piece.src_offset, piece.dst_offset, piece.size)).collect();
        assert_eq!(pieces, [(100, 1000, 20), (50, 1020, 5), (100, 1025, 20), (50, 1045, 5)]);
        for elsewhere in [1049, 1051, 1000, 0] {
            assert!(!pending.add(&batch, elsewhere), "{elsewhere}");
        }
        pending.clear();
        assert!(pending.add(&batch, 7));
    }

    #[test]
    fn what_is_large_is_not_added() {
        let mut pending = Pending::default();
        assert!(!pending.add(&[Extent::new(0, 1); SMALL + 1], 0));
        assert!(!pending.add(&[Extent::new(0, MOST_SHADER_BYTES + 1)], 0));
        assert!(pending.add(&[Extent::new(0, MOST_SHADER_BYTES)], 0));
        assert!(!pending.add(&[Extent::new(0, 1)], MOST_SHADER_BYTES));
        pending.clear();
        let mut end = 0;
        while !pending.is_enough() {
            assert!(pending.add(&[Extent::new(0, 1); SMALL], end));
            end += SMALL as u64;
        }
        assert!(!pending.add(&[Extent::new(0, 1)], end));
        assert!(pending.pieces().len() < ENOUGH + SMALL);
    }
}
