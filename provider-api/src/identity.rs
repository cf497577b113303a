//! Which device a provider stands for.

use std::fmt;
use std::path::PathBuf;

use crate::pci::PciAddress;

/// What sort of device hands out the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeviceKind {
    /// A GPU with memory of its own.
    Discrete,
    /// A GPU that uses system memory.
    Integrated,
    /// No device: the kernel or a program allocates system memory.
    Software,
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Discrete => "discrete GPU",
            Self::Integrated => "integrated GPU",
            Self::Software => "no device",
        })
    }
}

/// Who a provider is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The name by which a user selects it: the backend's, and what tells several apart, for example
    /// `udmabuf`, `dma-heap:system` or `amdgpu`.
    pub name: String,
    /// The backend that implements it.
    pub backend: &'static str,
    /// What the device is called, for people.
    pub description: String,
    /// What sort of device it is.
    pub kind: DeviceKind,
    /// The kernel driver and its version, where the driver tells one.
    pub driver: String,
    /// See [`driver`](Self::driver).
    pub driver_version: Option<String>,
    /// The device node that is opened.
    pub node: PathBuf,
    /// Where the device sits, if it is a PCI function.
    pub pci: Option<PciAddress>,
    /// The NUMA node it is closest to, where the kernel knows one.
    pub numa_node: Option<u32>,
}

impl Identity {
    /// Whether `selector` means this provider: its name, its backend's name, its PCI address (in either
    /// form) or its device node; or its backend's name and, behind a colon, its PCI address or a part of
    /// its description with a letter in it, in upper or lower case.
    #[must_use]
    pub fn matches(&self, selector: &str) -> bool {
        let of_backend = selector.strip_prefix(self.backend).and_then(|rest| rest.strip_prefix(':'));
        selector == self.name
            || selector == self.backend
            || self.node.as_os_str() == selector
            || self.is_at(selector)
            || of_backend.is_some_and(|part| self.is_at(part) || self.is_called(part))
    }

    fn is_at(&self, address: &str) -> bool {
        self.pci.is_some_and(|pci| address.parse::<PciAddress>().is_ok_and(|wanted| wanted == pci))
    }

    /// Numbers are left to names: they stand for one of several.
    fn is_called(&self, part: &str) -> bool {
        part.contains(|letter: char| letter.is_ascii_alphabetic())
            && self.description.to_lowercase().contains(&part.to_lowercase())
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)?;
        if let Some(pci) = self.pci {
            write!(f, " at {pci}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_selected_by_any_of_its_names() {
        let identity = Identity {
            name: "amdgpu:1".to_owned(),
            backend: "amdgpu",
            description: "Radeon 0".to_owned(),
            kind: DeviceKind::Discrete,
            driver: "amdgpu".to_owned(),
            driver_version: Some("3.64".to_owned()),
            node: PathBuf::from("/dev/dri/renderD129"),
            pci: Some("0000:03:00.0".parse().unwrap()),
            numa_node: None,
        };
        for selector in [
            "amdgpu:1",
            "amdgpu",
            "/dev/dri/renderD129",
            "0000:03:00.0",
            "03:00.0",
            "amdgpu:03:00.0",
            "amdgpu:radeon",
        ] {
            assert!(identity.matches(selector), "{selector}");
        }
        for selector in ["", "amd", "amdgpu:0", "/dev/dri/renderD128", "03:00.1", "amdgpu:", "radeon"] {
            assert!(!identity.matches(selector), "{selector}");
        }
    }
}
