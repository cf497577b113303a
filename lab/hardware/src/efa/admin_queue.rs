//! The three rings of management: commands, completions of them, and asynchronous events.

use super::completion_queue::publish;
use super::fields::{Fields, Structure};
use super::registers::{Register, Registers};
use crate::bus::{AddressSpace, DmaError};

/// Bytes of a command, and of one with a checksum.
const ENTRY: usize = 64;
const ENTRY_WITH_CHECKSUM: usize = 128;
/// Bytes of its header, and of one with a checksum.
const HEADER: usize = 4;
const HEADER_WITH_CHECKSUM: usize = 12;
/// Bytes of a completion and of an event.
const COMPLETION: usize = 64;
const EVENT: usize = 64;
/// Where the word of an event is that is stored last.
const EVENT_FLAGS: usize = 4;

/// Command identifiers have 12 bits.
const IDENTIFIER: u16 = 0xfff;

/// A command as it was read, without its header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) identifier: u16,
    pub(super) opcode: u8,
    pub(super) flags: u8,
    pub(super) body: Vec<u8>,
    /// The checksum, if it has one, fits.
    pub(super) intact: bool,
}

/// How far the rings are.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AdminRings {
    taken: u16,
    completed: u32,
    events: u32,
}

impl AdminRings {
    /// How many commands the driver added. `None` when it cannot have: the ring has not so many entries.
    pub(super) fn new_commands(&self, registers: &Registers) -> Option<u16> {
        let depth = registers.get(Register::AdminQueueCapabilities) & 0xffff;
        let new = (registers.get(Register::AdminDoorbell) as u16).wrapping_sub(self.taken);
        (u32::from(new) <= depth && depth.is_power_of_two()).then_some(new)
    }

    /// Passes over commands that cannot be.
    pub(super) fn skip(&mut self, registers: &Registers) {
        self.taken = registers.get(Register::AdminDoorbell) as u16;
    }

    /// Takes the next command.
    ///
    /// # Errors
    /// Why it could not be read. It is passed over.
    pub(super) fn take(&mut self, registers: &Registers, memory: &AddressSpace) -> Result<Entry, DmaError> {
        let capabilities = registers.get(Register::AdminQueueCapabilities);
        let (depth, size) = ((capabilities & 0xffff).max(1), capabilities >> 16);
        let base = registers.address(Register::AdminQueueLow, Register::AdminQueueHigh);
        let index = u32::from(self.taken) % depth;
        self.taken = self.taken.wrapping_add(1);
        let has_checksum = size as usize == ENTRY_WITH_CHECKSUM;
        let mut bytes = vec![0; if has_checksum { ENTRY_WITH_CHECKSUM } else { ENTRY }];
        memory.read(base.wrapping_add(u64::from(index) * u64::from(size)), &mut bytes)?;
        let fields = Fields(&bytes);
        let (identifier, opcode, flags) = (fields.u16(0) & IDENTIFIER, fields.u8(2), fields.u8(3));
        let checksum = fields.u16(4);
        let header = if has_checksum { HEADER_WITH_CHECKSUM } else { HEADER };
        let body = bytes[header..].to_vec();
        bytes[4..6].fill(0);
        let intact = !has_checksum || checksum == crc16(&bytes);
        Ok(Entry { identifier, opcode, flags, body, intact })
    }

    /// Completes a command.
    ///
    /// # Errors
    /// Why the driver could not be told.
    pub(super) fn complete(
        &mut self,
        registers: &Registers,
        memory: &AddressSpace,
        identifier: u16,
        status: u8,
        answer: &[u8],
    ) -> Result<(), DmaError> {
        let depth = (registers.get(Register::AdminCompletionCapabilities) & 0xffff).max(1);
        let base = registers.address(Register::AdminCompletionLow, Register::AdminCompletionHigh);
        let (index, phase) = (self.completed % depth, (self.completed / depth).is_multiple_of(2));
        self.completed = self.completed.wrapping_add(1);
        let mut bytes = Structure::new(COMPLETION).u16(0, identifier).u8(2, status).u8(3, phase.into());
        bytes = bytes.put(8, answer);
        let checksum = crc16(&bytes.clone().bytes());
        let bytes = bytes.u16(4, checksum).bytes();
        publish(memory, base.wrapping_add(u64::from(index) * COMPLETION as u64), 0, &bytes)
    }

