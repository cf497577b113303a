//! What one PCI function reaches at which bus address.

use std::fs::File;
use std::ops::Range;
use std::sync::{Arc, RwLock};

use super::{Backing, Bus, Page};
use crate::{read_lock, write_lock};

/// Why a DMA access did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DmaError {
    /// Nothing is at the address.
    #[error("no memory at bus address {0:#x}")]
    Unmapped(u64),
    /// The client announced the range without a descriptor, and no device of this process owns it.
    #[error("the memory at bus address {0:#x} cannot be reached from this process")]
    NotReachable(u64),
    /// The range may only be read.
    #[error("the memory at bus address {0:#x} is read-only")]
    ReadOnly(u64),
    /// A word that must be stored at once crosses its natural boundary.
    #[error("bus address {0:#x} is not aligned for the store")]
    Unaligned(u64),
}

/// A range that the vfio-user client mapped.
struct Region {
    addresses: Range<u64>,
    /// Memory and the offset in it of the first address; `None` when mapped without a descriptor.
    backing: Option<(Arc<Backing>, u64)>,
    writable: bool,
}

/// The addresses of one PCI function.
///
/// Reads and writes may cross regions. An access that fails may have been done in part, as on a real
/// bus; which part is told by the address in the error.
pub struct AddressSpace {
    bus: Arc<Bus>,
    /// Ordered by address, without overlap.
    regions: RwLock<Vec<Region>>,
}

/// A stretch of memory that one access can cover.
struct Stretch {
    backing: Arc<Backing>,
    offset: u64,
    length: u64,
    writable: bool,
}

impl AddressSpace {
    pub(super) fn new(bus: Arc<Bus>) -> AddressSpace {
        AddressSpace { bus, regions: RwLock::default() }
    }

    pub(crate) fn bus(&self) -> &Bus {
        &self.bus
    }

    /// Maps `size` bytes of `file` from `offset` on at `address`; replaces what was there.
    ///
    /// # Errors
    /// `InvalidInput` for a range that wraps, is empty or is not within the file; otherwise what
    /// `fstat(2)` or `mmap(2)` said.
    pub fn map(
        &self,
        address: u64,
        size: u64,
        file: Option<(File, u64)>,
        writable: bool,
    ) -> std::io::Result<()> {
        let invalid = || std::io::Error::from(std::io::ErrorKind::InvalidInput);
        let end = address.checked_add(size).filter(|end| *end > address).ok_or_else(invalid)?;
        let backing = match file {
            Some((file, offset)) => {
                let backing = self.bus.backing(file)?;
                let last = offset.checked_add(size).ok_or_else(invalid)?;
                if last > backing.memory().len() {
                    return Err(invalid());
                }
                Some((backing, offset))
            }
            None => None,
        };
        let mut regions = write_lock(&self.regions);
        cut(&mut regions, &(address..end));
        let place = regions.partition_point(|region| region.addresses.start < address);
        regions.insert(place, Region { addresses: address..end, backing, writable });
        Ok(())
    }

    /// Unmaps a range; parts of regions outside it stay.
    pub fn unmap(&self, address: u64, size: u64) {
        cut(&mut write_lock(&self.regions), &(address..address.saturating_add(size)));
    }

    /// Unmaps everything.
    pub fn unmap_all(&self) {
        write_lock(&self.regions).clear();
    }

    /// Reads by DMA.
    ///
    /// # Errors
    /// [`DmaError::Unmapped`] or [`DmaError::NotReachable`].
    pub fn read(&self, address: u64, into: &mut [u8]) -> Result<(), DmaError> {
        let mut done = 0;
        while done < into.len() {
            let here = address.checked_add(done as u64).ok_or(DmaError::Unmapped(address))?;
            let stretch = self.stretch(here)?;
            let length = stretch.length.min((into.len() - done) as u64) as usize;
            let part = &mut into[done..done + length];
            stretch.backing.memory().read(stretch.offset, part).ok_or(DmaError::Unmapped(here))?;
            done += length;
        }
        Ok(())
    }

