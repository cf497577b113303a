//! Memory that belongs to an emulated device, and moving what is in it.

use std::io;
use std::ops::Range;

use super::{Backing, PAGE_SIZE};

/// Memory that belongs to an emulated device.
pub(crate) type DeviceMemory = Backing;

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
        let (mut page, mut next) = ([0; PAGE_SIZE as usize], source.start);
        // Page by page: to ask where data ends would go through all that follows, for each piece of memory in pieces.
        while let Some(offset) = self.memory.next_data_start(next).filter(|offset| *offset < source.end) {
            next = (offset + PAGE_SIZE - offset % PAGE_SIZE).min(source.end);
            let part = &mut page[..(next - offset) as usize];
            let read = self.memory.read(offset, part);
            let moved = read.and_then(|()| target.memory.write(at + (offset - source.start), part));
            moved.ok_or(io::ErrorKind::InvalidInput)?;
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
