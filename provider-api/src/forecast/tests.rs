use super::*;
use crate::sharing::Reaction;
use crate::topology::{Obstacle, Permission, Question, Route, Verdict};

const AMDGPU: Sharing = Sharing::stays_with_path(Reaction::Moves);
const ONLY_DEVICE: Sharing = Sharing::stays_with_path(Reaction::Refuses);

fn reachable() -> Verdict {
    Verdict::Reachable(Route::HostBridge { permission: Permission::Processor, redirecting: Vec::new() })
}

fn unreachable() -> Verdict {
    Verdict::NotReachable(Obstacle::Kernel)
}

fn attached(names: &[&str]) -> Attached {
    Attached::Devices(names.iter().map(|&name| name.to_owned()).collect())
}

fn not_seen() -> Attached {
    Attached::Unknown("no debugfs".to_owned())
}

/// The way of others: `near` has one, `far` has none, and `vgem` is no PCI function.
fn way_of(device: &str) -> Option<Verdict> {
    match device {
        "near" => Some(reachable()),
        "far" => Some(unreachable()),
        _ => None,
    }
}

fn effect(
    sharing: Option<Sharing>,
    peer_to_peer: PeerToPeer,
    verdict: Option<Verdict>,
    attached: &Attached,
) -> Effect {
    let residency = Residency::DeviceLocal;
    let facts = Facts { residency, sharing, peer_to_peer, verdict: verdict.as_ref(), attached };
    let (effect, reasons) = facts.effect("RDMA on efa_0", way_of);
    assert!(!reasons.is_empty() && reasons.iter().all(|reason| !reason.is_empty()));
    effect
}

#[test]
fn an_importer_without_peer_to_peer_moves_the_buffer_or_is_refused() {
    let never = |sharing, attached: &Attached| effect(Some(sharing), PeerToPeer::Never, None, attached);
    assert_eq!(never(AMDGPU, &attached(&[])), Effect::Moves);
    assert_eq!(never(ONLY_DEVICE, &attached(&[])), Effect::Refused);
    // Somebody may have pinned it on the device.
    assert_eq!(never(AMDGPU, &attached(&["near"])), Effect::MovesUnlessPinned);
    assert_eq!(never(AMDGPU, &not_seen()), Effect::MovesUnlessPinned);
    assert_eq!(never(Sharing::always(Reaction::Stays), &attached(&[])), Effect::Stays);
}

#[test]
fn with_peer_to_peer_the_way_decides() {
    let with =
        |verdict: Option<Verdict>| effect(Some(AMDGPU), PeerToPeer::WhereReachable, verdict, &attached(&[]));
    assert_eq!(with(Some(reachable())), Effect::Stays);
    assert_eq!(with(Some(unreachable())), Effect::Moves);
    assert_eq!(with(Some(Verdict::Unknown(vec![Question::Processor]))), Effect::Unknown);
    assert_eq!(with(None), Effect::Unknown);
    let only = effect(Some(ONLY_DEVICE), PeerToPeer::WhereReachable, Some(unreachable()), &attached(&[]));
    assert_eq!(only, Effect::Refused);
    let hidden =
        effect(Some(AMDGPU.if_visible()), PeerToPeer::WhereReachable, Some(reachable()), &attached(&[]));
    assert_eq!(hidden, Effect::StaysIfVisible);
    // An exporter that shares no device memory with anybody.
    let i915 = Some(Sharing::always(Reaction::Moves));
    let moved = effect(i915, PeerToPeer::WhereReachable, Some(reachable()), &attached(&[]));
    assert_eq!(moved, Effect::Moves);
}

#[test]
fn one_without_a_path_decides_for_all() {
    let beside =
        |others: &Attached| effect(Some(AMDGPU), PeerToPeer::WhereReachable, Some(reachable()), others);
    assert_eq!(beside(&attached(&["near"])), Effect::Stays);
    assert_eq!(beside(&attached(&["near", "far"])), Effect::MovesUnlessPinned);
    assert_eq!(beside(&attached(&["vgem"])), Effect::MovesUnlessPinned);
    assert_eq!(beside(&not_seen()), Effect::Stays);
}

#[test]
fn what_nobody_tells_is_not_foretold() {
    assert_eq!(effect(None, PeerToPeer::Never, None, &attached(&[])), Effect::Unknown);
    for (residency, expected) in
        [(Residency::System, Effect::NothingToLose), (Residency::Unknown, Effect::Unknown)]
    {
        let facts = Facts {
            residency,
            sharing: Some(AMDGPU),
            peer_to_peer: PeerToPeer::Never,
            verdict: None,
            attached: &not_seen(),
        };
        assert_eq!(facts.effect("devmem TCP", way_of).0, expected);
    }
}

#[test]
fn what_happened_is_held_against_what_was_foretold() {
    let forecast = |effect| Forecast {
        effect,
        residency: ResidencyEvidence {
            residency: Residency::DeviceLocal,
            region: None,
            evidence: "fdinfo".to_owned(),
        },
        attached: not_seen(),
        sharing: Some(AMDGPU),
        peer_to_peer: PeerToPeer::Never,
        topology: None,
        reasons: Vec::new(),
    };
    let (device, system) = (Some(Residency::DeviceLocal), Some(Residency::System));
    for (effect, after, expected) in [
        (Effect::Stays, device, Agreement::AsForetold),
        (Effect::Stays, system, Agreement::Otherwise),
        (Effect::Stays, None, Agreement::Otherwise),
        (Effect::StaysIfVisible, device, Agreement::AsForetold),
        (Effect::StaysIfVisible, None, Agreement::AsForetold),
        (Effect::StaysIfVisible, system, Agreement::Otherwise),
        (Effect::Moves, system, Agreement::AsForetold),
        (Effect::Moves, device, Agreement::Otherwise),
        (Effect::Moves, None, Agreement::Otherwise),
        (Effect::MovesUnlessPinned, system, Agreement::AsForetold),
        (Effect::MovesUnlessPinned, None, Agreement::AsForetold),
        (Effect::MovesUnlessPinned, device, Agreement::Otherwise),
        (Effect::Refused, None, Agreement::AsForetold),
        (Effect::Refused, device, Agreement::Otherwise),
        (Effect::NothingToLose, system, Agreement::AsForetold),
        (Effect::Unknown, system, Agreement::Open),
        (Effect::Stays, Some(Residency::Unknown), Agreement::Open),
    ] {
        assert_eq!(forecast(effect).compare_with(after), expected, "{effect:?}, {after:?}");
    }
    assert_eq!(forecast(Effect::Moves).demotes(), Some(true));
    assert_eq!(forecast(Effect::MovesUnlessPinned).demotes(), None);
    assert_eq!(forecast(Effect::Refused).demotes(), Some(false));
}
