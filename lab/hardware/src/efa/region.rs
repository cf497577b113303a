//! Memory regions: which bus addresses the addresses of work requests stand for.

use std::collections::BTreeMap;

use serde::Serialize;

use super::command::{RegisterRegion, permission};
use super::page_list::{self, PageListError};
use super::table::Table;
use crate::bus::{AddressSpace, DmaError, Page, Residence};

/// Regions that there may be.
pub(super) const MAXIMUM_REGIONS: usize = 4096;
/// Pages of all regions together.
pub(super) const MAXIMUM_PAGES: u64 = 1 << 22;
/// Bytes of a region.
const MAXIMUM_LENGTH: u64 = MAXIMUM_PAGES * 4096;
/// Where an address cannot be reached, none is expected to be up to the next multiple of this: windows are larger, and the
/// search ends soon whatever a driver has registered.
const UNREACHABLE_STEP: u64 = 2 << 20;
/// Page sizes that a region may have: powers of two from 4 KiB to 2 GiB, one bit for each.
pub(super) const PAGE_SIZES: u64 = 0xffff_f000;

/// Tells the remote key of a region from its local key, of which queues have 24 bits.
const REMOTE: u32 = 1 << 15;
/// Where the count of registrations begins in a key, by which the key of a region that is gone is known.
const GENERATION_SHIFT: u32 = 16;

/// A region.
#[derive(Debug)]
pub(super) struct Region {
    domain: u16,
    address: u64,
    length: u64,
    page_shift: u8,
    pages: Vec<u64>,
    permissions: u8,
    generation: u8,
}

/// All regions of a device.
pub(super) struct Regions {
    regions: Table<Region>,
    pages: u64,
    generation: u8,
}

/// Why a region was not registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RegisterError {
    #[error("a region of {0} bytes")]
    Length(u64),
    #[error("pages of 2^{0} bytes")]
    PageSize(u8),
    #[error("page {index} at {address:#x} is not aligned to the pages' size")]
    Unaligned { index: usize, address: u64 },
    #[error("permissions {0:#x}")]
    Permissions(u8),
    #[error("regions of physical memory are not offered")]
    Physical,
    #[error(transparent)]
    Pages(#[from] PageListError),
    #[error("there is no room for one more region or its pages")]
    Full,
}

/// Where the memory of a region is: what the page addresses that the driver gave lead to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct RegionPlace {
    /// The key by which work requests of this device name the region.
    pub(super) key: u32,
    /// Its first address in work requests.
    pub(super) address: u64,
    /// Bytes.
    pub(super) length: u64,
    /// Bytes of the pages in its list.
    pub(super) page_size: u64,
    /// The first address of the list, on the bus.
    pub(super) first_page: u64,
    /// Bytes of it that are memory of the guest.
    pub(super) guest_ram_bytes: u64,
    /// Bytes of it that are in a window of a device.
    pub(super) device_window_bytes: u64,
    /// Those by the device.
    pub(super) devices: BTreeMap<String, u64>,
    /// Bytes of it that are at no address that can be reached.
    pub(super) unreachable_bytes: u64,
}

impl Region {
    fn new(
        memory: &AddressSpace,
        register: &RegisterRegion,
        generation: u8,
        room: u64,
    ) -> Result<Region, RegisterError> {
        let RegisterRegion { domain, pages, length, page_shift, physical, permissions, address } = *register;
        if physical {
            return Err(RegisterError::Physical);
        }
        if permissions & !(permission::LOCAL_WRITE | permission::REMOTE_WRITE | permission::REMOTE_READ) != 0
        {
            return Err(RegisterError::Permissions(permissions));
        }
        let size = 1u64.checked_shl(page_shift.into()).filter(|size| PAGE_SIZES & size != 0);
        let size = size.ok_or(RegisterError::PageSize(page_shift))?;
        let in_first = address & (size - 1);
        let span =
            length.checked_add(in_first).filter(|_| length > 0 && address.checked_add(length).is_some());
        let count = span.ok_or(RegisterError::Length(length))?.div_ceil(size);
        if count > room || length > MAXIMUM_LENGTH {
            return Err(RegisterError::Full);
        }
        let pages = page_list::read(memory, pages, count as usize)?;
        let unaligned = pages.iter().position(|page| page & (size - 1) != 0);
        if let Some(index) = unaligned {
            return Err(RegisterError::Unaligned { index, address: pages[index] });
        }
        Ok(Region { domain, address, length, page_shift, pages, permissions, generation })
    }

