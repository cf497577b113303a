//! The register map.
//!
//! Registers are 32-bit words, named as in the kernel's headers (`bif_3_0_d.h`, `gmc_6_0_d.h`, `oss_1_0_d.h`,
//! `gfx_6_0_d.h`, `sid.h`). [`MAP`] lists those that the model knows: what they read as after a reset, and
//! what else they do. All others read as what was written last, which is all that the driver needs of them.

/// Numbers of the registers that the model knows.
pub(super) mod word {
    /// Which part of VRAM `MM_DATA` is, with bit 31 set; reaches what the window does not show.
    pub(crate) const MM_INDEX: u32 = 0x0000;
    pub(crate) const MM_DATA: u32 = 0x0001;
    /// Address bits from 31 on.
    pub(crate) const MM_INDEX_HI: u32 = 0x0006;
    /// Registers of the PCI Express core, of its port, and of the system management controller.
    pub(crate) const PCIE_INDEX: u32 = 0x000c;
    pub(crate) const PCIE_DATA: u32 = 0x000d;
    pub(crate) const PCIE_PORT_INDEX: u32 = 0x000e;
    pub(crate) const PCIE_PORT_DATA: u32 = 0x000f;
    pub(crate) const SMC_IND_INDEX_0: u32 = 0x0080;
    pub(crate) const SMC_IND_DATA_0: u32 = 0x0081;
    /// The image of the video BIOS, word by word.
    pub(crate) const ROM_INDEX: u32 = 0x002a;
    pub(crate) const ROM_DATA: u32 = 0x002b;

    /// What is busy: nothing ever is, since work is done before a write returns. `SRBM_STATUS` follows it.
    pub(crate) const SRBM_STATUS2: u32 = 0x0393;
    pub(crate) const GRBM_STATUS: u32 = 0x2004;

    /// Page tables: context 0 is the GART, contexts 1 to 15 those of processes; 1 stands for them all where
    /// there is no register of each.
    pub(crate) const VM_CONTEXT0_CNTL: u32 = 0x0504;
    pub(crate) const VM_CONTEXT1_CNTL: u32 = 0x0505;
    /// Bit 0 forgets the fault that the two registers below tell of.
    pub(crate) const VM_CONTEXT1_CNTL2: u32 = 0x050d;
    pub(crate) const VM_CONTEXT1_PROTECTION_FAULT_STATUS: u32 = 0x0537;
    pub(crate) const VM_CONTEXT1_PROTECTION_FAULT_ADDR: u32 = 0x053f;
    /// Of contexts 8 to 15, one word each.
    pub(crate) const VM_CONTEXT8_PAGE_TABLE_BASE_ADDR: u32 = 0x050e;
    /// Of contexts 0 to 7, one word each.
    pub(crate) const VM_CONTEXT0_PAGE_TABLE_BASE_ADDR: u32 = 0x054f;
    pub(crate) const VM_CONTEXT0_PAGE_TABLE_START_ADDR: u32 = 0x0557;
    pub(crate) const VM_CONTEXT1_PAGE_TABLE_START_ADDR: u32 = 0x0558;
    pub(crate) const VM_CONTEXT0_PAGE_TABLE_END_ADDR: u32 = 0x055f;
    pub(crate) const VM_CONTEXT1_PAGE_TABLE_END_ADDR: u32 = 0x0560;
    /// Page tables are read afresh for each access, so that this is always done.
    pub(crate) const VM_INVALIDATE_REQUEST: u32 = 0x051e;

    /// How many channels of memory there are, and how wide they are.
    pub(crate) const MC_SHARED_CHMAP: u32 = 0x0801;
    pub(crate) const MC_ARB_RAMCFG: u32 = 0x09d8;
    /// First and last 16 MiB of VRAM in the addresses of the memory controller.
    pub(crate) const MC_VM_FB_LOCATION: u32 = 0x0809;
    /// First and last page that is not translated for context 0.
    pub(crate) const MC_VM_SYSTEM_APERTURE_LOW_ADDR: u32 = 0x080d;
    pub(crate) const MC_VM_SYSTEM_APERTURE_HIGH_ADDR: u32 = 0x080e;
    /// Whether microcode runs on the memory controller: the driver then loads none.
    pub(crate) const MC_SEQ_SUP_CNTL: u32 = 0x0a32;
    /// Memory training is done.
    pub(crate) const MC_SEQ_TRAIN_WAKEUP_CNTL: u32 = 0x0a3a;
    /// What kind of memory there is.
    pub(crate) const MC_SEQ_MISC0: u32 = 0x0a80;
    /// MiB of VRAM; not 0 says that the part has been set up.
    pub(crate) const CONFIG_MEMSIZE: u32 = 0x150a;

