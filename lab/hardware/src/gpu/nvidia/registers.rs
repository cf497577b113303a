//! The registers of BAR 0 that mean something to the model. All others read as what was last written.
//!
//! Names are those of the hardware's blocks, as the driver's source and envytools have them. Where a value says
//! how many there are of a thing, there is one.

use super::chip::{Chip, Generation};

// Generations in which a register exists.
const CURIE: u8 = 1 << 0;
const MAXWELL: u8 = 1 << 1;
const PASCAL: u8 = 1 << 2;
const TURING: u8 = 1 << 3;
const ALL: u8 = CURIE | PAGED;
const PAGED: u8 = MAXWELL | PASCAL | TURING;

/// What a register reads as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reads {
    /// Always this.
    Constant(u32),
    /// What was last written.
    Written,
    /// What was last written, with these bits set: the hardware is done, or has room.
    WrittenOr(u32),
    /// What was last written, with these bits clear: the hardware is done.
    WrittenWithout(u32),
    /// Which part it is, and its revision.
    Identity,
    /// Bytes of memory.
    MemoryBytes,
    /// MiB of memory.
    MemoryMebibytes,
    /// Memory as a multiple and a power of two of MiB.
    MemoryScaled,
    /// Nanoseconds, lower half.
    TimeLow,
    /// Nanoseconds, upper half.
    TimeHigh,
}

/// What a write to a register does beyond being kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    None,
    /// A window shows what the page tables at this instance say, or nothing.
    Window(Window),
    /// What was read from page tables is to be forgotten.
    Invalidate,
}

/// The windows of memory that page tables translate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Window {
    /// BAR 1, which buffers are mapped through.
    Frame,
    /// BAR 3, called BAR2 in the driver: page tables and other structures.
    Instance,
}

/// A register: its offset, where it exists, its name, what it reads as, what a write does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Register {
    pub(super) offset: u64,
    generations: u8,
    pub(super) name: &'static str,
    pub(super) reads: Reads,
    pub(super) effect: Effect,
}

const fn register(
    offset: u64,
    generations: u8,
    name: &'static str,
    reads: Reads,
    effect: Effect,
) -> Register {
    Register { offset, generations, name, reads, effect }
}

use Effect::{Invalidate, None};
use Reads::{Constant, Written, WrittenOr, WrittenWithout};
use Window::{Frame, Instance};

/// The register map.
#[rustfmt::skip]
const MAP: [Register; 38] = [
    register(0x00_0000, ALL, "PMC.BOOT_0", Reads::Identity, None),
    register(0x00_0004, ALL, "PMC.BOOT_1: little-endian", Constant(0), None),
    register(0x00_1540, CURIE, "PMC.UNITS: one vertex and one pixel unit", Constant(0x101), None),
    register(PRAMIN_WINDOW, PAGED, "PBUS.PRAMIN_WINDOW", Written, None),
    register(0x00_1704, MAXWELL | PASCAL, "PBUS.BAR1_BLOCK", Written, Effect::Window(Frame)),
    register(0x00_1714, MAXWELL | PASCAL, "PBUS.BAR2_BLOCK", Written, Effect::Window(Instance)),
    register(0x00_2a78, PASCAL, "PFIFO.FAULT_BUFFER_SIZE: entries", Constant(0x100), None),
    register(0x00_9400, ALL, "PTIMER.TIME_LOW", Reads::TimeLow, None),
    register(0x00_9410, ALL, "PTIMER.TIME_HIGH", Reads::TimeHigh, None),
    register(0x02_240c, PAGED, "PTOP.DEVICE_INIT: done", Constant(2), None),
    register(0x02_2438, PAGED, "PTOP.FBP_COUNT", Constant(1), None),
    register(0x02_243c, PAGED, "PTOP.FBPA_COUNT", Constant(1), None),
    register(0x02_2450, PAGED, "PTOP.LTC_PER_FBP", Constant(1), None),
    register(0x02_2458, PAGED, "PTOP.FBPA_PER_FBP", Constant(1), None),
    register(0x10_020c, CURIE, "PFB.MEMORY_SIZE", Reads::MemoryBytes, None),
    register(0x10_0474, CURIE, "PFB.MEMORY_TYPE: DDR2", Constant(2), None),
    register(0x10_0808, CURIE, "PFB.GART_FLUSH: done", WrittenOr(1), None),
    register(MMU_CONTROL, PAGED, "PFB.MMU_CONTROL: room for invalidations, and none under way", WrittenOr(0x00ff_8000), None),
    register(MMU_PAGE_DIRECTORY, MAXWELL | PASCAL, "PFB.MMU_INVALIDATE_PDB", Written, None),
    register(0x10_0cbc, MAXWELL | PASCAL, "PFB.MMU_INVALIDATE", WrittenWithout(1 << 31), Invalidate),
    register(0x10_0ce0, PASCAL | TURING, "PFB.LOCAL_MEMORY_RANGE", Reads::MemoryScaled, None),
    register(MMU_PAGE_DIRECTORY_HIGH, PASCAL, "PFB.MMU_INVALIDATE_PDB_HIGH", Written, None),
    register(0x10_1000, ALL, "PEXTDEV.STRAP: a crystal of 25 MHz", Constant(0x0040_0040), None),
    register(0x10_a4d0, MAXWELL, "PMU.MESSAGE_0: the firmware has started", Constant(1), None),
    register(0x10_a4dc, MAXWELL, "PMU.MESSAGE_3: the firmware has started", Constant(1), None),
    register(0x11_020c, MAXWELL, "PFBPA.MEMORY_SIZE", Reads::MemoryMebibytes, None),
    register(0x11_8128, TURING, "PGC6.BOOT_STATUS: readable", Constant(1), None),
    register(0x11_8234, TURING, "PGC6.BOOT_PROGRESS: complete", Constant(0xff), None),
    register(0x12_006c, PAGED, "PRING.LTC_COUNT", Constant(1), None),
    register(0x17_e280, PAGED, "PLTC.SLICES: two", Constant(0x2000_0000), None),
    register(0x90_020c, PASCAL | TURING, "PFBPA.MEMORY_SIZE", Reads::MemoryMebibytes, None),
    register(0xb8_0f40, TURING, "PF.BAR1_BLOCK", Written, Effect::Window(Frame)),
    register(0xb8_0f48, TURING, "PF.BAR2_BLOCK", Written, Effect::Window(Instance)),
    register(0xb8_3010, TURING, "PF.FAULT_BUFFER_0_SIZE: entries", Constant(0x100), None),
    register(0xb8_3030, TURING, "PF.FAULT_BUFFER_1_SIZE: entries", Constant(0x100), None),
    register(PF_PAGE_DIRECTORY, TURING, "PF.MMU_INVALIDATE_PDB", Written, None),
    register(0xb8_30a4, TURING, "PF.MMU_INVALIDATE_PDB_HIGH", Written, None),
    register(0xb8_30b0, TURING, "PF.MMU_INVALIDATE", WrittenWithout(1 << 31), Invalidate),
];

