//! What the engines share: registers, memory by the GPU's addresses, faults, and the limits of their work.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use super::address::{Access, Place, Protection, Span, Vmid, translate};
use super::interrupts::Source;
use super::memory::{Memory, MemoryError};
use super::register_map::word;
use super::registers::{Read, Registers, Write};
use crate::misuse::MisuseLog;
use crate::pci::Vectors;

/// Bytes that a copy or a fill handles at a time.
const CHUNK: usize = 64 << 10;

/// Cycles of the clock counter in a microsecond: the reference clock.
const CLOCK_MHZ: u128 = 27;

/// Interrupts that faults of processes cause (`VM_CONTEXT1_CNTL`), by what the page tables said.
fn interrupt_enable(protection: Protection) -> u32 {
    match protection {
        Protection::Range => 1 << 3,
        Protection::Directory => 1 << 9,
        Protection::Valid => 1 << 12,
        Protection::Read => 1 << 15,
        Protection::Write => 1 << 18,
    }
}

/// The GPU without its engines.
pub(super) struct Chip {
    pub(super) name: String,
    pub(super) registers: Registers,
    pub(super) memory: Memory,
    pub(super) vectors: Arc<Vectors>,
    pub(super) misuse: Arc<MisuseLog>,
    pub(super) started: Instant,
}

/// An access that failed, and was told of already: the packet that wanted it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused;

/// How much the packets behind one doorbell may still do.
///
/// No driver needs as much, and no process that gathers its memory from pieces; a ring that leads from one
/// indirect buffer to the next and copies without end would keep this process busy for ever.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    words: u64,
    bytes: u64,
}

impl Budget {
    pub(super) fn new() -> Budget {
        // 64 MiB of packets. Mesa takes some 90 bytes of them for a piece that it copies.
        Budget { words: 16 << 20, bytes: 4 << 30 }
    }

    #[cfg(test)]
    pub(super) fn of(words: u64, bytes: u64) -> Budget {
        Budget { words, bytes }
    }

    /// Takes the words of a buffer with packets. False when there are not so many left.
    pub(super) fn take_words(&mut self, words: u64) -> bool {
        take(&mut self.words, words)
    }

    /// Takes bytes to copy or fill. False when there are not so many left.
    pub(super) fn take_bytes(&mut self, bytes: u64) -> bool {
        take(&mut self.bytes, bytes)
    }
}

fn take(left: &mut u64, wanted: u64) -> bool {
    let rest = left.checked_sub(wanted);
    *left = rest.unwrap_or(0);
    rest.is_some()
}

impl Chip {
    pub(super) fn misuse(&self, what: fmt::Arguments<'_>) {
        self.misuse.record(&self.name, what);
    }

    /// The driver reads a register.
    pub(super) fn read_register(&mut self, number: u32) -> u32 {
        match self.registers.read(number) {
            Read::Value(value) => value,
            Read::VideoMemory(offset) => {
                let mut bytes = [0xff; 4];
                if let Err(error) = self.memory.read(Place::Vram(offset), &mut bytes) {
                    self.misuse(format_args!("VRAM read through registers: {error}"));
                }
                u32::from_le_bytes(bytes)
            }
        }
    }

    /// The driver writes a register. Tells what else there is to do.
    pub(super) fn write_register(&mut self, number: u32, value: u32) -> Write {
        let write = self.registers.write(number, value);
        if let Write::VideoMemory(offset) = write
            && let Err(error) = self.memory.write(Place::Vram(offset), &value.to_le_bytes())
        {
            self.misuse(format_args!("VRAM written through registers: {error}"));
        }
        write
    }

    /// The clock counter.
    pub(super) fn clock(&self) -> u64 {
        (self.started.elapsed().as_nanos() * CLOCK_MHZ / 1000) as u64
    }

    fn span(&mut self, vmid: Vmid, address: u64, access: Access) -> Result<Span, Refused> {
        translate(&self.registers, &self.memory, vmid, address, access)
            .map_err(|protection| self.fault(vmid, address, access, protection))
    }

