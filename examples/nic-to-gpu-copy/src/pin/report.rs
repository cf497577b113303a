//! What is shown of a pin.

use anyhow::Result;
use devmem_provider::topology::Verdict;
use devmem_provider::{Forecast, PinnedBuffer, Provider, ResidencyEvidence};
use devmem_receive::rdma::MemoryRegion;
use serde_json::{Value, json};

use crate::witness;

/// A pin with its evidence.
pub(super) struct Report<'a> {
    pub(super) provider: &'a dyn Provider,
    pub(super) forecast: &'a Forecast,
    pub(super) pinned: &'a PinnedBuffer<MemoryRegion>,
    /// Where the lab found the pages.
    pub(super) seen_before: Option<Value>,
    pub(super) seen_after: Option<Value>,
}

impl Report<'_> {
    pub(super) fn print(&self, json: bool) -> Result<()> {
        if json {
            println!("{}", self.as_json());
            return Ok(());
        }
        let pin = self.pinned.pin();
        let registration = pin.registration();
        println!("{} pinned {} by {}", self.provider.identity(), pin.dma_buf(), pin.importer());
        println!("  residency: {pin}");
        println!("  before: {} ({})", pin.residency_before(), pin.residency_before().evidence);
        println!("  foretold: {} ({})", self.forecast, self.forecast.compare(Some(pin)));
        if let Some(topology) = &self.forecast.topology {
            println!("  topology: {}", topology.verdict);
        }
        for reason in self.forecast.reasons.iter().skip(1) {
            println!("  note: {reason}");
        }
        println!("  attached beside: {}", pin.others());
        println!("  region: {registration}");
        println!("  keys: local {:#x}, remote {:#x}", pin.local_key(), pin.remote_key());
        if let Some(lab) = self.seen_after.as_ref().and_then(witness::residency) {
            println!("  the lab found it in: {lab}");
        }
        println!("holding it until SIGINT or SIGTERM");
        Ok(())
    }

    fn as_json(&self) -> Value {
        let pin = self.pinned.pin();
        let (device, registration) = (pin.device(), pin.registration());
        let identity = self.provider.identity();
        let others = pin.others();
        let gids = device.ports.iter().flat_map(|port| &port.gids).map(ToString::to_string);
        json!({
            "provider": identity.name,
            "driver": identity.driver,
            "gpu": identity.pci.map(|pci| pci.to_string()),
            "rdma_device": device.name,
            "rdma_node": device.node,
            "rdma_pci": device.pci.map(|pci| pci.to_string()),
            "gids": gids.collect::<Vec<_>>(),
            "bytes": registration.length(),
            "address": registration.address(),
            "access": registration.allowed().to_string(),
            "local_key": pin.local_key(),
            "remote_key": pin.remote_key(),
            "before": place(pin.residency_before(), self.seen_before.as_ref()),
            "after": place(pin.residency(), self.seen_after.as_ref()),
            "foretold": self.forecast.effect.to_string(),
            "agreement": self.forecast.compare(Some(pin)).to_string(),
            "reasons": self.forecast.reasons,
            "peer_to_peer": self.forecast.topology.as_ref().map(|topology| match topology.verdict {
                Verdict::Reachable(_) => "reachable",
                Verdict::NotReachable(_) => "not-reachable",
                _ => "unknown",
            }),
            "evidence": self.forecast.topology.as_ref().map(|topology| topology.evidence()),
            "attached_beside": others.devices(),
        })
    }
}

fn place(evidence: &ResidencyEvidence, pages: Option<&Value>) -> Value {
    json!({
        "residency": evidence.residency.to_string(),
        "region": evidence.region,
        "evidence": evidence.evidence,
        "lab": pages.and_then(witness::residency).map(|residency| residency.to_string()),
    })
}
