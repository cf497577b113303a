//! Memory of the device as the CPU sees it: for what the two tell each other.

use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use ash::prelude::VkResult;
use ash::vk;

use super::memory::BoundBuffer;

/// A buffer that stays mapped for the CPU while it lives.
///
/// The device may write it at any time, so that the CPU copies from and to it and never refers to it. Accesses of the
/// device and the CPU are ordered by a semaphore, and by [`write`](Self::write) before a submission and
/// [`read`](Self::read) after its end.
pub(crate) struct MappedBuffer {
    start: NonNull<u8>,
    /// What the CPU's caches are written back and invalidated in pieces of, in bytes; `None` if the memory is coherent.
    atom: Option<u64>,
    buffer: Arc<BoundBuffer>,
}

// SAFETY: the mapping belongs to no thread, and is accessed by volatile copies only.
unsafe impl Send for MappedBuffer {}
// SAFETY: as above. Writing takes `&mut self`, so that the CPU does not race with itself.
unsafe impl Sync for MappedBuffer {}

impl MappedBuffer {
    /// Maps a buffer whose memory type is visible to the host; another answers `ERROR_MEMORY_MAP_FAILED`.
    pub(crate) fn new(buffer: BoundBuffer) -> VkResult<Self> {
        let physical = buffer.device().physical();
        let flags =
            physical.memory().memory_type(buffer.memory_type()).map(|told| told.flags).unwrap_or_default();
        if !flags.contains(vk::MemoryPropertyFlags::HOST_VISIBLE) {
            return Err(vk::Result::ERROR_MEMORY_MAP_FAILED);
        }
        let coherent = flags.contains(vk::MemoryPropertyFlags::HOST_COHERENT);
        let atom = (!coherent).then(|| physical.limits().non_coherent_atom_size.max(1));
        let (memory, all) = (buffer.raw_memory(), vk::MemoryMapFlags::empty());
        // SAFETY: the memory is visible to the host and not mapped: a bound buffer is mapped here alone, once.
        let start = unsafe { buffer.device().raw().map_memory(memory, 0, vk::WHOLE_SIZE, all) }?;
        let start = NonNull::new(start.cast()).ok_or(vk::Result::ERROR_MEMORY_MAP_FAILED)?;
        Ok(Self { start, atom, buffer: Arc::new(buffer) })
    }

    pub(crate) fn buffer(&self) -> &Arc<BoundBuffer> {
        &self.buffer
    }

    /// Copies `bytes` to `offset` and makes them available to the device. `None` if they do not fit.
    #[must_use]
    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) -> Option<VkResult<()>> {
        let place = self.place(offset, bytes.len())?;
        // Lists are long, and mostly of words that are aligned as the mapping is.
        let (words, rest) = bytes.as_chunks::<8>();
        if place.cast::<u64>().is_aligned() {
            for (index, word) in words.iter().enumerate() {
                // SAFETY: the range is inside of the mapping, which lives as long as `self`; the place is aligned.
                unsafe { place.cast::<u64>().add(index).write_volatile(u64::from_ne_bytes(*word)) };
            }
        }
        let done = if place.cast::<u64>().is_aligned() { bytes.len() - rest.len() } else { 0 };
        for (index, &byte) in bytes.iter().enumerate().skip(done) {
            // SAFETY: as above.
            unsafe { place.add(index).write_volatile(byte) };
        }
        Some(self.with_range(offset, bytes.len(), |device, range| {
            // SAFETY: the memory is mapped, and the range is made of whole atoms.
            unsafe { device.flush_mapped_memory_ranges(&[range]) }
        }))
    }

    /// Copies what the device has written from `offset` on. `None` if it is outside.
    #[must_use]
    pub(crate) fn read(&self, offset: u64, bytes: &mut [u8]) -> Option<VkResult<()>> {
        let place = self.place(offset, bytes.len())?;
        let invalidated = self.with_range(offset, bytes.len(), |device, range| {
            // SAFETY: the memory is mapped, and the range is made of whole atoms.
            unsafe { device.invalidate_mapped_memory_ranges(&[range]) }
        });
        for (index, byte) in bytes.iter_mut().enumerate() {
            // SAFETY: the range is inside of the mapping, which lives as long as `self`.
            *byte = unsafe { place.add(index).read_volatile() };
        }
        Some(invalidated)
    }

    fn place(&self, offset: u64, length: usize) -> Option<NonNull<u8>> {
        let end = offset.checked_add(u64::try_from(length).ok()?)?;
        let offset = usize::try_from(offset).ok()?;
        // SAFETY: the offset is inside of the buffer, which the mapping covers.
        (end <= self.buffer.size()).then(|| unsafe { self.start.add(offset) })
    }

    /// Does something to the atoms that a range touches, where the memory is not coherent.
    fn with_range(
        &self,
        offset: u64,
        length: usize,
        action: impl FnOnce(&ash::Device, vk::MappedMemoryRange<'_>) -> VkResult<()>,
    ) -> VkResult<()> {
        let Some(atom) = self.atom else { return Ok(()) };
        let (offset, size) = atoms(offset, length as u64, atom, self.buffer.memory_size());
        let range =
            vk::MappedMemoryRange::default().memory(self.buffer.raw_memory()).offset(offset).size(size);
        action(self.buffer.device().raw(), range)
    }
}

/// The offset and size of the whole atoms that a range touches; the last one may end with the memory.
fn atoms(offset: u64, length: u64, atom: u64, memory: u64) -> (u64, u64) {
    let start = offset - offset % atom;
    let end = (offset + length).next_multiple_of(atom).min(memory);
    (start, end - start)
}

impl Drop for MappedBuffer {
    fn drop(&mut self) {
        // SAFETY: it was mapped by `new`, and no pointer into it outlives `self`.
        unsafe { self.buffer.device().raw().unmap_memory(self.buffer.raw_memory()) };
    }
}

impl fmt::Debug for MappedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MappedBuffer").field(&self.buffer).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_grow_to_whole_atoms_within_the_memory() {
        assert_eq!(atoms(0, 64, 64, 4096), (0, 64));
        assert_eq!(atoms(65, 1, 64, 4096), (64, 64));
        assert_eq!(atoms(63, 2, 64, 4096), (0, 128));
        assert_eq!(atoms(4080, 8, 256, 4090), (3840, 250));
    }
}
