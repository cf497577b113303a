//! The command processor: the few packets of PM4 that do more than drive the graphics pipeline.
//!
//! It has three rings, 0 for graphics, 1 and 2 for compute (`gfx_v6_0.c`). There are no shaders: draws and
//! dispatches, like all that the model does not know, pass without effect, and the fences after them come.
//! Everything is done before the write of the doorbell returns, so that nothing ever has to be waited for.

mod packets;

#[cfg(test)]
mod tests;

use super::address::Vmid;
use super::chip::{Budget, Chip, Refused};
use super::interrupts::Source;
use super::register_map::word;
use super::rings;
use packets::{Data, EndOfPipeData, Packet, decode};

/// In `CP_ME_CNTL`: one of the processors is halted.
const HALT: u32 = 1 << 28 | 1 << 26 | 1 << 24;
/// In `CP_INT_CNTL_RING0` and its like: ends of the pipe interrupt.
const END_OF_PIPE_ENABLE: u32 = 1 << 26;

/// A ring leads to buffers, and these to others, but no further.
const DEEPEST_BUFFER: u32 = 2;

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
    let mut run = Run { chip, ring: index, budget: Budget::new(), shaders: false };
    if let Ok(words) = ring.fetch(run.chip, &mut run.budget) {
        run.packets(&words, 0, 0);
    }
    if run.shaders {
        let told = format_args!("command ring {index}: shaders pass without effect");
        run.chip.misuse.trace(&run.chip.name, told);
    }
    ring.finish(run.chip);
}

/// What one doorbell starts.
struct Run<'a> {
    chip: &'a mut Chip,
    ring: usize,
    budget: Budget,
    /// Packets that start shaders were passed over.
    shaders: bool,
}

impl Run<'_> {
    /// Executes packets: of the ring itself at depth 0, or of an indirect buffer of a virtual machine, and those
    /// of the buffers chained to it. What cannot be read ends them.
    fn packets(&mut self, words: &[u32], vmid: Vmid, depth: u32) {
        let mut chained = self.packets_in_a_row(words, vmid, depth);
        while let Some(words) = chained {
            chained = self.packets_in_a_row(&words, vmid, depth);
        }
    }

    /// Executes packets until one leads elsewhere for good, and returns what is there. A packet whose addresses
    /// are refused is skipped.
    fn packets_in_a_row(&mut self, mut words: &[u32], vmid: Vmid, depth: u32) -> Option<Vec<u32>> {
        while !words.is_empty() {
            let Ok((packet, length)) = decode(words) else {
                let (ring, head, rest) = (self.ring, words[0], words.len());
                self.chip.misuse(format_args!(
                    "command ring {ring}: packet {head:#010x} is longer than the {rest} words that there are"
                ));
                return None;
            };
            // Only a buffer can be chained to: a ring goes on for ever.
            if let Packet::IndirectBuffer { address, words, chained: true, .. } = packet
                && depth > 0
            {
                return self.buffer(vmid, address, words).ok();
            }
            words = &words[length..];
            // What was refused has been told of.
            let skipped = self.packet(&packet, vmid, depth).unwrap_or(0);
            words = words.get(skipped as usize..).unwrap_or(&[]);
        }
        None
    }

    /// The packets of an indirect buffer.
    fn buffer(&mut self, vmid: Vmid, address: u64, words: u32) -> Result<Vec<u32>, Refused> {
        if !self.budget.take_words(words.into()) {
            return Err(self.refuse(format_args!("more packets than anybody needs")));
        }
        self.chip.read_words(vmid, address, words as usize)
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
            Packet::IndirectBuffer { vmid: of, address, words, .. } => {
                if depth == DEEPEST_BUFFER {
                    return Err(self.refuse(format_args!("an indirect buffer too deep in others")));
                }
                // A buffer belongs to the virtual machine of the one that leads to it.
                let vmid = if depth == 0 { of } else { vmid };
                let words = self.buffer(vmid, address, words)?;
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
            Packet::CopyData { to, from, long } => {
                let mut bytes = match from {
                    Data::Memory(_) => [0; 8],
                    Data::Immediate(value) => value.to_le_bytes(),
                    Data::Clock => self.chip.clock().to_le_bytes(),
                };
                let bytes = &mut bytes[..if long { 8 } else { 4 }];
                if let Data::Memory(from) = from {
                    self.chip.read(vmid, from, bytes)?;
                }
                self.chip.write(vmid, to, bytes)?;
            }
            Packet::Shaders => self.shaders = true,
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
