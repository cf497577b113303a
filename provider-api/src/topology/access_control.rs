//! ACS: the capability by which a bridge or a function sends requests between peers upstream.

use super::configuration_space::{self, ExtendedCapability};

/// The identifier of the extended capability (`PCI_EXT_CAP_ID_ACS` in `linux/pci_regs.h`).
const CAPABILITY: u16 = 0x0d;
/// Where in the capability its control register lies (`PCI_ACS_CTRL`).
const CONTROL: usize = 6;
/// P2P request redirect, P2P completion redirect and P2P egress control (`PCI_ACS_RR`, `_CR`, `_EC`).
const REDIRECTING: u16 = 0x04 | 0x08 | 0x20;

/// What is known of a function's Access Control Services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AccessControl {
    /// It has no such capability, and redirects nothing.
    Absent,
    /// The capability's control register.
    Control(u16),
    /// It could not be read.
    Unread(Unread),
}

/// Why ACS could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unread {
    /// The kernel showed only the beginning of the configuration space: 64 bytes, to those without
    /// `CAP_SYS_ADMIN` in the initial user namespace (`pci_read_config()` in `drivers/pci/pci-sysfs.c`).
    Privilege,
    /// The function does not answer: it is powered down or gone.
    NoAnswer,
}

impl AccessControl {
    /// Whether requests between peers are redirected upstream, or may be blocked; `None` if that could not
    /// be read. The bits are those that `pci_bridge_has_acs_redir()` in `drivers/pci/p2pdma.c` looks at.
    #[must_use]
    pub fn redirects(self) -> Option<bool> {
        match self {
            Self::Absent => Some(false),
            Self::Control(control) => Some(control & REDIRECTING != 0),
            Self::Unread(_) => None,
        }
    }

    /// Finds it in what could be read of a configuration space that has `size` bytes.
    pub(super) fn find(readable: &[u8], size: u64) -> Self {
        if readable.starts_with(&[0xff; 4]) {
            return Self::Unread(Unread::NoAnswer);
        }
        match configuration_space::extended_capability(readable, size, CAPABILITY) {
            ExtendedCapability::Absent => Self::Absent,
            ExtendedCapability::At(offset) => match configuration_space::word(readable, offset + CONTROL) {
                Some(control) => Self::Control(control),
                None => Self::Unread(Unread::Privilege),
            },
            ExtendedCapability::BeyondReach => Self::Unread(Unread::Privilege),
            ExtendedCapability::NoAnswer => Self::Unread(Unread::NoAnswer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn with_control(control: u16) -> Vec<u8> {
        let mut space = vec![0; 4096];
        // AER first, then ACS at 0x148.
        space[0x100..0x104].copy_from_slice(&(0x1482_0001_u32).to_le_bytes());
        space[0x148..0x14c].copy_from_slice(&(0x0001_000d_u32).to_le_bytes());
        space[0x14e..0x150].copy_from_slice(&control.to_le_bytes());
        space
    }

    #[test]
    fn redirection_is_any_of_three_bits() {
        for (control, redirects) in
            [(0, false), (0x04, true), (0x08, true), (0x20, true), (0x1d, true), (0x53, false)]
        {
            let acs = AccessControl::find(&with_control(control), 4096);
            assert_eq!(acs, AccessControl::Control(control));
            assert_eq!(acs.redirects(), Some(redirects), "{control:#x}");
        }
    }

    #[test]
    fn sixty_four_bytes_tell_nothing_of_an_extended_space() {
        let space = with_control(0x1d);
        let acs = AccessControl::find(&space[..64], 4096);
        assert_eq!(acs, AccessControl::Unread(Unread::Privilege));
        assert_eq!(acs.redirects(), None);
    }

    #[test]
    fn a_function_of_conventional_pci_has_none_also_to_the_unprivileged() {
        assert_eq!(AccessControl::find(&[0; 64], 256), AccessControl::Absent);
        assert_eq!(AccessControl::find(&[0; 256], 256), AccessControl::Absent);
    }

    #[test]
    fn a_function_that_does_not_answer_is_not_judged() {
        let no_answer = AccessControl::Unread(Unread::NoAnswer);
        assert_eq!(AccessControl::find(&[0xff; 4096], 4096), no_answer);
    }

    proptest! {
        #[test]
        fn nothing_that_a_device_says_panics(
            mut space in proptest::collection::vec(any::<u8>(), 0..4200),
            next in 0u32..0x1000,
            size: u64,
        ) {
            if let Some(header) = space.get_mut(0x100..0x104) {
                header.copy_from_slice(&((next << 20) | 1).to_le_bytes());
            }
            let _ = AccessControl::find(&space, size);
        }
    }
}
