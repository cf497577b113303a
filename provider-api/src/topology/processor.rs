//! The processor, by which the kernel judges whether its host bridges carry requests between peers.

use std::fmt;

/// What the kernel knows of the first processor.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Processor {
    /// An x86 processor.
    X86 {
        /// Its vendor's identification, for example `AuthenticAMD`.
        vendor: String,
        /// Its family, with the extended family added.
        family: u32,
    },
    /// A processor of another architecture, for which the kernel has no rule.
    Other,
    /// Its description could not be read.
    Unread,
}

/// The family of the first Zen processors.
const ZEN: u32 = 0x17;

impl Processor {
    /// Whether the kernel trusts every host bridge of this processor: AMD, family 17h (Zen) or
    /// later. `cpu_supports_p2pdma()` in `drivers/pci/p2pdma.c`; Hygon's processors are not AMD's to it.
    #[must_use]
    pub fn carries_peer_to_peer(&self) -> Option<bool> {
        match self {
            Self::X86 { vendor, family } => Some(vendor == "AuthenticAMD" && *family >= ZEN),
            Self::Other => Some(false),
            Self::Unread => None,
        }
    }

    /// Reads the first processor's description in `/proc/cpuinfo`.
    pub(super) fn parse(information: &str) -> Self {
        let first = information.split("\n\n").next().unwrap_or_default();
        let field = |name: &str| {
            first.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                (key.trim() == name).then(|| value.trim())
            })
        };
        match (field("vendor_id"), field("cpu family").and_then(|family| family.parse().ok())) {
            (Some(vendor), Some(family)) => Self::X86 { vendor: vendor.to_owned(), family },
            _ if first.trim().is_empty() => Self::Unread,
            _ => Self::Other,
        }
    }
}

impl fmt::Display for Processor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::X86 { vendor, family } => write!(f, "{vendor} family {family:x}h"),
            Self::Other => f.write_str("not an x86 processor"),
            Self::Unread => f.write_str("the processor's description could not be read"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn processor(vendor: &str, family: u32) -> Processor {
        let one = format!(
            "processor\t: 0\nvendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: 33\nflags\t\t: fpu\n\n"
        );
        Processor::parse(&one.repeat(2))
    }

    #[test]
    fn amd_carries_since_zen() {
        for (vendor, family, carries) in [
            ("AuthenticAMD", 0x17, true),
            ("AuthenticAMD", 0x1a, true),
            ("AuthenticAMD", 0x15, false),
            ("HygonGenuine", 0x18, false),
            ("GenuineIntel", 6, false),
            ("GenuineIntel", 0x1b, false),
        ] {
            let processor = processor(vendor, family);
            assert_eq!(processor.carries_peer_to_peer(), Some(carries), "{processor}");
        }
    }

    #[test]
    fn other_architectures_have_no_rule() {
        let arm = "processor\t: 0\nBogoMIPS\t: 50.00\nCPU implementer\t: 0x41\n\n";
        assert_eq!(Processor::parse(arm), Processor::Other);
        assert_eq!(Processor::parse(arm).carries_peer_to_peer(), Some(false));
        assert_eq!(Processor::parse("").carries_peer_to_peer(), None);
    }
}
