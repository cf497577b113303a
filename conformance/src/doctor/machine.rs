//! The kernel and what is around it.

use std::sync::Arc;

use devmem_provider::dma_buf::FenceUse;
use devmem_provider::topology::{self, PeerToPeerSupport};
use devmem_provider::{DmaBuf, ErrorKind, Provider, Request, base_page_size};
use devmem_receive::netdev::Netdev;
use devmem_receive::netlink::{Error, KernelError, Route};
use nix::errno::Errno;

use super::finding::{AS_ROOT, Finding, State};
use super::sysfs::text;

/// Capabilities as `/proc/self/status` numbers them (`linux/capability.h`).
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;

const OLD_KERNEL: &str = "boot Linux 6.12 or later, built with CONFIG_NET_DEVMEM";

pub(super) fn look(providers: &[Arc<dyn Provider>]) -> Vec<Finding> {
    let mut findings = vec![privilege(), devmem_tcp()];
    findings.extend(sync_file(providers));
    findings.extend([peer_to_peer(), iommu(), lockdown()]);
    findings
}

pub(super) fn release() -> String {
    text("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".to_owned())
}

fn privilege() -> Finding {
    let effective = text("/proc/self/status").and_then(|status| {
        let digits = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?.trim().to_owned();
        u64::from_str_radix(&digits, 16).ok()
    });
    let Some(effective) = effective else {
        return Finding::new(
            State::Unknown,
            "privilege",
            "which capabilities this process has could not be read",
            "CapEff in /proc/self/status",
        )
        .remedy("mount /proc");
    };
    let evidence = format!("CapEff in /proc/self/status is {effective:#x}");
    let has = |capability: u32| effective & (1 << capability) != 0;
    let missing: Vec<&str> = [
        (CAP_NET_ADMIN, "CAP_NET_ADMIN, without which NICs are neither asked for devmem TCP nor set up"),
        (CAP_SYS_ADMIN, "CAP_SYS_ADMIN, without which ACS of PCI bridges is hidden"),
    ]
    .into_iter()
    .filter_map(|(capability, why)| (!has(capability)).then_some(why))
    .collect();
    if missing.is_empty() {
        let says = "this process may ask and set up NICs, and read all of PCI's configuration space";
        return Finding::new(State::Ok, "privilege", says, evidence);
    }
    Finding::new(
        State::Unknown,
        "privilege",
        format!("this process lacks {}", missing.join("; and ")),
        evidence,
    )
    .remedy(AS_ROOT)
}

/// The loopback interface does no DMA, and how its refusal reads tells how far the kernel got.
fn devmem_tcp() -> Finding {
    const ASKED: &str = "netdev bind-rx on lo with a descriptor that is no DMA-buf";
    let asked = || -> Result<KernelError, Error> {
        let netdev = Netdev::open()?;
        let loopback = Route::open()?.link_by_name("lo")?;
        netdev.probe_bind_rx(loopback.ifindex, 0)
    };
    match asked() {
        Ok(refusal) => by_refusal(&refusal, ASKED),
        Err(Error::NoFamily(family)) => Finding::new(
            State::Obstacle,
            "devmem TCP",
            "this kernel has no devmem TCP",
            format!("generic netlink: there is no family {family:?}"),
        )
        .remedy(OLD_KERNEL),
        Err(error) => Finding::new(
            State::Unknown,
            "devmem TCP",
            "the kernel could not be asked for devmem TCP",
            format!("{ASKED}: {error}"),
        )
        .remedy("allow AF_NETLINK sockets (a container's seccomp filter may forbid them)"),
    }
}

fn by_refusal(refusal: &KernelError, asked: &str) -> Finding {
    let evidence = format!("{asked}: {refusal}");
    match refusal.errno {
        // The kernel looks for the command before it looks for the privilege (`genl_family_rcv_msg()`).
        Errno::EPERM | Errno::EACCES => Finding::new(
            State::Ok,
            "devmem TCP",
            "the kernel has the command that binds queues to DMA-bufs; whether it was built with all that is \
             behind it is seen with CAP_NET_ADMIN only",
            evidence,
        ),
        Errno::EOPNOTSUPP if refusal.words().is_none() => Finding::new(
            State::Obstacle,
            "devmem TCP",
            "this kernel cannot bind queues to DMA-bufs",
            evidence,
        )
        .remedy(OLD_KERNEL),
        _ => Finding::new(State::Ok, "devmem TCP", "the kernel can bind queues to DMA-bufs", evidence),
    }
}

/// Needs a DMA-buf to try it on.
fn sync_file(providers: &[Arc<dyn Provider>]) -> Option<Finding> {
    let provider = providers.first()?;
    let heaps = provider.heaps().unwrap_or_default();
    let size = heaps.first().map_or(base_page_size(), |heap| heap.granularity);
    let attempt = || {
        let exported = provider.allocate(&Request::bytes(size))?.export()?;
        // A provider may have looked at it already, and what is no DMA-buf would say the same.
        DmaBuf::from_fd(exported.into_fd()?)?.export_sync_file(FenceUse::Read)
    };
    let name = &provider.identity().name;
    Some(match attempt() {
        Ok(_) => Finding::new(
            State::Ok,
            "sync_file",
            "fences of DMA-bufs can be exported, so that work of a GPU can be waited for",
            format!("the fences of a new buffer of {name} were exported"),
        ),
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            Finding::failed(State::Caution, "sync_file", "fences of DMA-bufs cannot be exported", &error)
        }
        Err(error) => Finding::failed(
            State::Unknown,
            "sync_file",
            "whether fences can be exported is not known",
            &error,
        ),
    })
}

