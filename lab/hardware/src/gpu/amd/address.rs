//! Addresses of the GPU, and the page tables that say what is behind them.
//!
//! An engine uses 40-bit addresses of a virtual machine, whose identifier (VMID) says how they are translated:
//!
//! | VMID | addresses | page table |
//! |---|---|---|
//! | 0, the driver's own | VRAM where the memory controller has it, untranslated; the GART's range | one level, in VRAM |
//! | 1 to 15, of processes | up to 64 GiB from 0 on | directory and tables, in VRAM |
//!
//! An entry of 64 bits holds the number of a page of 4 KiB and flags (`AMDGPU_PTE_*` in `amdgpu_vm.h`): a page
//! of the system, by its bus address, or of VRAM, by its offset. Bus addresses lead to guest memory and to
//! windows of other devices alike.

use super::memory::Memory;
use super::register_map::word;
use super::registers::Registers;

/// Identifier of a virtual machine, 0 to 15.
pub(super) type Vmid = u8;

/// Bytes of a page of the GPU.
pub(super) const PAGE: u64 = 4096;
const PAGE_SHIFT: u32 = 12;

/// Flags of a page table entry.
mod entry {
    pub(super) const VALID: u64 = 1 << 0;
    pub(super) const SYSTEM: u64 = 1 << 1;
    pub(super) const READABLE: u64 = 1 << 5;
    pub(super) const WRITEABLE: u64 = 1 << 6;
    pub(super) const ADDRESS: u64 = 0xff_ffff_f000;
}

/// The context has a page table (`VM_CONTEXT0_CNTL`, `VM_CONTEXT1_CNTL`).
const ENABLE_CONTEXT: u32 = 1 << 0;
/// Address bits that a page table of a process translates, beyond 9 (`PAGE_TABLE_BLOCK_SIZE`).
const BLOCK_SIZE_SHIFT: u32 = 24;

/// What is at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// VRAM, from this offset on.
    Vram(u64),
    /// The bus, from this address on.
    Bus(u64),
}

/// What is at an address, and for how many bytes it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) place: Place,
    pub(super) length: u64,
}

/// What an engine wants at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

/// Why there is nothing at an address. The values are those of the field `PROTECTIONS` in
/// `VM_CONTEXT1_PROTECTION_FAULT_STATUS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protection {
    /// The context translates no such address.
    Range = 1 << 0,
    /// The directory's entry is not valid.
    Directory = 1 << 1,
    /// The table's entry is not valid.
    Valid = 1 << 2,
    /// The page may not be read.
    Read = 1 << 3,
    /// The page may not be written.
    Write = 1 << 4,
}

/// Translates an address.
///
/// # Errors
/// What the page tables say against it.
pub(super) fn translate(
    registers: &Registers,
    memory: &Memory,
    vmid: Vmid,
    address: u64,
    access: Access,
) -> Result<Span, Protection> {
    if vmid == 0 {
        if let Some(span) = untranslated(registers, address) {
            return Ok(span);
        }
        let table = Range {
            control: word::VM_CONTEXT0_CNTL,
            start: word::VM_CONTEXT0_PAGE_TABLE_START_ADDR,
            end: word::VM_CONTEXT0_PAGE_TABLE_END_ADDR,
        };
        let page = table.page(registers, address)?;
        let table = page_of(registers.get(word::VM_CONTEXT0_PAGE_TABLE_BASE_ADDR));
        let entry = table_entry(registers, memory, Place::Vram(table), page);
        return page_at(entry, address, access);
    }
    let range = Range {
        control: word::VM_CONTEXT1_CNTL,
        start: word::VM_CONTEXT1_PAGE_TABLE_START_ADDR,
        end: word::VM_CONTEXT1_PAGE_TABLE_END_ADDR,
    };
    let page = range.page(registers, address)?;
    let block_size = 9 + (registers.get(word::VM_CONTEXT1_CNTL) >> BLOCK_SIZE_SHIFT & 0xf);
    let directory = page_of(registers.get(base_register(vmid)));
    let entry = table_entry(registers, memory, Place::Vram(directory), page >> block_size);
    if entry & entry::VALID == 0 {
        return Err(Protection::Directory);
    }
    let table = place_of_table(entry);
    page_at(table_entry(registers, memory, table, page & ((1 << block_size) - 1)), address, access)
}

/// The register that holds the page of a context's outermost table.
fn base_register(vmid: Vmid) -> u32 {
    match u32::from(vmid & 0xf) {
        low @ 0..8 => word::VM_CONTEXT0_PAGE_TABLE_BASE_ADDR + low,
        high => word::VM_CONTEXT8_PAGE_TABLE_BASE_ADDR + high - 8,
    }
}

/// The registers that say which addresses a context translates.
struct Range {
    control: u32,
    start: u32,
    end: u32,
}

impl Range {
    /// The number of the page of an address, from the first one that is translated.
    fn page(&self, registers: &Registers, address: u64) -> Result<u64, Protection> {
        let page = address >> PAGE_SHIFT;
        let start = u64::from(registers.get(self.start));
        let within = (start..=u64::from(registers.get(self.end))).contains(&page);
        let enabled = registers.get(self.control) & ENABLE_CONTEXT != 0;
        if within && enabled { Ok(page - start) } else { Err(Protection::Range) }
    }
}