    /// Tells the driver of an event; `milliseconds` is its time. False when it has no room for one more.
    ///
    /// # Errors
    /// Why the driver could not be told.
    pub(super) fn notify(
        &mut self,
        registers: &Registers,
        memory: &AddressSpace,
        group: u16,
        milliseconds: u64,
    ) -> Result<bool, DmaError> {
        let depth = registers.get(Register::AsyncEventCapabilities) & 0xffff;
        let taken = registers.get(Register::AsyncEventConsumer);
        if depth == 0 || self.events.wrapping_sub(taken) >= depth {
            return Ok(false);
        }
        let base = registers.address(Register::AsyncEventLow, Register::AsyncEventHigh);
        let (index, phase) = (self.events % depth, (self.events / depth).is_multiple_of(2));
        self.events = self.events.wrapping_add(1);
        let event = Structure::new(EVENT).u16(0, group).u8(EVENT_FLAGS, phase.into()).u64(8, milliseconds);
        let place = base.wrapping_add(u64::from(index) * EVENT as u64);
        publish(memory, place, EVENT_FLAGS, &event.bytes())?;
        Ok(true)
    }
}

/// The checksum of commands and completions: CRC-16 with polynomial 0x8005 (bits reflected), initial value and final
/// XOR 0xffff, over the whole entry with a checksum of 0.
fn crc16(bytes: &[u8]) -> u16 {
    let mut crc = 0xffffu16;
    for byte in bytes {
        crc ^= u16::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xa001 } else { crc >> 1 };
        }
    }
    crc ^ 0xffff
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::bus::{Bus, SharedMemory};

    fn memory() -> Arc<AddressSpace> {
        let ram = SharedMemory::create("ram", 1 << 16).unwrap();
        let space = Bus::new().address_space();
        space.map(0, 1 << 16, Some((ram.file().try_clone().unwrap(), 0)), true).unwrap();
        space
    }

    #[test]
    fn the_checksum_is_crc_16_usb() {
        assert_eq!(crc16(b"123456789"), 0xb4c8, "the check value of CRC-16/USB");
    }

    #[test]
    fn commands_of_both_sizes() {
        let (memory, mut registers) = (memory(), Registers::new());
        registers.set(Register::AdminQueueLow, 0x1000);
        for (size, header) in [(64u32, 4), (128, 12)] {
            let mut rings = AdminRings::default();
            registers.set(Register::AdminQueueCapabilities, size << 16 | 2);
            let mut bytes = vec![0; size as usize];
            bytes[..4].copy_from_slice(&[0x34, 0xf2, 7, 3]);
            bytes[header] = 9;
            if size == 128 {
                let checksum = crc16(&bytes).to_le_bytes();
                bytes[4..6].copy_from_slice(&checksum);
            }
            memory.write(0x1000, &bytes).unwrap();
            registers.set(Register::AdminDoorbell, 1);
            assert_eq!(rings.new_commands(&registers), Some(1));
            let entry = rings.take(&registers, &memory).unwrap();
            assert_eq!((entry.identifier, entry.opcode, entry.flags, entry.body[0]), (0x234, 7, 3, 9));
            assert!(entry.intact);
            if size == 128 {
                memory.write(0x1000 + 127, &[1]).unwrap();
                let mut rings = AdminRings::default();
                assert!(!rings.take(&registers, &memory).unwrap().intact);
            }
            registers.set(Register::AdminDoorbell, 4);
            assert_eq!(rings.new_commands(&registers), None, "more than there is room for");
            rings.skip(&registers);
            assert_eq!(rings.new_commands(&registers), Some(0));
        }
    }

    #[test]
    fn completions_carry_phase_and_checksum() {
        let (memory, mut registers) = (memory(), Registers::new());
        registers.set(Register::AdminCompletionLow, 0x2000);
        registers.set(Register::AdminCompletionCapabilities, 64 << 16 | 1);
        let mut rings = AdminRings::default();
        for phase in [1, 0, 1] {
            rings.complete(&registers, &memory, 5, 3, &[0xaa]).unwrap();
            let mut bytes: [u8; 64] = memory.read_array(0x2000).unwrap();
            assert_eq!(bytes[..4], [5, 0, 3, phase]);
            assert_eq!(bytes[8], 0xaa);
            let checksum = u16::from_le_bytes([bytes[4], bytes[5]]);
            bytes[4..6].fill(0);
            assert_eq!(checksum, crc16(&bytes));
        }
    }

    #[test]
    fn events_wait_for_room() {
        let (memory, mut registers) = (memory(), Registers::new());
        let mut rings = AdminRings::default();
        assert_eq!(rings.notify(&registers, &memory, 4, 0), Ok(false), "no ring");
        registers.set(Register::AsyncEventLow, 0x3000);
        registers.set(Register::AsyncEventCapabilities, 64 << 16 | 2);
        assert_eq!(
            [(); 3].map(|()| rings.notify(&registers, &memory, 4, 9)),
            [Ok(true), Ok(true), Ok(false)]
        );
        registers.set(Register::AsyncEventConsumer, 2);
        assert_eq!(rings.notify(&registers, &memory, 4, 10), Ok(true));
        let bytes: [u8; 16] = memory.read_array(0x3000).unwrap();
        assert_eq!((bytes[0], bytes[4], bytes[8]), (4, 0, 10), "the phase of the second pass");
    }
}
