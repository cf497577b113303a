//! Where memory is while a NIC holds it.

mod foretold;
mod moves;

use std::time::Duration;

use devmem_provider::{Capabilities, Placement, Request, Require, Residency};

use super::residency::{promise_is_kept, unmoved};
use super::{all, count, path_check};
use crate::check::{Check, Group};
use crate::context::Context;
use crate::ensure;
use crate::faults::Fault;
use crate::need::Need;
use crate::path::QueuesOf;
use crate::setup::{BUFFER_BYTES, Setup, pin, prepare};
use crate::verdict::{Finding, Outcome, Stop};

/// What every check with a bound buffer builds on.
pub(crate) const ONE_BUFFER: &str = "pin::one_buffer";

/// How long the kernel may take to let go of a buffer that nothing holds.
const DETACH_LIMIT: Duration = Duration::from_secs(10);

const RESIDENCY: Need = Need::Capability(Capabilities::RESIDENCY);
const DEVICE_MEMORY: Need = Need::Capability(Capabilities::DEVICE_LOCAL);

const PARTS: &[&[Check]] = &[HELD, moves::CHECKS, foretold::CHECKS];

pub(super) const CHECKS: &[Check] = &all::<{ count(PARTS) }>(PARTS);

const HELD: &[Check] = &[
    path_check(
        Group::Pin,
        "one_buffer",
        "A buffer can be attached to a queue of the NIC and detached again.",
        &[Need::Nic],
        &[],
        &[Fault::RefusesBind, Fault::ChangesNic, Fault::ExportsNoDmaBuf],
        one_buffer,
    ),
    path_check(
        Group::Pin,
        "stays_where_it_was",
        "Device memory stays in the device while the NIC holds it; degraded if the driver moves it.",
        &[Need::Nic, DEVICE_MEMORY, RESIDENCY],
        &[ONE_BUFFER],
        &[Fault::UnknownResidency, Fault::NoEvidence],
        stays_where_it_was,
    ),
    path_check(
        Group::Pin,
        "system_memory_stays",
        "System memory stays system memory while the NIC holds it.",
        &[Need::Nic, RESIDENCY],
        &[ONE_BUFFER],
        &[Fault::LyingResidency, Fault::UnknownResidency],
        system_memory_stays,
    ),
    path_check(
        Group::Pin,
        "requirement_is_kept",
        "A pin that requires device memory has it, or is refused with where the memory went; nothing stays attached.",
        &[Need::Nic, RESIDENCY],
        &[ONE_BUFFER],
        &[Fault::LyingResidency],
        requirement_is_kept,
    ),
    path_check(
        Group::Pin,
        "look_changes_nothing",
        "Looking again and again where a pinned buffer is always gives the same answer.",
        &[Need::Nic, RESIDENCY],
        &[ONE_BUFFER],
        &[Fault::MovingLook, Fault::UnknownResidency],
        look_changes_nothing,
    ),
    path_check(
        Group::Pin,
        "after_detaching",
        "After detaching the kernel has let go of the buffer, which can still be told where it is.",
        &[Need::Nic, Need::Proc],
        &[ONE_BUFFER],
        &[Fault::LeaksBinding, Fault::DeniesDetached],
        after_detaching,
    ),
];

fn one_buffer(context: &Context<'_>) -> Outcome {
    let nic = prepare(context, 1, BUFFER_BYTES)?;
    let buffer = context.provider().allocate(&Request::bytes(size(context)?))?;
    drop(pin(context, &nic, nic.queues(), &*buffer)?);
    drop(buffer);
    nic.restore()?;
    Ok(Finding::Pass)
}

fn size(context: &Context<'_>) -> Result<u64, Stop> {
    Ok(BUFFER_BYTES.next_multiple_of(context.granularity()?.max(1)))
}

/// Pins a buffer that was asked for with `placement`.
fn pinned(context: &Context<'_>, placement: Placement) -> Result<Setup, Stop> {
    let nic = prepare(context, 1, BUFFER_BYTES)?;
    let request = Request::bytes(size(context)?).prefer(placement);
    let buffer = context.provider().allocate(&request)?;
    Setup::with(context, nic, buffer)
}

