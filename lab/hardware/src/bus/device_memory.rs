//! Memory that belongs to an emulated device, and moving what is in it.

use std::io;
use std::ops::Range;

use super::Backing;

/// Memory that belongs to an emulated device.
pub(crate) type DeviceMemory = Backing;

/// Bytes that are moved at once.
const CHUNK: u64 = 64 << 10;

impl DeviceMemory {
    /// Moves bytes to `at` in another memory; where they were reads as zero then. What was never written takes
    /// no memory afterwards either.
    ///
    /// # Errors
    /// What the system said when it could not take or give memory; `InvalidInput` for a range that is not within
    /// both memories. What was not moved then is still where it was.
    pub(crate) fn move_to(&self, source: Range<u64>, target: &DeviceMemory, at: u64) -> io::Result<()> {
        let length = source.end.saturating_sub(source.start);
        let end = at.checked_add(length).filter(|end| *end <= target.memory.len());
        let end = end.filter(|_| source.end <= self.memory.len()).ok_or(io::ErrorKind::InvalidInput)?;
        target.memory.discard(at..end)?;
        let mut chunk = vec![0; CHUNK.min(length) as usize];
        let mut next = source.start;
        while let Some(data) = self.memory.next_data(next).filter(|data| data.start < source.end) {
            let mut offset = data.start.max(source.start);
            let data_end = data.end.min(source.end);
            while offset < data_end {
                let part = &mut chunk[..CHUNK.min(data_end - offset) as usize];
                let read = self.memory.read(offset, part);
                let moved = read.and_then(|()| target.memory.write(at + (offset - source.start), part));
                moved.ok_or(io::ErrorKind::InvalidInput)?;
                offset += part.len() as u64;
            }
            next = data_end.max(next + 1);
        }
        self.memory.discard(source)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Bus, PAGE_SIZE};

    #[test]
    fn bytes_move_and_leave_nothing_behind() {
        let bus = Bus::new();
        let memory = || bus.device_memory("gpu", 64 * PAGE_SIZE).unwrap();
        let (first, second) = (memory(), memory());
        first.memory().write(5 * PAGE_SIZE - 2, b"bytes").unwrap();
        second.memory().write(10 * PAGE_SIZE, b"old").unwrap();
        first.move_to(2 * PAGE_SIZE..40 * PAGE_SIZE, &second, 7 * PAGE_SIZE).unwrap();
        let mut bytes = [0; 5];
        second.memory().read(10 * PAGE_SIZE - 2, &mut bytes).unwrap();
        assert_eq!(&bytes, b"bytes");
        assert_eq!(first.memory().next_data(0), None);
        assert_eq!(second.memory().next_data(0), Some(9 * PAGE_SIZE..11 * PAGE_SIZE));
        for (source, at) in [(0..65 * PAGE_SIZE, 0), (0..PAGE_SIZE, 64 * PAGE_SIZE), (0..1, u64::MAX)] {
            assert!(second.move_to(source, &first, at).is_err());
        }
    }
}
