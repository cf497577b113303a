//! What this machine can do, and what stands in the way of each pair of provider and NIC.
//!
//! [`examine`] looks before any check runs. It finds out by trying where that leaves no trace, and by reading
//! otherwise: it changes no setting, binds no queue, loads no module. What it allocates is a page, given back at once.
//! Nothing in a [`Diagnosis`] is secret: no addresses of the network, no names of users or hosts.

mod finding;
mod functions;
mod landing;
mod machine;
mod nic;
mod pair;
mod provider;
mod sysfs;
pub mod text;

use std::sync::Arc;

use devmem_provider::{Error, Provider, Result};
use serde::{Deserialize, Serialize};

pub use finding::{Finding, State};
pub use pair::{Conclusion, Pair};

/// The form of a diagnosis in JSON. Keys are only ever added; a change of what one means raises it.
pub const SCHEMA: u32 = 1;

/// A backend that has no provider on this machine, and why.
#[derive(Debug, Clone, Copy)]
pub struct Refused<'a> {
    /// The backend's name.
    pub backend: &'a str,
    /// What was tried and what it said.
    pub reason: &'a Error,
}

/// What to look at.
#[derive(Debug, Clone, Copy, Default)]
pub struct Subjects<'a> {
    /// The providers.
    pub providers: &'a [Arc<dyn Provider>],
    /// The backends without one.
    pub refused: &'a [Refused<'a>],
    /// The NICs by interface, PCI address or IP address; if there is none, every NIC of this network namespace.
    pub nics: &'a [String],
    /// Only what was named is meant: functions on PCI beyond are not told of.
    pub named_only: bool,
}

/// Whether a device can take part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ability {
    /// It can.
    Yes,
    /// It cannot, as its findings tell.
    No,
    /// It could not be seen.
    Unknown,
}

/// A provider or a NIC, and what was found of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// The provider's name, or the interface's.
    pub name: String,
    /// What it is, for people.
    pub description: String,
    /// Its kernel driver or Vulkan driver.
    pub driver: String,
    /// The driver's version, where it tells one.
    pub driver_version: Option<String>,
    /// Where it sits on PCI.
    pub pci: Option<String>,
    /// The NUMA node it is closest to.
    pub numa_node: Option<u32>,
    /// Whether it can take part in receiving into device memory.
    pub able: Ability,
    /// What was found.
    pub findings: Vec<Finding>,
}

/// What a machine can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// See [`SCHEMA`].
    pub schema: u32,
    /// The version of this suite.
    pub suite: String,
    /// The kernel's release.
    pub kernel: String,
    /// Whether it was looked with root's identity.
    pub root: bool,
    /// Whether at least one pair can receive.
    pub can_receive: bool,
    /// What was found of the kernel and the machine.
    pub machine: Vec<Finding>,
    /// The providers.
    pub providers: Vec<Device>,
    /// Backends and GPUs without a provider.
    pub without_provider: Vec<Finding>,
    /// The NICs.
    pub nics: Vec<Device>,
    /// Network functions and interfaces that are no NIC of this network namespace.
    pub without_nic: Vec<Finding>,
    /// Every provider with every NIC.
    pub pairs: Vec<Pair>,
}

impl Diagnosis {
    /// As one JSON object; the keys are those of this type.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Keys are strings and there are no numbers but integers, so that nothing in it cannot be written.
        format!("{:#}\n", serde_json::json!(self))
    }

    /// Every finding, with what it was found of; `None` for the machine.
    pub fn findings(&self) -> impl Iterator<Item = (Option<String>, &Finding)> {
        let of_machine = self.machine.iter().chain(&self.without_provider).chain(&self.without_nic);
        let devices = self.providers.iter().chain(&self.nics);
        let of_devices = devices.flat_map(|device| {
            device.findings.iter().map(move |finding| (Some(device.name.clone()), finding))
        });
        let of_pairs = self
            .pairs
            .iter()
            .flat_map(|pair| pair.findings.iter().map(move |finding| (Some(pair.name()), finding)));
        of_machine.map(|finding| (None, finding)).chain(of_devices).chain(of_pairs)
    }
}

/// Looks at a machine.
///
/// # Errors
///
/// A NIC that was named does not exist, or the kernel cannot be asked for its NICs. Everything else that is missing is
/// part of the diagnosis.
pub fn examine(subjects: &Subjects<'_>) -> Result<Diagnosis> {
    let providers: Vec<_> = subjects.providers.iter().map(|provider| provider::look(&**provider)).collect();
    let nics = nic::find(subjects.nics)?;
    let looked_nics: Vec<_> = nics.examined.iter().map(nic::look).collect();
    let mut pairs = Vec::new();
    for (provider, found) in subjects.providers.iter().zip(&providers) {
        for (nic, looked) in nics.examined.iter().zip(&looked_nics) {
            pairs.push(pair::judge(&**provider, found, nic, looked));
        }
    }
    let (mut without_provider, mut without_nic) = (functions::refused(subjects), nics.others);
    if !subjects.named_only {
        without_provider.extend(functions::gpus_without_provider(subjects.providers));
        if subjects.nics.is_empty() {
            without_nic.extend(functions::nics_without_interface(&nics.examined));
        }
    }
    Ok(Diagnosis {
        schema: SCHEMA,
        suite: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: machine::release(),
        root: nix::unistd::geteuid().is_root(),
        can_receive: pairs.iter().any(|pair| pair.conclusion.can_receive()),
        machine: machine::look(subjects.providers),
        providers: providers.into_iter().map(|provider| provider.device).collect(),
        without_provider,
        nics: looked_nics.into_iter().map(|nic| nic.device).collect(),
        without_nic,
        pairs,
    })
}

#[cfg(test)]
mod tests;
