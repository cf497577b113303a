//! The registers of BAR 0. All are big-endian.

/// How the driver may use a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    ReadOnly,
    ReadWrite,
}

/// A register of BAR 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Register {
    /// Bits of [`device_status`].
    DeviceStatus,
    /// Bits of [`driver_status`].
    DriverStatus,
    /// Transmit queues there are at most.
    MaximumTransmitQueues,
    /// Receive queues there are at most.
    MaximumReceiveQueues,
    /// Where revision 0 had the address of the admin queue.
    AdminPageFrame,
    /// Commands that the driver ever put into the admin queue.
    AdminDoorbell,
    /// Commands of the admin queue that the device ever completed.
    AdminEventCounter,
    /// The driver writes its version here, byte by byte, a line.
    DriverVersion,
    /// Address of the admin queue, upper half.
    AdminBaseHigh,
    /// Address of the admin queue, lower half.
    AdminBaseLow,
    /// Bytes of the admin queue.
    AdminLength,
}

use Access::{ReadOnly, ReadWrite};
use Register::*;

/// The register map: offset, bytes, access.
const MAP: [(Register, u64, usize, Access); 11] = [
    (DeviceStatus, 0, 4, ReadOnly),
    (DriverStatus, 4, 4, ReadWrite),
    (MaximumTransmitQueues, 8, 4, ReadOnly),
    (MaximumReceiveQueues, 12, 4, ReadOnly),
    (AdminPageFrame, 16, 4, ReadWrite),
    (AdminDoorbell, 20, 4, ReadWrite),
    (AdminEventCounter, 24, 4, ReadOnly),
    (DriverVersion, 31, 1, ReadWrite),
    (AdminBaseHigh, 32, 4, ReadWrite),
    (AdminBaseLow, 36, 4, ReadWrite),
    (AdminLength, 40, 2, ReadWrite),
];

/// Bits of the device status.
pub(super) mod device_status {
    /// The link is up.
    pub(crate) const LINK_UP: u32 = 1 << 2;
    /// The device finished the reset that the driver asked for.
    pub(crate) const IS_RESET: u32 = 1 << 4;
}

/// Bits of the driver status.
pub(super) mod driver_status {
    /// The driver uses the device.
    pub(crate) const RUN: u32 = 1 << 0;
    /// The driver wants the device to be reset.
    pub(crate) const RESET: u32 = 1 << 1;
}

/// The contents of the registers.
pub(super) struct Registers {
    values: [u32; MAP.len()],
}

impl Registers {
    pub(super) fn new(queue_pairs: u16) -> Registers {
        let mut registers = Registers { values: [0; MAP.len()] };
        registers.set(MaximumTransmitQueues, queue_pairs.into());
        registers.set(MaximumReceiveQueues, queue_pairs.into());
        registers
    }

    pub(super) fn get(&self, register: Register) -> u32 {
        self.values[register as usize]
    }

    pub(super) fn set(&mut self, register: Register, value: u32) {
        self.values[register as usize] = value;
    }

    /// Address and length of the admin queue.
    pub(super) fn admin_queue(&self) -> (u64, u32) {
        let base = u64::from(self.get(AdminBaseHigh)) << 32 | u64::from(self.get(AdminBaseLow));
        (base, self.get(AdminLength))
    }

    /// What the driver reads; where there is no register it reads zeros.
    pub(super) fn read(&self, offset: u64, into: &mut [u8]) {
        into.fill(0);
        for (register, start, size, _) in MAP {
            let value = self.get(register).to_be_bytes();
            for (address, byte) in (start..).zip(&value[4 - size..]) {
                if let Some(place) =
                    address.checked_sub(offset).and_then(|index| into.get_mut(index as usize))
                {
                    *place = *byte;
                }
            }
        }
    }

    /// The driver writes. Tells which register it changed; `None` when there is none that may be
    /// written in this way.
    pub(super) fn write(&mut self, offset: u64, from: &[u8]) -> Option<Register> {
        let (register, _, size, access) = MAP.into_iter().find(|(_, start, ..)| *start == offset)?;
        if size != from.len() || access != ReadWrite {
            return None;
        }
        let mut value = [0; 4];
        value[4 - size..].copy_from_slice(from);
        self.set(register, u32::from_be_bytes(value));
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
            assert!(pair[0].1 + pair[0].2 as u64 <= pair[1].1, "{:?} overlaps {:?}", pair[0].0, pair[1].0);
        }
    }

    #[test]
    fn registers_are_big_endian() {
        let mut registers = Registers::new(4);
        let mut bytes = [0xff; 4];
        registers.read(8, &mut bytes);
        assert_eq!(bytes, [0, 0, 0, 4]);
        assert_eq!(registers.write(32, &[0, 0, 0, 1]), Some(AdminBaseHigh));
        assert_eq!(registers.write(36, &[0x80, 0, 0x10, 0]), Some(AdminBaseLow));
        assert_eq!(registers.write(40, &[0x10, 0]), Some(AdminLength));
        assert_eq!(registers.admin_queue(), (0x1_8000_1000, 4096));
        let mut byte = [0];
        registers.read(40, &mut byte);
        assert_eq!(byte, [0x10]);
    }

    #[test]
    fn only_whole_writable_registers_are_written() {
        let mut registers = Registers::new(4);
        assert_eq!(registers.write(8, &[0, 0, 0, 9]), None, "read-only");
        assert_eq!(registers.write(20, &[0, 9]), None, "half a register");
        assert_eq!(registers.write(21, &[9]), None, "no register begins here");
        assert_eq!(registers.write(31, b"G"), Some(DriverVersion));
    }
}
