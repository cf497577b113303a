//! PCI addresses.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind};

/// Where a PCI function sits: domain, bus, device and function.
///
/// Written and read as Linux does in `/sys/bus/pci/devices`: `0000:03:00.0`. The domain may be left out
/// when reading (`03:00.0`), as `lspci` prints it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddress {
    /// The PCI domain (segment). Wider than 16 bits only behind Intel VMD.
    pub domain: u32,
    /// The bus number.
    pub bus: u8,
    /// The device number, 0 to 31.
    pub device: u8,
    /// The function number, 0 to 7.
    pub function: u8,
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{:x}", self.domain, self.bus, self.device, self.function)
    }
}

impl FromStr for PciAddress {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        parse(text).ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, "read a PCI address")
                .on(format!("{text:?}"))
                .remedy("write it as 0000:03:00.0 or 03:00.0")
        })
    }
}

fn parse(text: &str) -> Option<PciAddress> {
    let (rest, function) = text.rsplit_once('.')?;
    let (rest, device) = rest.rsplit_once(':')?;
    let (domain, bus) = match rest.rsplit_once(':') {
        Some((domain, bus)) => (hexadecimal(domain, 8)?, bus),
        None => (0, rest),
    };
    let bus = u8::try_from(hexadecimal(bus, 2)?).ok()?;
    let device = u8::try_from(hexadecimal(device, 2)?).ok().filter(|&device| device < 32)?;
    let function = u8::try_from(hexadecimal(function, 1)?).ok().filter(|&function| function < 8)?;
    Some(PciAddress { domain, bus, device, function })
}

fn hexadecimal(text: &str, digits: usize) -> Option<u32> {
    let plain = !text.is_empty() && text.len() <= digits && text.bytes().all(|b| b.is_ascii_hexdigit());
    plain.then(|| u32::from_str_radix(text, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_the_forms_of_sysfs_and_lspci() {
        let address = PciAddress { domain: 0, bus: 0x3b, device: 0x1f, function: 7 };
        assert_eq!("0000:3b:1f.7".parse::<PciAddress>().unwrap(), address);
        assert_eq!("3b:1f.7".parse::<PciAddress>().unwrap(), address);
        assert_eq!("10000:e1:00.0".parse::<PciAddress>().unwrap().domain, 0x10000);
    }

    #[test]
    fn refuses_what_is_no_address() {
        for text in
            ["", "eth0", "00:20.0", "00:1f.8", "0000:00:1f", "0:0:0:0.0", "+1:00.0", "00:1f.-1", "::."]
        {
            assert!(text.parse::<PciAddress>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn survives_a_round_trip(domain: u32, bus: u8, device in 0u8..32, function in 0u8..8) {
            let address = PciAddress { domain, bus, device, function };
            prop_assert_eq!(address.to_string().parse::<PciAddress>().unwrap(), address);
        }

        #[test]
        fn never_panics(text in ".*") {
            let _ = text.parse::<PciAddress>();
        }
    }
}
