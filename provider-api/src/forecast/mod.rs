//! What would become of a buffer if an importer attached to it.

mod effect;
#[cfg(test)]
mod tests;

use std::fmt;

use crate::dma_buf::Attached;
use crate::error::Result;
use crate::importer::{Importer, PeerToPeer};
use crate::pci::PciAddress;
use crate::pin::Pin;
use crate::provider::Buffer;
use crate::residency::{Residency, ResidencyEvidence};
use crate::sharing::Sharing;
use crate::topology::{Machine, Topology};

use effect::Facts;

/// What an attachment would do to a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Effect {
    /// The buffer stays in device memory.
    Stays,
    /// The buffer stays in device memory; or the importer is refused, if a part of it lies outside of the window that peers
    /// see. Nobody tells which of the two.
    StaysIfVisible,
    /// The buffer is moved to system memory, for everybody who is attached, and nobody is told.
    Moves,
    /// As [`Moves`](Self::Moves); or the importer is refused, if one of those who are attached already has pinned the
    /// buffer on the device. The kernel does not show which of the two.
    MovesUnlessPinned,
    /// The importer is refused, and the buffer stays where it is.
    Refused,
    /// The buffer is not in device memory, so that there is nothing to lose. An importer with a path may bring it back
    /// there.
    NothingToLose,
    /// Too little is known.
    Unknown,
}

/// The answer to "would attaching here demote this buffer?", with all that it rests on. Nothing is attached for it.
///
/// It foretells by the exporter's rule ([`Sharing`]), the [`Topology`], where the buffer is now and who is attached to
/// it. What decides is the attachment: [`compare`](Self::compare) holds a [`Pin`] against it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Forecast {
    /// What would happen.
    pub effect: Effect,
    /// Where the buffer is now.
    pub residency: ResidencyEvidence,
    /// Who is attached to it now.
    pub attached: Attached,
    /// The exporter's rule, where it tells one.
    pub sharing: Option<Sharing>,
    /// Whether the importer takes peer-to-peer addresses.
    pub peer_to_peer: PeerToPeer,
    /// The way between the two devices, where it was looked for: it does not matter to an importer without peer-to-peer, or
    /// for system memory.
    pub topology: Option<Topology>,
    /// Why, a clause each; the one that decides comes first.
    pub reasons: Vec<String>,
}

/// How what happened compares with what was foretold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Agreement {
    /// It is what was foretold.
    AsForetold,
    /// It is something else: a fact of the forecast is wrong, or is not all of it.
    Otherwise,
    /// Nothing was foretold, or nobody can tell what happened.
    Open,
}

impl Forecast {
    /// Foretells what attaching `importer` would do to `buffer`.
    ///
    /// Looks at the buffer's residency, exports it, and reads sysfs; as root also the kernel's list of attachments.
    ///
    /// # Errors
    ///
    /// If the buffer cannot be exported or looked at.
    pub fn of<I: Importer + ?Sized>(importer: &I, buffer: &dyn Buffer) -> Result<Self> {
        Self::on(&Machine::running(), importer, buffer)
    }

    fn on<I: Importer + ?Sized>(machine: &Machine, importer: &I, buffer: &dyn Buffer) -> Result<Self> {
        let dma_buf = buffer.export()?;
        let residency = buffer.residency()?;
        let exporter = buffer.exporter().and_then(|identity| identity.pci);
        let way = |device: PciAddress| machine.topology(exporter?, device).ok();
        let (peer_to_peer, device) = (importer.peer_to_peer(), importer.device());
        let concerns_way =
            residency.residency != Residency::System && peer_to_peer == PeerToPeer::WhereReachable;
        let topology = if concerns_way { device.and_then(way) } else { None };
        let (attached, sharing) = (dma_buf.attached(), buffer.sharing());
        let facts = Facts {
            residency: residency.residency,
            sharing,
            peer_to_peer,
            verdict: topology.as_ref().map(|topology| &topology.verdict),
            attached: &attached,
        };
        let name = importer.describe();
        let has_path = |device: &str| way(device.parse().ok()?).map(|topology| topology.verdict);
        let (effect, mut reasons) = facts.effect(&name, has_path);
        if let Some(topology) = &topology {
            reasons.extend(topology.cautions().iter().map(ToString::to_string));
        }
        Ok(Self { effect, residency, attached, sharing, peer_to_peer, topology, reasons })
    }

    /// Whether attaching would move the buffer from device memory; `None` where that cannot be told.
    #[must_use]
    pub fn demotes(&self) -> Option<bool> {
        match self.effect {
            Effect::Stays | Effect::StaysIfVisible | Effect::Refused | Effect::NothingToLose => Some(false),
            Effect::Moves => Some(true),
            Effect::MovesUnlessPinned | Effect::Unknown => None,
        }
    }

    /// Holds what happened against what was foretold: a pin, or `None` for an importer that the exporter refused.
    #[must_use]
    pub fn compare<A>(&self, pin: Option<&Pin<A>>) -> Agreement {
        self.compare_with(pin.map(|pin| pin.residency().residency))
    }

    fn compare_with(&self, after: Option<Residency>) -> Agreement {
        let happened = match (self.effect, after) {
            (Effect::Unknown, _) | (_, Some(Residency::Unknown)) => return Agreement::Open,
            (Effect::Refused, after) => after.is_none(),
            (Effect::MovesUnlessPinned, after) => after != Some(Residency::DeviceLocal),
            (Effect::StaysIfVisible, after) => after != Some(Residency::System),
            (Effect::Stays, after) => after == Some(Residency::DeviceLocal),
            (Effect::Moves, after) => after == Some(Residency::System),
            (Effect::NothingToLose, after) => after.is_some(),
        };
        if happened { Agreement::AsForetold } else { Agreement::Otherwise }
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stays => "stays in device memory",
            Self::StaysIfVisible => {
                "stays in device memory; or refused, if a part lies outside of the window that peers see"
            }
            Self::Moves => "moves to system memory, for all who are attached",
            Self::MovesUnlessPinned => {
                "moves to system memory, for all who are attached; or refused, if one of them pins it on the device"
            }
            Self::Refused => "refused by the exporter",
            Self::NothingToLose => "not in device memory",
            Self::Unknown => "unknown",
        })
    }
}

impl fmt::Display for Forecast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.effect)?;
        match self.reasons.first() {
            Some(reason) => write!(f, ": {reason}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AsForetold => "as foretold",
            Self::Otherwise => "not as foretold",
            Self::Open => "nothing to compare",
        })
    }
}
