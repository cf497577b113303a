//! Who drives a device.

use super::{Ethtool, sys};
use crate::netlink::Result;

/// What a driver says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Driver {
    /// The driver's name.
    pub name: String,
    /// The driver's version; for drivers in the kernel, the kernel's.
    pub version: String,
    /// The version of the device's firmware; empty where the driver does not tell.
    pub firmware: String,
    /// Where the device sits, such as the PCI address; empty for virtual devices.
    pub bus: String,
}

impl Ethtool {
    /// What the driver of an interface says of itself.
    ///
    /// # Errors
    /// `EOPNOTSUPP`: nothing drives the interface, such as loopback. `ENODEV`: no such interface.
    pub fn driver(&self, ifindex: u32) -> Result<Driver> {
        let info = self.control.driver(ifindex)?;
        Ok(Driver {
            name: sys::text(&info.driver),
            version: sys::text(&info.version),
            firmware: sys::text(&info.fw_version),
            bus: sys::text(&info.bus_info),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Route;
    use nix::errno::Errno;

    #[test]
    fn an_unknown_interface_is_no_device() {
        let ethtool = Ethtool::open().unwrap();
        assert_eq!(ethtool.driver(0x7fff_fff0).unwrap_err().errno(), Some(Errno::ENODEV));
    }

    #[test]
    fn every_link_tells_or_refuses() {
        let ethtool = Ethtool::open().unwrap();
        for link in Route::open().unwrap().links().unwrap() {
            match ethtool.driver(link.ifindex) {
                Ok(driver) => assert!(!driver.name.is_empty(), "{}: {driver:?}", link.name),
                Err(error) => assert_eq!(error.errno(), Some(Errno::EOPNOTSUPP), "{}: {error}", link.name),
            }
        }
    }
}
