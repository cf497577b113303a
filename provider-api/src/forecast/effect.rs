//! From the facts to the effect.

use crate::dma_buf::Attached;
use crate::importer::PeerToPeer;
use crate::residency::Residency;
use crate::sharing::{Reaction, Sharing};
use crate::topology::Verdict;

use super::Effect;

/// What is known before an attachment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    pub(super) residency: Residency,
    pub(super) sharing: Option<Sharing>,
    pub(super) peer_to_peer: PeerToPeer,
    pub(super) verdict: Option<&'a Verdict>,
    pub(super) attached: &'a Attached,
}

impl Facts<'_> {
    /// What follows, and why. `way_of` tells whether another attached device reaches the exporter; `None` if it is no PCI
    /// function.
    pub(super) fn effect(
        &self,
        importer: &str,
        way_of: impl Fn(&str) -> Option<Verdict>,
    ) -> (Effect, Vec<String>) {
        match self.residency {
            Residency::System => {
                return (Effect::NothingToLose, vec!["the buffer is in system memory".to_owned()]);
            }
            Residency::Unknown => {
                return (Effect::Unknown, vec!["its exporter does not tell where it is".to_owned()]);
            }
            Residency::DeviceLocal => {}
        }
        let Some(sharing) = self.sharing else {
            return (
                Effect::Unknown,
                vec!["its exporter does not tell how it shares device memory".to_owned()],
            );
        };
        if sharing.with_path == sharing.without_path {
            let reason = "its exporter does so with every importer".to_owned();
            return (self.reaction(sharing.with_path), vec![reason]);
        }
        match (self.peer_to_peer, self.verdict) {
            (PeerToPeer::Never, _) => {
                let reason = format!("{importer} attaches without peer-to-peer");
                (self.reaction(sharing.without_path), vec![reason])
            }
            (PeerToPeer::WhereReachable, Some(Verdict::NotReachable(obstacle))) => {
                let reason = format!("the kernel finds no way between them: {obstacle}");
                (self.reaction(sharing.without_path), vec![reason, obstacle.remedy()])
            }
            (PeerToPeer::WhereReachable, Some(Verdict::Reachable(route))) => {
                self.beside_others(sharing, format!("the device is reachable {route}"), way_of)
            }
            (PeerToPeer::WhereReachable, Some(unknown @ Verdict::Unknown(_))) => {
                (Effect::Unknown, vec![format!("whether the kernel finds a way is {unknown}")])
            }
            (PeerToPeer::WhereReachable, None) => {
                let reason = "the PCI functions of the two are not known".to_owned();
                (Effect::Unknown, vec![reason])
            }
        }
    }

    /// What the exporter does by itself, beside those who hold the buffer.
    fn reaction(&self, reaction: Reaction) -> Effect {
        match reaction {
            Reaction::Stays => Effect::Stays,
            Reaction::StaysIfVisible => Effect::StaysIfVisible,
            Reaction::Refuses => Effect::Refused,
            Reaction::Moves if self.attached.devices().is_some_and(<[_]>::is_empty) => Effect::Moves,
            Reaction::Moves => Effect::MovesUnlessPinned,
        }
    }

    /// For an importer that has a path: one of those who are attached that has none decides for all.
    fn beside_others(
        &self,
        sharing: Sharing,
        reason: String,
        way_of: impl Fn(&str) -> Option<Verdict>,
    ) -> (Effect, Vec<String>) {
        let stays = self.reaction(sharing.with_path);
        let Some(others) = self.attached.devices() else {
            let caution = format!(
                "one who has attached without a path would move it for all; who is attached is {}",
                self.attached
            );
            return (stays, vec![reason, caution]);
        };
        let without_path: Vec<&str> = others
            .iter()
            .map(String::as_str)
            .filter(|device| !matches!(way_of(device), Some(Verdict::Reachable(_) | Verdict::Unknown(_))))
            .collect();
        if !without_path.is_empty() {
            let reason =
                format!("{} is attached, which has no path, and decides for all", without_path.join(", "));
            return (Effect::MovesUnlessPinned, vec![reason]);
        }
        let mut reasons = vec![reason];
        if !others.is_empty() {
            reasons.push(format!("{} is attached as well, and has a path", others.join(", ")));
        }
        (stays, reasons)
    }
}
