//! Reading the facts from sysfs and procfs.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::access_control::AccessControl;
use super::configuration_space::{self, PortType};
use super::endpoint::{Endpoint, Function, RuntimeStatus, Window};
use super::host_bridge::{HostBridge, Representative};
use super::iommu::{IommuDomain, IommuGroup};
use super::kernel::{self, Kernel, PeerToPeerSupport};
use super::processor::Processor;
use super::{Topology, rule};
use crate::error::{Error, ErrorKind, Result};
use crate::pci::PciAddress;

/// The size of the whole configuration space of a PCI Express function in bytes.
const CONFIGURATION_SPACE: usize = 4096;
/// Class and subclass of a bridge from PCI to PCI, without the programming interface.
const BRIDGE: u32 = 0x0604;
/// Base classes (`linux/pci_ids.h`).
const NETWORK: u32 = 0x02;
const DISPLAY: u32 = 0x03;
const ACCELERATOR: u32 = 0x12;

/// A machine to look at: the running one, or a recorded one.
#[derive(Debug, Clone)]
pub struct Machine {
    root: PathBuf,
}

impl Machine {
    /// The machine that runs this program.
    #[must_use]
    pub fn running() -> Self {
        Self::recorded("/")
    }

    /// One whose `sys` and `proc` lie in the folder `root`.
    #[must_use]
    pub fn recorded(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Foretells whether `importer` will reach memory of `exporter`.
    ///
    /// Reading the configuration space wakes bridges that sleep, as `lspci` does.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] if one of the functions does not exist or sysfs does not show it. That a
    /// detail could not be read is no error, but part of the verdict.
    pub fn topology(&self, exporter: PciAddress, importer: PciAddress) -> Result<Topology> {
        let exporter = self.endpoint(exporter)?;
        let importer = self.endpoint(importer)?;
        Ok(rule::judge(exporter, importer, self.processor(), self.kernel()))
    }

    /// The GPUs: functions of the class of display controllers or processing accelerators, in order of
    /// their addresses.
    ///
    /// # Errors
    ///
    /// If sysfs cannot be read.
    pub fn gpus(&self) -> Result<Vec<PciAddress>> {
        self.functions_of(&[DISPLAY, ACCELERATOR])
    }

    /// The NICs: functions of the class of network controllers, in order of their addresses.
    ///
    /// # Errors
    ///
    /// If sysfs cannot be read.
    pub fn nics(&self) -> Result<Vec<PciAddress>> {
        self.functions_of(&[NETWORK])
    }

    fn functions_of(&self, base_classes: &[u32]) -> Result<Vec<PciAddress>> {
        let devices = self.devices();
        let mut functions = Vec::new();
        for address in addresses_in(&devices)? {
            let class = hexadecimal(&devices.join(address.to_string()).join("class"))?;
            if base_classes.contains(&(class >> 16)) {
                functions.push(address);
            }
        }
        Ok(functions)
    }

    fn devices(&self) -> PathBuf {
        self.root.join("sys/bus/pci/devices")
    }

    /// What was seen of one function, and the way from it to its root.
    ///
    /// # Errors
    ///
    /// As for [`topology`](Self::topology).
    pub fn endpoint(&self, address: PciAddress) -> Result<Endpoint> {
        let link = self.devices().join(address.to_string());
        let folder = fs::canonicalize(&link).map_err(|error| {
            Error::from_io(error, "find the PCI function")
                .on(address)
                .because(format!("{} cannot be followed", link.display()))
                .remedy("name a function that lspci -D lists")
        })?;
        let mut bridges = Vec::new();
        let mut above = folder.parent().unwrap_or(Path::new("/"));
        while let Some(address) = address_of(above) {
            bridges.push(function(above, address)?);
            above = above.parent().unwrap_or(Path::new("/"));
        }
        Ok(Endpoint {
            function: function(&folder, address)?,
            host_bridge: host_bridge(above, address.domain)?,
            bridges,
            iommu: self.iommu_group(&folder),
            runtime_status: text(&folder.join("power/runtime_status"))
                .and_then(|status| RuntimeStatus::parse(&status)),
            windows: text(&folder.join("resource"))
                .map(|resources| Window::parse(&resources))
                .unwrap_or_default(),
            // drivers/gpu/drm/amd/amdgpu/amdgpu_vram_mgr.c
            memory: number(&folder.join("mem_info_vram_total")),
            numa_node: number(&folder.join("numa_node")),
        })
    }

    fn iommu_group(&self, folder: &Path) -> Option<IommuGroup> {
        let link = fs::read_link(folder.join("iommu_group")).ok()?;
        let number = link.file_name()?.to_str()?.parse().ok()?;
        let kind = self.root.join(format!("sys/kernel/iommu_groups/{number}/type"));
        Some(IommuGroup { number, domain: IommuDomain::parse(&text(&kind).unwrap_or_default()) })
    }

    fn processor(&self) -> Processor {
        Processor::parse(&text(&self.root.join("proc/cpuinfo")).unwrap_or_default())
    }

    /// What the machine's kernel was built with, as far as it shows.
    #[must_use]
    pub fn kernel(&self) -> Kernel {
        Kernel {
            release: text(&self.root.join("proc/sys/kernel/osrelease")),
            peer_to_peer: self.peer_to_peer_support(),
        }
    }

    fn peer_to_peer_support(&self) -> PeerToPeerSupport {
        // A device that offers memory to peers shows it, and spares the search in a long list.
        let devices = fs::read_dir(self.devices()).into_iter().flatten().flatten();
        if devices.into_iter().any(|device| device.path().join("p2pmem").exists()) {
            return PeerToPeerSupport::Present;
        }
        File::open(self.root.join("proc/kallsyms"))
            .and_then(kernel::search_symbols)
            .unwrap_or(PeerToPeerSupport::Unknown)
    }
}

fn function(folder: &Path, address: PciAddress) -> Result<Function> {
    let (space, size) = configuration_space(folder).unwrap_or_default();
    Ok(Function {
        address,
        vendor: identifier(&folder.join("vendor"))?,
        device: identifier(&folder.join("device"))?,
        class: hexadecimal(&folder.join("class"))?,
        access_control: AccessControl::find(&space, size),
    })
}

/// What can be read of a function's configuration space, and its size, which everybody may see.
fn configuration_space(folder: &Path) -> std::io::Result<(Vec<u8>, u64)> {
    let file = File::open(folder.join("config"))?;
    let size = file.metadata()?.len();
    let mut space = Vec::new();
    file.take(CONFIGURATION_SPACE as u64).read_to_end(&mut space)?;
    Ok((space, size))
}

/// The host bridge whose folder is `folder`.
fn host_bridge(folder: &Path, domain: u32) -> Result<HostBridge> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if !name.starts_with("pci") {
        return Err(Error::new(ErrorKind::Protocol, "find the host bridge")
            .on(folder.display())
            .because(format!("the folder above PCI domain {domain:04x} is not that of a host bridge")));
    }
    // The kernel keeps the functions of a bus in the order in which it found them, which is that of their
    // addresses unless one was removed and found again.
    let first = addresses_in(folder)?.into_iter().find(|address| address.domain == domain);
    let representative = match first {
        Some(address) => {
            let function = folder.join(address.to_string());
            let stands_for_bridge = (address.device, address.function) == (0, 0) || is_root_port(&function)?;
            let identifiers = Representative {
                address,
                vendor: identifier(&function.join("vendor"))?,
                device: identifier(&function.join("device"))?,
            };
            stands_for_bridge.then_some(identifiers)
        }
        None => None,
    };
    Ok(HostBridge { name, representative })
}

