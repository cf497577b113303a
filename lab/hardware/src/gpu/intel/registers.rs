//! The registers of BAR 0.
//!
//! [`TABLE`] has those that are not an engine's own (see `engine`) and not part of the interrupt tree (see
//! `interrupts`). What is in neither is memory: it reads as written.

use std::sync::Arc;
use std::time::Instant;

use super::engine::{self, EngineIdentity};
use super::forcewake;
use super::guc;
use super::parts::PartFacts;
use crate::gpu::GpuConfig;
use crate::misuse::MisuseLog;
use crate::pci::PlainRegisters;

/// Bytes of registers in BAR 0; the page table of the global address space follows.
pub(super) const SIZE: u64 = 8 << 20;

/// Where registers are, in the names of `intel_gt_regs.h` and `xe_gt_regs.h` where these are clear.
pub(super) mod offsets {
    /// What the media unit of Battlemage has, it has at this distance.
    pub(crate) const MEDIA: u64 = 0x38_0000;
    /// GMD_ID: architecture << 22, release << 14, revision.
    pub(crate) const IP_VERSION: u64 = 0xd8c;
    /// STEER_SEMAPHORE, from 20.0 on: reads as 1 when the reader got it.
    pub(crate) const STEERING_SEMAPHORE: u64 = 0xfd0;
    /// XEHP_TILE0_ADDR_RANGE: GiB of memory << 8.
    pub(crate) const TILE_RANGE: u64 = 0x4900;
    /// XEHP_FLAT_CCS_BASE_ADDR: where compression metadata begins, in 64 KiB, << 8.
    pub(crate) const FLAT_CCS_BASE: u64 = 0x4910;
    pub(crate) const FUSE_4: u64 = 0x9114;
    pub(crate) const MIRROR_FUSE_3: u64 = 0x9118;
    pub(crate) const FUSE_2: u64 = 0x9120;
    pub(crate) const PRODUCTION_HARDWARE: u32 = 1 << 2;
    /// Execution units of a sub-slice; until 12.10 those that are missing.
    pub(crate) const EU_ENABLE: u64 = 0x9134;
    pub(crate) const SLICE_ENABLE: u64 = 0x9138;
    pub(crate) const GEOMETRY_DSS_ENABLE: u64 = 0x913c;
    /// GT_VEBOX_VDBOX_DISABLE: until 12.10 the engines that are missing, later those that are there.
    pub(crate) const MEDIA_ENGINES: u64 = 0x9140;
    pub(crate) const COMPUTE_DSS_ENABLE: u64 = 0x9144;
    /// GDRST: domains to reset.
    pub(crate) const RESET: u64 = 0x941c;
    pub(crate) const RESET_ALL: u32 = 1 << 0;
    pub(crate) const RESET_GUC: u32 = 1 << 3;
    /// SKL_DFSM.
    pub(crate) const DISPLAY_FUSES: u64 = 0x5_1000;
    pub(crate) const DISPLAY_PIPES_DISABLED: u32 = 1 << 30 | 1 << 28 | 1 << 22 | 1 << 21;
    /// GU_CNTL_PROTECTED: bit 9 would tell of a display.
    pub(crate) const DISPLAY_PRESENT: u64 = 0x10_100c;
    /// GU_CNTL.
    pub(crate) const MEMORY_STATUS: u64 = 0x10_1010;
    pub(crate) const MEMORY_READY: u32 = 1 << 7;
    /// GEN6_DSMBASE: where memory set aside for the firmware's display begins, 64 bits.
    pub(crate) const STOLEN_BASE: u64 = 0x10_80c0;
    /// GEN6_GSMBASE: end of the memory that drivers may use, 64 bits.
    pub(crate) const USABLE_END: u64 = 0x10_8100;
    /// GEN6_STOLEN_RESERVED: base and size of what the hardware needs of the stolen memory, 64 bits.
    pub(crate) const STOLEN_RESERVED: u64 = 0x10_82c0;
    /// SG_TILE_ADDR_RANGE(0): as [`TILE_RANGE`], of the system agent.
    pub(crate) const AGENT_TILE_RANGE: u64 = 0x10_83a0;
    /// Four words each: state, mask, identity (GU_MISC_IIR and the like; a written 1 clears) and enable.
    pub(crate) const PCU_INTERRUPTS: u64 = 0x4_44e0;
    /// GEN6_PCODE_MAILBOX.
    pub(crate) const PCODE_MAILBOX: u64 = 0x13_8124;
    pub(crate) const PCODE_BUSY: u32 = 1 << 31;
    /// DG1_PCODE_STATUS: asks whether the firmware has done its part of the set-up.
    pub(crate) const PCODE_STATUS: u32 = 0x7e;
    /// GEN6_PCODE_DATA.
    pub(crate) const PCODE_DATA: u64 = 0x13_8128;
}

