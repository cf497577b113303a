//! Where the kernel finds a way between an RDMA device and a GPU, and what becomes of the GPU's memory there.

use std::fmt::Write;

use anyhow::{Context, Result};
use devmem_lab::{Machine, Topology};
use serde_json::{Value, json};

use super::super::processors::{TRUSTED, UNTRUSTED};
use super::super::{run, tool};
use super::as_told;

/// The GPUs: those whose drivers ask for a way.
const GPUS: [&str; 2] = ["amdgpu:hainan", "xe:bmg"];

/// Where they sit, beside what kind of processor, and whether an IOMMU translates addresses.
const WAYS: [(Topology, &str, bool); 10] = [
    (Topology::RootBus, UNTRUSTED, false),
    (Topology::RootBus, TRUSTED, false),
    (Topology::RootBus, TRUSTED, true),
    (Topology::RootPorts, UNTRUSTED, false),
    (Topology::RootPorts, TRUSTED, false),
    (Topology::Switch, UNTRUSTED, false),
    (Topology::Switch, UNTRUSTED, true),
    (Topology::SwitchWithAcs, UNTRUSTED, false),
    (Topology::SwitchWithAcs, TRUSTED, false),
    (Topology::SwitchWithAcs, TRUSTED, true),
];

const SCRIPT: &str =
    "for gpu in amdgpu xe; do nic-to-gpu-copy matrix --rdma efa_0 --provider $gpu --json; done";

/// The rows, or the exit code of a machine that failed.
pub(super) fn seen(machine: impl Fn() -> Result<Machine>) -> Result<Result<Vec<Value>, i32>> {
    let mut rows = Vec::new();
    for (topology, processor, iommu) in WAYS {
        let machine = GPUS.iter().fold(machine()?, |machine, gpu| machine.gpu(gpu));
        let machine = machine.rdma("efa").topology(topology).cpu(processor);
        let machine = if iommu { machine.iommu() } else { machine };
        let outcome = tool::with_script(machine, SCRIPT, &[]).run()?;
        eprint!("{}", outcome.stderr_text());
        if !outcome.is_success() {
            return Ok(Err(run::report(&outcome)));
        }
        let mut row = json!({
            "topology": topology.to_string(), "processor": processor, "iommu": iommu,
        });
        for line in outcome.stdout_text().lines() {
            let report: Value = serde_json::from_str(line).context("the tool printed no JSON")?;
            add(&mut row, &report);
        }
        rows.push(row);
    }
    Ok(Ok(rows))
}

/// Adds what a report says of a buffer that is preferred on its device.
fn add(row: &mut Value, report: &Value) {
    let rows = report["rows"].as_array().map(Vec::as_slice).unwrap_or_default();
    let preferred = rows.iter().find(|row| {
        row["only"] == false && !row["placement"].as_str().unwrap_or_default().starts_with("system")
    });
    if let Some(seen) = preferred {
        row["peer_to_peer"] = seen["peer_to_peer"].clone();
        row[seen["provider"].as_str().unwrap_or_default()] = seen["after"].clone();
    }
}

pub(super) fn markdown(rows: &[Value]) -> String {
    let mut page = "\n## Where there is a path\n\n\
        What the kernel finds between the RDMA device and a GPU, foretold from the topology, and where a buffer that was in the\n\
        GPU's memory is once it is registered. On a *trusted* processor (here EPYC) the kernel lets host bridges carry requests\n\
        between peers; on the other it knows this host bridge not to.\n\n\
        | where the cards sit | processor | IOMMU | path | amdgpu | xe |\n\
        |---|---|---|---|---|---|\n"
        .to_owned();
    for row in rows {
        let place = |driver: &str| as_told(&row[driver]);
        let path = match row["peer_to_peer"].as_bool() {
            Some(true) => "yes",
            Some(false) => "no",
            None => "unknown",
        };
        let _ = writeln!(
            page,
            "| {} | {} | {} | {path} | {} | {} |",
            row["topology"].as_str().unwrap_or_default(),
            if row["processor"] == TRUSTED { "trusted" } else { "not trusted" },
            if row["iommu"] == true { "translates" } else { "none" },
            place("amdgpu"),
            place("xe"),
        );
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_becomes_a_line() {
        let mut row = json!({ "topology": "switch", "processor": TRUSTED, "iommu": true });
        let seen = |provider: &str, placement: &str, only: bool, region: &str| {
            json!({
                "provider": provider, "placement": placement, "only": only, "peer_to_peer": true,
                "after": { "residency": "device-local", "region": region },
            })
        };
        for provider in ["amdgpu", "xe"] {
            let rows = [
                seen(provider, "system memory", false, "gtt"),
                seen(provider, "device-local memory", true, "only"),
                seen(provider, "device-local memory", false, "vram"),
            ];
            add(&mut row, &json!({ "rows": rows }));
        }
        let page = markdown(&[row]);
        let expected = "| switch | trusted | translates | yes | device-local (vram) | device-local (vram) |";
        assert_eq!(page.lines().last(), Some(expected));
    }
}
