//! PCI configuration space: a type 0 header and the MSI-X capability (PCI Local Bus 3.0, 6.1 and 6.8.2).

use super::{BAR_COUNT, OutOfRange};

/// Bytes of the conventional configuration space.
const SIZE: usize = 256;

const VENDOR: usize = 0x00;
const DEVICE: usize = 0x02;
const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const REVISION: usize = 0x08;
const CLASS: usize = 0x09;
const BARS: usize = 0x10;
const SUBSYSTEM_VENDOR: usize = 0x2c;
const SUBSYSTEM: usize = 0x2e;
const CAPABILITIES: usize = 0x34;
const INTERRUPT_LINE: usize = 0x3c;
const FIRST_CAPABILITY: usize = 0x40;

/// I/O space, memory space, bus master, parity, SERR#, INTx disable.
const COMMAND_WRITABLE: u16 = 0x0547;
const STATUS_HAS_CAPABILITIES: u16 = 0x0010;
const CAPABILITY_MSIX: u8 = 0x11;
/// MSI-X enable and function mask.
const MSIX_CONTROL_WRITABLE: u16 = 0xc000;

/// What a function says it is.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) vendor: u16,
    pub(crate) device: u16,
    pub(crate) subsystem_vendor: u16,
    pub(crate) subsystem: u16,
    /// Base class, sub-class and programming interface, as in 0x020000.
    pub(crate) class: u32,
    pub(crate) revision: u8,
    /// 32-bit memory BARs: powers of two from 16 on, 0 where there is none.
    pub(crate) bar_sizes: [u32; BAR_COUNT],
    pub(crate) msix: MsixCapability,
}

/// Where MSI-X vectors are configured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MsixCapability {
    /// Vectors of the function, at least one.
    pub(crate) vectors: u16,
    /// The BAR that holds table and pending bits.
    pub(crate) bar: u8,
    /// Offset of the table in the BAR.
    pub(crate) table: u32,
    /// Offset of the pending bits in the BAR.
    pub(crate) pending: u32,
}

/// The bytes of configuration space, and which bits of them a driver may change.
pub(crate) struct ConfigurationSpace {
    bytes: [u8; SIZE],
    writable: [u8; SIZE],
}

impl ConfigurationSpace {
    pub(crate) fn new(identity: &Identity) -> ConfigurationSpace {
        let mut space = ConfigurationSpace { bytes: [0; SIZE], writable: [0; SIZE] };
        space.put(VENDOR, &identity.vendor.to_le_bytes());
        space.put(DEVICE, &identity.device.to_le_bytes());
        space.put(STATUS, &STATUS_HAS_CAPABILITIES.to_le_bytes());
        space.put(REVISION, &[identity.revision]);
        space.put(CLASS, &identity.class.to_le_bytes()[..3]);
        space.put(SUBSYSTEM_VENDOR, &identity.subsystem_vendor.to_le_bytes());
        space.put(SUBSYSTEM, &identity.subsystem.to_le_bytes());
        space.put(CAPABILITIES, &[FIRST_CAPABILITY as u8]);
        space.allow(COMMAND, &COMMAND_WRITABLE.to_le_bytes());
        space.allow(INTERRUPT_LINE, &[0xff]);
        for (index, size) in identity.bar_sizes.iter().enumerate().filter(|(_, size)| **size > 0) {
            // The address bits below the size read as zero: that is how a driver learns it.
            space.allow(BARS + index * 4, &(!(size - 1)).to_le_bytes());
        }
        let MsixCapability { vectors, bar, table, pending } = identity.msix;
        space.put(FIRST_CAPABILITY, &[CAPABILITY_MSIX, 0]);
        space.put(FIRST_CAPABILITY + 2, &(vectors.max(1) - 1).to_le_bytes());
        space.put(FIRST_CAPABILITY + 4, &(table | u32::from(bar)).to_le_bytes());
        space.put(FIRST_CAPABILITY + 8, &(pending | u32::from(bar)).to_le_bytes());
        space.allow(FIRST_CAPABILITY + 2, &MSIX_CONTROL_WRITABLE.to_le_bytes());
        space
    }

    fn put(&mut self, offset: usize, bytes: &[u8]) {
        self.bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    fn allow(&mut self, offset: usize, bits: &[u8]) {
        self.writable[offset..offset + bits.len()].copy_from_slice(bits);
    }

    pub(crate) fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), OutOfRange> {
        into.copy_from_slice(self.bytes.get(range(offset, into.len())?).ok_or(OutOfRange)?);
        Ok(())
    }

    pub(crate) fn write(&mut self, offset: u64, from: &[u8]) -> Result<(), OutOfRange> {
        let range = range(offset, from.len())?;
        let writable = self.writable.get(range.clone()).ok_or(OutOfRange)?;
        let bytes = self.bytes.get_mut(range).ok_or(OutOfRange)?;
        for ((byte, mask), new) in bytes.iter_mut().zip(writable).zip(from) {
            *byte = *byte & !mask | new & mask;
        }
        Ok(())
    }
}

fn range(offset: u64, length: usize) -> Result<std::ops::Range<usize>, OutOfRange> {
    let start = usize::try_from(offset).map_err(|_| OutOfRange)?;
    Ok(start..start.checked_add(length).ok_or(OutOfRange)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space() -> ConfigurationSpace {
        ConfigurationSpace::new(&Identity {
            vendor: 0x1ae0,
            device: 0x0042,
            subsystem_vendor: 0x1ae0,
            subsystem: 0x0058,
            class: 0x020000,
            revision: 1,
            bar_sizes: [4096, 8192, 4096, 0, 0, 0],
            msix: MsixCapability { vectors: 9, bar: 1, table: 0, pending: 0x1000 },
        })
    }

    fn read_u32(space: &ConfigurationSpace, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        space.read(offset, &mut bytes).unwrap();
        u32::from_le_bytes(bytes)
    }

    #[test]
    fn header_and_capability() {
        let space = space();
        assert_eq!(read_u32(&space, 0), 0x0042_1ae0);
        assert_eq!(read_u32(&space, 8), 0x0200_0001);
        assert_eq!(read_u32(&space, 0x34), 0x40);
        assert_eq!(read_u32(&space, 0x40), 0x0008_0011, "nine vectors");
        assert_eq!((read_u32(&space, 0x44), read_u32(&space, 0x48)), (1, 0x1001));
    }

    #[test]
    fn only_writable_bits_change() {
        let mut space = space();
        space.write(0, &[0xff; 4]).unwrap();
        assert_eq!(read_u32(&space, 0), 0x0042_1ae0);
        space.write(0x14, &[0xff; 4]).unwrap();
        assert_eq!(read_u32(&space, 0x14), 0xffff_e000, "the size of BAR 1");
        space.write(0x1c, &[0xff; 4]).unwrap();
        assert_eq!(read_u32(&space, 0x1c), 0, "there is no BAR 3");
        space.write(0x42, &[0xff; 2]).unwrap();
        assert_eq!(read_u32(&space, 0x40), 0xc008_0011);
    }

    #[test]
    fn accesses_outside_are_refused() {
        let mut space = space();
        assert!(space.read(253, &mut [0; 4]).is_err());
        assert!(space.write(u64::MAX, &[0; 4]).is_err());
    }
}
