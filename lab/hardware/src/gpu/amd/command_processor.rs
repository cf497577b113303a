//! The command processor: the few packets of PM4 that do more than drive the graphics pipeline.
//!
//! It has three rings, 0 for graphics, 1 and 2 for compute. A packet's first word holds its type in the
//! highest bits, the number of words after it less one, and for type 3 an operation (`sid.h`, `gfx_v6_0.c`).
//! There are no shaders: draws and dispatches, like all that the model does not know, pass without effect.
//! Everything is done before the write of the doorbell returns, so that nothing ever has to be waited for.

use super::address::Vmid;
use super::chip::{Budget, Chip, Refused};
use super::interrupts::Source;
use super::register_map::word;
use super::rings;

/// In `CP_ME_CNTL`: one of the processors is halted.
const HALT: u32 = 1 << 28 | 1 << 26 | 1 << 24;
/// In `CP_INT_CNTL_RING0` and its like: ends of the pipe interrupt.
const END_OF_PIPE_ENABLE: u32 = 1 << 26;

/// A ring leads to buffers, and these to others, but no further.
const DEEPEST_BUFFER: u32 = 2;

/// Where registers of a class begin.
const CONFIG_REGISTERS: u32 = 0x2000;
const SHADER_REGISTERS: u32 = 0x2c00;
const CONTEXT_REGISTERS: u32 = 0xa000;

/// Operations of packets of type 3.
mod operation {
    pub(super) const COND_EXEC: u32 = 0x22;
    pub(super) const INDIRECT_BUFFER_CONST: u32 = 0x31;
    /// As Mesa names it; like the next one, of Southern Islands only.
    pub(super) const INDIRECT_BUFFER_SI: u32 = 0x32;
    pub(super) const WRITE_DATA: u32 = 0x37;
    pub(super) const INDIRECT_BUFFER: u32 = 0x3f;
    pub(super) const CP_DMA: u32 = 0x41;
    pub(super) const EVENT_WRITE_EOP: u32 = 0x47;
    pub(super) const SET_CONFIG_REG: u32 = 0x68;
    pub(super) const SET_CONTEXT_REG: u32 = 0x69;
    pub(super) const SET_SH_REG: u32 = 0x76;
}