    /// The interrupt ring.
    pub(crate) const IH_RB_CNTL: u32 = 0x0f80;
    pub(crate) const IH_RB_BASE: u32 = 0x0f81;
    pub(crate) const IH_RB_RPTR: u32 = 0x0f82;
    pub(crate) const IH_RB_WPTR: u32 = 0x0f83;
    pub(crate) const IH_RB_WPTR_ADDR_HI: u32 = 0x0f84;
    pub(crate) const IH_RB_WPTR_ADDR_LO: u32 = 0x0f85;
    pub(crate) const IH_CNTL: u32 = 0x0f86;

    /// For tests of the rings.
    pub(crate) const SCRATCH_REG0: u32 = 0x2140;
    /// Halts the processors of the command processor.
    pub(crate) const CP_ME_CNTL: u32 = 0x21b6;
    pub(crate) const CP_RB2_RPTR: u32 = 0x21be;
    pub(crate) const CP_RB1_RPTR: u32 = 0x21bf;
    pub(crate) const CP_RB0_RPTR: u32 = 0x21c0;
    /// Ring 0, for graphics.
    pub(crate) const CP_RB0_BASE: u32 = 0x3040;
    pub(crate) const CP_RB0_CNTL: u32 = 0x3041;
    pub(crate) const CP_RB0_RPTR_ADDR: u32 = 0x3043;
    pub(crate) const CP_RB0_RPTR_ADDR_HI: u32 = 0x3044;
    pub(crate) const CP_RB0_WPTR: u32 = 0x3045;
    /// Rings 1 and 2, for compute.
    pub(crate) const CP_RB1_BASE: u32 = 0x3060;
    pub(crate) const CP_RB1_CNTL: u32 = 0x3061;
    pub(crate) const CP_RB1_RPTR_ADDR: u32 = 0x3062;
    pub(crate) const CP_RB1_RPTR_ADDR_HI: u32 = 0x3063;
    pub(crate) const CP_RB1_WPTR: u32 = 0x3064;
    pub(crate) const CP_RB2_BASE: u32 = 0x3065;
    pub(crate) const CP_RB2_CNTL: u32 = 0x3066;
    pub(crate) const CP_RB2_RPTR_ADDR: u32 = 0x3067;
    pub(crate) const CP_RB2_RPTR_ADDR_HI: u32 = 0x3068;
    pub(crate) const CP_RB2_WPTR: u32 = 0x3069;
    /// Which events of a ring interrupt; one word for each of the three rings.
    pub(crate) const CP_INT_CNTL_RING0: u32 = 0x306a;

    /// The clock counter, as of the last write to the register that captures it.
    pub(crate) const RLC_GPU_CLOCK_COUNT_LSB: u32 = 0x30ce;
    pub(crate) const RLC_GPU_CLOCK_COUNT_MSB: u32 = 0x30cf;
    pub(crate) const RLC_CAPTURE_GPU_CLOCK_COUNT: u32 = 0x30d0;
    /// Whether clock and power of the graphics part are on: both are, and nothing is busy.
    pub(crate) const RLC_STAT: u32 = 0x30d3;

    /// The first of two asynchronous DMA engines; the second is [`DMA_INSTANCE`] further on.
    pub(crate) const DMA_GFX_RB_CNTL: u32 = 0x3400;
    pub(crate) const DMA_GFX_RB_BASE: u32 = 0x3401;
    pub(crate) const DMA_GFX_RB_RPTR: u32 = 0x3402;
    pub(crate) const DMA_GFX_RB_WPTR: u32 = 0x3403;
    pub(crate) const DMA_GFX_RB_RPTR_ADDR_HI: u32 = 0x3407;
    pub(crate) const DMA_GFX_RB_RPTR_ADDR_LO: u32 = 0x3408;
    /// Which events of the engine interrupt.
    pub(crate) const DMA_CNTL: u32 = 0x340b;
    pub(crate) const DMA_INSTANCE: u32 = 0x200;
}

