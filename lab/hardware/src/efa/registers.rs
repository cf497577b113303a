//! The registers in the first page of BAR 0. All are little-endian words of 32 bits.
//!
//! A driver only writes to them. To read one it writes the register's offset to [`Register::ReadRequest`], and the
//! device puts the value into host memory: a read across the bus would make the processor wait.

/// How a driver uses a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    /// It asks for the value with [`Register::ReadRequest`].
    Request,
    /// It writes.
    Write,
}

/// A register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Register {
    /// Of the admin interface: minor in bits 7:0, major in 15:8.
    Version,
    /// Of the controller: subminor in bits 7:0, minor in 15:8, major in 23:16, implementation in 31:24.
    ControllerVersion,
    /// Bits of [`capabilities`].
    Capabilities,
    /// Address of the admin queue.
    AdminQueueLow,
    AdminQueueHigh,
    /// Entries of the admin queue in bits 15:0, bytes of each in 31:16.
    AdminQueueCapabilities,
    /// Address of the queue of completed commands.
    AdminCompletionLow,
    AdminCompletionHigh,
    /// Entries in bits 15:0, bytes of each in 23:16, interrupt vector in 31:24.
    AdminCompletionCapabilities,
    /// How many commands the driver ever put into the admin queue, modulo 2^16.
    AdminDoorbell,
    /// Entries of the queue of events in bits 15:0, bytes of each in 23:16, interrupt vector in 31:24.
    AsyncEventCapabilities,
    /// Address of the queue of events.
    AsyncEventLow,
    AsyncEventHigh,
    /// How many events the driver ever took.
    AsyncEventConsumer,
    /// Bit 0: no interrupts for completed commands and events, the driver polls.
    InterruptMask,
    /// Bits of [`device_control`].
    DeviceControl,
    /// Bits of [`device_status`].
    DeviceStatus,
    /// Request to read: its number in bits 15:0, the register's offset in 31:16.
    ReadRequest,
    /// Where to put the answer.
    ReadAnswerLow,
    ReadAnswerHigh,
    /// Doorbell of the event queues: the queue in bits 15:0; bit 31 arms it.
    EventQueueDoorbell,
}

use Access::{Request, Write};
use Register::*;

/// The register map: offset and access.
const MAP: [(Register, u64, Access); 21] = [
    (Version, 0x00, Request),
    (ControllerVersion, 0x04, Request),
    (Capabilities, 0x08, Request),
    (AdminQueueLow, 0x10, Write),
    (AdminQueueHigh, 0x14, Write),
    (AdminQueueCapabilities, 0x18, Write),
    (AdminCompletionLow, 0x20, Write),
    (AdminCompletionHigh, 0x24, Write),
    (AdminCompletionCapabilities, 0x28, Write),
    (AdminDoorbell, 0x2c, Write),
    (AsyncEventCapabilities, 0x34, Write),
    (AsyncEventLow, 0x38, Write),
    (AsyncEventHigh, 0x3c, Write),
    (AsyncEventConsumer, 0x40, Write),
    (InterruptMask, 0x4c, Write),
    (DeviceControl, 0x54, Write),
    (DeviceStatus, 0x58, Request),
    (ReadRequest, 0x5c, Write),
    (ReadAnswerLow, 0x60, Write),
    (ReadAnswerHigh, 0x64, Write),
    (EventQueueDoorbell, 0x68, Write),
];

/// Version 0.3: completed commands carry a checksum (from 0.2 on), and a driver may use commands of 128 bytes, which
/// carry one too.
const VERSION: u32 = 3;
/// Controller version 0.0.1.
const CONTROLLER_VERSION: u32 = 1;

/// Fields of the capabilities.
pub(super) mod capabilities {
    /// Bits 5:1: how long a reset takes at most, in 100 ms.
    pub(crate) const RESET_TIMEOUT: u32 = 10 << 1;
    /// Bits 15:8: bits of a bus address.
    pub(crate) const ADDRESS_BITS: u32 = 48;
    /// Bits 19:16: how long a command takes at most, in 100 ms; 0 leaves it to the driver.
    pub(crate) const ALL: u32 = RESET_TIMEOUT | ADDRESS_BITS << 8;
}

/// Bits of the device control.
pub(super) mod device_control {
    /// Reset while set; bits 31:28 say why.
    pub(crate) const RESET: u32 = 1 << 0;
}

/// Bits of the device status.
pub(super) mod device_status {
    /// The device may be used.
    pub(crate) const READY: u32 = 1 << 0;
    /// The reset has begun and ends when the driver clears it.
    pub(crate) const RESET_IN_PROGRESS: u32 = 1 << 3;
    /// There was a reset.
    pub(crate) const RESET_FINISHED: u32 = 1 << 4;
}

/// The contents of the registers.
pub(super) struct Registers {
    values: [u32; MAP.len()],
}

impl Registers {
    pub(super) fn new() -> Registers {
        let mut registers = Registers { values: [0; MAP.len()] };
        registers.set(Version, VERSION);
        registers.set(ControllerVersion, CONTROLLER_VERSION);
        registers.set(Capabilities, capabilities::ALL);
        registers.set(DeviceStatus, device_status::READY);
        registers
    }

    pub(super) fn get(&self, register: Register) -> u32 {
        self.values[register as usize]
    }

    pub(super) fn set(&mut self, register: Register, value: u32) {
        self.values[register as usize] = value;
    }

    /// An address in two registers.
    pub(super) fn address(&self, low: Register, high: Register) -> u64 {
        u64::from(self.get(high)) << 32 | u64::from(self.get(low))
    }

    /// The value at an offset that the driver asked for; `None` where no register can be read.
    pub(super) fn answer(&self, offset: u64) -> Option<u32> {
        let (register, ..) = MAP.into_iter().find(|(_, at, access)| *at == offset && *access == Request)?;
        Some(self.get(register))
    }

    /// The driver writes a word. Tells which register it changed; `None` where none can be written.
    pub(super) fn write(&mut self, offset: u64, value: u32) -> Option<Register> {
        let (register, ..) = MAP.into_iter().find(|(_, at, access)| *at == offset && *access == Write)?;
        self.set(register, value);
        Some(register)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_is_in_the_order_of_the_registers() {
        for (index, (register, ..)) in MAP.into_iter().enumerate() {
            assert_eq!(register as usize, index);
        }
        for pair in MAP.windows(2) {
            assert!(pair[0].1 + 4 <= pair[1].1, "{:?} overlaps {:?}", pair[0].0, pair[1].0);
        }
    }

    #[test]
    fn what_is_read_cannot_be_written() {
        let mut registers = Registers::new();
        assert_eq!(registers.answer(0x58), Some(device_status::READY));
        assert_eq!(registers.write(0x58, 0), None);
        assert_eq!(registers.write(0x60, 0x8000_1000), Some(ReadAnswerLow));
        assert_eq!(registers.write(0x64, 1), Some(ReadAnswerHigh));
        assert_eq!(registers.address(ReadAnswerLow, ReadAnswerHigh), 0x1_8000_1000);
        assert_eq!(registers.answer(0x60), None);
        assert_eq!(registers.write(0x0c, 0), None, "no register");
        assert_eq!(registers.write(0x5e, 0), None, "within a register");
    }

    #[test]
    fn the_capabilities_are_what_a_driver_accepts() {
        let value = Registers::new().answer(0x08).unwrap();
        assert_ne!(value >> 1 & 0x1f, 0, "a reset takes time");
        assert!((32..=64).contains(&(value >> 8 & 0xff)), "bits of an address");
    }
}
