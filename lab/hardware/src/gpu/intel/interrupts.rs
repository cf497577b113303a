//! The tree of interrupts: what engines and the microcontroller raise, in two words by engine; above them the
//! master, and on discrete parts the tile above that. One message for all of it.
//!
//! A handler switches the top off, reads which words have something, then for each engine selects it, reads
//! what it raised (which clears that), acknowledges the engine's bit in the word, and switches the top on.
//! What is raised meanwhile is told by a new message.

use super::engine::{Class, EngineIdentity};
use super::guc::GUC;

/// Registers of the tree (`intel_gt_regs.h`, `xe_irq_regs.h`).
pub(super) mod offsets {
    /// DG1_MSTR_TILE_INTR.
    pub(crate) const TILE: u64 = 0x19_0008;
    /// GEN11_GFX_MSTR_IRQ.
    pub(crate) const MASTER: u64 = 0x19_0010;
    /// GEN11_GT_INTR_DW(0) and (1).
    pub(crate) const WORDS: u64 = 0x19_0018;
    /// GEN11_RENDER_COPY_INTR_ENABLE, and the first after those of the other classes.
    pub(crate) const ENABLE: u64 = 0x19_0030;
    pub(crate) const ENABLE_VIDEO: u64 = 0x19_0034;
    pub(crate) const ENABLE_GUC: u64 = 0x19_0038;
    pub(crate) const ENABLE_COMPUTE: u64 = 0x19_0048;
    pub(crate) const ENABLE_END: u64 = 0x19_0050;
    /// GEN11_INTR_IDENTITY_REG(0) and (1).
    pub(crate) const IDENTITY: u64 = 0x19_0060;
    /// GEN11_IIR_REG_SELECTOR(0) and (1).
    pub(crate) const SELECTOR: u64 = 0x19_0070;
    /// GEN11_RCS0_RSVD_INTR_MASK, and the first after those of the other engines.
    pub(crate) const MASK: u64 = 0x19_0090;
    pub(crate) const MASK_COPY: u64 = 0x19_00a0;
    pub(crate) const MASK_VIDEO: u64 = 0x19_00a8;
    pub(crate) const MASK_ENHANCE: u64 = 0x19_00d0;
    pub(crate) const MASK_GUC: u64 = 0x19_00e8;
    pub(crate) const MASK_COMPUTE: u64 = 0x19_0100;
    pub(crate) const MASK_COPY_8: u64 = 0x19_011c;
    pub(crate) const MASK_END: u64 = 0x19_0120;
}

use offsets::*;

const ENABLES: usize = ((ENABLE_END - ENABLE) / 4) as usize;
const MASKS: usize = ((MASK_END - MASK) / 4) as usize;

/// Switches the top of the tree on.
const TOP_ENABLE: u32 = 1 << 31;
/// An identity is valid.
const VALID: u32 = 1 << 31;

/// What engines raise.
pub(super) mod cause {
    /// MI_USER_INTERRUPT.
    pub(crate) const USER: u16 = 1 << 0;
    /// A context was switched away from.
    pub(crate) const CONTEXT_SWITCH: u16 = 1 << 8;
}

/// One engine's place in the tree.
#[derive(Clone, Debug)]
struct Leaf {
    engine: EngineIdentity,
    word: usize,
    bit: u32,
    raised: u16,
}

/// The tree.
pub(super) struct Interrupts {
    /// Which register is the top.
    top: u64,
    enabled: bool,
    leaves: Vec<Leaf>,
    words: [u32; 2],
    identities: [u32; 2],
    /// Registers of enable and mask bits.
    enables: [u32; ENABLES],
    masks: [u32; MASKS],
    /// Whether a message was sent for what is pending.
    told: bool,
}

impl Interrupts {
    pub(super) fn new(engines: &[EngineIdentity], tile: bool) -> Interrupts {
        let leaf = |engine: &EngineIdentity| {
            let (word, bit) = place(*engine);
            Leaf { engine: *engine, word, bit, raised: 0 }
        };
        Interrupts {
            top: if tile { TILE } else { MASTER },
            enabled: false,
            leaves: engines.iter().chain([&GUC]).map(leaf).collect(),
            words: [0; 2],
            identities: [0; 2],
            enables: [0; ENABLES],
            masks: [0; MASKS],
            told: false,
        }
    }

    /// Whether a register is of the tree.
    pub(super) fn has(offset: u64) -> bool {
        matches!(offset, TILE | MASTER)
            || pair(offset, WORDS).or(pair(offset, IDENTITY)).or(pair(offset, SELECTOR)).is_some()
            || (ENABLE..ENABLE_END).contains(&offset)
            || (MASK..MASK_END).contains(&offset)
    }

