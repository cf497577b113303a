//! The address spaces of processes (PPGTT): trees of tables with 512 entries of 64 bits. Four levels cover 48
//! bits of address. Battlemage has a fifth, and no more bits (`va_bits` in `xe_pci.c`).

use super::memory::{Fault, Memories, Place, Stretch};

/// Bits of entries (`intel_gtt.h`, `xe_gtt_defs.h`).
const PRESENT: u64 = 1 << 0;
/// A directory's entry is a page of 2 MiB or 1 GiB.
const LARGE: u64 = 1 << 7;
/// A directory's entry points to a table of 32 entries of 64 KiB.
const TABLE_OF_64K: u64 = 1 << 6;
/// Nothing is there: reads as 0, writes are lost.
const NULL: u64 = 1 << 9;
/// The page is in the part's own memory.
const LOCAL: u64 = 1 << 11;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Bits of an address; those above are not looked at. Drivers write there what bit 47 is.
const ADDRESS_BITS: u32 = 48;
const PAGE_BITS: u32 = 12;
const LEVEL_BITS: u32 = 9;
/// Levels of the entries that may be large pages: 2 MiB and 1 GiB.
const LARGE_LEVELS: std::ops::RangeInclusive<u32> = 1..=2;

/// Where an address lies in the address space whose uppermost table is at `root`.
pub(super) fn translate(memories: &Memories, root: u64, levels: u32, address: u64) -> Result<Stretch, Fault> {
    let address = address & ((1 << ADDRESS_BITS) - 1);
    let mut table = root & ADDRESS;
    let mut level = levels;
    loop {
        level -= 1;
        let shift = PAGE_BITS + LEVEL_BITS * level;
        let index = address >> shift & ((1 << LEVEL_BITS) - 1);
        let entry = memories.entry(memories.table(table + index * 8))?;
        if entry & PRESENT == 0 {
            return Err(Fault::Unmapped { address, level, entry });
        }
        if level == 0 || LARGE_LEVELS.contains(&level) && entry & LARGE != 0 {
            return Ok(page(entry, shift, address));
        }
        if entry & NULL != 0 {
            return Ok(page(entry, shift, address));
        }
        table = entry & ADDRESS;
        if level == 1 && entry & TABLE_OF_64K != 0 {
            let index = address >> 16 & 0x1f;
            let entry = memories.entry(memories.table(table + index * 8))?;
            if entry & PRESENT == 0 {
                return Err(Fault::Unmapped { address, level: 0, entry });
            }
            return Ok(page(entry, 16, address));
        }
    }
}

/// What is at an address in the page of an entry.
fn page(entry: u64, shift: u32, address: u64) -> Stretch {
    let size = 1 << shift;
    let at = entry & ADDRESS & !(size - 1);
    let place = if entry & NULL != 0 {
        Place::Null
    } else if entry & LOCAL != 0 {
        Place::Local(at)
    } else {
        Place::System(at)
    };
    Stretch::in_page(place, size, address)
}
