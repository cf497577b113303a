//! Capabilities in the configuration space of a PCI function.
//!
//! Registers as in the PCI Express base specification, chapter 7, and `linux/pci_regs.h`.

/// Where the extended configuration space begins, and what a function of conventional PCI ends with.
const EXTENDED: usize = 0x100;
/// The largest number of extended capabilities that fit, which ends a list that goes round in circles.
const MOST_EXTENDED: usize = (4096 - EXTENDED) / 8;
/// The largest number of capabilities that fit between the header and the extended space.
const MOST: usize = (EXTENDED - 0x40) / 4;

const STATUS: usize = 0x06;
const STATUS_HAS_CAPABILITIES: u16 = 0x10;
const FIRST_CAPABILITY: usize = 0x34;

const PCI_EXPRESS: u8 = 0x10;
const PCI_EXPRESS_FLAGS: usize = 2;

/// What a PCI Express function says that it is (`PCI_EXP_FLAGS_TYPE`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PortType {
    /// A root port.
    RootPort,
    /// Anything else.
    Other,
}

/// Where an extended capability is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExtendedCapability {
    /// At this offset.
    At(usize),
    /// The function has none of this identifier.
    Absent,
    /// The list goes on where nothing could be read.
    BeyondReach,
    /// The list reads as all ones.
    NoAnswer,
}

/// The 16 bits at `offset`.
pub(super) fn word(space: &[u8], offset: usize) -> Option<u16> {
    let bytes = space.get(offset..)?.first_chunk()?;
    Some(u16::from_le_bytes(*bytes))
}

fn double_word(space: &[u8], offset: usize) -> Option<u32> {
    let bytes = space.get(offset..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

/// Looks for an extended capability in the part `readable` of a space of `size` bytes.
///
/// Only the size of conventional PCI rules one out: a recording made without privilege has files of 64 bytes.
pub(super) fn extended_capability(readable: &[u8], size: u64, identifier: u16) -> ExtendedCapability {
    if size == EXTENDED as u64 {
        return ExtendedCapability::Absent;
    }
    let mut offset = EXTENDED;
    for _ in 0..MOST_EXTENDED {
        let Some(header) = double_word(readable, offset) else { return ExtendedCapability::BeyondReach };
        match header {
            0 => return ExtendedCapability::Absent,
            u32::MAX => return ExtendedCapability::NoAnswer,
            _ => {}
        }
        let [low, high, ..] = header.to_le_bytes();
        if u16::from_le_bytes([low, high]) == identifier {
            return ExtendedCapability::At(offset);
        }
        // Bits 20 to 31 are the next one's offset, the lowest two of them reserved.
        offset = (header >> 20) as usize & 0xffc;
        if offset < EXTENDED {
            return ExtendedCapability::Absent;
        }
    }
    ExtendedCapability::Absent
}

/// What the PCI Express capability says of the function; `None` if there is none or it is out of reach.
pub(super) fn port_type(readable: &[u8]) -> Option<PortType> {
    if word(readable, STATUS)? & STATUS_HAS_CAPABILITIES == 0 {
        return None;
    }
    let mut offset = usize::from(*readable.get(FIRST_CAPABILITY)?) & !3;
    for _ in 0..MOST {
        if offset < 0x40 {
            return None;
        }
        if *readable.get(offset)? == PCI_EXPRESS {
            let kind = (word(readable, offset + PCI_EXPRESS_FLAGS)? >> 4) & 0xf;
            return Some(if kind == 4 { PortType::RootPort } else { PortType::Other });
        }
        offset = usize::from(*readable.get(offset + 1)?) & !3;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_list_in_circles_ends() {
        let mut space = vec![0; 4096];
        space[0x100..0x104].copy_from_slice(&((0x100 << 20) | 1_u32).to_le_bytes());
        assert_eq!(extended_capability(&space, 4096, 0x0d), ExtendedCapability::Absent);
        space[STATUS] = 0x10;
        space[FIRST_CAPABILITY] = 0x40;
        space[0x40..0x42].copy_from_slice(&[0x01, 0x40]);
        assert_eq!(port_type(&space), None);
    }

    #[test]
    fn a_root_port_is_told_by_its_capability() {
        let mut space = vec![0; 256];
        space[STATUS] = 0x10;
        space[FIRST_CAPABILITY] = 0x40;
        space[0x40..0x42].copy_from_slice(&[0x01, 0x50]);
        for (flags, kind) in [(0x42, PortType::RootPort), (0x52, PortType::Other), (0x02, PortType::Other)] {
            space[0x50..0x54].copy_from_slice(&[PCI_EXPRESS, 0, flags, 0]);
            assert_eq!(port_type(&space), Some(kind), "{flags:#x}");
            assert_eq!(port_type(&space[..64]), None);
        }
    }

    proptest! {
        #[test]
        fn nothing_that_a_device_says_panics(space in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = port_type(&space);
        }
    }
}