    /// The stretches of bus addresses that a range of the region's addresses stands for. `None` when the range is
    /// not within the region.
    fn stretches(&self, address: u64, length: u64) -> Option<impl Iterator<Item = (u64, u64)>> {
        let offset = address.checked_sub(self.address)?;
        let end = offset.checked_add(length).filter(|end| *end <= self.length)?;
        let size = 1u64 << self.page_shift;
        let in_first = self.address & (size - 1);
        let (mut next, end) = (in_first + offset, in_first + end);
        Some(std::iter::from_fn(move || {
            if next >= end {
                return None;
            }
            let in_page = next & (size - 1);
            let page = *self.pages.get(usize::try_from(next >> self.page_shift).ok()?)?;
            let length = (size - in_page).min(end - next);
            next += length;
            Some((page.wrapping_add(in_page), length))
        }))
    }

    fn key(&self, number: u16) -> u32 {
        u32::from(self.generation) << GENERATION_SHIFT | u32::from(number)
    }

    fn place(&self, number: u16, memory: &AddressSpace) -> RegionPlace {
        let mut place = RegionPlace {
            key: self.key(number),
            address: self.address,
            length: self.length,
            page_size: 1 << self.page_shift,
            first_page: self.pages.first().copied().unwrap_or(0),
            ..RegionPlace::default()
        };
        for (address, length) in self.stretches(self.address, self.length).into_iter().flatten() {
            let mut done = 0;
            while done < length {
                let here = address.wrapping_add(done);
                let Some((page, bytes)) = memory.page(here) else {
                    let bytes = (UNREACHABLE_STEP - here % UNREACHABLE_STEP).min(length - done);
                    place.unreachable_bytes += bytes;
                    done += bytes;
                    continue;
                };
                let bytes = bytes.min(length - done);
                match page.residence() {
                    Residence::GuestRam => place.guest_ram_bytes += bytes,
                    Residence::DeviceWindow => place.device_window_bytes += bytes,
                }
                if let Some(device) = memory.bus().device_of(page) {
                    *place.devices.entry(device).or_default() += bytes;
                }
                done += bytes;
            }
        }
        place
    }
}

/// Who uses a region, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Use {
    pub(super) key: u32,
    pub(super) domain: u16,
    pub(super) address: u64,
    pub(super) length: u64,
    /// Bits of [`permission`] that the region must have.
    pub(super) permissions: u8,
    /// The key is one that was given to the other side.
    pub(super) remote: bool,
}

/// Why the memory of a region was not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UseError {
    /// No such region, or not for this.
    Refused,
    /// The addresses that the driver gave are wrong.
    Memory(DmaError),
}

impl Regions {
    pub(super) fn new() -> Regions {
        Regions { regions: Table::new(MAXIMUM_REGIONS), pages: 0, generation: 0 }
    }

