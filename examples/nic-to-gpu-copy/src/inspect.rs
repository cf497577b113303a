//! Looking at what the machine has, and putting NICs back.

use anyhow::{Result, bail};
use devmem_backends::discover;
use devmem_receive::nic::{self, Nic};
use devmem_receive::zcrx;
use serde_json::json;

use crate::arguments::{NicOptions, ProvidersOptions, RestoreOptions};

/// Lists the providers.
pub(crate) fn providers(options: &ProvidersOptions) -> Result<()> {
    let discovery = discover();
    if !options.json {
        println!("providers of device memory:{discovery}");
        return Ok(());
    }
    let mut providers = Vec::new();
    for provider in &discovery.providers {
        let identity = provider.identity();
        let heaps: Vec<_> = provider
            .heaps()?
            .into_iter()
            .map(|heap| {
                json!({
                    "name": heap.name,
                    "placement": heap.placement.to_string(),
                    "size": heap.size,
                    "used": heap.used,
                    "cpu_visible": heap.cpu_visible,
                    "maximum_allocation": heap.maximum_allocation,
                    "granularity": heap.granularity,
                })
            })
            .collect();
        providers.push(json!({
            "name": identity.name,
            "backend": identity.backend,
            "description": identity.description,
            "kind": identity.kind.to_string(),
            "driver": identity.driver,
            "driver_version": identity.driver_version,
            "node": identity.node,
            "pci": identity.pci.map(|pci| pci.to_string()),
            "numa_node": identity.numa_node,
            "heaps": heaps,
        }));
    }
    let unavailable: Vec<_> = discovery
        .unavailable
        .iter()
        .map(|other| json!({ "backend": other.backend, "reason": other.reason.to_string() }))
        .collect();
    println!("{}", json!({ "providers": providers, "unavailable": unavailable }));
    Ok(())
}

/// Shows what a NIC can do.
pub(crate) fn nic(options: &NicOptions) -> Result<()> {
    let nic = Nic::open(&options.nic)?;
    println!("{nic}");
    for capability in nic.capabilities()?.iter() {
        println!("  {capability}");
    }
    println!("io_uring of this kernel");
    for capability in zcrx::capabilities().iter() {
        println!("  {capability}");
    }
    Ok(())
}

/// Puts NICs back from their journals.
pub(crate) fn restore(options: &RestoreOptions) -> Result<()> {
    let results = match &options.nic {
        Some(nic) => nic::restore(nic.as_str()).transpose().into_iter().collect(),
        None => nic::restore_all()?,
    };
    if results.is_empty() {
        println!("nothing to restore");
    }
    let mut failed = 0;
    for result in &results {
        match result {
            Ok(report) => {
                println!("{report}");
                failed += usize::from(!report.is_complete());
            }
            Err(error) => {
                eprintln!("nic-to-gpu-copy: {error}");
                failed += 1;
            }
        }
    }
    if failed > 0 {
        bail!("{failed} of {} NICs could not be put back", results.len());
    }
    Ok(())
}
