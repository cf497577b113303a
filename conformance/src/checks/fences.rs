//! sync_files, and what may be waited for.

use std::fs::File;

use devmem_provider::ErrorKind;
use devmem_provider::dma_buf::{FenceUse, SyncFile};

use super::PATIENCE;
use super::allocate::ONE_BUFFER;
use crate::check::{Check, Group, LIMIT};
use crate::context::Context;
use crate::ensure;
use crate::faults::Fault;
use crate::need::Need;
use crate::verdict::{Finding, Outcome};

const fn check(
    name: &'static str,
    proves: &'static str,
    catches: &'static [Fault],
    run: fn(&Context<'_>) -> Outcome,
) -> Check {
    let needs = &[Need::SyncFile];
    Check { group: Group::Fences, name, proves, needs, after: &[ONE_BUFFER], limit: LIMIT, catches, run }
}

pub(super) const CHECKS: &[Check] = &[
    check(
        "a_new_buffer_is_not_in_use",
        "The fences of a new buffer signal: nobody works on it but the driver that clears it.",
        &[Fault::ExportsNoDmaBuf],
        a_new_buffer_is_not_in_use,
    ),
    check(
        "fences_go_in_again",
        "Fences that were exported from one buffer can be imported into another.",
        &[Fault::OneBuffer],
        fences_go_in_again,
    ),
    check(
        "what_is_no_fence_is_refused",
        "A descriptor that is no sync_file is refused as a fence.",
        &[Fault::ExportsNoDmaBuf],
        what_is_no_fence_is_refused,
    ),
];

const USES: [FenceUse; 2] = [FenceUse::Read, FenceUse::Write];

fn a_new_buffer_is_not_in_use(context: &Context<'_>) -> Outcome {
    let dma_buf = context.dma_buf()?;
    for fences in USES {
        let fence = dma_buf.export_sync_file(fences)?;
        ensure!(fence.wait(PATIENCE)?, "{fences:?}: not signalled after {} s", PATIENCE.as_secs());
    }
    Ok(Finding::Pass)
}

fn fences_go_in_again(context: &Context<'_>) -> Outcome {
    let (first, second) = (context.buffer()?, context.buffer()?);
    let (from, to) = (first.export()?, second.export()?);
    for fences in USES {
        to.import_sync_file(&from.export_sync_file(FenceUse::Write)?, fences)?;
        ensure!(to.export_sync_file(fences)?.wait(PATIENCE)?, "{fences:?}: what was imported never signals");
    }
    Ok(Finding::Pass)
}

fn what_is_no_fence_is_refused(context: &Context<'_>) -> Outcome {
    let no_fence = SyncFile::from_fd(File::open("/dev/null")?.into());
    let dma_buf = context.dma_buf()?;
    for fences in USES {
        let kind = dma_buf.import_sync_file(&no_fence, fences).err().map(|error| error.kind());
        ensure!(kind == Some(ErrorKind::InvalidInput), "{fences:?}: {kind:?}");
    }
    Ok(Finding::Pass)
}