/// What happens when the driver uses a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behaviour {
    /// Reads as written; the model looks at it.
    Plain,
    /// Reads as the model wants, whatever is written.
    Constant,
    /// What the register before it selects, in a space of registers of its own.
    Data(Space),
    /// Reads as written, and a write sets something going.
    Effect(Effect),
}

/// What lies behind a pair of registers, index and data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Space {
    /// The PCI Express core.
    PciExpress,
    /// The port of the PCI Express core.
    PciExpressPort,
    /// The system management controller.
    SystemManagement,
    /// The video BIOS; the index moves on with each read.
    Rom,
    /// VRAM.
    VideoMemory,
}

/// What a write sets going.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// There may be packets in a ring of the command processor, by its number.
    CommandProcessor(usize),
    /// A ring of the command processor is set up.
    CommandProcessorSetUp(usize),
    /// The command processor is halted, or goes on.
    CommandProcessorHalt,
    /// There may be packets in the ring of a DMA engine, by its number.
    DmaEngine(usize),
    /// The interrupt ring is set up.
    InterruptRing,
    /// The driver has taken entries from the interrupt ring.
    InterruptsTaken,
    /// The driver wants to hear of the next fault.
    FaultForgotten,
    /// The clock counter is captured.
    Clock,
}

use Behaviour::{Constant, Data, Plain};
use word::*;

/// An entry of the map: the first register, how many there are in a row, what they read as after a reset,
/// what they do.
type Entry = (u32, u32, u32, Behaviour);