    /// Reads a structure of `N` bytes.
    ///
    /// # Errors
    /// As [`AddressSpace::read`].
    pub fn read_array<const N: usize>(&self, address: u64) -> Result<[u8; N], DmaError> {
        let mut bytes = [0; N];
        self.read(address, &mut bytes)?;
        Ok(bytes)
    }

    /// Writes by DMA.
    ///
    /// # Errors
    /// As [`AddressSpace::read`], and [`DmaError::ReadOnly`].
    pub fn write(&self, address: u64, from: &[u8]) -> Result<(), DmaError> {
        self.write_telling(address, from, |_, _| ())
    }

    /// Writes by DMA and tells for every page touched how many bytes went there.
    ///
    /// # Errors
    /// As [`AddressSpace::write`].
    pub fn write_telling(
        &self,
        address: u64,
        from: &[u8],
        mut tell: impl FnMut(Page, u64),
    ) -> Result<(), DmaError> {
        let mut done = 0;
        while done < from.len() {
            let here = address.checked_add(done as u64).ok_or(DmaError::Unmapped(address))?;
            let stretch = self.stretch(here)?;
            if !stretch.writable {
                return Err(DmaError::ReadOnly(here));
            }
            let length = stretch.length.min((from.len() - done) as u64);
            let part = &from[done..done + length as usize];
            stretch.backing.memory().write(stretch.offset, part).ok_or(DmaError::ReadOnly(here))?;
            let mut offset = stretch.offset;
            while offset < stretch.offset + length {
                let page_end = (offset / super::PAGE_SIZE + 1) * super::PAGE_SIZE;
                let end = page_end.min(stretch.offset + length);
                tell(stretch.backing.page(offset), end - offset);
                offset = end;
            }
            done += length as usize;
        }
        Ok(())
    }

    /// The page at an address, and how many bytes from the address on are of the same memory.
    pub(crate) fn page(&self, address: u64) -> Option<(Page, u64)> {
        let Stretch { backing, offset, length, .. } = self.stretch(address).ok()?;
        Some((backing.page(offset), length))
    }

    /// Stores two bytes at once, in memory order, after all writes before.
    ///
    /// # Errors
    /// As [`AddressSpace::write`], and [`DmaError::Unaligned`].
    pub fn publish_u16(&self, address: u64, value: u16) -> Result<(), DmaError> {
        let stretch = self.word(address, 2)?;
        stretch.backing.memory().publish_u16(stretch.offset, value).ok_or(DmaError::Unaligned(address))
    }

    /// Stores four bytes at once, in memory order, after all writes before.
    ///
    /// # Errors
    /// As [`AddressSpace::write`], and [`DmaError::Unaligned`].
    pub fn publish_u32(&self, address: u64, value: u32) -> Result<(), DmaError> {
        let stretch = self.word(address, 4)?;
        stretch.backing.memory().publish_u32(stretch.offset, value).ok_or(DmaError::Unaligned(address))
    }

    fn word(&self, address: u64, size: u64) -> Result<Stretch, DmaError> {
        let stretch = self.stretch(address)?;
        if !stretch.writable {
            return Err(DmaError::ReadOnly(address));
        }
        if stretch.length < size || !stretch.offset.is_multiple_of(size) {
            return Err(DmaError::Unaligned(address));
        }
        Ok(stretch)
    }

    fn stretch(&self, address: u64) -> Result<Stretch, DmaError> {
        // A window of this process comes first: the client announces it too, but without a descriptor.
        if let Some((backing, offset, length)) = self.bus.window(address) {
            return Ok(Stretch { backing, offset, length, writable: true });
        }
        let regions = read_lock(&self.regions);
        let after = regions.partition_point(|region| region.addresses.start <= address);
        let region = after
            .checked_sub(1)
            .and_then(|index| regions.get(index))
            .filter(|region| region.addresses.contains(&address))
            .ok_or(DmaError::Unmapped(address))?;
        let (backing, start) = region.backing.as_ref().ok_or(DmaError::NotReachable(address))?;
        Ok(Stretch {
            backing: Arc::clone(backing),
            offset: start + (address - region.addresses.start),
            length: region.addresses.end - address,
            writable: region.writable && backing.memory().writable(),
        })
    }

