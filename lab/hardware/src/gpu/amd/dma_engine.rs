//! The asynchronous DMA engines: fills, copies, page table writes, fences.
//!
//! There are two, each with a ring of packets. Packets are laid out as the driver writes them (`sid.h`,
//! `si_dma.c`): the first word holds the command in its highest bits and mostly a count in its lowest.
//! All of it is done before the write of the doorbell returns, one packet after the other; so what a packet
//! would wait for has always happened.

use super::address::Vmid;
use super::chip::{Budget, Chip, Refused};
use super::interrupts::Source;
use super::register_map::word;
use super::rings;

/// In `DMA_CNTL`: trap packets interrupt.
const TRAP_ENABLE: u32 = 1 << 0;

/// A packet.
#[derive(Debug, PartialEq, Eq)]
enum Packet<'a> {
    /// Writes words that are in the packet.
    Write { to: u64, words: &'a [u32] },
    /// Writes entries of a page table: the first value with the flags set, and each further one larger by
    /// the increment.
    WritePageTable { to: u64, entries: u32, flags: u64, value: u64, increment: u32 },
    /// Copies bytes.
    Copy { to: u64, from: u64, bytes: u64 },
    /// Fills with a word.
    Fill { to: u64, value: u32, bytes: u64 },
    /// Executes packets that lie elsewhere.
    IndirectBuffer { vmid: Vmid, address: u64, words: u32 },
    /// Tells in memory that all before is done.
    Fence { address: u64, value: u32 },
    /// Interrupts.
    Trap,
    /// Writes a register.
    WriteRegister { number: u32, value: u32 },
    /// Nothing to do: padding, and waiting.
    Nothing,
}

/// Why the words are no packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Malformed {
    /// The command does not exist, or the model does not know this form of it.
    Unknown,
    /// Words are missing at the end.
    Short,
}

/// Reads a packet at the beginning of `words`; also tells how many of them it has.
fn decode(words: &[u32]) -> Result<(Packet<'_>, usize), Malformed> {
    let head = *words.first().ok_or(Malformed::Short)?;
    let count = head & 0xf_ffff;
    let (linear, tiled, page_table) = (head >> 26 & 1 != 0, head >> 23 & 1 != 0, head >> 21 & 1 != 0);
    // The words after the first one.
    let body = |length: usize| words.get(1..=length).ok_or(Malformed::Short);
    let address = |low: u32, high: u32| u64::from(high & 0xff) << 32 | u64::from(low);
    let wide = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
    match (head >> 28, tiled) {
        (0x2, false) if linear && page_table => {
            let body = body(8)?;
            let packet = Packet::WritePageTable {
                to: address(body[0], body[1]),
                entries: count / 2,
                flags: wide(body[2], body[3]),
                value: wide(body[4], body[5]),
                increment: body[6],
            };
            Ok((packet, 9))
        }
        (0x2, false) if !linear => {
            let body = body(2 + count as usize)?;
            Ok((Packet::Write { to: address(body[0], body[1]), words: &body[2..] }, body.len() + 1))
        }
        (0x3, false) => {
            let body = body(4)?;
            // Counted in bytes, or in words.
            let bytes = u64::from(count) * if linear { 1 } else { 4 };
            Ok((Packet::Copy { to: address(body[0], body[2]), from: address(body[1], body[3]), bytes }, 5))
        }
        (0x4, _) => {
            let body = body(2)?;
            let vmid = (head >> 20 & 0xf) as Vmid;
            Ok((Packet::IndirectBuffer { vmid, address: address(body[0], body[1]), words: body[1] >> 12 }, 3))
        }
        (0x5, _) => body(2).map(|_| (Packet::Nothing, 3)),
        (0x6, _) => {
            let body = body(3)?;
            Ok((Packet::Fence { address: address(body[0], body[1]) & !3, value: body[2] }, 4))
        }
        (0x7, _) => Ok((Packet::Trap, 1)),
        (0x9, _) => {
            let body = body(2)?;
            Ok((Packet::WriteRegister { number: body[0] & 0xffff, value: body[1] }, 3))
        }
        (0xd, false) => {
            let body = body(3)?;
            let to = address(body[0], body[2] >> 16);
            Ok((Packet::Fill { to, value: body[1], bytes: u64::from(count) * 4 }, 4))
        }
        (0xe, _) => body(5).map(|_| (Packet::Nothing, 6)),
        (0xf, _) => Ok((Packet::Nothing, 1)),
        _ => Err(Malformed::Unknown),
    }
}