/// Bits 16 on of the address in memory that `PRAMIN` shows.
pub(super) const PRAMIN_WINDOW: u64 = 0x00_1700;
/// Bit 0: large pages of 64 KiB, not of 128.
pub(super) const MMU_CONTROL: u64 = 0x10_0c80;
/// The page directory to invalidate: bits 12 to 39 of its address, from bit 4 on.
pub(super) const MMU_PAGE_DIRECTORY: u64 = 0x10_0cb8;
pub(super) const MMU_PAGE_DIRECTORY_HIGH: u64 = 0x10_0cec;
/// The page directory to invalidate: bits 8 on of its address.
pub(super) const PF_PAGE_DIRECTORY: u64 = 0xb8_30a0;

/// In a write to a register that invalidates: all page directories are meant.
pub(super) const INVALIDATE_ALL: u32 = 1 << 1;
/// In a register of a window: the window is translated. The lowest 28 bits are bits 12 on of the instance.
pub(super) const BLOCK_ENABLED: u32 = 1 << 31;
pub(super) const BLOCK_INSTANCE: u32 = (1 << 28) - 1;

/// Revision a1 of every part.
const REVISION: u32 = 0xa1;

/// The register at an offset.
pub(super) fn find(generation: Generation, offset: u64) -> Option<&'static Register> {
    let bit = match generation {
        Generation::Curie => CURIE,
        Generation::Maxwell => MAXWELL,
        Generation::Pascal => PASCAL,
        Generation::Turing => TURING,
    };
    // In the order of the offsets; where a register differs from one generation to the other, side by side.
    let first = MAP.partition_point(|register| register.offset < offset);
    let here = MAP[first..].iter().take_while(|register| register.offset == offset);
    here.into_iter().find(|register| register.generations & bit != 0)
}

/// The register that says where a window's page tables are.
pub(super) fn of_window(generation: Generation, window: Window) -> Option<&'static Register> {
    let offsets = MAP.iter().filter(|register| register.effect == Effect::Window(window));
    offsets.filter_map(|register| find(generation, register.offset)).next()
}

impl Register {
    /// The value that it reads as, of a part with `memory` bytes, when `written` was last written.
    pub(super) fn value(&self, chip: Chip, memory: u64, nanoseconds: u64, written: u32) -> u32 {
        let mebibytes = (memory >> 20) as u32;
        match self.reads {
            Constant(value) => value,
            Written => written,
            WrittenOr(bits) => written | bits,
            WrittenWithout(bits) => written & !bits,
            Reads::Identity => chip.chipset << 20 | REVISION,
            Reads::MemoryBytes => u32::try_from(memory).unwrap_or(0xff00_0000),
            Reads::MemoryMebibytes => mebibytes,
            // Bits 4 to 9: MiB; bits 0 to 3: shifted left by so many.
            Reads::MemoryScaled => 16 << 4 | (mebibytes / 16).checked_ilog2().unwrap_or(0),
            // The five lowest bits are not implemented.
            Reads::TimeLow => nanoseconds as u32 & !0x1f,
            Reads::TimeHigh => (nanoseconds >> 32) as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::Part;

    #[test]
    fn the_map_is_in_order() {
        assert!(MAP.is_sorted_by_key(|register| register.offset));
        for register in MAP {
            assert!(register.offset % 4 == 0 && !register.name.is_empty());
        }
    }

    #[test]
    fn values() {
        let value = |part, offset| {
            let chip = Chip::of(part);
            let register = find(chip.generation, offset).unwrap();
            register.value(chip, 256 << 20, 0x1_2345_678f, 0x10)
        };
        assert_eq!(value(Part::Nv44, 0), 0x0440_00a1);
        assert_eq!(value(Part::Gp107, 0), 0x1370_00a1);
        assert_eq!(value(Part::Nv44, 0x10_020c), 256 << 20);
        assert_eq!(value(Part::Gp107, 0x10_0ce0), 0x104);
        assert_eq!((value(Part::Nv44, 0x9400), value(Part::Nv44, 0x9410)), (0x2345_6780, 1));
        assert_eq!(value(Part::Gm107, MMU_CONTROL), 0x00ff_8010);
        assert!(find(Generation::Curie, MMU_CONTROL).is_none());
        assert_eq!(of_window(Generation::Turing, Window::Frame).unwrap().offset, 0xb8_0f40);
        assert!(of_window(Generation::Curie, Window::Frame).is_none());
    }
}
