//! What moves memory, and what does not.

use devmem_provider::dma_buf::Access;
use devmem_provider::{Buffer, Capabilities, Placement, Request, Residency, ResidencyEvidence};

use super::super::path_check;
use super::{DEVICE_MEMORY, ONE_BUFFER, RESIDENCY, pinned, size};
use crate::check::{Check, Group};
use crate::context::Context;
use crate::ensure;
use crate::faults::Fault;
use crate::need::Need;
use crate::peer::fill;
use crate::setup::{BUFFER_BYTES, pin, prepare};
use crate::verdict::{Finding, Outcome, Stop};

const MAPPING: Need = Need::Capability(Capabilities::CPU_MAPPING);

pub(super) const CHECKS: &[Check] = &[
    check(
        "two_attachments_agree",
        "A buffer that is attached twice is in one place, whichever attachment is asked, and stays there when one goes.",
        &[Need::Nic, RESIDENCY],
        &[Fault::UnknownResidency, Fault::BindsAnything],
        two_attachments_agree,
    ),
    check(
        "attachments_come_and_go",
        "A buffer stays in one place as long as it is attached, whichever attachments come and go, and keeps its content.",
        &[Need::Nic, RESIDENCY, MAPPING],
        &[Fault::MovingLook, Fault::UnknownResidency, Fault::LeaksBinding],
        attachments_come_and_go,
    ),
    check(
        "read_of_pinned",
        "Reading a pinned buffer with the CPU leaves it where it is.",
        &[Need::Nic, RESIDENCY, MAPPING],
        &[Fault::UnknownResidency],
        read_of_pinned,
    ),
    check(
        "read_of_unpinned",
        "Reading a buffer with the CPU before it is pinned leaves it where it is; degraded if the driver moves it.",
        &[Need::Nic, RESIDENCY, MAPPING],
        &[Fault::UnknownResidency, Fault::MovingLook],
        read_of_unpinned,
    ),
    check(
        "required_memory_is_not_moved",
        "Memory that was allocated on the device as a requirement is pinned there, or the pin is refused; degraded if it is moved all the same.",
        &[Need::Nic, DEVICE_MEMORY, RESIDENCY],
        &[Fault::LyingResidency, Fault::MovingLook, Fault::UnknownResidency],
        required_memory_is_not_moved,
    ),
];