/// The map, in the order of the numbers.
pub(super) const MAP: [Entry; 61] = [
    (MM_INDEX, 1, 0, Plain),
    (MM_DATA, 1, 0, Data(Space::VideoMemory)),
    (MM_INDEX_HI, 1, 0, Plain),
    (PCIE_INDEX, 1, 0, Plain),
    (PCIE_DATA, 1, 0, Data(Space::PciExpress)),
    (PCIE_PORT_INDEX, 1, 0, Plain),
    (PCIE_PORT_DATA, 1, 0, Data(Space::PciExpressPort)),
    (ROM_INDEX, 1, 0, Plain),
    (ROM_DATA, 1, 0, Data(Space::Rom)),
    (SMC_IND_INDEX_0, 1, 0, Plain),
    (SMC_IND_DATA_0, 1, 0, Data(Space::SystemManagement)),
    (SRBM_STATUS2, 2, 0, Constant),
    (VM_CONTEXT0_CNTL, 2, 0, Plain),
    (VM_CONTEXT1_CNTL2, 1, 0, Behaviour::Effect(Effect::FaultForgotten)),
    (VM_CONTEXT8_PAGE_TABLE_BASE_ADDR, 8, 0, Plain),
    (VM_INVALIDATE_REQUEST, 1, 0, Constant),
    (VM_CONTEXT1_PROTECTION_FAULT_STATUS, 1, 0, Constant),
    (VM_CONTEXT1_PROTECTION_FAULT_ADDR, 1, 0, Constant),
    (VM_CONTEXT0_PAGE_TABLE_BASE_ADDR, 8, 0, Plain),
    (VM_CONTEXT0_PAGE_TABLE_START_ADDR, 2, 0, Plain),
    (VM_CONTEXT0_PAGE_TABLE_END_ADDR, 2, 0, Plain),
    // Two channels of 64 bits.
    (MC_SHARED_CHMAP, 1, 0x1000, Constant),
    (MC_VM_FB_LOCATION, 1, 0, Constant),
    (MC_VM_SYSTEM_APERTURE_LOW_ADDR, 2, 0, Plain),
    (MC_ARB_RAMCFG, 1, 0x100, Constant),
    (MC_SEQ_SUP_CNTL, 1, 0x1, Constant),
    (MC_SEQ_TRAIN_WAKEUP_CNTL, 1, 0xc000_0000, Constant),
    // GDDR5.
    (MC_SEQ_MISC0, 1, 0x5000_0000, Constant),
    (IH_RB_CNTL, 1, 0, Behaviour::Effect(Effect::InterruptRing)),
    (IH_RB_BASE, 1, 0, Plain),
    (IH_RB_RPTR, 1, 0, Behaviour::Effect(Effect::InterruptsTaken)),
    (IH_RB_WPTR, 4, 0, Plain),
    (CONFIG_MEMSIZE, 1, 0, Constant),
    (GRBM_STATUS, 1, 0, Constant),
    (SCRATCH_REG0, 1, 0, Plain),
    (CP_ME_CNTL, 1, 0, Behaviour::Effect(Effect::CommandProcessorHalt)),
    (CP_RB2_RPTR, 3, 0, Plain),
    (CP_RB0_BASE, 1, 0, Plain),
    (CP_RB0_CNTL, 1, 0, Behaviour::Effect(Effect::CommandProcessorSetUp(0))),
    (CP_RB0_RPTR_ADDR, 2, 0, Plain),
    (CP_RB0_WPTR, 1, 0, Behaviour::Effect(Effect::CommandProcessor(0))),
    (CP_RB1_BASE, 1, 0, Plain),
    (CP_RB1_CNTL, 1, 0, Behaviour::Effect(Effect::CommandProcessorSetUp(1))),
    (CP_RB1_RPTR_ADDR, 2, 0, Plain),
    (CP_RB1_WPTR, 1, 0, Behaviour::Effect(Effect::CommandProcessor(1))),
    (CP_RB2_BASE, 1, 0, Plain),
    (CP_RB2_CNTL, 1, 0, Behaviour::Effect(Effect::CommandProcessorSetUp(2))),
    (CP_RB2_RPTR_ADDR, 2, 0, Plain),
    (CP_RB2_WPTR, 1, 0, Behaviour::Effect(Effect::CommandProcessor(2))),
    (CP_INT_CNTL_RING0, 3, 0, Plain),
    (RLC_GPU_CLOCK_COUNT_LSB, 2, 0, Constant),
    (RLC_CAPTURE_GPU_CLOCK_COUNT, 1, 0, Behaviour::Effect(Effect::Clock)),
    (RLC_STAT, 1, 0x6, Constant),
    (DMA_GFX_RB_CNTL, 1, 0, Behaviour::Effect(Effect::DmaEngine(0))),
    (DMA_GFX_RB_BASE, 2, 0, Plain),
    (DMA_GFX_RB_WPTR, 1, 0, Behaviour::Effect(Effect::DmaEngine(0))),
    (DMA_GFX_RB_RPTR_ADDR_HI, 5, 0, Plain),
    (DMA_GFX_RB_CNTL + DMA_INSTANCE, 1, 0, Behaviour::Effect(Effect::DmaEngine(1))),
    (DMA_GFX_RB_BASE + DMA_INSTANCE, 2, 0, Plain),
    (DMA_GFX_RB_WPTR + DMA_INSTANCE, 1, 0, Behaviour::Effect(Effect::DmaEngine(1))),
    (DMA_GFX_RB_RPTR_ADDR_HI + DMA_INSTANCE, 5, 0, Plain),
];

/// What a register does; `None` for one that the model does not know.
pub(super) fn behaviour(number: u32) -> Option<Behaviour> {
    let after = MAP.partition_point(|(first, ..)| *first <= number);
    let (first, count, _, behaviour) = MAP.get(after.checked_sub(1)?)?;
    (number - first < *count).then_some(*behaviour)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_is_in_the_order_of_the_registers() {
        for pair in MAP.windows(2) {
            assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{:#x} overlaps {:#x}", pair[0].0, pair[1].0);
        }
    }

    #[test]
    fn registers_in_a_row_behave_alike() {
        assert_eq!(behaviour(VM_CONTEXT0_PAGE_TABLE_BASE_ADDR + 7), Some(Plain));
        assert_eq!(behaviour(VM_CONTEXT8_PAGE_TABLE_BASE_ADDR + 8), None);
        assert_eq!(behaviour(SRBM_STATUS2 + 1), Some(Constant));
        assert_eq!(behaviour(SRBM_STATUS2 + 2), None);
        assert_eq!(behaviour(DMA_CNTL), Some(Plain));
        assert_eq!(behaviour(u32::MAX), None);
    }
}
