//! What the kernel's rule of peer-to-peer foretells of a pair of devices, and where the memory really was.

use devmem_provider::topology::{Machine, Topology, Verdict};
use devmem_provider::{Capabilities, PeerToPeer, Placement, Residency, ResidencyEvidence};

use super::super::path_check;
use super::{DEVICE_MEMORY, ONE_BUFFER, RESIDENCY, pinned};
use crate::check::{Check, Group};
use crate::context::Context;
use crate::ensure;
use crate::faults::Fault;
use crate::need::Need;
use crate::verdict::{Finding, Outcome, Skip, Stop};

pub(super) const CHECKS: &[Check] = &[path_check(
    Group::Pin,
    "topology_agrees",
    "Memory stays in a device only where the kernel's rule lets the NIC reach it, or where its driver does not ask: then \
     every byte arrives there.",
    &[Need::Nic, Need::Peer, DEVICE_MEMORY, RESIDENCY, Need::Capability(Capabilities::CPU_MAPPING)],
    &[ONE_BUFFER],
    &[Fault::WrongDriver, Fault::UnknownResidency, Fault::DropsBytes],
    topology_agrees,
)];

/// Drivers that hand out addresses of their device whatever the kernel's rule says, and where that is to be read.
const DOES_NOT_ASK: &[(&str, &str)] =
    &[("virtio_gpu", "virtio_gpu_vram_map_dma_buf() in drivers/gpu/drm/virtio/virtgpu_vram.c")];

/// What is left to do once rule and residency were compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// Nothing.
    Nothing,
    /// The NIC must be seen to reach the memory.
    Receive,
}

fn topology_agrees(context: &Context<'_>) -> Outcome {
    let setup = pinned(context, Placement::DeviceLocal)?;
    let exporter = context.provider().identity();
    let (Some(gpu), Some(nic)) = (exporter.pci, setup.nic.nic().identity().pci) else {
        return Err(says_nothing("one of the two is no PCI function".to_owned(), "their identities"));
    };
    let topology = Machine::running().topology(gpu, nic)?;
    let seen = (setup.pin.residency_before(), setup.pin.residency());
    match judge(context.path()?.peer_to_peer(), &topology, seen, &exporter.driver)? {
        Left::Nothing => {}
        Left::Receive => setup.transfer(context, &mut context.peer()?, 256 << 10)?,
    }
    Ok(Finding::Pass)
}

fn says_nothing(reason: String, found_by: &str) -> Stop {
    Stop::Skip(Skip { reason, found_by: found_by.to_owned(), remedy: None })
}

/// Compares the verdict with where the memory was before and after an importer attached.
fn judge(
    importer: PeerToPeer,
    topology: &Topology,
    (before, after): (&ResidencyEvidence, &ResidencyEvidence),
    driver: &str,
) -> Result<Left, Stop> {
    for seen in [before, after] {
        ensure!(seen.residency != Residency::Unknown, "nobody can tell where it is: {}", seen.evidence);
    }
    if before.residency != Residency::DeviceLocal {
        return Err(says_nothing(format!("it was in {before} before"), "the residency of a buffer"));
    }
    let verdict = &topology.verdict;
    let stays = after.residency == Residency::DeviceLocal;
    match verdict {
        Verdict::NotReachable(_) if stays => {
            let driver = driver.replace('-', "_");
            let known = DOES_NOT_ASK.iter().find(|(known, _)| *known == driver);
            known.map(|_| Left::Receive).ok_or_else(|| {
                Stop::fail(format!(
                    "{driver} leaves it in {after} ({}), where the NIC cannot reach it: {verdict}",
                    after.evidence
                ))
            })
        }
        Verdict::Reachable(_) if !stays && importer == PeerToPeer::WhereReachable => {
            let cautions: Vec<String> = topology.cautions().iter().map(ToString::to_string).collect();
            ensure!(
                !cautions.is_empty(),
                "it went from {before} to {after} ({}), and the NIC reaches it: {verdict}",
                after.evidence
            );
            Ok(Left::Nothing)
        }
        Verdict::Reachable(_) if stays => Ok(Left::Receive),
        Verdict::Reachable(_) | Verdict::NotReachable(_) => Ok(Left::Nothing),
        _ => Err(says_nothing(verdict.to_string(), "the way between the two on PCI")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use devmem_provider::topology::{Obstacle, Question, Route};

    fn seen(residency: Residency) -> ResidencyEvidence {
        ResidencyEvidence { residency, region: None, evidence: "a test".to_owned() }
    }

    /// A pair of this machine with another verdict. `None` where there is no PCI to read.
    fn pair(verdict: Verdict) -> Option<Topology> {
        let any = std::fs::read_dir("/sys/bus/pci/devices").ok()?.flatten().next()?;
        let address = any.file_name().to_str()?.parse().ok()?;
        Some(Topology { verdict, ..Machine::running().topology(address, address).ok()? })
    }

    #[test]
    fn memory_that_stays_where_no_way_leads_is_a_contradiction() {
        let table = [
            (Verdict::NotReachable(Obstacle::Kernel), Residency::DeviceLocal, "amdgpu", None),
            (
                Verdict::NotReachable(Obstacle::Kernel),
                Residency::DeviceLocal,
                "virtio-gpu",
                Some(Left::Receive),
            ),
            (Verdict::NotReachable(Obstacle::Kernel), Residency::System, "amdgpu", Some(Left::Nothing)),
            (Verdict::Unknown(vec![Question::Kernel]), Residency::DeviceLocal, "amdgpu", None),
        ];
        for (verdict, after, driver, expected) in table {
            let Some(topology) = pair(verdict.clone()) else {
                println!("skipped: no PCI function of this machine can be read");
                return;
            };
            let residencies = (&seen(Residency::DeviceLocal), &seen(after));
            let left = judge(PeerToPeer::Never, &topology, residencies, driver);
            assert_eq!(left.clone().ok(), expected, "{verdict:?} {after:?} {driver}: {left:?}");
        }
    }

    #[test]
    fn memory_that_moves_although_a_way_leads_there_is_one_for_who_asks() {
        let Some(common) = pair(Verdict::NotReachable(Obstacle::Kernel)).map(|pair| pair.exporter.address())
        else {
            println!("skipped: no PCI function of this machine can be read");
            return;
        };
        let Some(topology) = pair(Verdict::Reachable(Route::BusAddresses { common })) else { return };
        let residencies = (&seen(Residency::DeviceLocal), &seen(Residency::System));
        let judged = |importer| judge(importer, &topology, residencies, "amdgpu").ok();
        assert_eq!(judged(PeerToPeer::Never), Some(Left::Nothing));
        if topology.cautions().is_empty() {
            assert_eq!(judged(PeerToPeer::WhereReachable), None);
        }
    }
}
