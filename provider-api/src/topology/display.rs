//! Verdicts and their evidence for people.

use std::fmt;

use super::Topology;
use super::access_control::{AccessControl, Unread};
use super::endpoint::{Endpoint, Function, RuntimeStatus, Window};
use super::host_bridge::{HostBridge, Representative};
use super::kernel::PeerToPeerSupport;
use super::verdict::{Caution, Obstacle, Permission, Question, Route, Verdict};
use crate::pci::PciAddress;

impl Topology {
    /// The facts on which the verdict rests, a line each.
    #[must_use]
    pub fn evidence(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (role, endpoint) in [("exporter", &self.exporter), ("importer", &self.importer)] {
            let path: Vec<_> = endpoint.path().map(Function::to_string).collect();
            lines.push(format!("{role}: {}, below {}", path.join(", below "), endpoint.host_bridge));
            lines.push(format!("{role}: {}", Surroundings(endpoint)));
        }
        lines.push(match self.common {
            Some(common) => format!("their ways meet at {common}: distance {}", self.distance),
            None => format!("no bridge is common to their ways: distance {}", self.distance),
        });
        if let Some(hint) = self.isolation_hint() {
            lines.push(hint);
        }
        lines.push(format!(
            "processor: {}{}",
            self.processor,
            match self.processor.carries_peer_to_peer() {
                Some(true) => ", whose host bridges the kernel trusts with requests between peers",
                Some(false) => ", whose host bridges the kernel must know to trust them",
                None => "",
            }
        ));
        lines.push(format!(
            "kernel: {}, {}",
            self.kernel.release.as_deref().unwrap_or("of unknown release"),
            match self.kernel.peer_to_peer {
                PeerToPeerSupport::Present => "built with CONFIG_PCI_P2PDMA",
                PeerToPeerSupport::Absent => "built without CONFIG_PCI_P2PDMA",
                PeerToPeerSupport::Unknown => "which does not tell whether it has CONFIG_PCI_P2PDMA",
            }
        ));
        lines
    }

    /// What the IOMMU groups suggest of ACS where it could not be read: the kernel puts functions that
    /// nothing isolates from each other into one group.
    fn isolation_hint(&self) -> Option<String> {
        self.common?;
        if self.between().all(|function| function.access_control.redirects().is_some()) {
            return None;
        }
        let (exporter, importer) = (self.exporter.iommu.as_ref()?, self.importer.iommu.as_ref()?);
        Some(if exporter.number == importer.number {
            format!("both are in IOMMU group {}: probably nothing redirects by ACS", exporter.number)
        } else {
            "they are in different IOMMU groups: probably ACS redirects between them".to_owned()
        })
    }
}

impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}: {}", self.importer.address(), self.exporter.address(), self.verdict)?;
        for line in self.evidence() {
            write!(f, "\n  {line}")?;
        }
        for caution in self.cautions() {
            write!(f, "\n  caution: {caution}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reachable(route) => write!(f, "reachable {route}"),
            Self::NotReachable(obstacle) => write!(f, "not reachable: {obstacle}; {}", obstacle.remedy()),
            Self::Unknown(questions) => {
                f.write_str("unknown")?;
                for (index, question) in questions.iter().enumerate() {
                    let separator = if index == 0 { ": " } else { "; and " };
                    write!(f, "{separator}{question}; {}", question.remedy())?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BusAddresses { common } => write!(f, "through {common}, by bus addresses"),
            Self::HostBridge { permission, redirecting } => {
                write!(f, "through the host bridge, {permission}")?;
                if redirecting.is_empty() {
                    return Ok(());
                }
                write!(f, ", because {} by ACS", redirect(redirecting))
            }
            Self::Either { common, permission } => write!(
                f,
                "through {common}, by bus addresses, or if ACS redirects there, which could not be read, \
                 through the host bridge, {permission}"
            ),
        }
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Processor => "which the kernel trusts with requests between peers on this processor",
            Self::HostBridge => "which the kernel knows to carry requests between peers",
        })
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel => f.write_str("this kernel was built without CONFIG_PCI_P2PDMA"),
            Self::NoCommonBridge { unknown } => {
                let list: Vec<_> = unknown.iter().map(HostBridge::to_string).collect();
                write!(
                    f,
                    "no bridge is common to both, and the kernel does not know {} to carry requests \
                     between peers",
                    list.join(" and ")
                )
            }
            Self::DifferentHostBridges { host_bridges: [exporter, importer] } => write!(
                f,
                "{exporter} and {importer} carry requests between peers only where both are below the same"
            ),
            Self::Redirected { redirecting, unknown } => write!(
                f,
                "{} to the host bridge by ACS, and the kernel does not know {unknown} to carry requests \
                 between peers",
                redirect(redirecting)
            ),
        }
    }
}