/// A packet.
#[derive(Debug, PartialEq, Eq)]
enum Packet<'a> {
    /// Writes registers in a row; those for which there is a packet may be written by processes too.
    SetRegisters { first: u32, values: &'a [u32] },
    /// Writes a register, or several in a row, as only the driver may.
    WriteRegisters { first: u32, values: &'a [u32], one: bool },
    /// Writes words into memory.
    Write { to: u64, words: &'a [u32] },
    /// Executes packets that lie elsewhere.
    IndirectBuffer { vmid: Vmid, address: u64, words: u32 },
    /// Skips words after the packet unless there is something else than 0 in memory.
    Condition { address: u64, words: u32 },
    /// Copies bytes.
    Copy { to: u64, from: u64, bytes: u64 },
    /// Fills with a word.
    Fill { to: u64, value: u32, bytes: u64 },
    /// Tells in memory that all before is done, and interrupts if that is wanted.
    EndOfPipe { address: u64, data: EndOfPipeData, interrupt: bool },
    /// Nothing to do.
    Nothing,
}

/// What is written at the end of the pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EndOfPipeData {
    Nothing,
    Word(u32),
    Words(u64),
    Clock,
}

/// Words are missing at the end of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Short;

/// Reads a packet at the beginning of `words`; also tells how many of them it has.
fn decode(words: &[u32]) -> Result<(Packet<'_>, usize), Short> {
    let head = *words.first().ok_or(Short)?;
    let length = 1 + (head >> 16 & 0x3fff) as usize;
    match head >> 30 {
        0 => {
            let values = words.get(1..=length).ok_or(Short)?;
            Ok((Packet::WriteRegisters { first: head & 0xffff, values, one: false }, 1 + length))
        }
        3 => {
            let body = words.get(1..=length).ok_or(Short)?;
            Ok((operation(head >> 8 & 0xff, body).unwrap_or(Packet::Nothing), 1 + length))
        }
        _ => Ok((Packet::Nothing, 1)),
    }
}

/// The meaning of a packet of type 3; `None` when the model knows none, or words are missing.
fn operation(operation: u32, body: &[u32]) -> Option<Packet<'_>> {
    let word = |index: usize| body.get(index).copied();
    let address = |low: usize, high: usize| Some(u64::from(word(high)? & 0xff) << 32 | u64::from(word(low)?));
    let set =
        |start: u32| Some(Packet::SetRegisters { first: start + (word(0)? & 0xffff), values: &body[1..] });
    match operation {
        operation::SET_CONFIG_REG => set(CONFIG_REGISTERS),
        operation::SET_SH_REG => set(SHADER_REGISTERS),
        operation::SET_CONTEXT_REG => set(CONTEXT_REGISTERS),
        operation::WRITE_DATA => {
            let (control, words) = (word(0)?, body.get(3..)?);
            match control >> 8 & 0xf {
                0 => {
                    let one = control >> 16 & 1 != 0;
                    Some(Packet::WriteRegisters { first: word(1)? & 0xffff, values: words, one })
                }
                1 | 2 | 5 => Some(Packet::Write { to: address(1, 2)? & !3, words }),
                _ => None,
            }
        }
        operation::INDIRECT_BUFFER | operation::INDIRECT_BUFFER_CONST | operation::INDIRECT_BUFFER_SI => {
            let control = word(2)?;
            let vmid = (control >> 24 & 0xf) as Vmid;
            Some(Packet::IndirectBuffer { vmid, address: address(0, 1)? & !3, words: control & 0xf_ffff })
        }
        operation::COND_EXEC => {
            Some(Packet::Condition { address: address(0, 1)? & !3, words: word(2)? & 0x3fff })
        }
        operation::CP_DMA => {
            let (control, command) = (word(1)?, word(4)?);
            let (to, bytes) = (address(2, 3)?, u64::from(command & 0x1f_ffff));
            // Neither to nor from registers or the global data share.
            if command >> 26 & 3 != 0 || control >> 20 & 3 != 0 {
                return None;
            }
            match control >> 29 & 3 {
                0 => Some(Packet::Copy { to, from: address(0, 1)?, bytes }),
                2 => Some(Packet::Fill { to, value: word(0)?, bytes }),
                _ => None,
            }
        }
        operation::EVENT_WRITE_EOP => {
            let (control, low) = (word(2)?, word(3)?);
            let data = match control >> 29 {
                1 => EndOfPipeData::Word(low),
                2 => EndOfPipeData::Words(u64::from(word(4)?) << 32 | u64::from(low)),
                3 => EndOfPipeData::Clock,
                _ => EndOfPipeData::Nothing,
            };
            let interrupt = control >> 24 & 3 != 0;
            Some(Packet::EndOfPipe { address: address(1, 2)? & !3, data, interrupt })
        }
        _ => None,
    }
}

/// Executes what is in all rings: the command processor may no longer be halted.
pub(super) fn execute_all(chip: &mut Chip) {
    (0..3).for_each(|ring| execute(chip, ring));
}

/// Executes what is in a ring, unless the command processor is halted.
pub(super) fn execute(chip: &mut Chip, index: usize) {
    if chip.registers.get(word::CP_ME_CNTL) & HALT != 0 {
        return;
    }
    let Some(ring) = rings::of_command_processor(chip, index).filter(|ring| !ring.is_empty()) else { return };
    let mut run = Run { chip, ring: index, budget: Budget::new() };
    if let Ok(words) = ring.fetch(run.chip, &mut run.budget) {
        run.packets(&words, 0, 0);
    }
    ring.finish(run.chip);
}

/// What one doorbell starts.
struct Run<'a> {
    chip: &'a mut Chip,
    ring: usize,
    budget: Budget,
}