    pub(super) fn for_each_backed_region(&self, add: &mut impl FnMut(&Arc<Backing>, Range<u64>)) {
        for region in read_lock(&self.regions).iter() {
            if let Some((backing, offset)) = &region.backing {
                add(backing, *offset..offset + (region.addresses.end - region.addresses.start));
            }
        }
    }
}

/// Removes a range of addresses from regions, splitting those it crosses.
fn cut(regions: &mut Vec<Region>, range: &Range<u64>) {
    let mut kept = Vec::with_capacity(regions.len() + 1);
    for region in regions.drain(..) {
        let Region { addresses, backing, writable } = region;
        if addresses.end <= range.start || addresses.start >= range.end {
            kept.push(Region { addresses, backing, writable });
            continue;
        }
        if addresses.start < range.start {
            let addresses = addresses.start..range.start;
            kept.push(Region { addresses, backing: backing.clone(), writable });
        }
        if addresses.end > range.end {
            let skipped = range.end - addresses.start;
            let backing = backing.map(|(backing, offset)| (backing, offset + skipped));
            kept.push(Region { addresses: range.end..addresses.end, backing, writable });
        }
    }
    *regions = kept;
}

#[cfg(test)]
mod tests {
    use super::super::{PAGE_SIZE, Residence, SharedMemory};
    use super::*;

    fn ram(pages: u64) -> SharedMemory {
        SharedMemory::create("ram", pages * PAGE_SIZE).unwrap()
    }

    fn file(memory: &SharedMemory) -> File {
        memory.file().try_clone().unwrap()
    }

    #[test]
    fn accesses_cross_regions() {
        let (bus, ram) = (Bus::new(), ram(4));
        let space = bus.address_space();
        // The second page of the file comes first on the bus.
        space.map(0x10000, PAGE_SIZE, Some((file(&ram), PAGE_SIZE)), true).unwrap();
        space.map(0x11000, PAGE_SIZE, Some((file(&ram), 0)), true).unwrap();
        let mut told = Vec::new();
        space.write_telling(0x10ffe, &[1, 2, 3, 4], |page, n| told.push((page.index, n))).unwrap();
        assert_eq!(told, [(1, 2), (0, 2)]);
        assert_eq!(space.read_array::<4>(0x10ffe), Ok([1, 2, 3, 4]));
        let mut raw = [0; 2];
        ram.read(0, &mut raw).unwrap();
        assert_eq!(raw, [3, 4]);
        assert_eq!(space.write(0x11ffe, &[0; 4]), Err(DmaError::Unmapped(0x12000)));
        assert_eq!(space.read(u64::MAX, &mut [0; 4]), Err(DmaError::Unmapped(u64::MAX)));
    }

    #[test]
    fn unmapping_a_part_keeps_the_rest_in_place() {
        let (bus, ram) = (Bus::new(), ram(3));
        let space = bus.address_space();
        ram.write(2 * PAGE_SIZE, b"third").unwrap();
        space.map(0, 3 * PAGE_SIZE, Some((file(&ram), 0)), true).unwrap();
        space.unmap(PAGE_SIZE, PAGE_SIZE);
        assert_eq!(space.read_array::<5>(2 * PAGE_SIZE).as_ref(), Ok(b"third"));
        assert_eq!(space.read(PAGE_SIZE, &mut [0]), Err(DmaError::Unmapped(PAGE_SIZE)));
        assert!(space.read(PAGE_SIZE - 1, &mut [0]).is_ok());
        space.unmap_all();
        assert_eq!(space.read(0, &mut [0]), Err(DmaError::Unmapped(0)));
    }

