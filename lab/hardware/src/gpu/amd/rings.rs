//! Rings of packets: where they are, and what the driver has put into them since the last time.

use super::chip::{Budget, Chip, Refused};
use super::register_map::word;

/// Words of the longest ring that is followed.
const LONGEST: u32 = 1 << 20;

/// A ring, as registers describe it.
pub(super) struct Ring {
    /// Address of VMID 0.
    base: u64,
    /// A power of two of words.
    words: u32,
    /// The next word to execute.
    read: u32,
    /// The first word that is not there yet.
    write: u32,
    /// The register that says how far the engine has come, and what a word counts in it.
    read_register: u32,
    unit: u32,
    /// Where in memory the driver looks for that.
    writeback: Option<u64>,
}

/// Bits of `DMA_GFX_RB_CNTL`.
mod dma_control {
    pub(super) const ENABLE: u32 = 1 << 0;
    /// Binary logarithm of the ring's words.
    pub(super) const SIZE_SHIFT: u32 = 1;
    pub(super) const SIZE_MASK: u32 = 0x1f;
    pub(super) const WRITEBACK: u32 = 1 << 12;
}

/// Bits of `CP_RB0_CNTL` and its like.
pub(super) mod command_control {
    /// Binary logarithm of the ring's pairs of words.
    pub(super) const SIZE_MASK: u32 = 0x3f;
    pub(super) const NO_WRITEBACK: u32 = 1 << 27;
    /// The driver sets the ring up, and the engine starts from its beginning.
    pub(super) const READ_POINTER_WRITABLE: u32 = 1 << 31;
}

/// The registers of a ring of the command processor.
struct CommandRing {
    base: u32,
    control: u32,
    read: u32,
    write: u32,
    writeback_low: u32,
    writeback_high: u32,
}

const COMMAND_RINGS: [CommandRing; 3] = [
    CommandRing {
        base: word::CP_RB0_BASE,
        control: word::CP_RB0_CNTL,
        read: word::CP_RB0_RPTR,
        write: word::CP_RB0_WPTR,
        writeback_low: word::CP_RB0_RPTR_ADDR,
        writeback_high: word::CP_RB0_RPTR_ADDR_HI,
    },
    CommandRing {
        base: word::CP_RB1_BASE,
        control: word::CP_RB1_CNTL,
        read: word::CP_RB1_RPTR,
        write: word::CP_RB1_WPTR,
        writeback_low: word::CP_RB1_RPTR_ADDR,
        writeback_high: word::CP_RB1_RPTR_ADDR_HI,
    },
    CommandRing {
        base: word::CP_RB2_BASE,
        control: word::CP_RB2_CNTL,
        read: word::CP_RB2_RPTR,
        write: word::CP_RB2_WPTR,
        writeback_low: word::CP_RB2_RPTR_ADDR,
        writeback_high: word::CP_RB2_RPTR_ADDR_HI,
    },
];

/// The ring of a DMA engine; `None` while it is switched off or has an impossible size.
pub(super) fn of_dma_engine(chip: &Chip, engine: usize) -> Option<Ring> {
    let first = if engine == 0 { 0 } else { word::DMA_INSTANCE };
    let get = |register: u32| chip.registers.get(first + register);
    let control = get(word::DMA_GFX_RB_CNTL);
    if control & dma_control::ENABLE == 0 {
        return None;
    }
    let words = size(chip, control >> dma_control::SIZE_SHIFT & dma_control::SIZE_MASK)?;
    let writeback =
        chip.registers.address(first + word::DMA_GFX_RB_RPTR_ADDR_LO, first + word::DMA_GFX_RB_RPTR_ADDR_HI);
    // Both pointers count bytes.
    Some(Ring {
        base: u64::from(get(word::DMA_GFX_RB_BASE)) << 8,
        words,
        read: get(word::DMA_GFX_RB_RPTR) / 4 % words,
        write: get(word::DMA_GFX_RB_WPTR) / 4 % words,
        read_register: first + word::DMA_GFX_RB_RPTR,
        unit: 4,
        writeback: (control & dma_control::WRITEBACK != 0).then_some(writeback),
    })
}

/// A ring of the command processor; `None` while it has an impossible size.
pub(super) fn of_command_processor(chip: &Chip, index: usize) -> Option<Ring> {
    let registers = COMMAND_RINGS.get(index)?;
    let get = |register: u32| chip.registers.get(register);
    let control = get(registers.control);
    let words = size(chip, (control & command_control::SIZE_MASK) + 1)?;
    let writeback = chip.registers.address(registers.writeback_low, registers.writeback_high) & !3;
    Some(Ring {
        base: u64::from(get(registers.base)) << 8,
        words,
        read: get(registers.read) % words,
        write: get(registers.write) % words,
        read_register: registers.read,
        unit: 1,
        writeback: (control & command_control::NO_WRITEBACK == 0).then_some(writeback),
    })
}

/// The driver wrote the control register of a ring of the command processor.
pub(super) fn command_ring_set_up(chip: &mut Chip, index: usize) {
    let Some(registers) = COMMAND_RINGS.get(index) else { return };
    if chip.registers.get(registers.control) & command_control::READ_POINTER_WRITABLE != 0 {
        chip.registers.set(registers.read, 0);
    }
}

fn size(chip: &Chip, logarithm: u32) -> Option<u32> {
    let words = 1u32.checked_shl(logarithm).filter(|words| *words <= LONGEST);
    if words.is_none() {
        chip.misuse(format_args!("a ring of 2^{logarithm} words, the longest has {LONGEST}"));
    }
    words
}

impl Ring {
    /// Whether there is nothing to execute.
    pub(super) fn is_empty(&self) -> bool {
        self.read == self.write
    }

    /// The words that the driver has put into the ring.
    pub(super) fn fetch(&self, chip: &mut Chip, budget: &mut Budget) -> Result<Vec<u32>, Refused> {
        let count = self.write.wrapping_sub(self.read) % self.words;
        budget.take_words(count.into());
        let before_the_end = count.min(self.words - self.read);
        let mut words = chip.read_words(0, self.base + u64::from(self.read) * 4, before_the_end as usize)?;
        words.extend(chip.read_words(0, self.base, (count - before_the_end) as usize)?);
        Ok(words)
    }

    /// Says that everything has been executed.
    pub(super) fn finish(&self, chip: &mut Chip) {
        chip.registers.set(self.read_register, self.write * self.unit);
        if let Some(address) = self.writeback {
            // A failure has been told of.
            let _ = chip.publish(0, address, self.write * self.unit);
        }
    }
}