/// How fast the GPU can be, in units of 50/3 MHz: 2.4 GHz and 400 MHz.
pub(super) mod frequency {
    pub(crate) const HIGHEST: u32 = 144;
    pub(crate) const LOWEST: u32 = 24;
    /// Highest, middle and lowest, in units of 50 MHz.
    pub(crate) const IN_50_MHZ: u32 = (HIGHEST / 3) | (HIGHEST / 6) << 8 | (LOWEST / 3) << 16;
}

use offsets::*;

/// What a register does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Reads always as this.
    Fixed(u32),
    /// Keeps what is written.
    Kept,
    /// The upper half of a write tells which bits of the lower half change.
    Masked,
    /// Keeps what is written; bit 0 then says that it is locked.
    Locked,
    /// What a write asks for (or clears) is done before the driver looks: reads as 0.
    DoneAtOnce,
}

/// Registers that are alike in all parts: offset, how many words, what they do.
const TABLE: [(u64, u64, Kind); 35] = [
    // Interrupts of the power controller and of the graphics unit: those that there are, and those of them
    // that the driver wants; none ever is.
    (PCU_INTERRUPTS + 4, 1, Kind::Kept),
    (PCU_INTERRUPTS + 8, 1, Kind::DoneAtOnce),
    (PCU_INTERRUPTS + 12, 2, Kind::Kept),
    (PCU_INTERRUPTS + 0x14, 1, Kind::Kept),
    (PCU_INTERRUPTS + 0x18, 1, Kind::DoneAtOnce),
    (PCU_INTERRUPTS + 0x1c, 1, Kind::Kept),
    // Fences: tiled parts of the aperture.
    (0x10_0000, 64, Kind::Kept),
    // RP_STATE_CAP, MTL_RP_STATE_CAP, and the frequencies to prefer.
    (0x14_5998, 1, Kind::Fixed(frequency::IN_50_MHZ)),
    (0x13_8000, 1, Kind::Fixed(frequency::HIGHEST | frequency::LOWEST << 16)),
    (0x13_8008, 1, Kind::Fixed(frequency::HIGHEST)),
    (0x13_800c, 1, Kind::Fixed(frequency::LOWEST)),
    // MCR_SELECTOR, SF_MCR_SELECTOR: which instance of a replicated register is meant.
    (0xfd4, 4, Kind::Kept),
    // Memory object control state (MOCS) of the engines and the L3 cache.
    (0x4000, 64, Kind::Kept),
    (0xb020, 32, Kind::Kept),
    // Page attribute table (PAT).
    (0x4800, 32, Kind::Kept),
    (0x47a0, 24, Kind::Kept),
    // AUX_INV of the engine classes: invalidates the tables of compression metadata.
    (0x4208, 1, Kind::DoneAtOnce),
    (0x4218, 1, Kind::DoneAtOnce),
    (0x4238, 1, Kind::DoneAtOnce),
    (0x4248, 1, Kind::DoneAtOnce),
    // Translation look-aside buffers: invalidation by engine class.
    (0xced8, 10, Kind::DoneAtOnce),
    (0xcee8, 1, Kind::DoneAtOnce),
    (0xcf04, 1, Kind::DoneAtOnce),
    (0xcf7c, 1, Kind::DoneAtOnce),
    (RESET, 1, Kind::DoneAtOnce),
    (MEDIA + RESET, 1, Kind::DoneAtOnce),
    (guc::STATUS, 1, Kind::Kept),
    (guc::HUC_STATUS, 1, Kind::Kept),
    (guc::WOPCM_SIZE, 1, Kind::Locked),
    (guc::WOPCM_OFFSET, 1, Kind::Locked),
    (guc::DMA_CONTROL, 1, Kind::DoneAtOnce),
    (guc::DOORBELL, 1, Kind::DoneAtOnce),
    (guc::SCRATCH, 4, Kind::Kept),
    (DISPLAY_PRESENT, 1, Kind::Fixed(0)),
    (PCODE_DATA, 1, Kind::Kept),
];

/// The register file.
pub(super) struct Registers {
    words: PlainRegisters,
    /// What this part has besides [`TABLE`], by offset.
    facts: Vec<(u64, u32)>,
    engines: &'static [EngineIdentity],
    start: Instant,
}

impl Registers {
    pub(super) fn new(part: &PartFacts, config: &GpuConfig, name: &str, log: Arc<MisuseLog>) -> Registers {
        let mut facts = part.fuses.to_vec();
        if part.discrete {
            facts.extend(memory_facts(part, config.vram));
        }
        let words = PlainRegisters::new(name, SIZE, log);
        Registers { words, facts, engines: part.engines, start: Instant::now() }
    }

