//! Resources, and the device's own memory behind them.
//!
//! A blob of the device's memory is mapped by the driver, at an offset of the window of the driver's choice. The
//! client of this process (QEMU) maps the window once and for all, so the bytes of a blob *live* in the window
//! while it is mapped there, and in the rest of the device's memory while it is not.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::commands::Failure;
use crate::bus::{DeviceMemory, PAGE_SIZE};

/// Resources and contexts that there are at most: what is kept for a driver must not grow without bounds.
const COUNT: usize = 1 << 16;

/// What a resource's bytes are.
#[derive(Debug, PartialEq, Eq)]
enum Storage {
    /// In the driver's memory, this many of them: the device never looks at them.
    Guest(u64),
    /// In the device's memory.
    Device(Blob),
}

/// A blob of the device's memory.
#[derive(Debug, PartialEq, Eq)]
struct Blob {
    /// Where it is while it is not mapped.
    home: Range<u64>,
    /// Where in the window it is mapped.
    mapped: Option<Range<u64>>,
}

/// Everything that a driver made.
pub(super) struct Resources {
    resources: BTreeMap<u32, Storage>,
    contexts: BTreeSet<u32>,
    memory: Arc<DeviceMemory>,
    window: Arc<DeviceMemory>,
}

impl Resources {
    pub(super) fn new(memory: Arc<DeviceMemory>, window: Arc<DeviceMemory>) -> Resources {
        Resources { resources: BTreeMap::new(), contexts: BTreeSet::new(), memory, window }
    }

    /// Forgets everything that the driver made. The memory keeps what is in it, in no order.
    pub(super) fn clear(&mut self) {
        self.resources.clear();
        self.contexts.clear();
    }

    pub(super) fn create_context(&mut self, context: u32) -> Result<(), Failure> {
        if context == 0 {
            return Err(Failure::InvalidContext);
        }
        if self.contexts.len() >= COUNT {
            return Err(Failure::OutOfMemory);
        }
        if self.contexts.insert(context) { Ok(()) } else { Err(Failure::InvalidContext) }
    }

    pub(super) fn destroy_context(&mut self, context: u32) -> Result<(), Failure> {
        if self.contexts.remove(&context) { Ok(()) } else { Err(Failure::InvalidContext) }
    }

    pub(super) fn check_context(&self, context: u32) -> Result<(), Failure> {
        if self.contexts.contains(&context) { Ok(()) } else { Err(Failure::InvalidContext) }
    }

    /// Makes a resource in the driver's memory, of which `bytes` are told already.
    pub(super) fn create_guest(&mut self, id: u32, bytes: u64) -> Result<(), Failure> {
        self.check_new(id)?;
        self.resources.insert(id, Storage::Guest(bytes));
        Ok(())
    }

    /// Makes a blob in the device's memory; it reads as zero.
    pub(super) fn create_device(&mut self, id: u32, size: u64) -> Result<(), Failure> {
        self.check_new(id)?;
        let size = size.checked_next_multiple_of(PAGE_SIZE).filter(|size| *size > 0);
        let size = size.ok_or(Failure::InvalidParameter)?;
        let home = self.free_part(size).ok_or(Failure::OutOfMemory)?;
        self.memory.memory().discard(home.clone()).map_err(|_| Failure::OutOfMemory)?;
        self.resources.insert(id, Storage::Device(Blob { home, mapped: None }));
        Ok(())
    }

    fn check_new(&self, id: u32) -> Result<(), Failure> {
        if id == 0 || self.resources.contains_key(&id) {
            return Err(Failure::InvalidResource);
        }
        if self.resources.len() >= COUNT { Err(Failure::OutOfMemory) } else { Ok(()) }
    }

    fn blobs(&self) -> impl Iterator<Item = &Blob> {
        self.resources.values().filter_map(|storage| match storage {
            Storage::Device(blob) => Some(blob),
            Storage::Guest(_) => None,
        })
    }

    /// The first part of the memory of this size that no blob has.
    fn free_part(&self, size: u64) -> Option<Range<u64>> {
        let mut taken: Vec<_> = self.blobs().map(|blob| blob.home.clone()).collect();
        taken.sort_by_key(|range| range.start);
        let mut start = 0;
        for range in taken {
            if range.start - start >= size {
                break;
            }
            start = range.end;
        }
        let end = start.checked_add(size).filter(|end| *end <= self.memory.memory().len())?;
        Some(start..end)
    }

    pub(super) fn check_resource(&self, id: u32) -> Result<(), Failure> {
        if self.resources.contains_key(&id) { Ok(()) } else { Err(Failure::InvalidResource) }
    }

    /// The driver tells where the memory of a resource is, or takes it back.
    pub(super) fn set_backing(&mut self, id: u32, bytes: u64) -> Result<(), Failure> {
        match self.resources.get_mut(&id) {
            Some(Storage::Guest(known)) => *known = bytes,
            Some(Storage::Device(_)) => return Err(Failure::InvalidParameter),
            None => return Err(Failure::InvalidResource),
        }
        Ok(())
    }

    /// Whether bytes can be copied to or from a resource in the driver's memory.
    pub(super) fn check_backing(&self, id: u32) -> Result<(), Failure> {
        match self.resources.get(&id) {
            Some(Storage::Guest(1..)) => Ok(()),
            Some(_) => Err(Failure::Unspecified),
            None => Err(Failure::InvalidResource),
        }
    }