    pub(super) fn read(&self, offset: u64) -> u32 {
        let words = (0..2).filter(|word| self.words[*word] != 0).fold(0, |bits, word| bits | 1 << word);
        let enabled = |is_top: bool| if is_top && self.enabled { TOP_ENABLE } else { 0 };
        match offset {
            TILE => enabled(self.top == TILE) | u32::from(words != 0),
            MASTER => enabled(self.top == MASTER) | words,
            ENABLE..ENABLE_END => self.enables[((offset - ENABLE) / 4) as usize],
            MASK..MASK_END => self.masks[((offset - MASK) / 4) as usize],
            _ => match (pair(offset, WORDS), pair(offset, IDENTITY)) {
                (Some(index), _) => self.words[index],
                (_, Some(index)) => self.identities[index],
                _ => 0,
            },
        }
    }

    pub(super) fn write(&mut self, offset: u64, value: u32) {
        match offset {
            TILE | MASTER if offset == self.top => {
                self.enabled = value & TOP_ENABLE != 0;
            }
            ENABLE..ENABLE_END => self.enables[((offset - ENABLE) / 4) as usize] = value,
            MASK..MASK_END => self.masks[((offset - MASK) / 4) as usize] = value,
            _ => {
                if let Some(index) = pair(offset, SELECTOR) {
                    self.select(index, value);
                } else if let Some(index) = pair(offset, IDENTITY) {
                    self.identities[index] = 0;
                } else if let Some(index) = pair(offset, WORDS) {
                    self.acknowledge(index, value);
                }
            }
        }
    }

    /// Shows what an engine raised, and clears it.
    fn select(&mut self, word: usize, bits: u32) {
        self.identities[word] = 0;
        let selected = |leaf: &&mut Leaf| leaf.word == word && bits & 1 << leaf.bit != 0 && leaf.raised != 0;
        if let Some(leaf) = self.leaves.iter_mut().find(selected) {
            let (class, instance) = (leaf.engine.class as u32, u32::from(leaf.engine.instance));
            self.identities[word] = VALID | instance << 20 | class << 16 | u32::from(leaf.raised);
            leaf.raised = 0;
        }
    }

    /// Clears bits of a word, except of engines that raised something again.
    fn acknowledge(&mut self, word: usize, bits: u32) {
        self.words[word] &= !bits;
        for leaf in self.leaves.iter().filter(|leaf| leaf.word == word && leaf.raised != 0) {
            self.words[word] |= 1 << leaf.bit;
        }
    }

    /// An engine raises what is neither disabled nor masked of `causes`.
    pub(super) fn raise(&mut self, engine: EngineIdentity, causes: u16) {
        let ((enable, enable_high), (mask, mask_high)) = controls(engine);
        let half = |word: u32, high: bool| (if high { word >> 16 } else { word }) as u16;
        let enabled = half(self.enables[((enable - ENABLE) / 4) as usize], enable_high);
        let masked = half(self.masks[((mask - MASK) / 4) as usize], mask_high);
        let causes = causes & enabled & !masked;
        if causes == 0 {
            return;
        }
        if let Some(leaf) = self.leaves.iter_mut().find(|leaf| leaf.engine == engine) {
            leaf.raised |= causes;
            self.words[leaf.word] |= 1 << leaf.bit;
        }
    }

    /// Sends a message when there is something new to tell; `send` says whether somebody was told.
    pub(super) fn tell(&mut self, send: impl FnOnce() -> bool) {
        let pending = self.enabled && self.words != [0; 2];
        if pending && !self.told {
            self.told = send();
        } else if !pending {
            self.told = false;
        }
    }

    /// The vector is another one: tell again.
    pub(super) fn vectors_changed(&mut self) {
        self.told = false;
    }
}

/// Which of two registers an offset is.
fn pair(offset: u64, first: u64) -> Option<usize> {
    match offset.checked_sub(first) {
        Some(0) => Some(0),
        Some(4) => Some(1),
        _ => None,
    }
}

/// The word and bit of an engine (`INTR_RCS0` and its neighbours).
fn place(engine: EngineIdentity) -> (usize, u32) {
    let instance = u32::from(engine.instance);
    match (engine.class, instance) {
        (Class::Render, _) => (0, 0),
        (Class::Compute, _) => (0, 4 + instance),
        (Class::Copy, 8) => (0, 23),
        (Class::Copy, _) => (0, 15 - instance),
        (Class::Video, _) => (1, instance),
        (Class::VideoEnhance, _) => (1, 31 - instance),
        (Class::Other, _) => (0, 25),
    }
}

/// Where an engine's interrupts are enabled and where they are masked: register, and whether the upper half.
fn controls(engine: EngineIdentity) -> ((u64, bool), (u64, bool)) {
    match (engine.class, engine.instance) {
        (Class::Render, _) => ((ENABLE, true), (MASK, true)),
        (Class::Copy, 0) => ((ENABLE, false), (MASK_COPY, true)),
        (Class::Copy, _) => ((ENABLE, false), (MASK_COPY_8, false)),
        (Class::Video, _) => ((ENABLE_VIDEO, true), (MASK_VIDEO, true)),
        (Class::VideoEnhance, _) => ((ENABLE_VIDEO, false), (MASK_ENHANCE, true)),
        (Class::Compute, _) => ((ENABLE_COMPUTE, true), (MASK_COMPUTE, true)),
        (Class::Other, _) => ((ENABLE_GUC, true), (MASK_GUC, true)),
    }
}
