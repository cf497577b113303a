//! Packets of PM4: what their words mean.
//!
//! A packet's first word holds its type in the highest bits, the number of words after it less one, and for
//! type 3 an operation (`sid.h`).

use crate::gpu::amd::address::Vmid;

/// Where registers of a class begin.
const CONFIG_REGISTERS: u32 = 0x2000;
const SHADER_REGISTERS: u32 = 0x2c00;
const CONTEXT_REGISTERS: u32 = 0xa000;

/// In the last word of an indirect buffer packet: what comes after it is not executed (Mesa: `S_3F2_CHAIN`).
const CHAIN: u32 = 1 << 20;

/// Operations of packets of type 3.
mod operation {
    pub(super) const DISPATCH_DIRECT: u32 = 0x15;
    pub(super) const DISPATCH_INDIRECT: u32 = 0x16;
    pub(super) const COND_EXEC: u32 = 0x22;
    pub(super) const INDIRECT_BUFFER_CONST: u32 = 0x31;
    /// As Mesa names it; like the next one, of Southern Islands only.
    pub(super) const INDIRECT_BUFFER_SI: u32 = 0x32;
    pub(super) const WRITE_DATA: u32 = 0x37;
    pub(super) const INDIRECT_BUFFER: u32 = 0x3f;
    pub(super) const COPY_DATA: u32 = 0x40;
    pub(super) const CP_DMA: u32 = 0x41;
    pub(super) const EVENT_WRITE_EOP: u32 = 0x47;
    pub(super) const SET_CONFIG_REG: u32 = 0x68;
    pub(super) const SET_CONTEXT_REG: u32 = 0x69;
    pub(super) const SET_SH_REG: u32 = 0x76;
}

/// A packet.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Packet<'a> {
    /// Writes registers in a row; those for which there is a packet may be written by processes too.
    SetRegisters { first: u32, values: &'a [u32] },
    /// Writes a register, or several in a row, as only the driver may.
    WriteRegisters { first: u32, values: &'a [u32], one: bool },
    /// Writes words into memory.
    Write { to: u64, words: &'a [u32] },
    /// Executes packets that lie elsewhere; when chained, without coming back from there.
    IndirectBuffer { vmid: Vmid, address: u64, words: u32, chained: bool },
    /// Skips words after the packet unless there is something else than 0 in memory.
    Condition { address: u64, words: u32 },
    /// Copies bytes.
    Copy { to: u64, from: u64, bytes: u64 },
    /// Fills with a word.
    Fill { to: u64, value: u32, bytes: u64 },
    /// Stores a word or two.
    CopyData { to: u64, from: Data, long: bool },
    /// Starts shaders, of which the model has none.
    Shaders,
    /// Tells in memory that all before is done, and interrupts if that is wanted.
    EndOfPipe { address: u64, data: EndOfPipeData, interrupt: bool },
    /// Nothing to do.
    Nothing,
}

/// Where [`Packet::CopyData`] takes its words from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Data {
    Memory(u64),
    Immediate(u64),
    Clock,
}

/// What is written at the end of the pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndOfPipeData {
    Nothing,
    Word(u32),
    Words(u64),
    Clock,
}

/// Words are missing at the end of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Short;

/// Reads a packet at the beginning of `words`; also tells how many of them it has.
pub(super) fn decode(words: &[u32]) -> Result<(Packet<'_>, usize), Short> {
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
            let (words, chained) = (control & 0xf_ffff, control & CHAIN != 0);
            Some(Packet::IndirectBuffer { vmid, address: address(0, 1)? & !3, words, chained })
        }
        operation::COND_EXEC => {
            Some(Packet::Condition { address: address(0, 1)? & !3, words: word(2)? & 0x3fff })
        }
        operation::DISPATCH_DIRECT | operation::DISPATCH_INDIRECT => Some(Packet::Shaders),
        operation::COPY_DATA => {
            let control = word(0)?;
            let from = match control & 0xf {
                1 => Data::Memory(address(1, 2)? & !3),
                5 => Data::Immediate(u64::from(word(2)?) << 32 | u64::from(word(1)?)),
                9 => Data::Clock,
                _ => return None,
            };
            let to = address(3, 4)? & !3;
            let to_memory = matches!(control >> 8 & 0xf, 1 | 5);
            to_memory.then_some(Packet::CopyData { to, from, long: control >> 16 & 1 != 0 })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_as_the_driver_writes_them() {
        let scratch = [0xc001_6800, 0x140, 0xdead_beef];
        assert_eq!(decode(&scratch), Ok((Packet::SetRegisters { first: 0x2140, values: &scratch[2..] }, 3)));
        let register = [0xc003_3700, 1 << 30, 0x51e, 0, 4];
        let values = &register[4..];
        assert_eq!(decode(&register), Ok((Packet::WriteRegisters { first: 0x51e, values, one: false }, 5)));
        let buffer = [0xc002_3f00, 0x1000, 1, 3 << 24 | 16];
        let packet = |chained| Packet::IndirectBuffer { vmid: 3, address: 0x1_0000_1000, words: 16, chained };
        assert_eq!(decode(&buffer), Ok((packet(false), 4)));
        let chained = [0xc002_3200, 0x1000, 1, 3 << 24 | 1 << 20 | 16];
        assert_eq!(decode(&chained), Ok((packet(true), 4)));
        let end = [0xc004_4700, 0x514, 0x40, 1 << 29 | 2 << 24, 9, 0];
        let data = EndOfPipeData::Word(9);
        assert_eq!(decode(&end), Ok((Packet::EndOfPipe { address: 0x40, data, interrupt: true }, 6)));
        let fill = [0xc004_4100, 7, 2 << 29, 0x1000, 2, 0x800];
        assert_eq!(decode(&fill), Ok((Packet::Fill { to: 0x2_0000_1000, value: 7, bytes: 0x800 }, 6)));
        let clock = [0xc004_4000, 1 << 16 | 5 << 8 | 9, 0, 0, 0x1000, 2];
        let packet = Packet::CopyData { to: 0x2_0000_1000, from: Data::Clock, long: true };
        assert_eq!(decode(&clock), Ok((packet, 6)));
        let to_register = [0xc004_4000, 5, 7, 0, 0x1000, 0];
        assert_eq!(decode(&to_register), Ok((Packet::Nothing, 6)));
        assert_eq!(decode(&[0xc003_1502, 1, 1, 1, 1]), Ok((Packet::Shaders, 5)));
        let from_register = [0xc004_4100, 7, 0, 0x1000, 2, 1 << 26 | 4];
        assert_eq!(decode(&from_register), Ok((Packet::Nothing, 6)));
        assert_eq!(decode(&[0x8000_0000, 1]), Ok((Packet::Nothing, 1)), "type 2");
        assert_eq!(decode(&[0xc003_3700, 0, 0]), Err(Short));
        assert_eq!(decode(&[0xc000_3700, 0]), Ok((Packet::Nothing, 2)), "too few words for what it is");
    }
}
