//! What follows from the facts.

use super::access_control::Unread;
use super::endpoint::Window;
use super::host_bridge::HostBridge;
use crate::pci::PciAddress;

/// What the kernel will say when the importer attaches, if it takes peer-to-peer addresses at all.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// It finds a way.
    Reachable(Route),
    /// It finds none: the exporter moves the buffer to system memory, or refuses the importer.
    NotReachable(Obstacle),
    /// What the rule depends on could not be read. Never empty.
    Unknown(Vec<Question>),
}

/// Which way requests take.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Route {
    /// Directly through the common bridge, by bus addresses (`PCI_P2PDMA_MAP_BUS_ADDR`).
    BusAddresses {
        /// Where their ways meet.
        common: PciAddress,
    },
    /// Up to the host bridge and down again (`PCI_P2PDMA_MAP_THRU_HOST_BRIDGE`).
    HostBridge {
        /// Why the kernel believes that the host bridge carries them.
        permission: Permission,
        /// The functions that redirect them there, if there is a shorter way.
        redirecting: Vec<PciAddress>,
    },
    /// One of the two: which of them could not be read, and both work.
    Either {
        /// Where their ways meet.
        common: PciAddress,
        /// Why the kernel believes that the host bridge carries them, if they are redirected there.
        permission: Permission,
    },
}

/// Why the kernel believes that a host bridge carries requests between peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Permission {
    /// The processor is known for it.
    Processor,
    /// The host bridges are known for it.
    HostBridge,
}

/// Why there is no way.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Obstacle {
    /// The kernel was built without `CONFIG_PCI_P2PDMA`.
    Kernel,
    /// Nothing is common to both ways but the host bridge, or not even that, and it is not known to carry
    /// requests between peers.
    NoCommonBridge {
        /// The host bridges above the two that are not known for it.
        unknown: Vec<HostBridge>,
    },
    /// The host bridges carry requests only between functions below one and the same of them.
    DifferentHostBridges {
        /// The host bridges above the two.
        host_bridges: [HostBridge; 2],
    },
    /// There is a common bridge, but requests are redirected to the host bridge, which is not known to carry
    /// them.
    Redirected {
        /// The functions that redirect.
        redirecting: Vec<PciAddress>,
        /// The host bridge.
        unknown: HostBridge,
    },
}

/// What could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Question {
    /// Whether functions redirect requests.
    AccessControl {
        /// The functions.
        functions: Vec<PciAddress>,
        /// Why that is not known.
        why: Unread,
    },
    /// What the processor is.
    Processor,
    /// Whether the kernel was built with `CONFIG_PCI_P2PDMA`.
    Kernel,
}

/// What may stand in the way although the kernel's verdict does not depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Caution {
    /// The exporter sleeps. amdgpu offers peer-to-peer only while its device is awake
    /// (`amdgpu_dma_buf_attach()`).
    ExporterSuspended(PciAddress),
    /// Peers see only a part of the exporter's memory.
    SmallWindow {
        /// The window through which they see it.
        window: Window,
        /// The size of the memory in bytes.
        memory: u64,
    },
    /// A memory window of the exporter has no address.
    UnassignedWindow {
        /// The exporter.
        function: PciAddress,
        /// The window.
        window: Window,
    },
    /// The IOMMU translates the importer's addresses, and drivers that map their memory by
    /// `dma_map_resource()`, as amdgpu and xe do, give it translated ones: requests go up to the IOMMU
    /// although there is a shorter way.
    IommuTranslates(PciAddress),
}

impl Obstacle {
    /// What would remove it.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::Kernel => "use a kernel built with CONFIG_PCI_P2PDMA".to_owned(),
            Self::NoCommonBridge { .. } => "put both below one PCIe switch, or into a machine whose \
                                            processor or host bridge carries requests between peers"
                .to_owned(),
            Self::DifferentHostBridges { .. } => {
                "put both into slots of one host bridge, or below one PCIe switch".to_owned()
            }
            Self::Redirected { redirecting, .. } => {
                let list: Vec<_> = redirecting.iter().map(PciAddress::to_string).collect();
                format!(
                    "boot with pci=disable_acs_redir={}, which gives up the isolation between the devices",
                    list.join(";")
                )
            }
        }
    }
}

impl Question {
    /// How to see it.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::AccessControl { why: Unread::Privilege, .. } => {
                "run this as root, or look at ACSCtl in what lspci -vv prints as root".to_owned()
            }
            Self::AccessControl { why: Unread::NoAnswer, .. } => {
                "look again while the device is awake".to_owned()
            }
            Self::Processor => "mount procfs, or read /proc/cpuinfo outside of this container".to_owned(),
            Self::Kernel => {
                "look for pci_p2pdma_distance_many in /proc/kallsyms, or for CONFIG_PCI_P2PDMA in the \
                 kernel's configuration"
                    .to_owned()
            }
        }
    }
}
