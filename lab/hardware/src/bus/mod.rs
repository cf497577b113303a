//! The bus of the machine: everything a device can reach by DMA.
//!
//! Two kinds of memory are on it: the guest's, which QEMU announces to every function with
//! descriptors ([`AddressSpace::map`]), and memory windows of emulated devices in this process
//! (`Bus::place_window`). For a device that does DMA they are the same: a range of bus addresses.
//! The difference is kept for ground truth alone ([`Residence`]).

mod address_space;
mod device_memory;
mod locate;
mod memory;
#[cfg(test)]
pub(crate) mod work;

pub use address_space::{AddressSpace, DmaError};
pub(crate) use device_memory::DeviceMemory;
pub(crate) use locate::{Mark, scan_for_marks};
pub use memory::{PAGE_SIZE, SharedMemory};

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, RwLock, Weak};

use crate::lock;
use memory::FileIdentity;

/// Whose memory it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Residence {
    /// Memory of the guest: "system memory".
    GuestRam,
    /// Memory of an emulated device.
    DeviceWindow,
}

/// A piece of memory on the bus, whatever addresses it has there.
pub(crate) struct Backing {
    id: u32,
    residence: Residence,
    name: String,
    memory: SharedMemory,
}

impl Backing {
    pub(crate) fn memory(&self) -> &SharedMemory {
        &self.memory
    }

    fn page(&self, offset: u64) -> Page {
        Page { backing: self.id, index: offset / PAGE_SIZE, residence: self.residence }
    }
}

/// One page of memory on the bus. The same physical page is the same `Page`, through whichever
/// address it was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Page {
    backing: u32,
    index: u64,
    residence: Residence,
}

impl Page {
    /// Whose memory the page is part of.
    pub fn residence(&self) -> Residence {
        self.residence
    }
}

struct Window {
    addresses: Range<u64>,
    /// Which part of the memory.
    part: Range<u64>,
    backing: Arc<Backing>,
}

/// The machine's bus.
#[derive(Default)]
pub struct Bus {
    files: Mutex<Files>,
    windows: RwLock<Vec<Window>>,
    devices: Mutex<Vec<Weak<DeviceMemory>>>,
    spaces: Mutex<Vec<Weak<AddressSpace>>>,
}

#[derive(Default)]
struct Files {
    last_id: u32,
    known: Vec<(FileIdentity, Weak<Backing>)>,
}

impl Bus {
    /// A bus with nothing on it.
    pub fn new() -> Arc<Bus> {
        Arc::default()
    }

    /// The view of the bus that one PCI function has.
    pub fn address_space(self: &Arc<Self>) -> Arc<AddressSpace> {
        let space = Arc::new(AddressSpace::new(Arc::clone(self)));
        let mut spaces = lock(&self.spaces);
        spaces.retain(|space| space.strong_count() > 0);
        spaces.push(Arc::downgrade(&space));
        space
    }

    /// New memory of a device, which reads as zero. It has no address on the bus before
    /// [`Bus::place_window`].
    ///
    /// # Errors
    /// What the system said when it refused the memory.
    pub(crate) fn device_memory(&self, name: &str, size: u64) -> io::Result<Arc<DeviceMemory>> {
        let memory = SharedMemory::create(name, size)?;
        let id = lock(&self.files).next_id();
        let name = name.to_owned();
        let backing = Arc::new(Backing { id, residence: Residence::DeviceWindow, name, memory });
        let mut devices = lock(&self.devices);
        devices.retain(|device| device.strong_count() > 0);
        devices.push(Arc::downgrade(&backing));
        Ok(backing)
    }

    /// Puts a part of a device's memory at a bus address, or takes it away. It is at one address at a time.
    /// Memory that was there before stays hidden behind it.
    pub(crate) fn place_window(&self, memory: &Arc<DeviceMemory>, address: Option<u64>, part: Range<u64>) {
        let mut windows = crate::write_lock(&self.windows);
        windows.retain(|window| !Arc::ptr_eq(&window.backing, memory) || window.part != part);
        if let Some(address) = address {
            let addresses = address..address.saturating_add(part.end - part.start);
            windows.push(Window { addresses, part, backing: Arc::clone(memory) });
        }
    }

    /// The name of the device whose memory a page is; `None` for guest memory.
    pub(crate) fn device_of(&self, page: Page) -> Option<String> {
        let devices = lock(&self.devices);
        let mut alive = devices.iter().filter_map(Weak::upgrade);
        alive.find(|device| device.id == page.backing).map(|device| device.name.clone())
    }

    /// The window at an address: its memory, the offset in it, and how many bytes follow.
    fn window(&self, address: u64) -> Option<(Arc<Backing>, u64, u64)> {
        let windows = crate::read_lock(&self.windows);
        let window = windows.iter().find(|window| window.addresses.contains(&address))?;
        let offset = window.part.start + (address - window.addresses.start);
        Some((Arc::clone(&window.backing), offset, window.addresses.end - address))
    }

    /// The memory behind a descriptor, mapped once however often it is announced.
    fn backing(&self, file: File) -> io::Result<Arc<Backing>> {
        let (identity, length) = FileIdentity::of(&file)?;
        let mut files = lock(&self.files);
        files.known.retain(|(_, backing)| backing.strong_count() > 0);
        let known = files.known.iter().find(|(known, _)| *known == identity);
        if let Some(backing) = known.and_then(|(_, backing)| backing.upgrade())
            && backing.memory.len() >= length
        {
            return Ok(backing);
        }
        let id = files.next_id();
        let memory = SharedMemory::map(file)?;
        let name = "guest memory".to_owned();
        let backing = Arc::new(Backing { id, residence: Residence::GuestRam, name, memory });
        files.known.push((identity, Arc::downgrade(&backing)));
        Ok(backing)
    }

    /// Every part of guest memory that has an address on the bus, each once, and all memory of devices: what
    /// lies beyond a small window has no address, and yet is there.
    fn reachable(&self) -> Vec<(Arc<Backing>, Vec<Range<u64>>)> {
        let mut parts: Vec<(Arc<Backing>, Vec<Range<u64>>)> = Vec::new();
        let mut add = |backing: &Arc<Backing>, range: Range<u64>| match parts
            .iter_mut()
            .find(|(known, _)| Arc::ptr_eq(known, backing))
        {
            Some((_, ranges)) => ranges.push(range),
            None => parts.push((Arc::clone(backing), vec![range])),
        };
        for space in lock(&self.spaces).iter().filter_map(Weak::upgrade) {
            space.for_each_backed_region(&mut add);
        }
        for device in lock(&self.devices).iter().filter_map(Weak::upgrade) {
            add(&device, 0..device.memory.len());
        }
        for (_, ranges) in &mut parts {
            *ranges = union(std::mem::take(ranges));
        }
        parts
    }
}

impl Files {
    fn next_id(&mut self) -> u32 {
        self.last_id += 1;
        self.last_id
    }
}

/// The same bytes as ranges that neither overlap nor touch, in order.
fn union(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn union_merges_what_overlaps_or_touches() {
        assert_eq!(union(vec![8..12, 0..4, 4..6, 10..11, 20..21]), vec![0..6, 8..12, 20..21]);
    }
}