/// "A and B redirect requests".
fn redirect(functions: &[PciAddress]) -> String {
    let list: Vec<_> = functions.iter().map(PciAddress::to_string).collect();
    let verb = if functions.len() == 1 { "redirects" } else { "redirect" };
    format!("{} {verb} requests", list.join(" and "))
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AccessControl { functions, why } => {
                let list: Vec<_> = functions.iter().map(PciAddress::to_string).collect();
                write!(f, "whether ACS redirects requests {why}, at {}", list.join(", "))
            }
            Self::Processor => f.write_str("which processor this is could not be read"),
            Self::Kernel => {
                f.write_str("whether the kernel was built with CONFIG_PCI_P2PDMA could not be read")
            }
        }
    }
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Privilege => "could not be read without privilege",
            Self::NoAnswer => "could not be read because the function does not answer",
        })
    }
}

impl fmt::Display for Caution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ExporterSuspended(address) => write!(
                f,
                "{address} is runtime-suspended, and amdgpu then offers no peer-to-peer; keep it awake by \
                 holding its device node open, or by writing on to its power/control"
            ),
            Self::SmallWindow { window, memory } => write!(
                f,
                "peers see {} of {} of the exporter's memory; turn on resizable BAR in the firmware",
                bytes(window.size),
                bytes(*memory)
            ),
            Self::UnassignedWindow { function, window } => write!(
                f,
                "{} of {function} has no address; turn on decoding above 4G in the firmware",
                window
            ),
            Self::IommuTranslates(address) => write!(
                f,
                "the IOMMU translates the addresses of {address}, so that memory which amdgpu or xe map is \
                 reached by way of the root complex; boot with iommu=pt for the direct way"
            ),
        }
    }
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:04x}:{:04x}", self.address, self.vendor, self.device)?;
        match self.access_control {
            AccessControl::Absent => f.write_str(")"),
            AccessControl::Control(control) => write!(
                f,
                ", ACS {control:#06x}{})",
                if self.access_control.redirects() == Some(true) { " redirects" } else { "" }
            ),
            AccessControl::Unread(Unread::Privilege) => f.write_str(", ACS unreadable)"),
            AccessControl::Unread(Unread::NoAnswer) => f.write_str(", does not answer)"),
        }
    }
}

impl fmt::Display for HostBridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(Representative { address, vendor, device }) = self.representative else {
            return write!(f, "host bridge {} (nothing on its root bus identifies it)", self.name);
        };
        write!(f, "host bridge {} ({vendor:04x}:{device:04x} at {address}", self.name)?;
        if let Some(known) = self.known() {
            write!(f, ": {}", known.description)?;
            if let Some((major, minor)) = known.since {
                write!(f, ", known since Linux {major}.{minor}")?;
            }
            if known.same_only {
                f.write_str(", between functions below it only")?;
            }
        }
        f.write_str(")")
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "window {} of {}", self.register, bytes(self.size))?;
        if self.prefetchable { f.write_str(", prefetchable") } else { Ok(()) }
    }
}

/// What was seen of a function itself.
struct Surroundings<'a>(&'a Endpoint);

impl fmt::Display for Surroundings<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoint = self.0;
        match &endpoint.iommu {
            Some(group) => write!(f, "IOMMU {group}")?,
            None => f.write_str("no IOMMU")?,
        }
        match endpoint.runtime_status {
            Some(RuntimeStatus::Active) => f.write_str("; awake")?,
            Some(RuntimeStatus::Suspended) => f.write_str("; runtime-suspended")?,
            None => {}
        }
        if let Some(node) = endpoint.numa_node {
            write!(f, "; NUMA node {node}")?;
        }
        for window in &endpoint.windows {
            write!(f, "; {window}{}", if window.assigned { "" } else { " without address" })?;
        }
        if let Some(memory) = endpoint.memory {
            write!(f, "; memory of {}", bytes(memory))?;
        }
        Ok(())
    }
}

/// A size in the largest unit that keeps it whole.
fn bytes(size: u64) -> String {
    for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if size != 0 && size.is_multiple_of(1 << shift) {
            return format!("{} {unit}", size >> shift);
        }
    }
    format!("{size} bytes")
}