impl Run<'_> {
    /// Executes packets: of the ring itself at depth 0, or of an indirect buffer of a virtual machine. What
    /// cannot be read ends them; a packet whose addresses are refused is skipped.
    fn packets(&mut self, mut words: &[u32], vmid: Vmid, depth: u32) {
        while !words.is_empty() {
            let Ok((packet, length)) = decode(words) else {
                let (ring, head, rest) = (self.ring, words[0], words.len());
                return self.chip.misuse(format_args!(
                    "command ring {ring}: packet {head:#010x} is longer than the {rest} words that there are"
                ));
            };
            words = &words[length..];
            // What was refused has been told of.
            let skipped = self.packet(&packet, vmid, depth).unwrap_or(0);
            words = words.get(skipped as usize..).unwrap_or(&[]);
        }
    }

    /// Executes a packet, and tells how many words after it are to be skipped.
    fn packet(&mut self, packet: &Packet<'_>, vmid: Vmid, depth: u32) -> Result<u32, Refused> {
        match *packet {
            Packet::Nothing => {}
            Packet::SetRegisters { first, values } => {
                for (number, value) in (first..).zip(values) {
                    self.chip.registers.write_by_engine(number, *value);
                }
            }
            Packet::WriteRegisters { first, values, one } => {
                if vmid != 0 {
                    return Err(self.refuse(format_args!("VMID {vmid} writes register {first:#x}")));
                }
                for (index, value) in (0..).zip(values) {
                    let number = if one { first } else { first + index };
                    self.chip.registers.write_by_engine(number, *value);
                }
            }
            Packet::Write { to, words } => self.chip.write_words(vmid, to, words)?,
            Packet::IndirectBuffer { vmid: of, address, words } => {
                if depth == DEEPEST_BUFFER {
                    return Err(self.refuse(format_args!("an indirect buffer too deep in others")));
                }
                if !self.budget.take_words(words.into()) {
                    return Err(self.refuse(format_args!("more packets than anybody needs")));
                }
                // A buffer belongs to the virtual machine of the one that leads to it.
                let vmid = if depth == 0 { of } else { vmid };
                let words = self.chip.read_words(vmid, address, words as usize)?;
                self.packets(&words, vmid, depth + 1);
            }
            Packet::Condition { address, words } => {
                let mut bytes = [0; 4];
                self.chip.read(vmid, address, &mut bytes)?;
                return Ok(if bytes == [0; 4] { words } else { 0 });
            }
            Packet::Copy { to, from, bytes } => {
                self.take_bytes(bytes)?;
                self.chip.copy(vmid, to, from, bytes)?;
            }
            Packet::Fill { to, value, bytes } => {
                self.take_bytes(bytes)?;
                self.chip.fill(vmid, to, value, bytes)?;
            }
            Packet::EndOfPipe { address, data, interrupt } => {
                match data {
                    EndOfPipeData::Nothing => {}
                    EndOfPipeData::Word(value) => self.chip.publish(vmid, address, value)?,
                    EndOfPipeData::Words(value) => self.chip.write(vmid, address, &value.to_le_bytes())?,
                    EndOfPipeData::Clock => {
                        let clock = self.chip.clock().to_le_bytes();
                        self.chip.write(vmid, address, &clock)?;
                    }
                }
                let enable = self.chip.registers.get(word::CP_INT_CNTL_RING0 + self.ring as u32);
                if interrupt && enable & END_OF_PIPE_ENABLE != 0 {
                    self.chip.interrupt(Source::EndOfPipe, self.ring as u8, vmid);
                }
            }
        }
        Ok(0)
    }

    fn take_bytes(&mut self, bytes: u64) -> Result<(), Refused> {
        if self.budget.take_bytes(bytes) {
            return Ok(());
        }
        Err(self.refuse(format_args!("more bytes than anybody needs to move")))
    }

    fn refuse(&self, what: std::fmt::Arguments<'_>) -> Refused {
        self.chip.misuse(format_args!("command ring {}: {what}", self.ring));
        Refused
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Bench, GART_BUFFER};
    use super::*;

    #[test]
    fn packets_as_the_driver_writes_them() {
        let scratch = [0xc001_6800, 0x140, 0xdead_beef];
        assert_eq!(decode(&scratch), Ok((Packet::SetRegisters { first: 0x2140, values: &scratch[2..] }, 3)));
        let register = [0xc003_3700, 1 << 30, 0x51e, 0, 4];
        let values = &register[4..];
        assert_eq!(decode(&register), Ok((Packet::WriteRegisters { first: 0x51e, values, one: false }, 5)));
        let buffer = [0xc002_3f00, 0x1000, 1, 3 << 24 | 16];
        let packet = Packet::IndirectBuffer { vmid: 3, address: 0x1_0000_1000, words: 16 };
        assert_eq!(decode(&buffer), Ok((packet, 4)));
        let end = [0xc004_4700, 0x514, 0x40, 1 << 29 | 2 << 24, 9, 0];
        let data = EndOfPipeData::Word(9);
        assert_eq!(decode(&end), Ok((Packet::EndOfPipe { address: 0x40, data, interrupt: true }, 6)));
        let fill = [0xc004_4100, 7, 2 << 29, 0x1000, 2, 0x800];
        assert_eq!(decode(&fill), Ok((Packet::Fill { to: 0x2_0000_1000, value: 7, bytes: 0x800 }, 6)));
        let from_register = [0xc004_4100, 7, 0, 0x1000, 2, 1 << 26 | 4];
        assert_eq!(decode(&from_register), Ok((Packet::Nothing, 6)));
        assert_eq!(decode(&[0x8000_0000, 1]), Ok((Packet::Nothing, 1)), "type 2");
        assert_eq!(decode(&[0xc003_3700, 0, 0]), Err(Short));
        assert_eq!(decode(&[0xc000_3700, 0]), Ok((Packet::Nothing, 2)), "too few words for what it is");
    }

    #[test]
    fn the_rings_work_once_the_processors_run() {
        let mut bench = Bench::new();
        for ring in 0..3 {
            bench.chip.registers.set(word::SCRATCH_REG0, 0xcafe_dead);
            bench.halt_command_processor(true);
            bench.command(ring, &[0xc001_6800, 0x140, 0xdead_beef]);
            assert_eq!(bench.chip.registers.get(word::SCRATCH_REG0), 0xcafe_dead);
            bench.halt_command_processor(false);
            assert_eq!(bench.chip.registers.get(word::SCRATCH_REG0), 0xdead_beef);
        }
    }

    #[test]
    fn the_end_of_the_pipe_writes_and_interrupts() {
        let mut bench = Bench::new();
        let fence = bench.gart_page(7, 0x30_0000) as u32;
        bench.chip.registers.set(word::CP_INT_CNTL_RING0 + 2, END_OF_PIPE_ENABLE);
        for ring in [1, 2] {
            bench.command(ring, &[0xc004_4700, 0x514, fence, 2 << 29 | 2 << 24, 5, 6]);
        }
        assert_eq!(bench.guest(0x30_0000, 8), [5, 0, 0, 0, 6, 0, 0, 0]);
        assert_eq!(bench.interrupts(), 1, "not enabled for ring 1");
        assert_eq!(bench.interrupt_entry(0), [181, 0, 2, 0]);
    }

    #[test]
    fn a_condition_skips_what_comes_after() {
        let mut bench = Bench::new();
        let flag = bench.gart_page(7, 0x30_0000) as u32;
        for (value, expected) in [(0, 2), (1, 1)] {
            bench.put_guest(0x30_0000, &[value]);
            let set = |value| [0xc001_6800, 0x140, value];
            let packets = [&[0xc002_2200, flag, 0, 3][..], &set(1), &[0x8000_0000]].concat();
            bench.command(0, &[&set(2)[..], &packets].concat());
            assert_eq!(bench.chip.registers.get(word::SCRATCH_REG0), expected);
        }
    }

    #[test]
    fn copies_of_a_process_stay_in_its_memory() {
        let mut bench = Bench::new();
        let vram = bench.vram_address();
        bench.enable_process(1, 0x10_0000);
        bench.put_vram(0x10_0000, (vram + 0x11_0000) | 1);
        bench.put_vram(0x11_0000 + 8, 0x5000 | 0x61);
        bench.put_vram(0x11_0000 + 16, 0x20_0000 | 0x63);
        bench.vram().write(0x5000, b"copied").unwrap();
        // Its page 1 is VRAM, its page 2 guest memory; it has no other.
        let copy = |to: u32| [0xc004_4100, 0x1000, 0, to, 0, 6];
        bench.put_guest(0x20_0800, &[copy(0x2000), copy(0x3000)].concat());
        bench.command(0, &[0xc002_3f00, 0x2800, 0, 1 << 24 | 12]);
        assert_eq!(bench.guest(0x20_0000, 6), b"copied");
        assert_eq!(bench.misuse(), ["gpu0: VMID 1: Write of address 0x3000 failed: Valid"]);
    }

    #[test]
    fn a_buffer_in_a_process_s_buffer_is_the_process_s_too() {
        let mut bench = Bench::new();
        bench.enable_process(1, 0x10_0000);
        bench.put_vram(0x10_0000, (bench.vram_address() + 0x11_0000) | 1);
        bench.put_vram(0x11_0000 + 8, 0x20_0000 | 0x63);
        // It names VMID 0, whose address 0x3000 is not mapped either.
        bench.put_guest(0x20_0000, &[0xc002_3f00, 0x3000, 0, 4]);
        bench.command(0, &[0xc002_3f00, 0x1000, 0, 1 << 24 | 4]);
        assert_eq!(bench.misuse(), ["gpu0: VMID 1: Read of address 0x3000 failed: Valid"]);
    }

    #[test]
    fn buffers_end_somewhere() {
        let mut bench = Bench::new();
        let itself = [0xc002_3f00, GART_BUFFER as u32, 0, 4];
        bench.put_buffer(&itself);
        bench.command(0, &itself);
        assert_eq!(bench.misuse(), ["gpu0: command ring 0: an indirect buffer too deep in others"]);
    }
}