    #[test]
    fn mapping_replaces_what_was_there() {
        let (bus, ram) = (Bus::new(), ram(2));
        let space = bus.address_space();
        ram.write(PAGE_SIZE, b"second").unwrap();
        space.map(0, 2 * PAGE_SIZE, Some((file(&ram), 0)), true).unwrap();
        space.map(0, PAGE_SIZE, Some((file(&ram), PAGE_SIZE)), true).unwrap();
        assert_eq!(space.read_array::<6>(0).as_ref(), Ok(b"second"));
        assert_eq!(space.read_array::<6>(PAGE_SIZE).as_ref(), Ok(b"second"));
        space.unmap(0, PAGE_SIZE);
        assert_eq!(space.read(0, &mut [0]), Err(DmaError::Unmapped(0)));
    }

    #[test]
    fn read_only_and_unreachable_ranges_say_so() {
        let (bus, ram) = (Bus::new(), ram(1));
        let space = bus.address_space();
        space.map(0, PAGE_SIZE, Some((file(&ram), 0)), false).unwrap();
        space.map(0x100000, PAGE_SIZE, None, true).unwrap();
        assert_eq!(space.write(8, &[1]), Err(DmaError::ReadOnly(8)));
        assert_eq!(space.publish_u16(8, 1), Err(DmaError::ReadOnly(8)));
        assert!(space.read(8, &mut [0]).is_ok());
        assert_eq!(space.write(0x100004, &[1]), Err(DmaError::NotReachable(0x100004)));
        assert_eq!(space.publish_u32(0x100004, 1), Err(DmaError::NotReachable(0x100004)));
    }

    #[test]
    fn a_range_outside_its_file_is_refused() {
        let (bus, ram) = (Bus::new(), ram(1));
        let space = bus.address_space();
        assert!(space.map(0, 2 * PAGE_SIZE, Some((file(&ram), 0)), true).is_err());
        assert!(space.map(0, PAGE_SIZE, Some((file(&ram), u64::MAX)), true).is_err());
        assert!(space.map(u64::MAX, 2, None, true).is_err());
        assert!(space.map(0, 0, None, true).is_err());
    }

    #[test]
    fn a_device_window_is_one_more_region() {
        let bus = Bus::new();
        let window = bus.device_memory("gpu", 2 * PAGE_SIZE).unwrap();
        let space = bus.address_space();
        space.map(0xf000_0000, PAGE_SIZE, None, true).unwrap();
        bus.place_window(&window, Some(0xf000_0000), PAGE_SIZE..2 * PAGE_SIZE);
        let mut pages = Vec::new();
        space.write_telling(0xf000_0010, b"hi", |page, _| pages.push(page)).unwrap();
        assert_eq!(pages.iter().map(|page| page.residence()).collect::<Vec<_>>(), [Residence::DeviceWindow]);
        assert_eq!(bus.device_of(pages[0]).as_deref(), Some("gpu"));
        let mut raw = [0; 2];
        window.memory().read(PAGE_SIZE + 0x10, &mut raw).unwrap();
        assert_eq!(&raw, b"hi");
        bus.place_window(&window, None, PAGE_SIZE..2 * PAGE_SIZE);
        assert_eq!(space.write(0xf000_0000, &[0]), Err(DmaError::NotReachable(0xf000_0000)));
    }

    #[test]
    fn one_file_is_one_memory_for_all_functions() {
        let (bus, ram) = (Bus::new(), ram(2));
        let (first, second) = (bus.address_space(), bus.address_space());
        first.map(0, 2 * PAGE_SIZE, Some((file(&ram), 0)), true).unwrap();
        second.map(0x5000, PAGE_SIZE, Some((file(&ram), PAGE_SIZE)), true).unwrap();
        let mut pages = Vec::new();
        first.write_telling(PAGE_SIZE, &[1], |page, _| pages.push(page)).unwrap();
        second.write_telling(0x5000, &[1], |page, _| pages.push(page)).unwrap();
        assert_eq!(pages[0], pages[1]);
        let reachable = bus.reachable();
        assert_eq!(reachable.len(), 1);
        let whole = 0..2 * PAGE_SIZE;
        assert_eq!(reachable[0].1, std::slice::from_ref(&whole));
    }
}
