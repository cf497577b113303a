//! A provider and a NIC: whether payload can be received, and where it comes to lie.

use devmem_provider::topology::{Machine, Verdict};
use devmem_provider::{DeviceKind, PciAddress, Provider};
use devmem_receive::nic::Nic;
use serde::{Deserialize, Serialize};

use super::finding::{Finding, State};
use super::landing::{self, Landing};
use super::nic::Looked as LookedNic;
use super::provider::Looked as LookedProvider;
use super::{Ability, sysfs};

/// What receiving by devmem TCP into a provider's memory comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Conclusion {
    /// It works, and payload lies in the device's memory.
    DeviceMemory,
    /// It works; the provider's memory is the system's.
    SystemMemory,
    /// It works, but payload lies in system memory although the provider has device memory.
    NotInDeviceMemory,
    /// It works; where payload lies is decided by a bind.
    SomeMemory,
    /// It does not work.
    Impossible,
    /// What decides could not be seen.
    Unknown,
}

impl Conclusion {
    /// Whether payload can be received at all.
    #[must_use]
    pub fn can_receive(self) -> bool {
        !matches!(self, Self::Impossible | Self::Unknown)
    }

    /// It in a few words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::DeviceMemory => "works, in device memory",
            Self::SystemMemory => "works, in system memory",
            Self::NotInDeviceMemory => "works, but lands in system memory",
            Self::SomeMemory => "works, where is not known",
            Self::Impossible => "does not work",
            Self::Unknown => "could not be seen",
        }
    }
}

/// A provider and a NIC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// The provider's name.
    pub provider: String,
    /// The interface.
    pub nic: String,
    /// What receiving by devmem TCP comes to.
    pub conclusion: Conclusion,
    /// The same in a sentence, with the reason.
    pub says: String,
    /// What was found of the two together.
    pub findings: Vec<Finding>,
}

impl Pair {
    /// What it is called: "amdgpu and eth0".
    #[must_use]
    pub fn name(&self) -> String {
        format!("{} and {}", self.provider, self.nic)
    }
}

pub(super) fn judge(
    provider: &dyn Provider,
    looked: &LookedProvider,
    nic: &Nic,
    nic_looked: &LookedNic,
) -> Pair {
    let able = (looked.device.able, nic_looked.device.able);
    let mut findings = Vec::new();
    let (conclusion, says) = if able.0 == Ability::Yes {
        let (landing, finding) = landing::find(provider, looked, nic, nic_looked);
        let result = conclude(landing, able.1, looked, nic_looked);
        findings.push(finding);
        result
    } else {
        without_memory(looked)
    };
    if let (Some(gpu), Some(nic)) = (looked.identity.pci, nic_looked.pci) {
        findings.extend(peer_to_peer(looked, gpu, nic));
        findings.extend(distance(looked.device.numa_node, nic_looked.device.numa_node));
    }
    Pair {
        provider: looked.device.name.clone(),
        nic: nic_looked.device.name.clone(),
        conclusion,
        says,
        findings,
    }
}

fn without_memory(looked: &LookedProvider) -> (Conclusion, String) {
    let name = &looked.device.name;
    match looked.device.able {
        Ability::Unknown => {
            (Conclusion::Unknown, format!("whether {name} hands out memory could not be seen"))
        }
        _ => (
            Conclusion::Impossible,
            format!("{name} hands out no memory now: {}", because(&looked.device.findings)),
        ),
    }
}

fn conclude(
    landing: Landing,
    nic_able: Ability,
    looked: &LookedProvider,
    nic_looked: &LookedNic,
) -> (Conclusion, String) {
    let (name, interface) = (&looked.device.name, &nic_looked.device.name);
    let (conclusion, place) = match landing {
        Landing::System => (Conclusion::SystemMemory, "the only memory it has".to_owned()),
        Landing::Stays => {
            (Conclusion::DeviceMemory, format!("payload lies in the memory of {name}'s device"))
        }
        Landing::Moves => (
            Conclusion::NotInDeviceMemory,
            "its driver moves the buffer to system memory when devmem TCP attaches".to_owned(),
        ),
        Landing::Refused => (
            Conclusion::NotInDeviceMemory,
            "its driver refuses devmem TCP for buffers in device memory; those in system memory work"
                .to_owned(),
        ),
        Landing::Unknown => (Conclusion::SomeMemory, "where payload lies is decided by a bind".to_owned()),
    };
    match nic_able {
        Ability::Yes => (conclusion, place),
        Ability::No => {
            (Conclusion::Impossible, format!("{interface}: {}", because(&nic_looked.device.findings)))
        }
        Ability::Unknown => (
            Conclusion::Unknown,
            format!("what {interface} can do could not be seen; if it can receive, {place}"),
        ),
    }
}

