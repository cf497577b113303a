//! One attempt.

use std::fmt;

use devmem_provider::topology::Verdict;
use devmem_provider::{Agreement, Buffer, Error, Provider, Request, Require, ResidencyEvidence};
use serde::Serialize;
use serde_json::Value;

use super::attaching::Attaching;
use crate::witness::{self, Witness};

/// What became of one placement of one provider.
///
/// Keys are only ever added.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    provider: String,
    driver: String,
    driver_version: Option<String>,
    /// device-local memory, CPU-visible device-local memory or system memory.
    placement: String,
    /// Whether the buffer may lie nowhere else.
    only: bool,
    importer: String,
    /// Whether the kernel finds a way between the two devices, by the topology; null where it does not matter.
    peer_to_peer: Option<bool>,
    /// What would become of the buffer, and whether it did.
    foretold: Option<String>,
    agreement: Option<String>,
    /// What the attempt ended with: bound, or what was refused: allocate, bind.
    outcome: Outcome,
    /// The kernel's error number, its words, and the whole error.
    errno: Option<String>,
    kernel_message: Option<String>,
    error: Option<String>,
    before: Option<Place>,
    after: Option<Place>,
    /// Whether a pin that demands device-local memory succeeds.
    device_local_pin: Option<bool>,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    Bound,
    AllocateRefused,
    BindRefused,
}

/// Where a buffer is: by the driver, and where there is a lab by the lab.
#[derive(Debug, Serialize)]
struct Place {
    residency: String,
    region: Option<String>,
    evidence: String,
    lab: Option<String>,
}

impl Place {
    fn new(evidence: &ResidencyEvidence, pages: &Value) -> Self {
        Self {
            residency: evidence.residency.to_string(),
            region: evidence.region.clone(),
            evidence: evidence.evidence.clone(),
            lab: witness::residency(pages).map(|residency| residency.to_string()),
        }
    }

    fn contradicts(&self) -> bool {
        self.residency != "unknown" && self.lab.as_ref().is_some_and(|lab| *lab != self.residency)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.residency)?;
        if let Some(region) = &self.region {
            write!(f, " ({region})")?;
        }
        if self.contradicts() {
            write!(f, ", BUT THE LAB FOUND IT IN {}", self.lab.as_deref().unwrap_or_default())?;
        }
        Ok(())
    }
}

/// Allocates, attaches, looks, and takes everything away again.
pub(super) fn attempt(
    provider: &dyn Provider,
    request: &Request,
    way: Attaching<'_>,
    witness: &mut Option<Witness>,
) -> Row {
    let identity = provider.identity();
    let mut row = Row {
        provider: identity.name.clone(),
        driver: identity.driver.clone(),
        driver_version: identity.driver_version.clone(),
        placement: request.placement().map(|placement| placement.to_string()).unwrap_or_default(),
        only: request.is_required(),
        importer: way.name().to_owned(),
        peer_to_peer: None,
        foretold: None,
        agreement: None,
        outcome: Outcome::AllocateRefused,
        errno: None,
        kernel_message: None,
        error: None,
        before: None,
        after: None,
        device_local_pin: None,
    };
    if let Err(error) = row.fill(provider, request, way, witness) {
        row.errno = error.errno().map(|errno| format!("{errno:?}"));
        row.kernel_message = error.kernel_message().map(str::to_owned);
        row.error = Some(error.to_string());
    }
    row
}

impl Row {
    fn fill(
        &mut self,
        provider: &dyn Provider,
        request: &Request,
        way: Attaching<'_>,
        witness: &mut Option<Witness>,
    ) -> Result<(), Error> {
        let buffer = provider.allocate(request)?;
        self.outcome = Outcome::BindRefused;
        let touchable = witness::can_be_touched(provider, request.placement());
        self.before = Some(look(&*buffer, witness.as_mut().filter(|_| touchable))?);
        let forecast = way.foretell(&*buffer)?;
        self.foretold = Some(forecast.effect.to_string());
        self.peer_to_peer = match forecast.topology.as_ref().map(|topology| &topology.verdict) {
            Some(Verdict::Reachable(_)) => Some(true),
            Some(Verdict::NotReachable(_)) => Some(false),
            _ => None,
        };
        let pin = way.pin(&*buffer, Require::Anywhere).inspect_err(|error| {
            if way.is_refusal_of_exporter(error) {
                self.agreement = Some(forecast.compare::<()>(None).to_string());
            }
        })?;
        self.outcome = Outcome::Bound;
        self.agreement = Some(pin.compare(&forecast).to_string());
        self.after = Some(look(&*buffer, witness.as_mut())?);
        pin.release()?;
        drop(buffer);
        // A buffer that was moved does not come back by itself, so a demand meets a fresh one.
        let buffer = provider.allocate(request)?;
        let demanded = way.pin(&*buffer, Require::DeviceLocal);
        self.device_local_pin = Some(demanded.is_ok());
        demanded.map_or(Ok(()), super::attaching::Attached::release)
    }

    /// Whether something else happened than was foretold.
    pub(super) fn surprises(&self) -> bool {
        self.agreement.as_deref() == Some(Agreement::Otherwise.to_string().as_str())
    }

    /// Whether the lab found the buffer elsewhere than the driver told.
    pub(super) fn contradicts(&self) -> bool {
        [&self.before, &self.after].into_iter().flatten().any(Place::contradicts)
    }
}

fn look(buffer: &dyn Buffer, witness: Option<&mut Witness>) -> Result<Place, Error> {
    let evidence = buffer.residency()?;
    let pages = match witness {
        Some(witness) => witness.locate_receive_buffer(&buffer.export()?).unwrap_or_default(),
        None => Value::Null,
    };
    Ok(Place::new(&evidence, &pages))
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let only = if self.only { " only" } else { "" };
        write!(f, "{}, {}{only}, {}: ", self.provider, self.placement, self.importer)?;
        match (self.outcome, &self.before, &self.after) {
            (Outcome::Bound, Some(before), Some(after)) => write!(f, "bound; {before}, then {after}"),
            (Outcome::Bound, ..) => write!(f, "bound"),
            (Outcome::AllocateRefused, ..) => write!(f, "not allocated"),
            (Outcome::BindRefused, ..) => write!(f, "bind refused"),
        }?;
        match &self.error {
            Some(error) => write!(f, ": {error}"),
            None => Ok(()),
        }
    }
}