/// Executes what is in the ring of an engine, 0 or 1.
pub(super) fn execute(chip: &mut Chip, engine: usize) {
    let Some(ring) = rings::of_dma_engine(chip, engine).filter(|ring| !ring.is_empty()) else { return };
    let mut run = Run { chip, engine, budget: Budget::new() };
    if let Ok(words) = ring.fetch(run.chip, &mut run.budget) {
        run.packets(&words, None);
    }
    ring.finish(run.chip);
}

/// What one doorbell starts.
struct Run<'a> {
    chip: &'a mut Chip,
    engine: usize,
    budget: Budget,
}

impl Run<'_> {
    /// Executes packets: of the ring itself, or of an indirect buffer of a virtual machine. What cannot be read
    /// ends them; a packet whose addresses are refused is skipped.
    fn packets(&mut self, mut words: &[u32], buffer_of: Option<Vmid>) {
        while !words.is_empty() {
            match decode(words) {
                Ok((packet, length)) => {
                    // What was refused has been told of.
                    let _ = self.packet(&packet, buffer_of);
                    words = &words[length..];
                }
                Err(malformed) => {
                    let engine = self.engine;
                    let (head, rest) = (words[0], words.len());
                    return self.chip.misuse(format_args!(
                        "DMA engine {engine}: {malformed:?} packet {head:#010x}, {rest} words dropped"
                    ));
                }
            }
        }
    }

    fn packet(&mut self, packet: &Packet<'_>, buffer_of: Option<Vmid>) -> Result<(), Refused> {
        let vmid = buffer_of.unwrap_or(0);
        match *packet {
            Packet::Nothing => {}
            Packet::Write { to, words } => self.chip.write_words(vmid, to, words)?,
            Packet::WritePageTable { to, entries, flags, value, increment } => {
                self.take_bytes(u64::from(entries) * 8)?;
                let entry = |index: u32| value.wrapping_add(u64::from(index) * u64::from(increment)) | flags;
                let bytes: Vec<u8> = (0..entries).flat_map(|index| entry(index).to_le_bytes()).collect();
                self.chip.write(vmid, to, &bytes)?;
            }
            Packet::Copy { to, from, bytes } => {
                self.take_bytes(bytes)?;
                self.chip.copy(vmid, to, from, bytes)?;
            }
            Packet::Fill { to, value, bytes } => {
                self.take_bytes(bytes)?;
                self.chip.fill(vmid, to, value, bytes)?;
            }
            Packet::IndirectBuffer { vmid, address, words } => {
                if buffer_of.is_some() {
                    return Err(self.refuse(format_args!("an indirect buffer in an indirect buffer")));
                }
                if !self.budget.take_words(words.into()) {
                    return Err(self.refuse(format_args!("more packets than anybody needs")));
                }
                let words = self.chip.read_words(vmid, address, words as usize)?;
                self.packets(&words, Some(vmid));
            }
            Packet::Fence { address, value } => self.chip.publish(vmid, address, value)?,
            Packet::Trap => {
                let (source, control) = match self.engine {
                    0 => (Source::DmaTrap0, word::DMA_CNTL),
                    _ => (Source::DmaTrap1, word::DMA_CNTL + word::DMA_INSTANCE),
                };
                if self.chip.registers.get(control) & TRAP_ENABLE != 0 {
                    self.chip.interrupt(source, 0, vmid);
                }
            }
            Packet::WriteRegister { number, value } => {
                if vmid != 0 {
                    return Err(self.refuse(format_args!("VMID {vmid} writes register {number:#x}")));
                }
                self.chip.registers.write_by_engine(number, value);
            }
        }
        Ok(())
    }

    fn take_bytes(&mut self, bytes: u64) -> Result<(), Refused> {
        if self.budget.take_bytes(bytes) {
            return Ok(());
        }
        Err(self.refuse(format_args!("more bytes than anybody needs to move")))
    }

    fn refuse(&self, what: std::fmt::Arguments<'_>) -> Refused {
        self.chip.misuse(format_args!("DMA engine {}: {what}", self.engine));
        Refused
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Bench, GART_BUFFER};
    use super::*;

    #[test]
    fn packets_as_the_driver_writes_them() {
        let write = [0x2000_0002, 0x1000, 0x1, 7, 8, 0xf000_0000];
        assert_eq!(decode(&write), Ok((Packet::Write { to: 0x1_0000_1000, words: &[7, 8] }, 5)));
        let table = [0x2420_0006, 0x1000, 0, 0x67, 0, 0x5000, 0, 0x1000, 0];
        let (to, flags, value) = (0x1000, 0x67, 0x5000);
        let packet = Packet::WritePageTable { to, entries: 3, flags, value, increment: 0x1000 };
        assert_eq!(decode(&table), Ok((packet, 9)));
        let copy = [0x3400_0040, 0x100, 0x200, 1, 2];
        let (to, from) = (0x1_0000_0100, 0x2_0000_0200);
        assert_eq!(decode(&copy), Ok((Packet::Copy { to, from, bytes: 0x40 }, 5)));
        let copy = [0x3000_0040, 0x100, 0x200, 0, 0];
        assert_eq!(decode(&copy), Ok((Packet::Copy { to: 0x100, from: 0x200, bytes: 0x100 }, 5)), "words");
        let fill = [0xd000_0010, 0x100, 0xabcd, 3 << 16];
        assert_eq!(decode(&fill), Ok((Packet::Fill { to: 0x3_0000_0100, value: 0xabcd, bytes: 0x40 }, 4)));
        let buffer = [0x4030_0000, 0x20, 5 << 12 | 1];
        let packet = Packet::IndirectBuffer { vmid: 3, address: 0x1_0000_0020, words: 5 };
        assert_eq!(decode(&buffer), Ok((packet, 3)));
        let fence = [0x6000_0000, 0x43, 0, 9];
        assert_eq!(decode(&fence), Ok((Packet::Fence { address: 0x40, value: 9 }, 4)));
        let register = [0x9000_0000, 0xf_0552, 6];
        assert_eq!(decode(&register), Ok((Packet::WriteRegister { number: 0x552, value: 6 }, 3)));
        assert_eq!(decode(&[0xe800_0000, 0, 0, 0, 0, 0]), Ok((Packet::Nothing, 6)));
        assert_eq!(decode(&fence[..3]), Err(Malformed::Short));
        assert_eq!(decode(&write[..4]), Err(Malformed::Short));
        assert_eq!(decode(&[0x1000_0000]), Err(Malformed::Unknown));
        assert_eq!(decode(&[0x3080_0000; 9]), Err(Malformed::Unknown), "tiled");
    }

    #[test]
    fn a_move_from_vram_to_guest_memory_is_told_of_by_fence_and_interrupt() {
        let mut bench = Bench::new();
        let vram = bench.vram_address();
        bench.vram().write(0x8000, b"moved by the engine").unwrap();
        let to = bench.gart_page(5, 0x20_0000);
        let fence = bench.gart_page(6, 0x30_0000);
        bench.enable_dma_interrupt(0);
        bench.dma(0, &[0x3400_0013, to as u32, (vram + 0x8000) as u32, 0, 0]);
        assert_eq!(bench.interrupts(), 0);
        bench.dma(0, &[0x6000_0000, fence as u32, 0, 77, 0x7000_0000]);
        assert_eq!(bench.guest(0x20_0000, 19), b"moved by the engine");
        assert_eq!(bench.guest(0x30_0000, 4), 77u32.to_le_bytes());
        assert_eq!(bench.interrupts(), 1);
        assert_eq!(bench.interrupt_entry(0)[0], 224);
        assert_eq!(bench.misuse(), [""; 0]);
    }

    #[test]
    fn page_tables_and_indirect_buffers() {
        let mut bench = Bench::new();
        let vram = bench.vram_address();
        // Two pages of guest memory for process 4, at its address 0x3000.
        bench.enable_process(4, 0x10_0000);
        let (directory, table) = ((vram + 0x10_0000) as u32, (vram + 0x11_0000) as u32);
        bench.dma(0, &[0x2420_0002, directory, 0, 1, 0, table, 0, 0, 0]);
        bench.dma(0, &[0x2420_0004, table + 3 * 8, 0, 0x63, 0, 0x40_0000, 0, 0x1000, 0]);
        // A fill across both pages, from an indirect buffer that the process has in its second page.
        let packets = [0xd000_0004, 0x3ff8, 0x55aa_55aa, 0, 0x9000_0000, 0x2140, 1];
        bench.put_guest(0x40_1800, &packets);
        bench.dma(0, &[0x4040_0000, 0x4800, (packets.len() as u32) << 12]);
        assert_eq!(bench.guest(0x40_0ff8, 16), [0xaa, 0x55, 0xaa, 0x55].repeat(4));
        assert_eq!(bench.chip.registers.get(word::SCRATCH_REG0), 0, "not a process's to write");
        assert_eq!(bench.misuse(), ["gpu0: DMA engine 0: VMID 4 writes register 0x2140"]);
    }

    #[test]
    fn a_process_without_the_page_causes_a_fault() {
        let mut bench = Bench::new();
        bench.enable_process(2, 0x10_0000);
        let buffer = bench.gart_page(5, 0x20_0000);
        bench.put_guest(0x20_0000, &[0x2000_0001, 0x7000, 0, 1]);
        bench.enable_fault_interrupt();
        // The buffer is the process's own, and it has no such page either.
        bench.dma(0, &[0x4020_0000, buffer as u32, 4 << 12]);
        assert_eq!(bench.interrupt_entry(0)[0], 146);
        assert_eq!(bench.chip.registers.get(word::VM_CONTEXT1_PROTECTION_FAULT_ADDR), (buffer >> 12) as u32);
        let status = bench.chip.registers.get(word::VM_CONTEXT1_PROTECTION_FAULT_STATUS);
        assert_eq!(status, 2 << 25 | 1 << 1, "a read without an entry in the directory");
        // A further one is not told of before the driver has seen the first.
        bench.dma(0, &[0x4020_0000, 0x7000, 4 << 12]);
        assert_eq!(bench.interrupts(), 1);
        bench.forget_fault();
        assert_eq!(bench.chip.registers.get(word::VM_CONTEXT1_PROTECTION_FAULT_STATUS), 0);
        bench.dma(0, &[0x4020_0000, 0x7000, 4 << 12]);
        assert_eq!(bench.chip.registers.get(word::VM_CONTEXT1_PROTECTION_FAULT_ADDR), 7);
        assert_eq!(bench.interrupts(), 2);
    }

    #[test]
    fn buffers_do_not_nest_and_do_not_loop() {
        let mut bench = Bench::new();
        let itself = [0x4000_0000, GART_BUFFER as u32, 3 << 12];
        bench.put_buffer(&itself);
        bench.dma(0, &itself);
        assert_eq!(bench.misuse(), ["gpu0: DMA engine 0: an indirect buffer in an indirect buffer"]);
    }

    #[test]
    fn work_is_bounded() {
        let mut bench = Bench::new();
        let vram = bench.vram_address() as u32;
        let fill = [0xd000_0004, vram, 1, 0];
        let buffer = [0x4000_0000, vram, 9 << 12];
        let mut run = Run { chip: &mut bench.chip, engine: 1, budget: Budget::of(8, 16) };
        run.packets(&[fill, fill].concat(), None);
        run.packets(&buffer, None);
        let expected = ["more bytes than anybody needs to move", "more packets than anybody needs"];
        assert_eq!(bench.misuse(), expected.map(|what| format!("gpu0: DMA engine 1: {what}")));
    }
}
