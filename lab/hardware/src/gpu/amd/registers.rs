//! The register file in BAR 2: contents of the registers that [`MAP`] tells of, and of all others.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::register_map::{Behaviour, Effect, MAP, Space, behaviour, word};
use super::vbios;
use crate::gpu::GpuConfig;
use crate::misuse::MisuseLog;
use crate::pci::PlainRegisters;

/// Bytes of BAR 2.
pub(super) const SIZE: u64 = 256 << 10;

/// The unit in which a register tells where VRAM is.
const FRAMEBUFFER_UNIT: u64 = 16 << 20;
/// Where VRAM begins in the addresses of the memory controller, in that unit: where a video BIOS puts it.
const FRAMEBUFFER_BASE: u64 = 0xf4;

/// Registers behind index and data that are kept; writes to further ones are lost.
const INDIRECT_REGISTERS: usize = 4096;
/// Speed of the link as the port of the PCI Express core tells it: 5 GT/s.
const LINK_SPEED_CONTROL: u32 = 0xa4;
const LINK_SPEED_IS_5_GT: u32 = 1 << 13;

/// Says in `MM_INDEX` that VRAM is meant.
const MM_INDEX_IS_VRAM: u32 = 1 << 31;

/// Contents of all registers.
pub(super) struct Registers {
    words: PlainRegisters,
    indirect: BTreeMap<(Space, u32), u32>,
    video_bios: Vec<u8>,
    vram: u64,
}

/// What the driver finds in a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// A value.
    Value(u32),
    /// What is in VRAM at this offset.
    VideoMemory(u64),
}

/// What a write of the driver sets going.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Write {
    /// Nothing.
    Done,
    /// Something beyond the register file.
    Effect(Effect),
    /// The value goes into VRAM at this offset.
    VideoMemory(u64),
}

impl Registers {
    pub(super) fn new(config: &GpuConfig, name: &str, misuse: Arc<MisuseLog>) -> Registers {
        let words = PlainRegisters::new(name, SIZE, misuse);
        let (video_bios, vram) = (vbios::image(), config.vram);
        let mut registers = Registers { words, indirect: BTreeMap::new(), video_bios, vram };
        registers.reset();
        registers
    }

    /// Brings all registers to what they read as after power-on.
    pub(super) fn reset(&mut self) {
        self.words.clear();
        self.indirect.clear();
        self.indirect.insert((Space::PciExpressPort, LINK_SPEED_CONTROL), LINK_SPEED_IS_5_GT);
        for (first, count, value, _) in MAP {
            (first..first + count).for_each(|number| self.set(number, value));
        }
        let top = FRAMEBUFFER_BASE + self.vram.div_ceil(FRAMEBUFFER_UNIT) - 1;
        self.set(word::MC_VM_FB_LOCATION, (top << 16 | FRAMEBUFFER_BASE) as u32);
        self.set(word::CONFIG_MEMSIZE, (self.vram >> 20) as u32);
    }

    pub(super) fn get(&self, number: u32) -> u32 {
        self.words.get(u64::from(number) * 4)
    }

    pub(super) fn set(&mut self, number: u32, value: u32) {
        self.words.set(u64::from(number) * 4, value);
    }

    /// A 40-bit address in two registers.
    pub(super) fn address(&self, low: u32, high: u32) -> u64 {
        u64::from(self.get(high) & 0xff) << 32 | u64::from(self.get(low))
    }

    /// The addresses of the memory controller that are VRAM: the first one, and how many bytes follow.
    pub(super) fn framebuffer(&self) -> (u64, u64) {
        (FRAMEBUFFER_BASE * FRAMEBUFFER_UNIT, self.vram)
    }

    /// The driver reads.
    pub(super) fn read(&mut self, number: u32) -> Read {
        match behaviour(number) {
            None => Read::Value(self.words.read_unknown(u64::from(number) * 4)),
            Some(Behaviour::Data(Space::VideoMemory)) => match self.video_memory() {
                Some(offset) => Read::VideoMemory(offset),
                None => Read::Value(0),
            },
            Some(Behaviour::Data(Space::Rom)) => Read::Value(self.read_video_bios()),
            Some(Behaviour::Data(space)) => {
                let index = self.get(number - 1);
                Read::Value(self.indirect.get(&(space, index)).copied().unwrap_or(0))
            }
            Some(_) => Read::Value(self.get(number)),
        }
    }

    /// The driver writes.
    pub(super) fn write(&mut self, number: u32, value: u32) -> Write {
        match behaviour(number) {
            None => self.words.write_unknown(u64::from(number) * 4, value),
            Some(Behaviour::Plain) => self.set(number, value),
            Some(Behaviour::Constant | Behaviour::Data(Space::Rom)) => {}
            Some(Behaviour::Data(Space::VideoMemory)) => {
                return self.video_memory().map_or(Write::Done, Write::VideoMemory);
            }
            Some(Behaviour::Data(space)) => {
                let key = (space, self.get(number - 1));
                if self.indirect.len() < INDIRECT_REGISTERS || self.indirect.contains_key(&key) {
                    self.indirect.insert(key, value);
                }
            }
            Some(Behaviour::Effect(effect)) => {
                self.set(number, value);
                return Write::Effect(effect);
            }
        }
        Write::Done
    }

