//! PCI functions that are GPUs or NICs, and the way from them to the root.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use devmem_provider::PciAddress;
use devmem_provider::topology::{self, IommuDomain};
use serde::{Deserialize, Serialize};

use super::{IommuKind, text};

/// A GPU or a NIC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PciFunction {
    /// Where it sits, as `lspci -D` prints it.
    pub address: String,
    /// Which of the two it is.
    pub class: Class,
    /// Its vendor and device identifiers, as `1002:73a3`.
    pub identifiers: String,
    /// The kernel driver that is bound to it.
    pub driver: Option<String>,
    /// The driver's version, if it has one of its own: drivers in the kernel have the kernel's.
    pub driver_version: Option<String>,
    /// The versions of what runs on the device, by the driver's name for it.
    pub firmware: BTreeMap<String, String>,
    /// Its memory windows: base address registers.
    pub address_registers: Vec<AddressRegister>,
    /// The size of its own memory in bytes, where the driver tells it in sysfs (amdgpu does).
    pub memory_bytes: Option<u64>,
    /// Its PCI Express link; `None` for functions without one.
    pub link: Option<Link>,
    /// The NUMA node that it is closest to.
    pub numa_node: Option<u32>,
    /// Its IOMMU group; `None` if no IOMMU is in use.
    pub iommu_group: Option<IommuGroup>,
    /// The bridges above it, the one on the root bus last.
    pub bridges: Vec<Bridge>,
    /// The host bridge above them: the kernel's name for it, and what it is if the kernel knows it to carry requests
    /// between peers.
    pub host_bridge: String,
}

/// What a function is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Class {
    /// A display controller or a processing accelerator.
    Gpu,
    /// A network controller.
    Nic,
    /// Of a later version.
    #[serde(other)]
    Other,
}

/// A memory window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressRegister {
    /// The number of the base address register, from 0 to 5.
    pub register: usize,
    /// Its size.
    pub bytes: u64,
    /// 64, or 32 if its address has to lie below 4 GiB.
    pub address_bits: u8,
    /// Whether reads have no side effects, as is so with memory.
    pub prefetchable: bool,
    /// Whether the firmware or the kernel found room for it.
    pub assigned: bool,
}

/// A PCI Express link as it is, and as the device could have it. The kernel's words, such as `16.0 GT/s PCIe`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Its speed. Links of devices at rest may be slower than under load.
    pub speed: String,
    /// Its lanes.
    pub width: String,
    /// The device's highest speed.
    pub maximum_speed: Option<String>,
    /// The device's lanes.
    pub maximum_width: Option<String>,
}

/// An IOMMU group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IommuGroup {
    /// The kernel's number for it. Functions with the same cannot be isolated from each other.
    pub number: u32,
    /// What the IOMMU does with its addresses.
    pub kind: IommuKind,
}

/// A bridge on the way to the root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bridge {
    /// Where it sits.
    pub address: String,
    /// Its vendor and device identifiers.
    pub identifiers: String,
    /// Whether it sends requests between peers up to the host bridge by ACS; `None` if that could not be read.
    pub redirects: Option<bool>,
}

/// The GPUs and the NICs of a machine whose `sys` lies in a folder.
pub(super) fn all(root: &Path, machine: &topology::Machine) -> Vec<PciFunction> {
    let of = |class, addresses: Vec<PciAddress>| addresses.into_iter().map(move |address| (address, class));
    let gpus = of(Class::Gpu, machine.gpus().unwrap_or_default());
    let mut functions: Vec<_> = gpus.chain(of(Class::Nic, machine.nics().unwrap_or_default())).collect();
    functions.sort_unstable_by_key(|&(address, _)| address);
    functions
        .into_iter()
        .filter_map(|(address, class)| {
            let folder = root.join("sys/bus/pci/devices").join(address.to_string());
            // A device that was unplugged a moment ago is left out.
            Some(function(&folder, class, &machine.endpoint(address).ok()?))
        })
        .collect()
}

fn function(folder: &Path, class: Class, endpoint: &topology::Endpoint) -> PciFunction {
    let driver = fs::read_link(folder.join("driver")).ok();
    let file = |name: &str| text(&folder.join(name));
    PciFunction {
        address: endpoint.address().to_string(),
        class,
        identifiers: identifiers(&endpoint.function),
        driver: driver.and_then(|link| Some(link.file_name()?.to_str()?.to_owned())),
        driver_version: file("driver/module/version"),
        firmware: firmware(folder),
        address_registers: endpoint.windows.iter().map(AddressRegister::from).collect(),
        memory_bytes: endpoint.memory,
        link: Link::read(file),
        numa_node: endpoint.numa_node,
        iommu_group: endpoint.iommu.as_ref().map(IommuGroup::from),
        bridges: endpoint.bridges.iter().map(Bridge::from).collect(),
        host_bridge: endpoint.host_bridge.to_string(),
    }
}

fn identifiers(function: &topology::Function) -> String {
    format!("{:04x}:{:04x}", function.vendor, function.device)
}

/// What amdgpu shows: a file in `fw_version` for each of its processors (`amdgpu_ucode.c`), and the version of its
/// VBIOS. NICs tell it by ethtool.
fn firmware(folder: &Path) -> BTreeMap<String, String> {
    let files = fs::read_dir(folder.join("fw_version")).into_iter().flatten().flatten();
    let version = |file: fs::DirEntry| {
        let name = file.file_name().into_string().ok()?;
        let version = text(&file.path())?;
        let present = version.trim_start_matches("0x").contains(|digit| digit != '0');
        present.then(|| (name.trim_end_matches("_fw_version").to_owned(), version))
    };
    let vbios = text(&folder.join("vbios_version")).map(|version| ("vbios".to_owned(), version));
    files.filter_map(version).chain(vbios).collect()
}

impl From<&topology::Window> for AddressRegister {
    fn from(window: &topology::Window) -> Self {
        Self {
            register: window.register,
            bytes: window.size,
            address_bits: if window.wide { 64 } else { 32 },
            prefetchable: window.prefetchable,
            assigned: window.assigned,
        }
    }
}

impl From<&topology::IommuGroup> for IommuGroup {
    fn from(group: &topology::IommuGroup) -> Self {
        let kind = match group.domain {
            IommuDomain::Translated => IommuKind::Translated,
            IommuDomain::PassedThrough => IommuKind::Identity,
            _ => IommuKind::Unknown,
        };
        Self { number: group.number, kind }
    }
}

impl From<&topology::Function> for Bridge {
    fn from(function: &topology::Function) -> Self {
        Self {
            address: function.address.to_string(),
            identifiers: identifiers(function),
            redirects: function.access_control.redirects(),
        }
    }
}

impl Link {
    /// From the files of a function (`drivers/pci/pci-sysfs.c`), which those without a link do not have.
    fn read(file: impl Fn(&str) -> Option<String>) -> Option<Self> {
        Some(Self {
            speed: file("current_link_speed")?,
            width: file("current_link_width")?,
            maximum_speed: file("max_link_speed"),
            maximum_width: file("max_link_width"),
        })
    }
}