fn stays_where_it_was(context: &Context<'_>) -> Outcome {
    let setup = pinned(context, Placement::DeviceLocal)?;
    let (before, after) = (setup.pin.residency_before(), setup.pin.residency());
    if let Some(finding) = unmoved(before, after)? {
        return Ok(finding);
    }
    Ok(Finding::Degraded(format!("{before} -> {after}: {}", after.evidence)))
}

fn system_memory_stays(context: &Context<'_>) -> Outcome {
    let nic = prepare(context, 1, BUFFER_BYTES)?;
    let request = Request::bytes(size(context)?).require(Placement::System);
    let buffer = match context.provider().allocate(&request) {
        Ok(buffer) => buffer,
        Err(error) if error.kind() == devmem_provider::ErrorKind::Unsupported => {
            return Err(Stop::skip(&error));
        }
        Err(error) => return Err(error.into()),
    };
    let setup = Setup::with(context, nic, buffer)?;
    for seen in [setup.pin.residency_before(), setup.pin.residency(), &setup.buffer.residency()?] {
        ensure!(seen.residency == Residency::System, "it is in {seen}: {}", seen.evidence);
    }
    Ok(Finding::Pass)
}

fn requirement_is_kept(context: &Context<'_>) -> Outcome {
    let nic = prepare(context, 1, BUFFER_BYTES)?;
    let request = Request::bytes(size(context)?).prefer(Placement::DeviceLocal);
    let buffer = context.provider().allocate(&request)?;
    let references = buffer.export()?.file_information()?.count;
    let queues = nic.queues().to_vec();
    let mut importer = QueuesOf { path: context.path()?, nic: nic.nic().clone(), queues };
    let before = buffer.residency()?;
    match devmem_provider::Pin::new(&mut importer, &*buffer, Require::DeviceLocal) {
        Ok(pin) => {
            promise_is_kept(context, &before, pin.residency())?;
        }
        Err(error) => {
            ensure!(error.remedy_text().is_some(), "the refusal says nothing of what to do: {error}");
            let expected =
                [devmem_provider::ErrorKind::WrongResidency, devmem_provider::ErrorKind::Unsupported];
            ensure!(expected.contains(&error.kind()), "refused as {:?}: {error}", error.kind());
            let is_free = || Ok(buffer.export()?.file_information()?.count <= references);
            settled(is_free, "the kernel keeps the buffer")?;
        }
    }
    Ok(Finding::Pass)
}

fn look_changes_nothing(context: &Context<'_>) -> Outcome {
    let setup = Setup::new(context)?;
    let first = setup.pin.residency();
    ensure!(first.residency != Residency::Unknown, "nobody can tell where it is: {}", first.evidence);
    for _ in 0..8 {
        let again = setup.buffer.residency()?;
        ensure!(again.residency == first.residency, "it was in {first}, then in {again}");
    }
    Ok(Finding::Pass)
}

fn after_detaching(context: &Context<'_>) -> Outcome {
    let Setup { mapping, pin, nic, buffer, .. } = Setup::new(context)?;
    drop(mapping);
    let references = buffer.export()?.file_information()?.count;
    let told = pin.into_attachment().detach(DETACH_LIMIT)?;
    ensure!(told, "the kernel still holds the buffer after {} s", DETACH_LIMIT.as_secs());
    let left = buffer.export()?.file_information()?.count;
    ensure!(left < references, "{references} references to it while it was attached, {left} after");
    if context.provider().capabilities().contains(Capabilities::RESIDENCY) {
        let seen = buffer.residency()?;
        ensure!(seen.residency != Residency::Unknown, "nobody can tell where it is: {}", seen.evidence);
    }
    nic.restore()?;
    Ok(Finding::Pass)
}

/// Waits until something is so, for what the kernel does a little later.
pub(super) fn settled(mut is_so: impl FnMut() -> Result<bool, Stop>, otherwise: &str) -> Result<(), Stop> {
    let deadline = std::time::Instant::now() + DETACH_LIMIT;
    while !is_so()? {
        ensure!(std::time::Instant::now() < deadline, "{otherwise}");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