    /// Registers a region; tells its local and its remote key.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn register(
        &mut self,
        memory: &AddressSpace,
        register: &RegisterRegion,
    ) -> Result<(u32, u32), RegisterError> {
        let generation = self.generation.checked_add(1).unwrap_or(1);
        let region = Region::new(memory, register, generation, MAXIMUM_PAGES - self.pages)?;
        let pages = region.pages.len() as u64;
        let number = self.regions.add(region).ok_or(RegisterError::Full)?;
        self.generation = generation;
        self.pages += pages;
        let key = u32::from(generation) << GENERATION_SHIFT | u32::from(number);
        Ok((key, key | REMOTE))
    }

    /// Forgets a region. False when there is none with this local key.
    pub(super) fn deregister(&mut self, key: u32) -> bool {
        let number = key as u16;
        if self.find(key).is_none() {
            return false;
        }
        let removed = self.regions.remove(number);
        self.pages -= removed.map_or(0, |region| region.pages.len() as u64);
        true
    }

    fn find(&self, key: u32) -> Option<&Region> {
        let region = self.regions.get(key as u16)?;
        (region.key(key as u16) == key).then_some(region)
    }

    /// Whether regions of a protection domain exist.
    pub(super) fn uses_domain(&self, domain: u16) -> bool {
        self.regions.iter().any(|(_, region)| region.domain == domain)
    }

    pub(super) fn count(&self) -> usize {
        self.regions.count()
    }

    /// Where every region's memory is.
    pub(super) fn places(&self, memory: &AddressSpace) -> Vec<RegionPlace> {
        self.regions.iter().map(|(number, region)| region.place(number, memory)).collect()
    }

    fn stretches(&self, what: Use) -> Result<impl Iterator<Item = (u64, u64)>, UseError> {
        let key = if what.remote { what.key & !REMOTE } else { what.key };
        let is_kind = what.remote == (what.key & REMOTE != 0);
        let region = self.find(key).filter(|region| {
            is_kind
                && region.domain == what.domain
                && region.permissions & what.permissions == what.permissions
        });
        region.and_then(|region| region.stretches(what.address, what.length)).ok_or(UseError::Refused)
    }

    /// Whether the memory may be used so.
    pub(super) fn allows(&self, what: Use) -> bool {
        self.stretches(what).is_ok()
    }

    /// Reads memory of a region to the end of `into`.
    ///
    /// # Errors
    /// [`UseError`].
    pub(super) fn read(&self, memory: &AddressSpace, what: Use, into: &mut Vec<u8>) -> Result<(), UseError> {
        for (address, length) in self.stretches(what)? {
            let start = into.len();
            into.resize(start + length as usize, 0);
            memory.read(address, &mut into[start..]).map_err(UseError::Memory)?;
        }
        Ok(())
    }

    /// Writes `from` to memory of a region, as many bytes as `what` says, and tells how many went to which page.
    ///
    /// # Errors
    /// [`UseError`].
    pub(super) fn write(
        &self,
        memory: &AddressSpace,
        what: Use,
        from: &[u8],
        mut tell: impl FnMut(Page, u64),
    ) -> Result<(), UseError> {
        let mut rest = from;
        for (address, length) in self.stretches(what)? {
            let (part, after) = rest.split_at_checked(length as usize).unwrap_or((rest, &[]));
            memory.write_telling(address, part, &mut tell).map_err(UseError::Memory)?;
            rest = after;
        }
        Ok(())
    }
}