/// Whether a function on a root bus is a root port of PCI Express.
///
/// Its capability says so, but often lies beyond what the unprivileged may read. Then its being a bridge
/// with a link tells: the kernel shows `current_link_speed` for PCI Express functions only.
fn is_root_port(folder: &Path) -> Result<bool> {
    let (space, _) = configuration_space(folder).unwrap_or_default();
    match configuration_space::port_type(&space) {
        Some(kind) => Ok(kind == PortType::RootPort),
        None => {
            Ok(hexadecimal(&folder.join("class"))? >> 8 == BRIDGE
                && folder.join("current_link_speed").exists())
        }
    }
}

/// The PCI functions that have an entry in a folder, in order.
fn addresses_in(folder: &Path) -> Result<Vec<PciAddress>> {
    let entries = fs::read_dir(folder).map_err(|error| {
        Error::from_io(error, "list the PCI functions")
            .on(folder.display())
            .remedy("look whether sysfs is mounted and the machine has PCI")
    })?;
    let mut addresses: Vec<_> = entries.flatten().filter_map(|entry| address_of(&entry.path())).collect();
    addresses.sort_unstable();
    Ok(addresses)
}

/// The address that a folder's name is, in the form of sysfs.
fn address_of(folder: &Path) -> Option<PciAddress> {
    let name = folder.file_name()?.to_str()?;
    let address: PciAddress = name.parse().ok()?;
    (address.to_string() == name).then_some(address)
}

fn text(file: &Path) -> Option<String> {
    Some(fs::read_to_string(file).ok()?.trim_end().to_owned())
}

fn number<N: std::str::FromStr>(file: &Path) -> Option<N> {
    text(file)?.parse().ok()
}

fn identifier(file: &Path) -> Result<u16> {
    u16::try_from(hexadecimal(file)?).map_err(|_| not_a_number(file))
}

/// A number as sysfs writes it: 0x1002.
fn hexadecimal(file: &Path) -> Result<u32> {
    let text = fs::read_to_string(file).map_err(|error| Error::from_io(error, "read").on(file.display()))?;
    let digits = text.trim_end().strip_prefix("0x");
    digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()).ok_or_else(|| not_a_number(file))
}

fn not_a_number(file: &Path) -> Error {
    Error::new(ErrorKind::Protocol, "read").on(file.display()).because("it holds no hexadecimal number")
}