/// VRAM, where context 0 has it without translation.
fn untranslated(registers: &Registers, address: u64) -> Option<Span> {
    let low = page_of(registers.get(word::MC_VM_SYSTEM_APERTURE_LOW_ADDR));
    let high = page_of(registers.get(word::MC_VM_SYSTEM_APERTURE_HIGH_ADDR)) + PAGE - 1;
    if !(low..=high).contains(&address) {
        return None;
    }
    let (base, size) = registers.framebuffer();
    let offset = address.checked_sub(base).filter(|offset| *offset < size)?;
    let length = (size - offset).min(high - address + 1);
    Some(Span { place: Place::Vram(offset), length })
}

fn page_of(register: u32) -> u64 {
    u64::from(register) << PAGE_SHIFT
}

/// An entry of a table. Tables in VRAM are where the memory controller has them. What cannot be read has no
/// valid entries.
fn table_entry(registers: &Registers, memory: &Memory, table: Place, index: u64) -> u64 {
    let (base, _) = registers.framebuffer();
    let place = match table {
        Place::Vram(address) => address.checked_sub(base).map(|offset| Place::Vram(offset + index * 8)),
        Place::Bus(address) => Some(Place::Bus(address + index * 8)),
    };
    let mut bytes = [0; 8];
    match place.map(|place| memory.read(place, &mut bytes)) {
        Some(Ok(())) => u64::from_le_bytes(bytes),
        _ => 0,
    }
}

fn place_of_table(entry: u64) -> Place {
    let address = entry & entry::ADDRESS;
    if entry & entry::SYSTEM != 0 { Place::Bus(address) } else { Place::Vram(address) }
}

/// What an entry of a table says of an address.
fn page_at(entry: u64, address: u64, access: Access) -> Result<Span, Protection> {
    if entry & entry::VALID == 0 {
        return Err(Protection::Valid);
    }
    match access {
        Access::Read if entry & entry::READABLE == 0 => return Err(Protection::Read),
        Access::Write if entry & entry::WRITEABLE == 0 => return Err(Protection::Write),
        _ => {}
    }
    let (page, offset) = (entry & entry::ADDRESS, address % PAGE);
    let place = if entry & entry::SYSTEM != 0 { Place::Bus } else { Place::Vram };
    Ok(Span { place: place(page + offset), length: PAGE - offset })
}

#[cfg(test)]
mod tests {
    use super::super::tests::Bench;
    use super::*;

    const ALL: u64 = entry::VALID | entry::READABLE | entry::WRITEABLE;

    fn translated(bench: &Bench, vmid: Vmid, address: u64, access: Access) -> Result<Span, Protection> {
        translate(&bench.chip.registers, &bench.chip.memory, vmid, address, access)
    }

    #[test]
    fn vram_is_where_the_memory_controller_has_it() {
        let bench = Bench::new();
        let (base, size) = bench.chip.registers.framebuffer();
        let at = |address| translated(&bench, 0, address, Access::Write);
        assert_eq!(at(base + 5), Ok(Span { place: Place::Vram(5), length: size - 5 }));
        assert_eq!(at(base + size), Err(Protection::Range));
        assert_eq!(at(base - 1), Err(Protection::Range));
    }

    #[test]
    fn the_gart_has_one_level() {
        let bench = Bench::new();
        bench.set_gart(1, 0x7000 | ALL | entry::SYSTEM);
        bench.set_gart(2, 0x9000 | ALL);
        bench.set_gart(3, 0x9000 | entry::VALID | entry::READABLE);
        bench.set_gart(5, 0x9000 | entry::VALID | entry::WRITEABLE);
        let at = |address, access| translated(&bench, 0, address, access);
        let (bus, vram) = (Place::Bus(0x7ffc), Place::Vram(0x9000));
        assert_eq!(at(0x1ffc, Access::Write), Ok(Span { place: bus, length: 4 }));
        assert_eq!(at(0x2000, Access::Read), Ok(Span { place: vram, length: PAGE }));
        assert_eq!(at(0x3000, Access::Write), Err(Protection::Write));
        assert_eq!(at(0x3000, Access::Read), Ok(Span { place: vram, length: PAGE }));
        assert_eq!(at(0x5000, Access::Read), Err(Protection::Read));
        assert_eq!(at(0x4000, Access::Read), Err(Protection::Valid));
        assert_eq!(at(0x8000_0000, Access::Read), Err(Protection::Range));
    }

    #[test]
    fn a_process_has_two_levels() {
        let mut bench = Bench::new();
        let (base, _) = bench.chip.registers.framebuffer();
        let (directory, table) = (0x10_0000, 0x11_0000);
        bench.enable_process(9, directory);
        // Each table translates 2 MiB: address 2 MiB + 4 KiB is entry 1 of table 1.
        bench.put_vram(directory + 8, (base + table) | entry::VALID);
        bench.put_vram(table + 8, 0x5000 | ALL | entry::SYSTEM);
        let at = |vmid, address| translated(&bench, vmid, address, Access::Read);
        assert_eq!(at(9, 0x20_1010), Ok(Span { place: Place::Bus(0x5010), length: PAGE - 0x10 }));
        assert_eq!(at(9, 0x20_2000), Err(Protection::Valid));
        assert_eq!(at(9, 0x1000), Err(Protection::Directory));
        assert_eq!(at(10, 0x20_1010), Err(Protection::Directory), "another process");
        assert_eq!(at(9, 1 << 40), Err(Protection::Range));
    }

    #[test]
    fn tables_may_point_anywhere() {
        let mut bench = Bench::new();
        for base in [0, 1, u32::MAX] {
            bench.chip.registers.set(word::VM_CONTEXT0_PAGE_TABLE_BASE_ADDR, base);
            assert_eq!(translated(&bench, 0, 0x1000, Access::Read), Err(Protection::Valid), "{base:#x}");
        }
    }
}
