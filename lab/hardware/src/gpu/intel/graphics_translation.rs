//! The global address space (GGTT): one table of 64-bit entries in the upper half of BAR 0, which the driver
//! maps and writes. Rings, contexts and status pages are addressed through it.

use std::sync::Arc;

use super::memory::{Fault, Place, Stretch};
use super::registers;
use crate::bus::DeviceMemory;

/// Bytes of the table: entries for 4 GiB.
pub(super) const TABLE_SIZE: u64 = 8 << 20;
const PAGE: u64 = 4096;

/// Bits of an entry (`GEN12_GGTT_PTE_LM`, `GEN8_PAGE_PRESENT`).
const PRESENT: u64 = 1 << 0;
const LOCAL: u64 = 1 << 1;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// The table.
pub(super) struct GraphicsTranslation {
    /// BAR 0, of which the upper half is the table.
    table: Arc<DeviceMemory>,
    /// Whether entries may point to memory of the part.
    local: bool,
}

impl GraphicsTranslation {
    pub(super) fn new(table: Arc<DeviceMemory>, local: bool) -> GraphicsTranslation {
        GraphicsTranslation { table, local }
    }

    /// Where an address lies.
    pub(super) fn translate(&self, address: u64) -> Result<Stretch, Fault> {
        let unmapped = Fault::GlobalUnmapped(address);
        let index = address / PAGE;
        if index >= TABLE_SIZE / 8 {
            return Err(unmapped);
        }
        let mut bytes = [0; 8];
        self.table.memory().read(registers::SIZE + index * 8, &mut bytes).ok_or(unmapped)?;
        let entry = u64::from_le_bytes(bytes);
        if entry & PRESENT == 0 {
            return Err(unmapped);
        }
        let local = self.local && entry & LOCAL != 0;
        let page = if local { Place::Local(entry & ADDRESS) } else { Place::System(entry & ADDRESS) };
        Ok(Stretch::in_page(page, PAGE, address))
    }
}
