//! Which provider's memory, in which placement, a NIC takes, and where it goes.
//!
//! Every row is an attempt: a buffer is allocated, bound to a receive queue or registered with an RDMA device, and looked
//! at before and after. What would happen is foretold, and held against what does.
//! In the lab its pages are looked for by the lab too.

mod attaching;
mod row;

use anyhow::Result;
use devmem_backends::{Discovery, discover, find};
use devmem_provider::{Placement, Provider, Request};
use devmem_receive::nic::{self, Flow, Nic, Plan, Queues};
use devmem_receive::rdma::{Device, ProtectionDomain};
use serde_json::json;

use crate::arguments::MatrixOptions;
use crate::witness::Witness;
use attaching::Attaching;
use row::attempt;

/// Packets to this port would go to the bound queue. Nobody sends any.
const PORT: u16 = 5201;

/// Fills the matrix and prints it.
pub(crate) fn run(options: &MatrixOptions) -> Result<()> {
    nic::restore_on_signals()?;
    let mut discovery = match &options.provider {
        Some(selector) => Discovery { providers: vec![find(selector)?], unavailable: Vec::new() },
        None => discover(),
    };
    let plan = Plan::new(Queues::count(1), Flow::tcp_port(PORT)).buffer_bytes(options.size);
    let nic = options.nic.as_deref().map(|nic| Nic::open(nic)?.prepare(&plan)).transpose()?;
    let device = options.rdma.as_deref().map(Device::find).transpose()?;
    let domain = device.as_ref().map(ProtectionDomain::open).transpose()?;
    let ways: Vec<_> = nic
        .as_ref()
        .map(Attaching::Binding)
        .into_iter()
        .chain(domain.as_ref().map(Attaching::Registering))
        .collect();
    let mut witness = Witness::call()?;
    let mut rows = Vec::new();
    for provider in &discovery.providers {
        for request in requests(&**provider, options.size) {
            rows.extend(ways.iter().map(|way| attempt(&**provider, &request, *way, &mut witness)));
        }
    }
    drop(ways);
    let report = nic.map(devmem_receive::nic::Prepared::restore).transpose()?;
    if options.json {
        let unavailable: Vec<_> = discovery
            .unavailable
            .iter()
            .map(|other| json!({ "backend": other.backend, "reason": other.reason.to_string() }))
            .collect();
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        println!("{}", json!({ "kernel": kernel.trim(), "rows": rows, "unavailable": unavailable }));
    } else {
        rows.iter().for_each(|row| println!("{row}"));
        discovery.providers.clear();
        println!("{discovery}");
    }
    if let Some(report) = report.filter(|report| !report.is_complete()) {
        anyhow::bail!("not all settings of the NIC could be put back: {report}");
    }
    let contradictions = rows.iter().filter(|row| row.contradicts()).count();
    if contradictions > 0 {
        anyhow::bail!("in {contradictions} rows the lab found the buffer elsewhere than the driver told");
    }
    let surprises: Vec<_> = rows.iter().filter(|row| row.surprises()).map(ToString::to_string).collect();
    if !surprises.is_empty() {
        anyhow::bail!("something else happened than was foretold: {}", surprises.join("; "));
    }
    Ok(())
}

/// Each placement of a provider.
fn requests(provider: &dyn Provider, size: u64) -> Vec<Request> {
    let mut placements: Vec<Placement> = Vec::new();
    for heap in provider.heaps().unwrap_or_default() {
        if !placements.contains(&heap.placement) {
            placements.push(heap.placement);
        }
    }
    let mut requests = Vec::new();
    for placement in placements {
        requests.push(Request::bytes(size).prefer(placement));
        // Where a buffer may also lie in system memory, the difference between a wish and a demand shows.
        if placement != Placement::System {
            requests.push(Request::bytes(size).require(placement));
        }
    }
    requests
}
