//! Host bridges, and those that the kernel knows to carry requests between peers.

use super::kernel::Kernel;
use crate::pci::PciAddress;

/// A host bridge: the root of a hierarchy of PCI functions.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostBridge {
    /// The kernel's name for it, for example `pci0000:00`: domain and root bus.
    pub name: String,
    /// The function by which the kernel recognizes it: the first on the root bus, if that is device 0
    /// function 0 or a root port (`pci_host_bridge_dev()` in `drivers/pci/p2pdma.c`).
    pub representative: Option<Representative>,
}

/// The function that stands for a host bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Representative {
    /// Where it sits.
    pub address: PciAddress,
    /// Its vendor's identifier.
    pub vendor: u16,
    /// Its identifier among its vendor's devices.
    pub device: u16,
}

/// A host bridge, or a root port that stands for one, that carries requests between peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KnownHostBridge {
    /// The vendor's identifier.
    pub vendor: u16,
    /// The identifier among the vendor's devices; `None` for all of them.
    pub device: Option<u16>,
    /// Whether it carries them only between functions below one and the same host bridge.
    pub same_only: bool,
    /// The first kernel that knows it, if that is later than 7.2.
    pub since: Option<(u32, u32)>,
    /// What it is, for people.
    pub description: &'static str,
}

const INTEL: u16 = 0x8086;
const NVIDIA: u16 = 0x10de;
const GOOGLE: u16 = 0x1ae0;

const fn intel(device: u16, description: &'static str) -> KnownHostBridge {
    KnownHostBridge { vendor: INTEL, device: Some(device), same_only: false, since: None, description }
}

const fn intel_same_only(device: u16, description: &'static str) -> KnownHostBridge {
    KnownHostBridge { same_only: true, ..intel(device, description) }
}

const fn nvidia(device: u16) -> KnownHostBridge {
    KnownHostBridge {
        vendor: NVIDIA,
        device: Some(device),
        same_only: false,
        since: Some((7, 3)),
        description: "NVIDIA processor",
    }
}

/// The host bridges that the kernel believes in: the contents of `pci_p2pdma_whitelist` in
/// `drivers/pci/p2pdma.c` of Linux 7.2 and 7.3, identifiers by name from `linux/pci_ids.h`. A kernel with
/// patches of its own may know others.
pub const KNOWN_HOST_BRIDGES: &[KnownHostBridge] = &[
    intel_same_only(0x3c00, "Xeon E5 or Core i7, Sandy Bridge"),
    intel_same_only(0x3c01, "Xeon E5 or Core i7, Sandy Bridge"),
    intel_same_only(0x2f00, "Xeon E5 or E7 v3 or Core i7, Haswell"),
    intel_same_only(0x2f01, "Xeon E5 or E7 v3 or Core i7, Haswell"),
    intel(0x2030, "Xeon, Skylake, root port A"),
    intel(0x2031, "Xeon, Skylake, root port B"),
    intel(0x2032, "Xeon, Skylake, root port C"),
    intel(0x2033, "Xeon, Skylake, root port D"),
    intel(0x2020, "Xeon, Skylake, DMI"),
    intel(0x09a2, "Xeon, Ice Lake or later"),
    intel(0x0b25, "Data Streaming Accelerator, Sapphire Rapids"),
    intel(0x0cfe, "In-Memory Analytics Accelerator, Sapphire Rapids"),
    intel(0x11fb, "Data Streaming Accelerator, Granite Rapids D"),
    intel(0x1212, "Data Streaming Accelerator, Diamond Rapids"),
    intel(0x1216, "In-Memory Analytics Accelerator, Diamond Rapids"),
    intel(0x4940, "QuickAssist 4xxx"),
    intel(0x4942, "QuickAssist 401xx"),
    intel(0x4944, "QuickAssist 402xx"),
    intel(0x4946, "QuickAssist 420xx"),
    intel(0x4948, "QuickAssist 6xxx"),
    KnownHostBridge {
        vendor: GOOGLE,
        device: None,
        same_only: false,
        since: None,
        description: "Google system on chip",
    },
    nvidia(0x2f95),
    nvidia(0x2f96),
    nvidia(0x2f97),
    nvidia(0x2f98),
];

impl HostBridge {
    /// What the kernel knows of it, by its representative.
    #[must_use]
    pub fn known(&self) -> Option<&'static KnownHostBridge> {
        let representative = self.representative?;
        KNOWN_HOST_BRIDGES.iter().find(|known| {
            known.vendor == representative.vendor
                && known.device.is_none_or(|device| device == representative.device)
        })
    }

    /// Whether this kernel trusts it with requests between peers, which are both below it or not.
    pub(super) fn carries_peer_to_peer(&self, same: bool, kernel: &Kernel) -> bool {
        self.known().is_some_and(|known| known.is_in(kernel) && (same || !known.same_only))
    }
}

impl KnownHostBridge {
    /// Whether a kernel knows it. One whose version cannot be read is taken to be new.
    pub(super) fn is_in(&self, kernel: &Kernel) -> bool {
        match (self.since, kernel.version()) {
            (Some(since), Some(version)) => version >= since,
            _ => true,
        }
    }
}
