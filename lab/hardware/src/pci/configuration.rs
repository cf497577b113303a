//! PCI configuration space: a type 0 header (PCI Local Bus 3.0, 6.1) and the capabilities that
//! [`Capability`] lists.

use super::OutOfRange;
use super::identity::{BAR_COUNT, Bar, Capability, Identity, Link, MsixCapability};

/// Bytes of the conventional configuration space.
pub(crate) const CONVENTIONAL_SIZE: usize = 256;
/// Bytes of the configuration space of PCI Express.
pub(crate) const EXPRESS_SIZE: usize = 4096;

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

/// I/O space, memory space, bus master, parity, SERR#, INTx disable.
const COMMAND_WRITABLE: u16 = 0x0547;
const COMMAND_MEMORY_SPACE: u8 = 0x02;
const STATUS_HAS_CAPABILITIES: u16 = 0x0010;

/// Identifiers of capabilities (PCI Code and ID Assignment Specification 1.11, 2).
mod capability {
    pub(super) const POWER_MANAGEMENT: u8 = 0x01;
    pub(super) const MSI: u8 = 0x05;
    pub(super) const VENDOR: u8 = 0x09;
    pub(super) const EXPRESS: u8 = 0x10;
    pub(super) const MSIX: u8 = 0x11;
}

/// MSI-X enable and function mask.
const MSIX_CONTROL_WRITABLE: u16 = 0xc000;
/// MSI: 64-bit addresses.
const MSI_CONTROL: u16 = 0x0080;
/// MSI: enable, and how many of the vectors.
const MSI_CONTROL_WRITABLE: u16 = 0x0071;

/// The bytes of configuration space, and which bits of them a driver may change.
pub(crate) struct ConfigurationSpace {
    bytes: Vec<u8>,
    writable: Vec<u8>,
    bars: [Bar; BAR_COUNT],
}

impl ConfigurationSpace {
    pub(crate) fn new(identity: &Identity) -> ConfigurationSpace {
        let size = if identity.is_express() { EXPRESS_SIZE } else { CONVENTIONAL_SIZE };
        let mut space =
            ConfigurationSpace { bytes: vec![0; size], writable: vec![0; size], bars: identity.bars };
        space.put(VENDOR, &identity.vendor.to_le_bytes());
        space.put(DEVICE, &identity.device.to_le_bytes());
        space.put(STATUS, &STATUS_HAS_CAPABILITIES.to_le_bytes());
        space.put(REVISION, &[identity.revision]);
        space.put(CLASS, &identity.class.to_le_bytes()[..3]);
        space.put(SUBSYSTEM_VENDOR, &identity.subsystem_vendor.to_le_bytes());
        space.put(SUBSYSTEM, &identity.subsystem.to_le_bytes());
        space.allow(COMMAND, &COMMAND_WRITABLE.to_le_bytes());
        space.allow(INTERRUPT_LINE, &[0xff]);
        for (index, bar) in identity.bars.iter().enumerate() {
            space.add_bar(index, *bar);
        }
        for (offset, bytes) in &identity.registers {
            space.put(usize::from(*offset), bytes);
        }
        let mut pointer = CAPABILITIES;
        let mut place = usize::from(identity.capabilities_at);
        for capability in &identity.capabilities {
            space.put(pointer, &[place as u8]);
            pointer = place + 1;
            place = (place + space.add_capability(place, capability)).next_multiple_of(4);
        }
        space
    }

    fn add_bar(&mut self, index: usize, bar: Bar) {
        let offset = BARS + index * 4;
        // The address bits below the size read as zero: that is how a driver learns it.
        match bar {
            Bar::None => return,
            Bar::Memory32(size) => self.allow(offset, &(!(size - 1)).to_le_bytes()),
            Bar::Memory64 { size, .. } => self.allow(offset, &(!(size - 1)).to_le_bytes()),
        }
        self.put(offset, &[bar.type_bits()]);
    }

