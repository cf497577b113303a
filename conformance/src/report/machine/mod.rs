//! The machine that was checked: what someone needs to know who wants to understand a verdict or see it again.
//!
//! Nothing in it is secret, so that reports can be published: no names of hosts or users, no addresses of the network,
//! no serial numbers. What could not be read is left out.

mod function;
mod interfaces;

use std::fs;
use std::path::Path;

use devmem_provider::topology;
use serde::{Deserialize, Serialize};

pub use function::{AddressRegister, Bridge, Class, IommuGroup, Link, PciFunction};

/// The machine that was checked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The kernel's release.
    pub kernel: String,
    /// The architecture, as `uname -m` prints it (`/proc/sys/kernel/arch`, since Linux 6.1).
    #[serde(default)]
    pub architecture: Option<String>,
    /// The processor's model.
    pub processor: Option<String>,
    /// Whether a hypervisor runs the machine; `None` where the processor does not tell (other than x86).
    #[serde(default)]
    pub virtual_machine: Option<bool>,
    /// The memory that the kernel manages, in bytes.
    #[serde(default)]
    pub memory_bytes: Option<u64>,
    /// Whether there are IOMMU groups: an IOMMU is in use, whatever it does.
    pub iommu: bool,
    /// What the IOMMU does with the addresses that devices use.
    #[serde(default)]
    pub iommu_kind: IommuKind,
    /// Whether the run had root's privileges.
    pub privileged: bool,
    /// The GPUs and the NICs, in order of their addresses.
    #[serde(default)]
    pub functions: Vec<PciFunction>,
}

/// What the IOMMU does with the addresses that devices use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum IommuKind {
    /// None is in use.
    None,
    /// It lets all of them pass.
    Identity,
    /// It translates all of them.
    Translated,
    /// It translates some, and lets others pass or blocks them.
    Mixed,
    /// That could not be read, or the report is of a version that did not look.
    #[default]
    #[serde(other)]
    Unknown,
}

impl IommuKind {
    /// For people.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::None => "none in use",
            Self::Identity => "passes addresses through",
            Self::Translated => "translates addresses",
            Self::Mixed => "translates the addresses of some devices",
            Self::Unknown => "unknown",
        }
    }

    /// From the types of all groups (`Documentation/ABI/testing/sysfs-kernel-iommu_groups`).
    fn of_types<'a>(types: impl IntoIterator<Item = &'a str>) -> Self {
        let kind = |text: &str| match text.trim_end() {
            "identity" => Self::Identity,
            "DMA" | "DMA-FQ" => Self::Translated,
            "" | "unknown" => Self::Unknown,
            // "blocked", "unmanaged": what a user of VFIO or nobody set up.
            _ => Self::Mixed,
        };
        let together = |all: Self, one: Self| if all == one { all } else { Self::Mixed };
        types.into_iter().map(kind).reduce(together).unwrap_or(Self::None)
    }
}

impl Machine {
    /// The machine that this runs on.
    ///
    /// Reading the configuration space of PCI functions wakes those that sleep, as `lspci` does.
    #[must_use]
    pub fn this() -> Self {
        let mut machine = Self::recorded(Path::new("/"));
        machine.privileged = nix::unistd::geteuid().is_root();
        interfaces::complete(&mut machine);
        machine
    }

    /// One whose `sys` and `proc` lie in a folder.
    fn recorded(root: &Path) -> Self {
        let processor = text(&root.join("proc/cpuinfo")).unwrap_or_default();
        let groups = fs::read_dir(root.join("sys/kernel/iommu_groups")).into_iter().flatten().flatten();
        let types: Vec<String> =
            groups.map(|group| text(&group.path().join("type")).unwrap_or_default()).collect();
        Self {
            kernel: text(&root.join("proc/sys/kernel/osrelease")).unwrap_or_else(|| "unknown".to_owned()),
            architecture: text(&root.join("proc/sys/kernel/arch")),
            processor: field(&processor, "model name").map(str::to_owned),
            virtual_machine: field(&processor, "flags")
                .map(|flags| flags.split_whitespace().any(|flag| flag == "hypervisor")),
            memory_bytes: text(&root.join("proc/meminfo")).and_then(|text| memory_bytes(&text)),
            iommu: !types.is_empty(),
            iommu_kind: IommuKind::of_types(types.iter().map(String::as_str)),
            privileged: false,
            functions: function::all(root, &topology::Machine::recorded(root)),
        }
    }
}

/// What `/proc/cpuinfo` says of the first processor.
fn field<'a>(information: &'a str, name: &str) -> Option<&'a str> {
    information.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim_end() == name).then(|| value.trim())
    })
}

/// `MemTotal` of `/proc/meminfo`, whose kB are KiB.
fn memory_bytes(information: &str) -> Option<u64> {
    let number = field(information, "MemTotal")?.strip_suffix("kB")?;
    number.trim_end().parse::<u64>().ok()?.checked_mul(1024)
}

/// What a file holds, without white space around it; `None` if it cannot be read or holds nothing.
fn text(file: &Path) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests;