    /// Tells of an address that the page tables refuse; the first one of a process stays in registers until the
    /// driver has seen it.
    fn fault(&mut self, vmid: Vmid, address: u64, access: Access, protection: Protection) -> Refused {
        self.misuse(format_args!("VMID {vmid}: {access:?} of address {address:#x} failed: {protection:?}"));
        if vmid != 0 && self.registers.get(word::VM_CONTEXT1_PROTECTION_FAULT_STATUS) == 0 {
            let write = u32::from(access == Access::Write);
            let status = u32::from(vmid) << 25 | write << 24 | protection as u32;
            self.registers.set(word::VM_CONTEXT1_PROTECTION_FAULT_STATUS, status);
            self.registers.set(word::VM_CONTEXT1_PROTECTION_FAULT_ADDR, (address >> 12) as u32);
            if self.registers.get(word::VM_CONTEXT1_CNTL) & interrupt_enable(protection) != 0 {
                self.interrupt(Source::Fault, 0, vmid);
            }
        }
        Refused
    }

    /// The driver wrote `VM_CONTEXT1_CNTL2`.
    pub(super) fn forget_fault(&mut self) {
        if self.registers.get(word::VM_CONTEXT1_CNTL2) & 1 != 0 {
            self.registers.set(word::VM_CONTEXT1_PROTECTION_FAULT_STATUS, 0);
            self.registers.set(word::VM_CONTEXT1_PROTECTION_FAULT_ADDR, 0);
        }
    }

    fn failed(&self, vmid: Vmid, address: u64, error: &MemoryError) -> Refused {
        self.misuse(format_args!("VMID {vmid}, address {address:#x}: {error}"));
        Refused
    }

    /// Reads by an address of the GPU.
    pub(super) fn read(&mut self, vmid: Vmid, address: u64, into: &mut [u8]) -> Result<(), Refused> {
        let mut done = 0;
        while done < into.len() {
            let here = address.wrapping_add(done as u64);
            let span = self.span(vmid, here, Access::Read)?;
            let end = done + span.length.min((into.len() - done) as u64) as usize;
            let read = self.memory.read(span.place, &mut into[done..end]);
            read.map_err(|error| self.failed(vmid, here, &error))?;
            done = end;
        }
        Ok(())
    }

    /// Writes by an address of the GPU.
    pub(super) fn write(&mut self, vmid: Vmid, address: u64, from: &[u8]) -> Result<(), Refused> {
        let mut done = 0;
        while done < from.len() {
            let here = address.wrapping_add(done as u64);
            let span = self.span(vmid, here, Access::Write)?;
            let end = done + span.length.min((from.len() - done) as u64) as usize;
            let written = self.memory.write(span.place, &from[done..end]);
            written.map_err(|error| self.failed(vmid, here, &error))?;
            done = end;
        }
        Ok(())
    }

    /// Stores a word at once, after all writes before it.
    pub(super) fn publish(&mut self, vmid: Vmid, address: u64, value: u32) -> Result<(), Refused> {
        let span = self.span(vmid, address, Access::Write)?;
        self.memory.publish(span.place, value).map_err(|error| self.failed(vmid, address, &error))
    }

    /// Reads words, such as packets.
    pub(super) fn read_words(&mut self, vmid: Vmid, address: u64, count: usize) -> Result<Vec<u32>, Refused> {
        let mut bytes = vec![0; count * 4];
        self.read(vmid, address, &mut bytes)?;
        Ok(bytes
            .chunks_exact(4)
            .map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
            .collect())
    }

    /// Writes words.
    pub(super) fn write_words(&mut self, vmid: Vmid, address: u64, words: &[u32]) -> Result<(), Refused> {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.write(vmid, address, &bytes)
    }

    /// Copies from lower addresses to higher ones.
    pub(super) fn copy(&mut self, vmid: Vmid, to: u64, from: u64, length: u64) -> Result<(), Refused> {
        let mut buffer = vec![0; CHUNK.min(length as usize)];
        let mut done = 0;
        while done < length {
            let chunk = &mut buffer[..CHUNK.min((length - done) as usize)];
            self.read(vmid, from.wrapping_add(done), chunk)?;
            self.write(vmid, to.wrapping_add(done), chunk)?;
            done += chunk.len() as u64;
        }
        Ok(())
    }

    /// Fills with copies of a word; the last one may be cut short.
    pub(super) fn fill(&mut self, vmid: Vmid, to: u64, value: u32, length: u64) -> Result<(), Refused> {
        let words = CHUNK.min(length as usize).div_ceil(4);
        let buffer = value.to_le_bytes().repeat(words);
        let mut done = 0;
        while done < length {
            let chunk = &buffer[..buffer.len().min((length - done) as usize)];
            self.write(vmid, to.wrapping_add(done), chunk)?;
            done += chunk.len() as u64;
        }
        Ok(())
    }
}