    /// Back to the values after power-on.
    pub(super) fn reset(&mut self) {
        self.words.clear();
    }

    fn kind(&self, offset: u64) -> Option<Kind> {
        if let Some((_, value)) = self.facts.iter().find(|(at, _)| *at == offset) {
            return Some(Kind::Fixed(*value));
        }
        let in_table = |(at, count, _): &&(u64, u64, Kind)| (*at..at + count * 4).contains(&offset);
        if let Some((.., kind)) = TABLE.iter().find(in_table) {
            return Some(*kind);
        }
        if forcewake::is_request(offset) {
            return Some(Kind::Masked);
        }
        if forcewake::is_acknowledgement(offset) {
            return Some(Kind::Kept);
        }
        engine::register_of(self.engines, offset).and_then(|(_, register)| engine::kind(register))
    }

    /// What the driver, or an engine for it, reads.
    pub(super) fn read(&mut self, offset: u64) -> u32 {
        if let Some((_, register)) = engine::register_of(self.engines, offset)
            && let Some(half) = engine::timestamp_half(register)
        {
            return (self.ticks() >> (32 * half)) as u32;
        }
        match self.kind(offset) {
            Some(Kind::Fixed(value)) => value,
            Some(Kind::DoneAtOnce) => 0,
            Some(Kind::Kept | Kind::Masked | Kind::Locked) => self.words.get(offset),
            None if offset == PCODE_MAILBOX => self.words.get(offset),
            None => self.words.read_unknown(offset),
        }
    }

    /// What the driver, or an engine for it, writes. Effects beyond the register file are the caller's.
    pub(super) fn write(&mut self, offset: u64, value: u32) {
        if offset == PCODE_MAILBOX {
            return self.pcode(value);
        }
        match self.kind(offset) {
            Some(Kind::Fixed(_) | Kind::DoneAtOnce) => {}
            Some(Kind::Kept) => self.words.set(offset, value),
            Some(Kind::Locked) => self.words.set(offset, value | 1),
            Some(Kind::Masked) => {
                let mask = value >> 16;
                let new = self.words.get(offset) & !mask | value & mask;
                self.words.set(offset, new);
                for acknowledgement in forcewake::acknowledgements(offset) {
                    self.words.set(acknowledgement, new);
                }
            }
            None => self.words.write_unknown(offset, value),
        }
    }

    /// Sets a register on the device's side.
    pub(super) fn set(&mut self, offset: u64, value: u32) {
        self.words.set(offset, value);
    }

    /// A word of the register file as it is kept.
    pub(super) fn get(&self, offset: u64) -> u32 {
        self.words.get(offset)
    }

    /// The power controller answers every command at once, and all it is asked to do is done.
    fn pcode(&mut self, command: u32) {
        if command & 0xff == PCODE_STATUS {
            self.words.set(PCODE_DATA, self.words.get(PCODE_DATA) | 1);
        }
        self.words.set(PCODE_MAILBOX, command & !(PCODE_BUSY | 0xff));
    }

    /// The clock of the command streamers: 19.2 MHz.
    pub(super) fn ticks(&self) -> u64 {
        (self.start.elapsed().as_nanos() * 192 / 10_000) as u64
    }
}

/// Memory at the end of a discrete part that drivers may not use: the firmware's display memory, the page
/// table of the global address space and what the hardware needs.
const STOLEN: u64 = 8 << 20;
const NOT_USABLE: u64 = 16 << 20;

/// Where a discrete part's memory ends, and what of it is set aside.
fn memory_facts(part: &PartFacts, size: u64) -> Vec<(u64, u32)> {
    // A memory that is no whole number of GiB ends in nothing, and nothing of that is stolen.
    let whole = if part.memory_in_gibibytes { size.next_multiple_of(1 << 30) } else { size };
    let usable = size - NOT_USABLE;
    let stolen = if whole == size { size - STOLEN } else { whole - (1 << 20) };
    let range = (whole >> 30 << 8) as u32;
    let wide = |at: u64, value: u64| [(at, value as u32), (at + 4, (value >> 32) as u32)];
    let mut facts = vec![
        (MEMORY_STATUS, MEMORY_READY),
        (TILE_RANGE, range),
        (AGENT_TILE_RANGE, range),
        (FLAT_CCS_BASE, if part.flat_ccs { ((usable >> 16) << 8) as u32 } else { 0 }),
    ];
    facts.extend(wide(USABLE_END, usable));
    facts.extend(wide(STOLEN_BASE, stolen));
    facts.extend(wide(STOLEN_RESERVED, whole - (1 << 20)));
    facts
}