    /// An engine writes on behalf of a packet. It reaches what has no effect beyond the register.
    pub(super) fn write_by_engine(&mut self, number: u32, value: u32) {
        if matches!(behaviour(number), None | Some(Behaviour::Plain)) {
            self.set(number, value);
        }
    }

    /// The offset in VRAM that `MM_INDEX` selects.
    fn video_memory(&self) -> Option<u64> {
        let (low, high) = (self.get(word::MM_INDEX), self.get(word::MM_INDEX_HI));
        let offset = u64::from(high) << 31 | u64::from(low & !MM_INDEX_IS_VRAM);
        (low & MM_INDEX_IS_VRAM != 0).then_some(offset)
    }

    fn read_video_bios(&mut self) -> u32 {
        let index = self.get(word::ROM_INDEX);
        self.set(word::ROM_INDEX, index.wrapping_add(4));
        let word = self.video_bios.get(index as usize..).and_then(|rest| rest.first_chunk::<4>());
        word.map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registers() -> Registers {
        let config = "amdgpu".parse().unwrap();
        Registers::new(&config, "gpu0", Arc::new(MisuseLog::new(false)))
    }

    #[test]
    fn a_reset_brings_the_defaults_back() {
        let mut registers = registers();
        assert_eq!(registers.read(word::CONFIG_MEMSIZE), Read::Value(256));
        assert_eq!(registers.read(word::MC_VM_FB_LOCATION), Read::Value(0x0103_00f4));
        registers.write(word::CONFIG_MEMSIZE, 1);
        assert_eq!(registers.read(word::CONFIG_MEMSIZE), Read::Value(256), "constant");
        registers.write(0x2000, 7);
        registers.write(word::PCIE_PORT_INDEX, 0xa4);
        registers.write(word::PCIE_PORT_DATA, 9);
        assert_eq!(registers.read(0x2000), Read::Value(7), "unknown, reads as written");
        registers.reset();
        assert_eq!(registers.read(0x2000), Read::Value(0));
        registers.write(word::PCIE_PORT_INDEX, 0xa4);
        assert_eq!(registers.read(word::PCIE_PORT_DATA), Read::Value(0x2000));
    }

    #[test]
    fn the_video_bios_is_read_word_by_word() {
        let mut registers = registers();
        registers.write(word::ROM_INDEX, 0);
        assert_eq!(registers.read(word::ROM_DATA), Read::Value(0x0004_aa55));
        registers.write(word::ROM_INDEX, 0x30);
        assert_eq!(registers.read(word::ROM_DATA), Read::Value(u32::from_le_bytes(*b" 761")));
        assert_eq!(registers.read(word::ROM_DATA), Read::Value(u32::from_le_bytes(*b"2955")));
        for index in [2045, 2048, u32::MAX] {
            registers.write(word::ROM_INDEX, index);
            assert_eq!(registers.read(word::ROM_DATA), Read::Value(0), "{index}");
        }
    }

    #[test]
    fn vram_is_reached_through_index_and_data() {
        let mut registers = registers();
        registers.write(word::MM_INDEX, 0x1000);
        assert_eq!(registers.read(word::MM_DATA), Read::Value(0), "a register is meant");
        registers.write(word::MM_INDEX, 0x8000_1000);
        registers.write(word::MM_INDEX_HI, 1);
        assert_eq!(registers.write(word::MM_DATA, 3), Write::VideoMemory(0x8000_1000));
    }

    #[test]
    fn indirect_registers_are_bounded_in_number() {
        let mut registers = registers();
        for index in 0..2 * INDIRECT_REGISTERS as u32 {
            registers.write(word::SMC_IND_INDEX_0, index);
            registers.write(word::SMC_IND_DATA_0, 1);
        }
        assert_eq!(registers.indirect.len(), INDIRECT_REGISTERS);
    }

    #[test]
    fn an_engine_rings_no_doorbell_and_changes_no_constant() {
        let mut registers = registers();
        for number in [word::DMA_GFX_RB_WPTR, word::CONFIG_MEMSIZE, word::MM_DATA] {
            let before = registers.get(number);
            registers.write_by_engine(number, 0x55);
            assert_eq!(registers.get(number), before);
        }
        registers.write_by_engine(word::SCRATCH_REG0, 0xdead_beef);
        assert_eq!(registers.read(word::SCRATCH_REG0), Read::Value(0xdead_beef));
    }
}