    /// Maps a blob at an offset of the window.
    pub(super) fn map(&mut self, id: u32, offset: u64) -> Result<(), Failure> {
        let Some(Storage::Device(blob)) = self.resources.get(&id) else {
            return Err(Failure::InvalidResource);
        };
        let size = blob.home.end - blob.home.start;
        let end = offset.checked_add(size).filter(|end| *end <= self.window.memory().len());
        let part = offset..end.ok_or(Failure::InvalidParameter)?;
        let overlaps = |other: &Range<u64>| other.start < part.end && part.start < other.end;
        let taken = self.blobs().filter_map(|blob| blob.mapped.as_ref()).any(overlaps);
        if blob.mapped.is_some() || taken || !offset.is_multiple_of(PAGE_SIZE) {
            return Err(Failure::InvalidParameter);
        }
        let moved = self.memory.move_to(blob.home.clone(), &self.window, offset);
        moved.map_err(|_| Failure::OutOfMemory)?;
        if let Some(Storage::Device(blob)) = self.resources.get_mut(&id) {
            blob.mapped = Some(part);
        }
        Ok(())
    }

    /// Takes a blob out of the window.
    pub(super) fn unmap(&mut self, id: u32) -> Result<(), Failure> {
        let Some(Storage::Device(blob)) = self.resources.get_mut(&id) else {
            return Err(Failure::InvalidResource);
        };
        let part = blob.mapped.clone().ok_or(Failure::InvalidParameter)?;
        let moved: io::Result<()> = self.window.move_to(part, &self.memory, blob.home.start);
        // Where the system has no memory for it, the blob stays in the window, and nothing else comes there.
        moved.map_err(|_| Failure::OutOfMemory)?;
        blob.mapped = None;
        Ok(())
    }

    /// Ends a resource. Its bytes go back to the system.
    pub(super) fn unref(&mut self, id: u32) -> Result<(), Failure> {
        let storage = self.resources.remove(&id).ok_or(Failure::InvalidResource)?;
        if let Storage::Device(Blob { home, mapped }) = storage {
            let (memory, part) = match mapped {
                Some(part) => (&self.window, part),
                None => (&self.memory, home),
            };
            memory.memory().discard(part).map_err(|_| Failure::OutOfMemory)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::Bus;

    const SIZE: u64 = 3 * PAGE_SIZE;

    fn resources() -> Resources {
        let bus = Bus::new();
        let memory = |pages: u64| bus.device_memory("gpu", pages * PAGE_SIZE).unwrap();
        Resources::new(memory(8), memory(6))
    }

    fn byte(resources: &Resources, offset: u64) -> u8 {
        let mut byte = [0];
        resources.window.memory().read(offset, &mut byte).unwrap();
        byte[0]
    }

    #[test]
    fn a_blob_keeps_its_bytes_wherever_it_is() {
        let mut resources = resources();
        resources.create_device(1, SIZE - 7).unwrap();
        resources.map(1, PAGE_SIZE).unwrap();
        resources.window.memory().write(PAGE_SIZE + 9, &[7]).unwrap();
        resources.unmap(1).unwrap();
        assert_eq!(byte(&resources, PAGE_SIZE + 9), 0, "not in the window any more");
        resources.map(1, 3 * PAGE_SIZE).unwrap();
        assert_eq!(byte(&resources, 3 * PAGE_SIZE + 9), 7);
        resources.unref(1).unwrap();
        resources.create_device(1, SIZE).unwrap();
        resources.map(1, 3 * PAGE_SIZE).unwrap();
        assert_eq!(byte(&resources, 3 * PAGE_SIZE + 9), 0, "a new blob is empty");
    }

    #[test]
    fn blobs_share_the_memory_and_not_the_window() {
        let mut resources = resources();
        resources.create_device(1, SIZE).unwrap();
        resources.create_device(2, SIZE).unwrap();
        assert_eq!(resources.create_device(3, SIZE), Err(Failure::OutOfMemory));
        resources.create_device(3, 2 * PAGE_SIZE).unwrap();
        resources.unref(1).unwrap();
        resources.create_device(1, SIZE).unwrap();
        resources.map(1, 0).unwrap();
        for offset in [0, 2 * PAGE_SIZE, 3 * PAGE_SIZE + 1, 4 * PAGE_SIZE, u64::MAX] {
            assert_eq!(resources.map(2, offset), Err(Failure::InvalidParameter), "{offset}");
        }
        assert_eq!(resources.map(1, 3 * PAGE_SIZE), Err(Failure::InvalidParameter), "mapped already");
        resources.map(2, 3 * PAGE_SIZE).unwrap();
        assert_eq!(resources.unmap(3), Err(Failure::InvalidParameter));
        assert_eq!(resources.unmap(4), Err(Failure::InvalidResource));
    }

    #[test]
    fn sizes_and_numbers() {
        let mut resources = resources();
        for size in [0, u64::MAX] {
            assert_eq!(resources.create_device(1, size), Err(Failure::InvalidParameter));
        }
        assert_eq!(resources.create_device(0, 1), Err(Failure::InvalidResource));
        resources.create_guest(1, 0).unwrap();
        assert_eq!(resources.create_guest(1, 0), Err(Failure::InvalidResource));
        assert_eq!(resources.check_backing(1), Err(Failure::Unspecified));
        resources.set_backing(1, 4096).unwrap();
        assert_eq!(resources.check_backing(1), Ok(()));
        assert_eq!(resources.map(1, 0), Err(Failure::InvalidResource));
        assert_eq!(resources.create_context(0), Err(Failure::InvalidContext));
        resources.create_context(1).unwrap();
        assert_eq!(resources.create_context(1), Err(Failure::InvalidContext));
        resources.destroy_context(1).unwrap();
        assert_eq!(resources.check_context(1), Err(Failure::InvalidContext));
    }
}