impl RegisterRegion {
    /// A region of these pages, for tests.
    #[cfg(test)]
    pub(super) fn of(pages: [u64; 4], address: u64, length: u64, permissions: u8) -> RegisterRegion {
        let pages = super::command::ListPlace::Inline(pages);
        RegisterRegion { domain: 0, pages, length, page_shift: 12, physical: false, permissions, address }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::bus::{Bus, PAGE_SIZE, SharedMemory};

    const ALL: u8 = permission::LOCAL_WRITE | permission::REMOTE_READ | permission::REMOTE_WRITE;

    fn memory() -> (Arc<Bus>, Arc<AddressSpace>) {
        let ram = SharedMemory::create("ram", 16 * PAGE_SIZE).unwrap();
        let bus = Bus::new();
        let space = bus.address_space();
        space.map(0x10000, 16 * PAGE_SIZE, Some((ram.file().try_clone().unwrap(), 0)), true).unwrap();
        (bus, space)
    }

    fn local(key: u32, address: u64, length: u64) -> Use {
        Use { key, domain: 0, address, length, permissions: 0, remote: false }
    }

    #[test]
    fn addresses_go_through_the_list_from_the_middle_of_a_page() {
        let (_bus, memory) = memory();
        let mut regions = Regions::new();
        let register = RegisterRegion::of([0x13000, 0x11000, 0x15000, 0], 0x7f00_0ff0, 0x1020, ALL);
        let (key, remote) = regions.register(&memory, &register).unwrap();
        let mut told = Vec::new();
        let what = local(key, 0x7f00_0ffe, 4);
        regions.write(&memory, what, &[1, 2, 3, 4], |_, bytes| told.push(bytes)).unwrap();
        assert_eq!(told, [2, 2]);
        assert_eq!(memory.read_array::<2>(0x13ffe), Ok([1, 2]));
        assert_eq!(memory.read_array::<2>(0x11000), Ok([3, 4]));
        let mut bytes = Vec::new();
        regions.read(&memory, Use { key: remote, remote: true, ..what }, &mut bytes).unwrap();
        assert_eq!(bytes, [1, 2, 3, 4]);
        assert!(regions.allows(local(key, 0x7f00_0ff0, 0x1020)));
        for (address, length) in [(0x7f00_0fef, 1), (0x7f00_0ff0, 0x1021), (0x7f00_2010, 1), (u64::MAX, 2)] {
            assert!(!regions.allows(local(key, address, length)), "{address:#x}");
        }
    }

    #[test]
    fn keys_are_for_one_region_one_side_and_one_domain() {
        let (_bus, memory) = memory();
        let mut regions = Regions::new();
        let register = RegisterRegion::of([0x10000; 4], 0, 0x1000, permission::REMOTE_READ);
        let (key, remote) = regions.register(&memory, &register).unwrap();
        let what = local(key, 0, 1);
        assert!(regions.allows(what));
        assert!(!regions.allows(Use { key: remote, ..what }), "the other side's key");
        assert!(!regions.allows(Use { remote: true, ..what }), "this side's key");
        assert!(!regions.allows(Use { domain: 1, ..what }));
        assert!(!regions.allows(Use { permissions: permission::LOCAL_WRITE, ..what }));
        let read = Use { key: remote, remote: true, permissions: permission::REMOTE_READ, ..what };
        assert!(regions.allows(read));
        assert!(!regions.deregister(remote));
        assert!(regions.deregister(key));
        let (new, _) = regions.register(&memory, &register).unwrap();
        assert!(!regions.allows(what) && new != key, "an old key is not a new one");
        assert_eq!((regions.count(), regions.pages), (1, 1));
    }

    #[test]
    fn what_cannot_be_a_region() {
        let (_bus, memory) = memory();
        let mut regions = Regions::new();
        let good = RegisterRegion::of([0x10000; 4], 0, 0x1000, 0);
        let mut error = |register: RegisterRegion| regions.register(&memory, &register).unwrap_err();
        assert_eq!(error(RegisterRegion { length: 0, ..good.clone() }), RegisterError::Length(0));
        let wraps = RegisterRegion { length: u64::MAX, address: 0x1000, ..good.clone() };
        assert_eq!(error(wraps), RegisterError::Length(u64::MAX));
        for page_shift in [0, 11, 32, 63] {
            let register = RegisterRegion { page_shift, ..good.clone() };
            assert_eq!(error(register), RegisterError::PageSize(page_shift));
        }
        assert_eq!(error(RegisterRegion { permissions: 8, ..good.clone() }), RegisterError::Permissions(8));
        assert_eq!(error(RegisterRegion { physical: true, ..good.clone() }), RegisterError::Physical);
        for (length, page_shift) in [(1 << 50, 12), ((16 << 30) + 1, 31)] {
            let register = RegisterRegion { length, page_shift, ..good.clone() };
            assert_eq!(error(register), RegisterError::Full);
        }
        let unaligned = RegisterRegion::of([0x10008; 4], 0, 0x1000, 0);
        assert_eq!(error(unaligned), RegisterError::Unaligned { index: 0, address: 0x10008 });
        assert_eq!(regions.count(), 0);
    }

    #[test]
    fn a_region_tells_whose_memory_it_is() {
        let (bus, memory) = memory();
        let window = bus.device_memory("gpu0", 2 * PAGE_SIZE).unwrap();
        bus.place_window(&window, Some(0xe000_0000), 0..2 * PAGE_SIZE);
        let mut regions = Regions::new();
        let pages = [0x10000, 0xe000_1000, 0xf000_0000, 0];
        regions.register(&memory, &RegisterRegion::of(pages, 0x800, 0x2000, 0)).unwrap();
        let places = regions.places(&memory);
        let [place] = places.as_slice() else { panic!("{places:?}") };
        assert_eq!((place.guest_ram_bytes, place.device_window_bytes), (0x800, 0x1000));
        assert_eq!((place.unreachable_bytes, place.first_page), (0x800, 0x10000));
        assert_eq!(place.devices, BTreeMap::from([("gpu0".to_owned(), 0x1000)]));
    }
}
