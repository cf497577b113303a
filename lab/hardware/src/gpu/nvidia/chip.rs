//! The parts, and what tells them from one another.

use super::super::Part;

/// A line of parts whose registers and page tables are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Generation {
    /// NV4x: the window shows memory as it lies.
    Curie,
    /// GM10x: page tables of two levels, as from Fermi on.
    Maxwell,
    /// GP10x: page tables of five levels.
    Pascal,
    /// TU1xx: as Pascal; the registers of the windows are in the virtual function.
    Turing,
}

/// What is particular to one part.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chip {
    pub(super) generation: Generation,
    /// PCI device of a board with the part.
    pub(super) device: u16,
    /// The part's number in `PMC.BOOT_0`.
    pub(super) chipset: u32,
}

impl Chip {
    pub(super) fn of(part: Part) -> Chip {
        let (generation, device, chipset) = match part {
            Part::Nv44 => (Generation::Curie, 0x0161, 0x044),
            Part::Gm107 => (Generation::Maxwell, 0x1380, 0x117),
            Part::Tu117 => (Generation::Turing, 0x1f82, 0x167),
            // The others are not NVIDIA's, and come to their own models.
            _ => (Generation::Pascal, 0x1c82, 0x137),
        };
        Chip { generation, device, chipset }
    }
}

impl Generation {
    /// Bytes of the window through which the driver reaches its own structures in the GPU's memory.
    pub(super) fn instance_window(self) -> u64 {
        match self {
            Generation::Curie => 16 << 20,
            _ => 32 << 20,
        }
    }
}
