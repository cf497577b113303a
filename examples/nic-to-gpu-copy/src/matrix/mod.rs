//! Which provider's memory, in which placement, a NIC takes, and where it goes.
//!
//! Every row is an attempt: a buffer is allocated, bound to a receive queue, and looked at before and after.
//! In the lab its pages are looked for by the lab too.

mod row;

use anyhow::Result;
use devmem_backends::{Discovery, discover, find};
use devmem_provider::{Placement, Provider, Request};
use devmem_receive::nic::{self, Flow, Nic, Plan, Prepared, Queues};
use serde_json::json;

use crate::arguments::MatrixOptions;
use crate::witness::Witness;
use row::{Row, attempt};

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
    let nic = Nic::open(&options.nic)?.prepare(&plan)?;
    let mut witness = Witness::call()?;
    let mut rows = Vec::new();
    for provider in &discovery.providers {
        rows.extend(rows_of(&**provider, options.size, &nic, &mut witness));
    }
    let report = nic.restore()?;
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
    if !report.is_complete() {
        anyhow::bail!("not all settings of the NIC could be put back: {report}");
    }
    let contradictions = rows.iter().filter(|row| row.contradicts()).count();
    if contradictions > 0 {
        anyhow::bail!("in {contradictions} rows the lab found the buffer elsewhere than the driver told");
    }
    Ok(())
}

fn rows_of(provider: &dyn Provider, size: u64, nic: &Prepared, witness: &mut Option<Witness>) -> Vec<Row> {
    let mut placements: Vec<Placement> = Vec::new();
    for heap in provider.heaps().unwrap_or_default() {
        if !placements.contains(&heap.placement) {
            placements.push(heap.placement);
        }
    }
    let mut rows = Vec::new();
    for placement in placements {
        rows.push(attempt(provider, Request::bytes(size).prefer(placement), nic, witness));
        // Where a buffer may also lie in system memory, the difference between a wish and a demand shows.
        if placement != Placement::System {
            rows.push(attempt(provider, Request::bytes(size).require(placement), nic, witness));
        }
    }
    rows
}
