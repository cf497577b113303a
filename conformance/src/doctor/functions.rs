//! What is not there: backends without a provider, GPUs and network functions that nothing here drives.

use std::sync::Arc;

use devmem_provider::topology::Machine;
use devmem_provider::{ErrorKind, PciAddress, Provider};
use devmem_receive::nic::Nic;

use super::finding::{Finding, State, without_remedy};
use super::{Refused, Subjects, sysfs};

/// The kernel drivers of a vendor's GPUs (`linux/pci_ids.h`).
const GPU_MODULES: [(&str, &str); 4] =
    [("0x1002", "amdgpu"), ("0x8086", "xe or i915"), ("0x10de", "nouveau"), ("0x1af4", "virtio-gpu")];

/// The backends without a provider; those with the same reason in one finding.
pub(super) fn refused(subjects: &Subjects<'_>) -> Vec<Finding> {
    let mut groups: Vec<Vec<&Refused<'_>>> = Vec::new();
    for refused in subjects.refused {
        let key = |refused: &Refused<'_>| (refused.reason.kind(), refused.reason.reason().map(str::to_owned));
        let same = |group: &&mut Vec<&Refused<'_>>| {
            refused.reason.reason().is_some() && group.first().is_some_and(|first| key(first) == key(refused))
        };
        match groups.iter_mut().find(same) {
            Some(group) => group.push(refused),
            None => groups.push(vec![refused]),
        }
    }
    // Where another provider works, this one is perhaps not missed.
    let state = if subjects.providers.is_empty() { State::Obstacle } else { State::Note };
    let mut findings: Vec<_> = groups.iter().map(|group| not_here(group, state)).collect();
    let no_gpu = Machine::running().gpus().is_ok_and(|gpus| gpus.is_empty());
    if no_gpu && !findings.is_empty() && !subjects.named_only {
        // To load a driver for what is not there helps nobody.
        for (finding, group) in findings.iter_mut().zip(&groups) {
            if group.len() > 1 {
                finding.state = State::Note;
                finding.remedy = None;
            }
        }
        findings.insert(0, without_gpu(state));
    }
    findings
}

fn without_gpu(state: State) -> Finding {
    let says = "no function on PCI is a display controller or an accelerator";
    Finding::new(state, "GPU", says, "the classes in /sys/bus/pci/devices/*/class").remedy(
        "put a GPU into this machine, or pass one through to it; the receive path by itself can be tried without \
         one, into memory of udmabuf or of a DMA heap",
    )
}

fn not_here(group: &[&Refused<'_>], state: State) -> Finding {
    let names: Vec<&str> = group.iter().map(|refused| refused.backend).collect();
    let Some(first) = group.first() else { return Finding::new(state, "", "", "") };
    let reason = first.reason.reason().unwrap_or("not available").to_owned();
    let state = if first.reason.kind() == ErrorKind::PermissionDenied { State::Unknown } else { state };
    let finding = Finding::new(state, names.join(", "), reason, without_remedy(first.reason));
    let alike = group.iter().all(|refused| refused.reason.remedy_text() == first.reason.remedy_text());
    match first.reason.remedy_text() {
        Some(remedy) if alike => finding.remedy(remedy),
        _ => finding,
    }
}

/// GPUs of this machine that no provider stands for.
pub(super) fn gpus_without_provider(providers: &[Arc<dyn Provider>]) -> Vec<Finding> {
    let known: Vec<PciAddress> = providers.iter().filter_map(|provider| provider.identity().pci).collect();
    let gpus = Machine::running().gpus().unwrap_or_default();
    gpus.into_iter().filter(|gpu| !known.contains(gpu)).map(gpu).collect()
}

fn gpu(address: PciAddress) -> Finding {
    let vendor = sysfs::text(sysfs::function(address).join("vendor")).unwrap_or_default();
    let about = format!("GPU {address}");
    let identifiers = identifiers(address);
    match sysfs::driver(address) {
        None => {
            let module = GPU_MODULES.iter().find(|(known, _)| *known == vendor).map(|(_, module)| module);
            Finding::new(
                State::Obstacle,
                about,
                format!("{identifiers}: no driver is bound to it"),
                format!("{} has no driver", sysfs::function(address).display()),
            )
            .remedy(match module {
                Some(module) => format!("load its driver: modprobe {module}; dmesg tells if it refuses the device"),
                None => "load its driver, if it has an open one".to_owned(),
            })
        }
        Some(driver) if driver == "vfio-pci" => Finding::new(
            State::Obstacle,
            about,
            format!("{identifiers}: it is set aside for a virtual machine"),
            "vfio-pci is bound to it",
        )
        .remedy(format!("bind its own driver: driverctl unset-override {address}")),
        Some(driver) => Finding::new(
            State::Note,
            about,
            format!("{identifiers}: its driver {driver} is bound, but no provider of this suite serves it"),
            format!("{} has the driver {driver}, and no provider has this address", sysfs::function(address).display()),
        )
        .remedy("look at the backend of that driver among those that are not available; if there is none, write one"),
    }
}

/// Network functions that have no interface in this network namespace.
pub(super) fn nics_without_interface(nics: &[Nic]) -> Vec<Finding> {
    let known: Vec<PciAddress> = nics.iter().filter_map(|nic| nic.identity().pci).collect();
    let functions = Machine::running().nics().unwrap_or_default();
    functions.into_iter().filter(|function| !known.contains(function)).map(network_function).collect()
}

fn network_function(address: PciAddress) -> Finding {
    let about = format!("network function {address}");
    let identifiers = identifiers(address);
    match sysfs::driver(address) {
        None => Finding::new(
            State::Note,
            about,
            format!("{identifiers}: no driver is bound to it"),
            format!("{} has no driver", sysfs::function(address).display()),
        )
        .remedy("load its driver; dmesg tells if it refuses the device"),
        Some(driver) => Finding::new(
            State::Note,
            about,
            format!("{identifiers}: driver {driver}; it has no interface in this network namespace"),
            "rtnetlink getlink shows no interface of it here",
        )
        .remedy("if it is meant, run this in the namespace that has it: ip netns exec NAME devmem-conformance doctor"),
    }
}

/// Vendor and device as `lspci -n` prints them.
fn identifiers(address: PciAddress) -> String {
    let number = |name: &str| {
        let text = sysfs::text(sysfs::function(address).join(name)).unwrap_or_default();
        text.trim_start_matches("0x").to_owned()
    };
    format!("{}:{}", number("vendor"), number("device"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use devmem_provider::Error;

    #[test]
    fn one_reason_is_told_once_and_a_closed_node_is_unknown() {
        let no_device = || {
            Error::new(ErrorKind::Unsupported, "find a GPU").because("there is none").remedy("load a driver")
        };
        let (first, second) = (no_device(), no_device());
        let closed = Error::new(ErrorKind::PermissionDenied, "open").on("/dev/udmabuf").remedy("run as root");
        let refusals = [("amdgpu", &first), ("udmabuf", &closed), ("xe", &second)];
        let refusals = refusals.map(|(backend, reason)| Refused { backend, reason });
        let findings = refused(&Subjects { refused: &refusals, named_only: true, ..Subjects::default() });
        let summary: Vec<_> =
            findings.iter().map(|f| (f.about.as_str(), f.state, f.remedy.as_deref())).collect();
        assert_eq!(
            summary,
            [
                ("amdgpu, xe", State::Obstacle, Some("load a driver")),
                ("udmabuf", State::Unknown, Some("run as root")),
            ]
        );
    }
}
