//! A provider: its memory, whether it hands out some now, and whether its device is awake.

use devmem_provider::{
    Capabilities, DeviceKind, Heap, Identity, Placement, Provider, Request, Residency, Result, base_page_size,
};

use super::finding::{Finding, State};
use super::{Ability, Device, sysfs};

/// A provider that was looked at.
pub(super) struct Looked {
    pub(super) device: Device,
    pub(super) identity: Identity,
    /// The size in bytes of its device's own memory, if it has any.
    pub(super) own_memory: Option<u64>,
    /// What the sizes of its buffers are multiples of, in bytes.
    pub(super) granularity: u64,
}

pub(super) fn look(provider: &dyn Provider) -> Looked {
    let identity = provider.identity().clone();
    let mut findings = Vec::new();
    let heaps = match provider.heaps() {
        Ok(heaps) => heaps,
        Err(error) => {
            let says = "it does not tell what memory it has";
            findings.push(Finding::failed(State::Obstacle, "memory", says, &error));
            Vec::new()
        }
    };
    findings.extend(heaps.iter().map(memory));
    let own: Vec<&Heap> = heaps.iter().filter(|heap| heap.placement != Placement::System).collect();
    let granularity = heaps.iter().map(|heap| heap.granularity).max().unwrap_or(base_page_size()).max(1);
    let attempt = allocation(provider, granularity, !own.is_empty());
    let able = match attempt.state {
        State::Obstacle => Ability::No,
        State::Unknown => Ability::Unknown,
        _ => Ability::Yes,
    };
    findings.push(attempt);
    findings.push(sight(provider.capabilities(), &identity));
    findings.extend(power(&identity));
    let device = Device {
        name: identity.name.clone(),
        description: match identity.kind {
            DeviceKind::Software => format!("{} (system memory, no device)", identity.description),
            kind => format!("{} ({kind})", identity.description),
        },
        driver: identity.driver.clone(),
        driver_version: identity.driver_version.clone(),
        pci: identity.pci.map(|pci| pci.to_string()),
        numa_node: identity.numa_node,
        able,
        findings,
    };
    // A heap whose size its driver does not tell is memory too.
    let own_memory = own.iter().map(|heap| heap.size.unwrap_or_default()).max();
    Looked { device, identity, own_memory, granularity }
}

/// A heap, and how much of it can be reached across PCI.
fn memory(heap: &Heap) -> Finding {
    let size = heap.size.map_or("of unknown size".to_owned(), |size| format!("of {}", sysfs::bytes(size)));
    let used = heap.used.map_or(String::new(), |used| format!(", {} in use", sysfs::bytes(used)));
    let evidence = format!("the driver's answer for its heap {}", heap.name);
    let says = format!("{} {size}{used}", heap.placement);
    let about = format!("memory {}", heap.name);
    match (heap.placement, heap.size, heap.cpu_visible) {
        (Placement::System, ..) | (_, None, _) | (_, _, None) => {
            Finding::new(State::Note, about, says, evidence)
        }
        (_, Some(size), Some(visible)) if visible < size => Finding::new(
            State::Caution,
            about,
            format!(
                "{says}; the CPU and other devices see {} of it: buffers beyond cannot be received into while they \
                 lie in device memory",
                sysfs::bytes(visible)
            ),
            evidence,
        )
        .remedy("turn on resizable BAR (\"Above 4G decoding\" and \"Re-Size BAR\") in the firmware's settings"),
        _ => Finding::new(State::Ok, about, format!("{says}; all of it can be reached across PCI"), evidence),
    }
}

/// A page allocated, exported, looked for and given back.
fn allocation(provider: &dyn Provider, size: u64, has_own_memory: bool) -> Finding {
    const ABOUT: &str = "allocation";
    let request = match has_own_memory {
        true => Request::bytes(size).prefer(Placement::DeviceLocal),
        false => Request::bytes(size),
    };
    let attempt = || -> Result<_> {
        let buffer = provider.allocate(&request)?;
        buffer.export()?;
        buffer.residency()
    };
    let asked = format!(
        "a buffer of {}{} was allocated, exported and given back",
        sysfs::bytes(size),
        if has_own_memory { " in device memory" } else { "" }
    );
    match attempt() {
        Ok(seen) if has_own_memory && seen.residency == Residency::System => Finding::new(
            State::Caution,
            ABOUT,
            format!(
                "memory can be had and exported now, but it lay in system memory ({seen}) although device \
                     memory was asked for"
            ),
            format!("{asked}; {}", seen.evidence),
        )
        .remedy("free device memory: look who uses it in /proc/*/fdinfo (drm-memory-*)"),
        Ok(seen) => Finding::new(
            State::Ok,
            ABOUT,
            match seen.residency {
                Residency::Unknown => "memory can be had and exported now".to_owned(),
                _ => format!("memory can be had and exported now; it lies in {seen} memory"),
            },
            format!("{asked}; {}", seen.evidence),
        ),
        Err(error) => {
            Finding::failed(State::Obstacle, ABOUT, "no memory can be had and exported now", &error)
        }
    }
}

/// Whether a buffer that moves is seen to.
fn sight(capabilities: Capabilities, identity: &Identity) -> Finding {
    let evidence = format!("capabilities of {}", identity.name);
    if capabilities.contains(Capabilities::RESIDENCY) {
        let says = "its driver tells where each buffer is, so that a move is noticed";
        return Finding::new(State::Ok, "residency", says, evidence);
    }
    Finding::new(
        State::Caution,
        "residency",
        "its driver does not tell where a buffer is: whether it was moved cannot be seen from this machine",
        evidence,
    )
}

fn power(identity: &Identity) -> Option<Finding> {
    let folder = sysfs::function(identity.pci?).join("power");
    let status = sysfs::text(folder.join("runtime_status"))?;
    let control = sysfs::text(folder.join("control")).unwrap_or_default();
    let evidence =
        format!("{} says {status:?}, control beside it {control:?}", folder.join("runtime_status").display());
    Some(match status.as_str() {
        "active" | "unsupported" if control != "auto" => {
            Finding::new(State::Ok, "power", "the device is awake and stays awake", evidence)
        }
        "active" | "unsupported" => Finding::new(
            State::Note,
            "power",
            "the device is awake, and the kernel puts it to sleep when nothing uses it",
            evidence,
        ),
        _ => Finding::new(
            State::Caution,
            "power",
            "the device sleeps; a driver may move memory to the system when something attaches meanwhile (amdgpu \
             does)",
            evidence,
        )
        .remedy(format!("echo on > {}", folder.join("control").display())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heap(placement: Placement, size: Option<u64>, cpu_visible: Option<u64>) -> Heap {
        let (used, maximum_allocation, granularity) = (None, None, 4096);
        Heap { name: "vram".to_owned(), placement, size, used, cpu_visible, maximum_allocation, granularity }
    }

    #[test]
    fn a_small_window_is_a_caution_with_a_remedy() {
        let small = memory(&heap(Placement::DeviceLocal, Some(16 << 30), Some(256 << 20)));
        assert_eq!(small.state, State::Caution);
        assert!(small.says.contains("256 MiB") && small.says.contains("16 GiB"), "{}", small.says);
        assert!(small.remedy.unwrap().contains("resizable BAR"));
        let whole = memory(&heap(Placement::DeviceLocal, Some(16 << 30), Some(16 << 30)));
        assert_eq!((whole.state, whole.remedy), (State::Ok, None));
        let system = memory(&heap(Placement::System, Some(16 << 30), Some(1 << 20)));
        assert_eq!(system.state, State::Note);
    }
}
