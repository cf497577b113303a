//! What is no memory region.

use devmem_provider::{DmaBuf, ErrorKind, base_page_size};
use devmem_receive::rdma::{AccessFlags, Registration, RegistrationRefusal};

use super::super::resources::descriptors;
use super::super::{path_check, refused};
use super::{ONE_REGION, buffer, references};
use crate::check::{Check, Group};
use crate::context::Context;
use crate::ensure;
use crate::faults::Fault;
use crate::need::Need;
use crate::rdma_device::Regions;
use crate::verdict::{Finding, Outcome, Stop};

pub(super) const CHECKS: &[Check] = &[
    path_check(
        Group::Rdma,
        "bad_ranges",
        "A range that is empty, beyond the end or at another place of a page than its address is refused, with the reason.",
        &[Need::Rdma],
        &[ONE_REGION],
        &[Fault::BindsAnything, Fault::WrongRefusal],
        bad_ranges,
    ),
    path_check(
        Group::Rdma,
        "bad_access",
        "Access that no region or not this device can have is refused, with the reason.",
        &[Need::Rdma],
        &[ONE_REGION],
        &[Fault::BindsAnything, Fault::WrongRefusal],
        bad_access,
    ),
    path_check(
        Group::Rdma,
        "refusals_leave_nothing",
        "A hundred refused registrations leave no reference to the buffer and no descriptor.",
        &[Need::Rdma, Need::Proc],
        &[ONE_REGION],
        &[Fault::KeepsRefused],
        refusals_leave_nothing,
    ),
];

/// Stops unless a registration is refused for this reason.
fn refused_for(
    domain: &dyn Regions,
    dma_buf: &DmaBuf,
    registration: Registration,
    reason: RegistrationRefusal,
) -> Result<(), Stop> {
    let what = registration.to_string();
    let result = domain.register(dma_buf, registration);
    let told = result.as_ref().err().and_then(RegistrationRefusal::of);
    refused(&what, result, &[reason.kind()])?;
    ensure!(told == Some(reason), "{what}: refused for {told:?}, not for {reason:?}");
    Ok(())
}

fn bad_ranges(context: &Context<'_>) -> Outcome {
    use RegistrationRefusal::{BeyondEnd, Empty, Misaligned};
    let domain = context.rdma()?.open()?;
    let dma_buf = buffer(context)?.export()?;
    let (size, page) = (dma_buf.size(), base_page_size());
    for (registration, reason) in [
        (Registration::of(0, 0), Empty),
        (Registration::of(size, 0), Empty),
        (Registration::of(0, size + 1), BeyondEnd),
        (Registration::of(size, page), BeyondEnd),
        (Registration::of(u64::MAX - page + 1, size).at(0), BeyondEnd),
        (Registration::of(0, size).at(u64::MAX - page + 1), BeyondEnd),
        (Registration::of(0, size).at(1), Misaligned),
        (Registration::of(page / 2, page).at(page), Misaligned),
    ] {
        refused_for(&*domain, &dma_buf, registration, reason)?;
    }
    Ok(Finding::Pass)
}

fn bad_access(context: &Context<'_>) -> Outcome {
    use RegistrationRefusal::{AccessNotOffered, InvalidAccess};
    let domain = context.rdma()?.open()?;
    let dma_buf = buffer(context)?.export()?;
    let whole = |access| Registration::whole(&dma_buf).access(access);
    for access in [
        AccessFlags::REMOTE_WRITE,
        AccessFlags::REMOTE_ATOMIC,
        AccessFlags::from_bits_retain(1 << 6 | 1),
        AccessFlags::from_bits_retain(1 << 31 | 1),
    ] {
        refused_for(&*domain, &dma_buf, whole(access), InvalidAccess)?;
    }
    // What one device offers another does not; what the probe says must be so.
    for access in [AccessFlags::REMOTE_READ, AccessFlags::REMOTE_WRITE, AccessFlags::REMOTE_ATOMIC] {
        let access = access | AccessFlags::LOCAL_WRITE;
        match domain.probe(access) {
            Ok(()) => domain.register(&dma_buf, whole(access))?.deregister()?,
            Err(_) => refused_for(&*domain, &dma_buf, whole(access), AccessNotOffered)?,
        }
    }
    Ok(Finding::Pass)
}

fn refusals_leave_nothing(context: &Context<'_>) -> Outcome {
    let domain = context.rdma()?.open()?;
    let dma_buf = buffer(context)?.export()?;
    let before = (references(&dma_buf)?, descriptors()?);
    for _ in 0..100 {
        let beyond = Registration::of(dma_buf.size(), base_page_size());
        refused("a part beyond the end", domain.register(&dma_buf, beyond), &[ErrorKind::InvalidInput])?;
    }
    let after = (references(&dma_buf)?, descriptors()?);
    ensure!(after == before, "references and descriptors: {before:?} before, {after:?} after");
    Ok(Finding::Pass)
}