    /// Writes a capability at `at`, with no next one yet, and returns how many bytes it takes.
    fn add_capability(&mut self, at: usize, capability: &Capability) -> usize {
        match capability {
            Capability::Msix(MsixCapability { vectors, bar, table, pending }) => {
                self.put(at, &[capability::MSIX, 0]);
                self.put(at + 2, &(vectors.max(&1) - 1).to_le_bytes());
                self.put(at + 4, &(table | u32::from(*bar)).to_le_bytes());
                self.put(at + 8, &(pending | u32::from(*bar)).to_le_bytes());
                self.allow(at + 2, &MSIX_CONTROL_WRITABLE.to_le_bytes());
                12
            }
            Capability::Msi => {
                self.put(at, &[capability::MSI, 0]);
                self.put(at + 2, &MSI_CONTROL.to_le_bytes());
                self.allow(at + 2, &MSI_CONTROL_WRITABLE.to_le_bytes());
                // Address without its two lowest bits, and data.
                self.allow(at + 4, &[0xfc, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
                14
            }
            Capability::PowerManagement => {
                // Version 3 of the interface; control: state, and no soft reset.
                self.put(at, &[capability::POWER_MANAGEMENT, 0, 0x03, 0x00, 0x08, 0x00]);
                self.allow(at + 4, &[0x03]);
                8
            }
            Capability::PciExpress(link) => {
                self.add_express(at, *link);
                0x3c
            }
            Capability::Vendor(bytes) => {
                self.put(at, &[capability::VENDOR, 0]);
                self.put(at + 2, bytes);
                2 + bytes.len()
            }
        }
    }

    /// The capability of an endpoint (PCI Express Base 4.0, 7.5.3).
    fn add_express(&mut self, at: usize, link: Link) {
        // Version 2, endpoint.
        self.put(at, &[capability::EXPRESS, 0, 0x02, 0x00]);
        // Device capabilities: payloads of 256 bytes, extended tags, role-based error reporting.
        self.put(at + 0x04, &0x0000_8021u32.to_le_bytes());
        // Device control: error reporting, relaxed ordering, payload size, tags, no snoop, request size.
        self.allow(at + 0x08, &0x79ffu16.to_le_bytes());
        let link_word = u16::from(link.speed) | u16::from(link.width) << 4;
        self.put(at + 0x0c, &u32::from(link_word).to_le_bytes());
        self.allow(at + 0x10, &0x00c3u16.to_le_bytes());
        self.put(at + 0x12, &link_word.to_le_bytes());
        // Link capabilities 2: all speeds up to the link's; link control 2: the target speed.
        let speeds = ((1u32 << link.speed) - 1) << 1;
        self.put(at + 0x2c, &speeds.to_le_bytes());
        self.put(at + 0x30, &[link.speed]);
        self.allow(at + 0x30, &[0x0f]);
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

    /// Where a BAR is on the bus; `None` while the function does not answer to memory addresses, and
    /// for the addresses that only serve to learn the BAR's size.
    pub(crate) fn bar_address(&self, index: usize) -> Option<u64> {
        if self.bytes[COMMAND] & COMMAND_MEMORY_SPACE == 0 {
            return None;
        }
        let word = |index: usize| {
            let bytes = self.bytes.get(BARS + index * 4..BARS + index * 4 + 4)?;
            Some(u64::from(u32::from_le_bytes(bytes.try_into().ok()?)))
        };
        let bar = *self.bars.get(index)?;
        let (address, all) = match bar {
            Bar::None => return None,
            Bar::Memory32(size) => (word(index)? & !0xf, u64::from(!(size - 1))),
            Bar::Memory64 { size, .. } => (word(index)? & !0xf | word(index + 1)? << 32, !(size - 1)),
        };
        (address != 0 && address != all).then_some(address)
    }
}

fn range(offset: u64, length: usize) -> Result<std::ops::Range<usize>, OutOfRange> {
    let start = usize::try_from(offset).map_err(|_| OutOfRange)?;
    Ok(start..start.checked_add(length).ok_or(OutOfRange)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        let mut bars = [Bar::Memory32(4096), Bar::Memory32(8192), Bar::None, Bar::None, Bar::None, Bar::None];
        bars[4] = Bar::Memory64 { size: 256 << 20, prefetchable: true };
        Identity {
            vendor: 0x1ae0,
            device: 0x0042,
            subsystem_vendor: 0x1ae0,
            subsystem: 0x0058,
            class: 0x020000,
            revision: 1,
            bars,
            capabilities: vec![Capability::Msix(MsixCapability {
                vectors: 9,
                bar: 1,
                table: 0,
                pending: 0x1000,
            })],
            capabilities_at: 0x40,
            registers: Vec::new(),
        }
    }

    fn space() -> ConfigurationSpace {
        ConfigurationSpace::new(&identity())
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
    fn capabilities_form_a_list() {
        let capabilities = vec![
            Capability::PowerManagement,
            Capability::Msi,
            Capability::Vendor(vec![4, 9]),
            Capability::PciExpress(Link { speed: 3, width: 16 }),
        ];
        let registers = vec![(0x50, vec![0xc0])];
        let space = ConfigurationSpace::new(&Identity {
            capabilities,
            capabilities_at: 0x80,
            registers,
            ..identity()
        });
        assert_eq!(read_u32(&space, 0x34), 0x80);
        assert_eq!(read_u32(&space, 0x80), 0x0003_8801);
        assert_eq!(read_u32(&space, 0x88), 0x0080_9805);
        assert_eq!(read_u32(&space, 0x98), 0x0904_9c09);
        assert_eq!(read_u32(&space, 0x9c), 0x0002_0010);
        assert_eq!(read_u32(&space, 0x9c + 0x0c), 0x103, "16 lanes of 8 GT/s");
        assert_eq!(read_u32(&space, 0x50), 0xc0);
        assert_eq!(read_u32(&space, 0xffc), 0, "an extended configuration space");
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
        space.write(0x20, &[0xff; 8]).unwrap();
        assert_eq!(read_u32(&space, 0x20), 0xf000_000c, "64 bits, prefetchable");
        assert_eq!(read_u32(&space, 0x24), 0xffff_ffff);
        space.write(0x42, &[0xff; 2]).unwrap();
        assert_eq!(read_u32(&space, 0x40), 0xc008_0011);
    }

    #[test]
    fn a_bar_has_an_address_while_memory_space_is_enabled() {
        let mut space = space();
        space.write(0x20, &0x0000_0038_c000_0000u64.to_le_bytes()).unwrap();
        assert_eq!(space.bar_address(4), None);
        space.write(4, &[0x02]).unwrap();
        assert_eq!(space.bar_address(4), Some(0x38_c000_0000));
        assert_eq!(space.bar_address(0), None, "not given an address yet");
        assert_eq!(space.bar_address(5), None, "the upper half");
        space.write(0x20, &[0xff; 8]).unwrap();
        assert_eq!(space.bar_address(4), None, "being sized");
    }

    #[test]
    fn accesses_outside_are_refused() {
        let mut space = space();
        assert!(space.read(253, &mut [0; 4]).is_err());
        assert!(space.write(u64::MAX, &[0; 4]).is_err());
    }
}
