//! Where buffers lie.

use devmem_provider::dma_buf::Access;
use devmem_provider::{Capabilities, ErrorKind, PageSize, Placement, Provider, Request, Residency};

use crate::ensure;
use crate::harness::{Outcome, SIZE};

const PLACEMENTS: [Placement; 3] = [Placement::DeviceLocal, Placement::DeviceLocalVisible, Placement::System];

fn has_memory(provider: &dyn Provider) -> bool {
    provider.capabilities().contains(Capabilities::DEVICE_LOCAL)
}

/// Where a placement ends on this provider; `None` if it cannot.
fn expected(provider: &dyn Provider, placement: Placement, required: bool) -> Option<Residency> {
    match placement {
        Placement::System => Some(Residency::System),
        _ if has_memory(provider) => Some(Residency::DeviceLocal),
        _ => (!required).then_some(Residency::System),
    }
}

pub(crate) fn is_kept_where_it_is_required(provider: &dyn Provider) -> Outcome {
    for placement in PLACEMENTS {
        for required in [false, true] {
            let request = Request::bytes(SIZE);
            let request = if required { request.require(placement) } else { request.prefer(placement) };
            let case = format!("{placement}, required: {required}");
            match (expected(provider, placement, required), provider.allocate(&request)) {
                (Some(residency), Ok(buffer)) => {
                    let seen = buffer.residency()?;
                    ensure!(seen.residency == residency, "{case}: {seen:?}");
                    ensure!(!seen.evidence.is_empty(), "{case}: {seen:?}");
                    // Looking moved nothing, and neither does exporting.
                    let _dma_buf = buffer.export()?;
                    ensure!(buffer.residency()? == seen, "{case}: {:?}", buffer.residency()?);
                }
                (None, Err(error)) => ensure!(error.kind() == ErrorKind::Unsupported, "{case}: {error}"),
                (_, result) => return Err(format!("{case}: {result:?}").into()),
            }
        }
    }
    let anywhere = provider.allocate(&Request::bytes(SIZE))?.residency()?;
    let expected = if has_memory(provider) { Residency::DeviceLocal } else { Residency::System };
    ensure!(anywhere.residency == expected, "{anywhere:?}");
    Ok(())
}

pub(crate) fn memory_is_read_and_written(provider: &dyn Provider) -> Outcome {
    for placement in PLACEMENTS {
        let buffer = provider.allocate(&Request::bytes(SIZE).prefer(placement))?;
        let mapping = buffer.export()?.map(Access::ReadWrite)?;
        let pattern: Vec<u8> = (0..mapping.length()).map(|index| (index / 7 % 251) as u8).collect();
        let access = mapping.write()?;
        access.copy_from(0, &pattern)?;
        access.finish()?;
        buffer.flush_peer_writes()?;
        let second = buffer.export()?.map(Access::Read)?;
        let access = second.read()?;
        let mut content = vec![0; second.length()];
        access.copy_to(0, &mut content)?;
        access.finish()?;
        ensure!(content == pattern, "{placement}: other bytes were read than written");
    }
    Ok(())
}

pub(crate) fn what_is_not_offered_is_refused(provider: &dyn Provider) -> Outcome {
    let request = Request::bytes(2 << 20).page_size(PageSize::Huge2MiB);
    let error = provider.allocate(&request).err().ok_or("huge pages were had")?;
    ensure!(error.kind() == ErrorKind::Unsupported, "{error}");
    let contiguous = provider.allocate(&Request::bytes(SIZE).contiguous());
    if provider.capabilities().contains(Capabilities::CONTIGUOUS) {
        ensure!(contiguous?.residency()?.residency == Residency::DeviceLocal, "contiguous system memory");
    } else {
        let error = contiguous.err().ok_or("contiguous memory was had")?;
        ensure!(error.kind() == ErrorKind::Unsupported, "{error}");
    }
    Ok(())
}
