//! RDMA devices of this machine.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};

use devmem_provider::{Error, ErrorKind, PciAddress, Result};

use super::sysfs;

/// An RDMA device, as the kernel lists it (`Documentation/ABI/stable/sysfs-class-infiniband`).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Device {
    /// Its name, for example `efa_0` or `mlx5_0`.
    pub name: String,
    /// The node through which programs use it, such as `/dev/infiniband/uverbs0`; `None` while the kernel offers it to
    /// none, for want of the module `ib_uverbs`.
    pub node: Option<PathBuf>,
    /// The PCI function, if it is one.
    pub pci: Option<PciAddress>,
    /// The kernel driver of that function. The module that serves RDMA may be another: `mlx5_ib` above `mlx5_core`.
    pub driver: Option<String>,
    /// The version of its firmware, where the driver tells.
    pub firmware: Option<String>,
    /// The NUMA node it is closest to, where the kernel knows one.
    pub numa_node: Option<u32>,
    /// Its ports, in order.
    pub ports: Vec<Port>,
}

/// A port of a [`Device`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Port {
    /// Its number, from 1 on.
    pub number: u8,
    /// Whether it can send and receive.
    pub is_active: bool,
    /// The kernel's word for its state, such as `ACTIVE` or `DOWN`.
    pub state: String,
    /// `InfiniBand`, `Ethernet`, or `Unspecified` for devices of another kind, as EFA is.
    pub link_layer: String,
    /// The entries of its table that are in use.
    pub gids: Vec<Gid>,
}

/// An address of a [`Port`]: 128 bits, written as IPv6 addresses are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gid {
    /// Its place in the port's table.
    pub index: u32,
    /// The address.
    pub address: Ipv6Addr,
}

impl Device {
    /// All devices that this network namespace may use, in order of their names. None is no error.
    ///
    /// # Errors
    ///
    /// If sysfs cannot be read.
    pub fn all() -> Result<Vec<Self>> {
        Self::all_in(Path::new("/"))
    }

    fn all_in(root: &Path) -> Result<Vec<Self>> {
        sysfs::devices(root)
    }

    /// The device that `selector` names: its name, its PCI address (in either form) or its node.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] if there is none, with those that there are.
    pub fn find(selector: &str) -> Result<Self> {
        Self::find_in(Path::new("/"), selector)
    }

    fn find_in(root: &Path, selector: &str) -> Result<Self> {
        let devices = Self::all_in(root)?;
        if let Some(device) = devices.iter().find(|device| device.matches(selector)) {
            return Ok(device.clone());
        }
        let error = Error::new(ErrorKind::NotFound, "find the RDMA device").on(selector);
        Err(if devices.is_empty() {
            error
                .because("the kernel lists no RDMA device")
                .remedy("load the driver of the NIC that serves RDMA, such as mlx5_ib, bnxt_re, irdma or efa")
        } else {
            let names: Vec<_> = devices.iter().map(ToString::to_string).collect();
            error.because(format!("there are {}", names.join(", "))).remedy("name one of them")
        })
    }

    /// The only device, or the first whose port is active.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] if there is none.
    pub fn first() -> Result<Self> {
        let is_active = |device: &&Self| device.ports.iter().any(|port| port.is_active);
        let devices = Self::all()?;
        match devices.iter().find(is_active).or(devices.first()) {
            Some(device) => Ok(device.clone()),
            None => Self::find("any"),
        }
    }

    /// Whether `selector` means this device.
    #[must_use]
    pub fn matches(&self, selector: &str) -> bool {
        let is_address = || selector.parse().is_ok_and(|address: PciAddress| self.pci == Some(address));
        self.name == selector || self.node.as_deref() == Some(Path::new(selector)) || is_address()
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match self.pci {
            Some(pci) => write!(f, " at {pci}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rdma::sysfs::tests::Recording;

    #[test]
    fn a_device_is_selected_by_any_of_its_names() {
        let recording = Recording::with_efa();
        for selector in ["efa_0", "0000:00:11.0", "00:11.0", "/dev/infiniband/uverbs0"] {
            assert_eq!(Device::find_in(recording.root(), selector).unwrap().name, "efa_0", "{selector}");
        }
        let error = Device::find_in(recording.root(), "mlx5_0").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("there are efa_0 at 0000:00:11.0"), "{error}");
    }

    #[test]
    fn a_machine_without_rdma_says_so() {
        let recording = Recording::empty();
        assert_eq!(Device::all_in(recording.root()).unwrap(), []);
        let error = Device::find_in(recording.root(), "efa_0").unwrap_err();
        assert!(error.to_string().contains("no RDMA device"), "{error}");
        assert!(error.remedy_text().is_some());
    }
}
