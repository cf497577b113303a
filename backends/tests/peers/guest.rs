//! What happens in the guest: one GPU copies from the memory of another, and all that can be seen of it is told.

use std::sync::Arc;

use devmem_backends::discover;
use devmem_provider::dma_buf::Access;
use devmem_provider::topology::{Machine, Route, Verdict};
use devmem_provider::{Buffer, DmaBuf, PciAddress, Placement, Provider, Request};
use serde_json::{Value, json};

use crate::{Failure, engine, witness};

/// Several packets' worth.
const SIZE: u64 = 1 << 20;

/// Lets the second GPU copy from a buffer in the first one's memory.
pub(crate) fn observe() -> Result<Value, Failure> {
    let (exporter, importer) = (gpu("amdgpu:0")?, gpu("amdgpu:1")?);
    let topology = Machine::running().topology(address(&*exporter)?, address(&*importer)?)?;

    let buffer = exporter.allocate(&Request::bytes(SIZE).prefer(Placement::DeviceLocal))?;
    let exported = buffer.export()?;
    // Whoever reads the buffer by the CPU, with the access guards, makes amdgpu move it: the exporter's own engine
    // fills it instead.
    let content = pattern();
    let original = in_system_memory(&*exporter, &content)?;
    drop(engine::copy(&*exporter, &original, &exported)?);
    let before = seen(&*buffer, &exported)?;

    let target = in_system_memory(&*importer, &vec![0; content.len()])?;
    let attached = engine::copy(&*importer, &exported, &target)?;
    let after = seen(&*buffer, &exported)?;
    drop(attached);

    Ok(json!({
        "verdict": match &topology.verdict {
            Verdict::Reachable(_) => "reachable",
            Verdict::NotReachable(_) => "not reachable",
            _ => "unknown",
        },
        "route": match &topology.verdict {
            Verdict::Reachable(Route::BusAddresses { .. }) => Some("bus addresses"),
            Verdict::Reachable(Route::HostBridge { .. }) => Some("host bridge"),
            Verdict::Reachable(_) => Some("either"),
            _ => None,
        },
        "explanation": topology.to_string(),
        "before": before,
        "after": after,
        "copied_right": read(&target)? == content,
    }))
}

fn gpu(name: &str) -> Result<Arc<dyn Provider>, Failure> {
    Ok(discover().find(name)?)
}

fn address(gpu: &dyn Provider) -> Result<PciAddress, Failure> {
    Ok(gpu.identity().pci.ok_or_else(|| format!("{} has no PCI address", gpu.identity().name))?)
}

/// Bytes among which no two pages are alike, nor any two words of a page.
fn pattern() -> Vec<u8> {
    (0..SIZE / 4).flat_map(|index| (index as u32).wrapping_mul(0x9e37_79b1).to_le_bytes()).collect()
}

/// A buffer in system memory with this content.
fn in_system_memory(gpu: &dyn Provider, content: &[u8]) -> Result<DmaBuf, Failure> {
    let buffer = gpu.allocate(&Request::bytes(SIZE).require(Placement::System))?.export()?;
    let mapping = buffer.map(Access::ReadWrite)?;
    let access = mapping.write()?;
    access.copy_from(0, content)?;
    access.finish()?;
    Ok(buffer)
}

fn read(buffer: &DmaBuf) -> Result<Vec<u8>, Failure> {
    let mapping = buffer.map(Access::Read)?;
    let access = mapping.read()?;
    let mut content = vec![0; mapping.length()];
    access.copy_to(0, &mut content)?;
    access.finish()?;
    Ok(content)
}

/// Where a buffer is: by its driver, and by the lab.
fn seen(buffer: &dyn Buffer, exported: &DmaBuf) -> Result<Value, Failure> {
    let evidence = buffer.residency()?;
    let lab = witness::locate(exported)?;
    Ok(json!({ "driver": evidence.residency.to_string(), "evidence": evidence.evidence, "lab": lab }))
}
