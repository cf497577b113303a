//! What is said when memory did not stay on the device.

use std::fmt;

use crate::dma_buf::Attached;
use crate::error::{Error, ErrorKind};
use crate::identity::Identity;
use crate::importer::{Importer, PeerToPeer};
use crate::pci::PciAddress;
use crate::provider::Buffer;
use crate::residency::{Residency, ResidencyEvidence};
use crate::topology::{Machine, Topology, Verdict};

/// Who is concerned.
pub(super) struct Parties<'buffer> {
    exporter: Option<&'buffer Identity>,
    pub(super) importer: String,
    peer_to_peer: PeerToPeer,
    pub(super) device: Option<PciAddress>,
}

/// Why memory does not stay on the device, as a clause that follows what happened, and what to do.
struct Cause {
    clause: String,
    remedy: String,
}

impl<'buffer> Parties<'buffer> {
    pub(super) fn of<I: Importer + ?Sized>(buffer: &'buffer dyn Buffer, importer: &I) -> Self {
        Self {
            exporter: buffer.exporter(),
            importer: importer.describe(),
            peer_to_peer: importer.peer_to_peer(),
            device: importer.device(),
        }
    }

    /// The error for memory that is not on the device after the attachment. `others` are those who are attached beside it.
    pub(super) fn wrong_residency(
        &self,
        before: &ResidencyEvidence,
        after: &ResidencyEvidence,
        machine: &Machine,
        others: &Attached,
    ) -> Error {
        let error = Error::new(ErrorKind::WrongResidency, "keep the buffer in device-local memory")
            .on(&self.importer);
        let exporter = self.exporter();
        let evidence = &after.evidence;
        match (before.residency, after.residency) {
            (_, Residency::Unknown) => error
                .because(format!("{exporter} does not tell where the buffer is ({evidence})"))
                .remedy("use a provider that tells, or drop the requirement"),
            (Residency::System, _) => {
                let error = error.because(format!(
                    "the buffer was in {} before {} attached, and {exporter} left it in {} ({evidence}){}",
                    place(before),
                    self.importer,
                    place(after),
                    Beside(others)
                ));
                error.remedy(if others.devices().is_some_and(|devices| !devices.is_empty()) {
                    "release the other importers of the buffer, or drop the requirement"
                } else {
                    "allocate it with device-local memory required, or drop the requirement"
                })
            }
            (Residency::Unknown, _) => error
                .because(format!(
                    "the buffer is in {} ({evidence}), and {exporter} did not tell where it was before {} \
                     attached",
                    place(after),
                    self.importer
                ))
                .remedy("allocate it with device-local memory required, or drop the requirement"),
            (Residency::DeviceLocal, _) => {
                let Cause { clause, remedy } = self.cause(machine, "drop the requirement");
                let (from, to) = (place(before), place(after));
                error
                    .because(format!(
                        "{exporter} moved the buffer from {from} to {to} {clause} ({evidence}){}",
                        Beside(others)
                    ))
                    .remedy(remedy)
            }
        }
    }

    /// Adds to the importer's error why the exporter refused the attachment.
    pub(super) fn explain_refusal(
        &self,
        error: Error,
        before: &ResidencyEvidence,
        machine: &Machine,
    ) -> Error {
        if before.residency == Residency::System {
            return error;
        }
        let Cause { clause, remedy } =
            self.cause(machine, "drop the requirement and allocate memory that may move to system memory");
        let exporter = self.exporter();
        error
            .because(format!(
                "{exporter} refuses to share the buffer, which is in {} and may not move, {clause}",
                place(before)
            ))
            .remedy(remedy)
    }

    /// Finds the cause; `otherwise` is what helps whatever it is.
    fn cause(&self, machine: &Machine, otherwise: &str) -> Cause {
        let importer = &self.importer;
        if self.peer_to_peer == PeerToPeer::Never {
            return Cause {
                clause: format!("because {importer} attaches without peer-to-peer"),
                remedy: format!("use an importer that takes peer-to-peer addresses, or {otherwise}"),
            };
        }
        match self.topology(machine) {
            Some(topology) => match &topology.verdict {
                Verdict::NotReachable(obstacle) => Cause {
                    clause: format!("because the kernel finds no way between them: {obstacle}"),
                    remedy: format!("{}, or {otherwise}", obstacle.remedy()),
                },
                Verdict::Reachable(route) => {
                    let cautions: Vec<_> =
                        topology.cautions().iter().map(|caution| format!("; {caution}")).collect();
                    Cause {
                        clause: format!(
                            "although {importer} takes peer-to-peer addresses and the kernel should find it \
                             reachable {route}{}",
                            cautions.concat()
                        ),
                        remedy: format!(
                            "release other importers of the buffer that take no peer-to-peer addresses, or \
                             {otherwise}"
                        ),
                    }
                }
                unknown @ Verdict::Unknown(_) => Cause {
                    clause: format!(
                        "although {importer} takes peer-to-peer addresses; whether the kernel finds a way is \
                         {unknown}"
                    ),
                    remedy: otherwise.to_owned(),
                },
            },
            None => Cause {
                clause: format!(
                    "although {importer} takes peer-to-peer addresses: the kernel found no way between them, \
                     or the exporter offers none"
                ),
                remedy: otherwise.to_owned(),
            },
        }
    }

    fn topology(&self, machine: &Machine) -> Option<Topology> {
        machine.topology(self.exporter?.pci?, self.device?).ok()
    }

    fn exporter(&self) -> impl fmt::Display {
        self.exporter.map_or_else(|| "its exporter".to_owned(), ToString::to_string)
    }
}

/// Who is attached beside the importer, as a clause, where there is somebody.
struct Beside<'a>(&'a Attached);

impl fmt::Display for Beside<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.devices() {
            Some(devices) if !devices.is_empty() => {
                write!(f, "; attached to it as well, and able to move it for all: {}", devices.join(", "))
            }
            _ => Ok(()),
        }
    }
}

/// Where a buffer is: the driver's name for it, if there is one.
fn place(evidence: &ResidencyEvidence) -> String {
    let kind = match evidence.residency {
        Residency::DeviceLocal => "device-local memory",
        Residency::System => "system memory",
        Residency::Unknown => return "an unknown place".to_owned(),
    };
    match &evidence.region {
        Some(region) => format!("{region} ({kind})"),
        None => kind.to_owned(),
    }
}