fn peer_to_peer() -> Finding {
    const READ: &str =
        "pci_p2pdma_distance_many among the symbols in /proc/kallsyms, p2pmem folders in sysfs";
    let (state, says, remedy) = match topology::Machine::running().kernel().peer_to_peer {
        PeerToPeerSupport::Present => (State::Ok, "the kernel has PCI_P2PDMA", None),
        PeerToPeerSupport::Absent => (
            State::Note,
            "the kernel was built without CONFIG_PCI_P2PDMA: no importer gets peer-to-peer addresses. devmem TCP \
             takes none anyway; RDMA would",
            Some("use a kernel built with CONFIG_PCI_P2PDMA if payload shall stay in a GPU's memory"),
        ),
        _ => (State::Note, "whether the kernel was built with CONFIG_PCI_P2PDMA does not show", None),
    };
    let finding = Finding::new(state, "peer-to-peer", says, READ);
    match remedy {
        Some(remedy) => finding.remedy(remedy),
        None => finding,
    }
}

fn iommu() -> Finding {
    let names = |folder: &str| -> Vec<String> {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut names: Vec<_> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort_unstable();
        names
    };
    let (units, groups) = (names("/sys/class/iommu"), names("/sys/kernel/iommu_groups").len());
    let evidence = format!(
        "/sys/class/iommu has {}; /sys/kernel/iommu_groups has {groups} groups",
        if units.is_empty() { "no unit".to_owned() } else { units.join(", ") }
    );
    if groups == 0 {
        return Finding::new(
            State::Note,
            "IOMMU",
            "none is in use: devices use physical addresses",
            evidence,
        );
    }
    let mut kinds: Vec<_> = names("/sys/kernel/iommu_groups")
        .iter()
        .filter_map(|group| text(format!("/sys/kernel/iommu_groups/{group}/type")))
        .collect();
    kinds.sort_unstable();
    kinds.dedup();
    let translates = kinds.iter().any(|kind| kind.starts_with("DMA"));
    let says = format!(
        "{}, domains of type {}{}",
        units.first().map_or("one is in use", |unit| match unit {
            _ if unit.starts_with("dmar") => "Intel VT-d",
            _ if unit.starts_with("ivhd") => "AMD-Vi",
            _ if unit.starts_with("smmu") => "Arm SMMU",
            _ => "one is in use",
        }),
        if kinds.is_empty() { "that cannot be read".to_owned() } else { kinds.join(", ") },
        if translates {
            ": it translates for devices. That works, and costs peer-to-peer the direct way through a switch"
        } else {
            ""
        }
    );
    Finding::new(State::Note, "IOMMU", says, evidence)
}

fn lockdown() -> Finding {
    const FILE: &str = "/sys/kernel/security/lockdown";
    let Some(modes) = text(FILE) else {
        return Finding::new(
            State::Note,
            "lockdown",
            "the kernel does not show whether it is locked down",
            format!("{FILE} is not there"),
        );
    };
    let evidence = format!("{FILE} says {modes:?}");
    if modes.contains("[none]") {
        return Finding::new(State::Ok, "lockdown", "the kernel is not locked down", evidence);
    }
    Finding::new(
        State::Note,
        "lockdown",
        "the kernel is locked down: modules without a signature it trusts are refused, which out-of-tree drivers \
         of GPUs and NICs meet",
        evidence,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(errno: Errno, message: Option<&str>) -> KernelError {
        let mut refusal = KernelError::from_errno(errno);
        refusal.message = message.map(str::to_owned);
        refusal
    }

    #[test]
    fn only_a_kernel_without_the_command_is_an_obstacle() {
        let state = |refusal: &KernelError| by_refusal(refusal, "asked").state;
        assert_eq!(state(&refusal(Errno::EOPNOTSUPP, None)), State::Obstacle);
        assert_eq!(state(&refusal(Errno::EOPNOTSUPP, Some("Device doesn't support DMA"))), State::Ok);
        let mut objected = refusal(Errno::EOPNOTSUPP, None);
        objected.attribute = Some("ifindex".to_owned());
        assert_eq!(state(&objected), State::Ok);
        assert_eq!(state(&refusal(Errno::EBADF, None)), State::Ok);
        let unprivileged = by_refusal(&refusal(Errno::EPERM, None), "asked");
        assert!(unprivileged.says.contains("CAP_NET_ADMIN"), "{unprivileged:?}");
    }

    #[test]
    fn this_machine_is_described_with_evidence() {
        for finding in look(&[]) {
            assert!(!finding.says.is_empty() && !finding.evidence.is_empty(), "{finding:?}");
            let must_help = matches!(finding.state, State::Obstacle | State::Unknown);
            assert!(!must_help || finding.remedy.is_some(), "{finding:?}");
        }
    }
}
