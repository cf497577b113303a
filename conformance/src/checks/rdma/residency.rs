//! Where memory is while an RDMA device has it.

use devmem_provider::topology::Verdict;
use devmem_provider::{
    Agreement, Buffer, Capabilities, ErrorKind, Forecast, Pin, Placement, Request, Require, Residency,
};

use super::super::path_check;
use super::super::residency::{promise_is_kept, unmoved};
use super::{ONE_REGION, let_go, references};
use crate::check::{Check, Group};
use crate::context::Context;
use crate::ensure;
use crate::faults::Fault;
use crate::need::Need;
use crate::rdma_device::RegionsOf;
use crate::verdict::{Finding, Outcome, Skip, Stop};

const RESIDENCY: Need = Need::Capability(Capabilities::RESIDENCY);
const DEVICE_MEMORY: Need = Need::Capability(Capabilities::DEVICE_LOCAL);

pub(super) const CHECKS: &[Check] = &[
    path_check(
        Group::Rdma,
        "stays_where_reachable",
        "Device memory stays in the device while it is registered; degraded if the driver moves it.",
        &[Need::Rdma, DEVICE_MEMORY, RESIDENCY],
        &[ONE_REGION],
        &[Fault::UnknownResidency, Fault::NoEvidence],
        stays_where_reachable,
    ),
    path_check(
        Group::Rdma,
        "as_foretold",
        "What registering does to a buffer, preferred and required on the device, is what was foretold.",
        &[Need::Rdma, DEVICE_MEMORY, RESIDENCY],
        &[ONE_REGION],
        &[Fault::WrongSharing, Fault::UnknownResidency],
        as_foretold,
    ),
    path_check(
        Group::Rdma,
        "requirement_is_kept",
        "A pin that requires device memory has it, or is refused with where the memory went; nothing stays registered.",
        &[Need::Rdma, RESIDENCY, Need::Proc],
        &[ONE_REGION],
        &[Fault::LyingResidency],
        requirement_is_kept,
    ),
];

fn on_the_device(context: &Context<'_>, required: bool) -> Result<Box<dyn Buffer>, Stop> {
    let request = Request::bytes(context.size()?);
    let placement = Placement::DeviceLocalVisible;
    let request = if required { request.require(placement) } else { request.prefer(placement) };
    Ok(context.provider().allocate(&request)?)
}

fn stays_where_reachable(context: &Context<'_>) -> Outcome {
    let mut domain = RegionsOf(context.rdma()?.open()?);
    let buffer = on_the_device(context, false)?;
    let forecast = Forecast::of(&domain, &*buffer)?;
    let pin = Pin::new(&mut domain, &*buffer, Require::Anywhere)?;
    let (before, after) = (pin.residency_before(), pin.residency());
    if let Some(finding) = unmoved(before, after)? {
        return Ok(finding);
    }
    let way = match forecast.topology.as_ref().map(|topology| &topology.verdict) {
        Some(Verdict::Reachable(route)) => format!("although the device is reachable {route}"),
        Some(verdict) => format!("and the way is {verdict}"),
        None => "and the way between the two is not known".to_owned(),
    };
    Ok(Finding::Degraded(format!("{before} -> {after}, {way}: {}", after.evidence)))
}

fn as_foretold(context: &Context<'_>) -> Outcome {
    let mut domain = RegionsOf(context.rdma()?.open()?);
    let mut compared = false;
    for required in [false, true] {
        let buffer = on_the_device(context, required)?;
        let forecast = Forecast::of(&domain, &*buffer)?;
        ensure!(
            forecast.residency.residency != Residency::Unknown,
            "nobody can tell where it is: {}",
            forecast.residency.evidence
        );
        let (agreement, what) = match Pin::new(&mut domain, &*buffer, Require::Anywhere) {
            Ok(pin) => (forecast.compare(Some(&pin)), format!("it is in {}", pin.residency())),
            Err(error) => (forecast.compare::<()>(None), error.to_string()),
        };
        ensure!(agreement != Agreement::Otherwise, "foretold was: {forecast}; but {what}");
        compared |= agreement == Agreement::AsForetold;
    }
    if compared {
        return Ok(Finding::Pass);
    }
    Err(Stop::Skip(Skip {
        reason: "nothing is foretold of this provider".to_owned(),
        found_by: "Forecast::of".to_owned(),
        remedy: Some("let its buffers tell their driver's rule: Buffer::sharing".to_owned()),
    }))
}

fn requirement_is_kept(context: &Context<'_>) -> Outcome {
    let mut domain = RegionsOf(context.rdma()?.open()?);
    let buffer = on_the_device(context, false)?;
    let dma_buf = buffer.export()?;
    let before = (buffer.residency()?, references(&dma_buf)?);
    match Pin::new(&mut domain, &*buffer, Require::DeviceLocal) {
        Ok(pin) => {
            promise_is_kept(context, &before.0, pin.residency())?;
        }
        Err(error) => {
            ensure!(error.remedy_text().is_some(), "the refusal says nothing of what to do: {error}");
            let expected = [ErrorKind::WrongResidency, ErrorKind::Unsupported, ErrorKind::OutOfMemory];
            ensure!(expected.contains(&error.kind()), "refused as {:?}: {error}", error.kind());
        }
    }
    let_go(&dma_buf, before.1)?;
    Ok(Finding::Pass)
}