const fn check(
    name: &'static str,
    proves: &'static str,
    needs: &'static [Need],
    catches: &'static [Fault],
    run: fn(&Context<'_>) -> Outcome,
) -> Check {
    path_check(Group::Pin, name, proves, needs, &[ONE_BUFFER], catches, run)
}

/// Stops if nobody can tell where it is.
fn known(seen: &ResidencyEvidence) -> Result<(), Stop> {
    ensure!(seen.residency != Residency::Unknown, "nobody can tell where it is: {}", seen.evidence);
    Ok(())
}

/// What to say of a buffer that was in `before` and after `what` is in `after`: moving out of the device is what
/// some drivers do; nothing moves memory into it.
fn moved(what: &str, before: &ResidencyEvidence, after: &ResidencyEvidence) -> Outcome {
    known(before)?;
    known(after)?;
    if before.residency == after.residency {
        return Ok(Finding::Pass);
    }
    let seen = format!("{what}: {before} -> {after}: {}", after.evidence);
    match after.residency {
        Residency::DeviceLocal => Err(Stop::Fail(seen)),
        _ => Ok(Finding::Degraded(seen)),
    }
}

fn two_attachments_agree(context: &Context<'_>) -> Outcome {
    let nic = prepare(context, 2, 2 * BUFFER_BYTES)?;
    let request = Request::bytes(2 * size(context)?).prefer(Placement::DeviceLocal);
    let buffer = context.provider().allocate(&request)?;
    let &[first, second] = nic.queues() else { return Err(Stop::fail("two queues were not set up")) };
    let one = pin(context, &nic, &[first], &*buffer)?;
    let other = pin(context, &nic, &[second], &*buffer)?;
    let (own, others) = (one.holder(), other.holder());
    ensure!(own != others || own.number().is_none(), "both attachments are {own}");
    let taken = pin(context, &nic, &[second], &*buffer);
    ensure!(taken.is_err(), "a queue that has an attachment was given another");
    known(one.residency())?;
    let same = one.residency().residency == other.residency().residency;
    ensure!(same, "one has it in {}, the other in {}", one.residency(), other.residency());
    drop(one);
    let left = buffer.residency()?;
    let same = left.residency == other.residency().residency;
    ensure!(same, "it was in {}, and is in {left} when one was detached", other.residency());
    Ok(Finding::Pass)
}

/// How much of a buffer is looked at to see whether it keeps its content, in bytes.
const LOOKED_AT: usize = 64 << 10;

fn attachments_come_and_go(context: &Context<'_>) -> Outcome {
    let nic = prepare(context, 2, 2 * BUFFER_BYTES)?;
    let request = Request::bytes(2 * size(context)?).prefer(Placement::DeviceLocal);
    let buffer = context.provider().allocate(&request)?;
    let &[first, second] = nic.queues() else { return Err(Stop::fail("two queues were not set up")) };
    let mapping = buffer.export()?.map(Access::ReadWrite)?;
    let mut content = vec![0; LOOKED_AT];
    fill(0, &mut content);
    let access = mapping.write()?;
    access.copy_from(0, &content)?;
    access.finish()?;
    let attach = |queue: u32| pin(context, &nic, &[queue], &*buffer);
    let mut attached = [attach(first)?, attach(second)?];
    let place = attached[0].residency().clone();
    known(&place)?;
    for round in 0..4 {
        let (index, queue) = if round % 2 == 0 { (0, first) } else { (1, second) };
        // The new attachment takes the place of the one that goes: there is always another.
        let [one, other] = attached;
        let (gone, stays) = if index == 0 { (one, other) } else { (other, one) };
        drop(gone);
        let left = buffer.residency()?;
        ensure!(
            left.residency == place.residency,
            "it was in {place}, and is in {left} when one was detached"
        );
        let again = attach(queue)?;
        for seen in [again.residency_before(), again.residency()] {
            ensure!(
                seen.residency == place.residency,
                "it was in {place}, and is in {seen} when one came again"
            );
        }
        attached = if index == 0 { [again, stays] } else { [stays, again] };
    }
    drop(attached);
    known(&buffer.residency()?)?;
    let mut found = vec![0; LOOKED_AT];
    let access = mapping.read()?;
    access.copy_to(0, &mut found)?;
    access.finish()?;
    ensure!(found == content, "the buffer has not kept its content");
    Ok(Finding::Pass)
}

/// Reads the first byte, which begins and ends an access by the CPU.
fn read(buffer: &dyn Buffer) -> Result<(), Stop> {
    let mapping = buffer.export()?.map(Access::Read)?;
    let access = mapping.read()?;
    access.copy_to(0, &mut [0])?;
    Ok(access.finish()?)
}

fn read_of_pinned(context: &Context<'_>) -> Outcome {
    let setup = pinned(context, Placement::DeviceLocal)?;
    let before = setup.buffer.residency()?;
    read(&*setup.buffer)?;
    let after = setup.buffer.residency()?;
    known(&before)?;
    ensure!(after.residency == before.residency, "it was in {before}, and is in {after}: {}", after.evidence);
    Ok(Finding::Pass)
}

fn read_of_unpinned(context: &Context<'_>) -> Outcome {
    let request = Request::bytes(size(context)?).prefer(Placement::DeviceLocal);
    let buffer = context.provider().allocate(&request)?;
    let before = buffer.residency()?;
    read(&*buffer)?;
    moved("a read by the CPU moved it", &before, &buffer.residency()?)
}

fn required_memory_is_not_moved(context: &Context<'_>) -> Outcome {
    let nic = prepare(context, 1, BUFFER_BYTES)?;
    let request = Request::bytes(size(context)?).require(Placement::DeviceLocal);
    let buffer = context.provider().allocate(&request)?;
    // A refusal by the exporter is a skip: it keeps the memory where it was asked to be.
    let pin = pin(context, &nic, nic.queues(), &*buffer)?;
    let (before, after, again) = (pin.residency_before(), pin.residency(), buffer.residency()?);
    ensure!(before.residency == Residency::DeviceLocal, "it was in {before}: {}", before.evidence);
    ensure!(again.residency == after.residency, "it is in {after}, then in {again}");
    moved("attaching moved what was required on the device", before, after)
}