/// What stands in the way, in one line.
fn because(findings: &[Finding]) -> String {
    let obstacles: Vec<&str> = findings
        .iter()
        .filter(|finding| finding.state == State::Obstacle)
        .map(|finding| finding.says.as_str())
        .collect();
    obstacles.join("; ")
}

/// What the kernel would say to an importer that takes peer-to-peer addresses.
fn peer_to_peer(looked: &LookedProvider, gpu: PciAddress, nic: PciAddress) -> Vec<Finding> {
    const ABOUT: &str = "peer-to-peer";
    const SINCE: &str = "devmem TCP asks for none; importers that do, such as RDMA, depend on it";
    if looked.identity.kind == DeviceKind::Integrated {
        let says = "not needed: an integrated GPU's memory is system memory, which every NIC reaches";
        return vec![Finding::new(
            State::Note,
            ABOUT,
            says,
            format!("{} is an integrated GPU", looked.identity),
        )];
    }
    let topology = match Machine::running().topology(gpu, nic) {
        Ok(topology) => topology,
        Err(error) => {
            let says = "the way between the two on PCI could not be read";
            return vec![Finding::failed(State::Unknown, ABOUT, says, &error)];
        }
    };
    let topology = match looked.own_memory.filter(|&size| size > 0) {
        Some(size) => topology.with_exporter_memory(size),
        None => topology,
    };
    let evidence = topology.evidence().join("; ");
    let finding = match &topology.verdict {
        Verdict::Reachable(route) => {
            let says = format!("the NIC reaches the GPU's memory {route}. {SINCE}");
            Finding::new(State::Note, ABOUT, says, evidence)
        }
        Verdict::NotReachable(obstacle) => {
            let says = format!("the NIC does not reach the GPU's memory: {obstacle}. {SINCE}");
            Finding::new(State::Note, ABOUT, says, evidence).remedy(obstacle.remedy())
        }
        Verdict::Unknown(questions) => {
            let list = |of: &dyn Fn(&devmem_provider::topology::Question) -> String| {
                questions.iter().map(of).collect::<Vec<_>>().join("; ")
            };
            let says = format!(
                "whether the NIC reaches the GPU's memory is not known: {}. {SINCE}",
                list(&|q| q.to_string())
            );
            Finding::new(State::Unknown, ABOUT, says, evidence).remedy(list(&|q| q.remedy()))
        }
        _ => Finding::new(State::Unknown, ABOUT, topology.verdict.to_string(), evidence),
    };
    let cautions = topology.cautions();
    let cautions = cautions.iter().map(|caution| {
        Finding::new(State::Note, ABOUT, caution.to_string(), "sysfs, as listed for the way between the two")
    });
    std::iter::once(finding).chain(cautions).collect()
}

/// How far apart the kernel says that the two are.
fn distance(gpu: Option<u32>, nic: Option<u32>) -> Option<Finding> {
    const ABOUT: &str = "NUMA";
    let (gpu, nic) = (gpu?, nic?);
    if gpu == nic {
        let says = format!("both are closest to node {gpu}");
        return Some(Finding::new(State::Ok, ABOUT, says, "numa_node of both in sysfs"));
    }
    let file = format!("/sys/devices/system/node/node{nic}/distance");
    let listed = sysfs::text(&file).unwrap_or_default();
    let value = listed.split_whitespace().nth(usize::try_from(gpu).ok()?).unwrap_or("unknown").to_owned();
    let says = format!(
        "the GPU is closest to node {gpu}, the NIC to node {nic}: distance {value}, where 10 is none. Payload crosses \
         the link between the processors"
    );
    Some(
        Finding::new(
            State::Caution,
            ABOUT,
            says,
            format!("numa_node of both in sysfs; {file} says {listed:?}"),
        )
        .remedy("choose a NIC of the GPU's node, where there is one"),
    )
}
