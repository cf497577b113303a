//! What is asked of a pinned buffer's residency, whichever importer has it.

use devmem_provider::{Capabilities, Residency, ResidencyEvidence};

use crate::context::Context;
use crate::ensure;
use crate::verdict::{Finding, Stop};

/// What a buffer that was asked for on the device comes to, if it did not move: a pass if it is on the device still, and
/// degraded if it never was. `None` if it has left the device.
pub(super) fn unmoved(
    before: &ResidencyEvidence,
    after: &ResidencyEvidence,
) -> Result<Option<Finding>, Stop> {
    for seen in [before, after] {
        ensure!(seen.residency != Residency::Unknown, "nobody can tell where it is: {}", seen.evidence);
        ensure!(!seen.evidence.is_empty(), "it is in {seen}, without evidence");
    }
    if before.residency != Residency::DeviceLocal {
        return Ok(Some(Finding::Degraded(format!("it was in {before} before: {}", before.evidence))));
    }
    Ok((after.residency == Residency::DeviceLocal).then_some(Finding::Pass))
}

/// Stops unless device memory, which a pin has promised, is there and was there before.
pub(super) fn promise_is_kept(
    context: &Context<'_>,
    before: &ResidencyEvidence,
    after: &ResidencyEvidence,
) -> Result<(), Stop> {
    ensure!(after.residency == Residency::DeviceLocal, "it was promised and is in {after}");
    ensure!(
        context.provider().capabilities().contains(Capabilities::DEVICE_LOCAL),
        "device memory is promised by a provider that has none"
    );
    ensure!(
        before.residency == Residency::DeviceLocal,
        "it was in {before} before, and is promised to be in the device now"
    );
    Ok(())
}
