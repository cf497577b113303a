//! The kernel's rule: `calc_map_type_and_dist()` in `drivers/pci/p2pdma.c`.

use super::Topology;
use super::access_control::{AccessControl, Unread};
use super::endpoint::Endpoint;
use super::kernel::{Kernel, PeerToPeerSupport};
use super::processor::Processor;
use super::verdict::{Obstacle, Permission, Question, Route, Verdict};
use crate::pci::PciAddress;

/// Applies the rule.
pub(super) fn judge(
    exporter: Endpoint,
    importer: Endpoint,
    processor: Processor,
    kernel: Kernel,
) -> Topology {
    let (common, distance) = meet(&exporter, &importer);
    let mut topology = Topology {
        exporter,
        importer,
        common,
        distance,
        processor,
        kernel,
        verdict: Verdict::Unknown(Vec::new()),
    };
    topology.verdict = verdict(&topology);
    topology
}

/// Where the two ways meet, and how many hops that is.
fn meet(exporter: &Endpoint, importer: &Endpoint) -> (Option<PciAddress>, usize) {
    for (up, function) in exporter.path().enumerate() {
        let down = importer.path().position(|other| other.address == function.address);
        if let Some(down) = down {
            return (Some(function.address), up + down);
        }
    }
    (None, exporter.path().count() + importer.path().count())
}

/// What the kernel makes of the host bridges.
enum Passage {
    Open(Permission),
    Shut,
    Unread,
}

fn verdict(topology: &Topology) -> Verdict {
    let verdict = match topology.common {
        Some(common) => below_common(topology, common),
        None => match passage(topology) {
            Passage::Open(permission) => {
                Verdict::Reachable(Route::HostBridge { permission, redirecting: Vec::new() })
            }
            Passage::Shut => Verdict::NotReachable(without_common(topology)),
            Passage::Unread => Verdict::Unknown(vec![Question::Processor]),
        },
    };
    match (topology.kernel.peer_to_peer, verdict) {
        (PeerToPeerSupport::Absent, _) => Verdict::NotReachable(Obstacle::Kernel),
        (PeerToPeerSupport::Unknown, Verdict::Reachable(_)) => Verdict::Unknown(vec![Question::Kernel]),
        (PeerToPeerSupport::Unknown, Verdict::Unknown(mut questions)) => {
            questions.push(Question::Kernel);
            Verdict::Unknown(questions)
        }
        (_, verdict) => verdict,
    }
}

fn below_common(topology: &Topology, common: PciAddress) -> Verdict {
    let those = |wanted: &dyn Fn(AccessControl) -> bool| -> Vec<PciAddress> {
        let between = topology.between().filter(|function| wanted(function.access_control));
        between.map(|function| function.address).collect()
    };
    let redirecting = those(&|acs| acs.redirects() == Some(true));
    let questions: Vec<_> = [Unread::Privilege, Unread::NoAnswer]
        .into_iter()
        .map(|why| (those(&|acs| acs == AccessControl::Unread(why)), why))
        .filter(|(functions, _)| !functions.is_empty())
        .map(|(functions, why)| Question::AccessControl { functions, why })
        .collect();
    if redirecting.is_empty() && questions.is_empty() {
        return Verdict::Reachable(Route::BusAddresses { common });
    }
    match (passage(topology), redirecting.is_empty()) {
        (Passage::Open(permission), false) => {
            Verdict::Reachable(Route::HostBridge { permission, redirecting })
        }
        (Passage::Open(permission), true) => Verdict::Reachable(Route::Either { common, permission }),
        (Passage::Shut, false) => Verdict::NotReachable(Obstacle::Redirected {
            redirecting,
            unknown: topology.exporter.host_bridge.clone(),
        }),
        (Passage::Shut, true) => Verdict::Unknown(questions),
        (Passage::Unread, false) => Verdict::Unknown(vec![Question::Processor]),
        (Passage::Unread, true) => {
            Verdict::Unknown(questions.into_iter().chain([Question::Processor]).collect())
        }
    }
}

fn passage(topology: &Topology) -> Passage {
    let bridges = [&topology.exporter.host_bridge, &topology.importer.host_bridge];
    let same = bridges[0].name == bridges[1].name;
    let known = bridges.iter().all(|bridge| bridge.carries_peer_to_peer(same, &topology.kernel));
    match (topology.processor.carries_peer_to_peer(), known) {
        (Some(true), _) => Passage::Open(Permission::Processor),
        (_, true) => Passage::Open(Permission::HostBridge),
        (Some(false), false) => Passage::Shut,
        (None, false) => Passage::Unread,
    }
}

/// Why two functions without common bridge do not reach each other.
fn without_common(topology: &Topology) -> Obstacle {
    let bridges = [topology.exporter.host_bridge.clone(), topology.importer.host_bridge.clone()];
    let mut unknown: Vec<_> = bridges
        .iter()
        .filter(|bridge| !bridge.carries_peer_to_peer(true, &topology.kernel))
        .cloned()
        .collect();
    unknown.dedup();
    if unknown.is_empty() {
        Obstacle::DifferentHostBridges { host_bridges: bridges }
    } else {
        Obstacle::NoCommonBridge { unknown }
    }
}
