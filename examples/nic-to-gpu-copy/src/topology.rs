//! Which NICs reach which GPUs' memory across PCI.

use std::fmt;

use anyhow::Result;
use devmem_backends::{discover, find};
use devmem_provider::topology::{AccessControl, Function, Machine, Route, Topology, Unread, Verdict};
use devmem_provider::{DeviceKind, Error, ErrorKind, PciAddress, Placement, Provider};
use devmem_receive::nic::Nic;
use serde_json::{Value, json};

use crate::arguments::TopologyOptions;

/// What holds for every verdict.
const TODAY: &str = "the verdicts are for importers that take peer-to-peer addresses, such as RDMA; devmem TCP \
                     takes none in today's kernels";

/// Foretells for each GPU and each NIC.
pub(crate) fn run(options: &TopologyOptions) -> Result<()> {
    let machine = Machine::running();
    let gpus = gpus(&machine, options.provider.as_deref())?;
    let nics = nics(&machine, options.nic.as_deref())?;
    let mut pairs = Vec::new();
    for gpu in &gpus {
        for nic in &nics {
            let mut topology = machine.topology(gpu.device.address, nic.address)?;
            if let Some(memory) = gpu.memory {
                topology = topology.with_exporter_memory(memory);
            }
            pairs.push((gpu, nic, topology));
        }
    }
    if options.json {
        let pairs: Vec<_> = pairs.iter().map(|(gpu, nic, topology)| describe(gpu, nic, topology)).collect();
        println!("{}", json!({ "pairs": pairs }));
        return Ok(());
    }
    for (number, what) in [(gpus.len(), "GPU"), (nics.len(), "NIC")] {
        if number == 0 {
            println!("this machine has no {what} on PCI");
        }
    }
    for (gpu, nic, topology) in &pairs {
        println!("{} and {nic}: {}", gpu.device, topology.verdict);
        for line in topology.evidence() {
            println!("  {line}");
        }
        for note in notes(gpu, topology) {
            println!("  note: {note}");
        }
    }
    if pairs.iter().any(|(.., topology)| lacks_privilege(topology)) {
        println!("without privilege ACS could not be read: run this as root to see it");
    }
    if !pairs.is_empty() {
        println!("{TODAY}");
    }
    Ok(())
}

/// A PCI function and what people call it.
struct Device {
    name: Option<String>,
    address: PciAddress,
}

struct Gpu {
    device: Device,
    integrated: bool,
    /// The size of its own memory in bytes, as its provider tells.
    memory: Option<u64>,
}

impl Device {
    fn unnamed(address: PciAddress) -> Self {
        Self { name: None, address }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} at {}", self.address),
            None => self.address.fmt(f),
        }
    }
}

impl Gpu {
    fn without_provider(address: PciAddress) -> Self {
        Self { device: Device::unnamed(address), integrated: false, memory: None }
    }

    /// The GPU of a provider; `None` if it stands for no PCI function.
    fn of(provider: &dyn Provider) -> Result<Option<Self>> {
        let identity = provider.identity();
        let Some(address) = identity.pci else { return Ok(None) };
        let heaps = provider.heaps()?;
        let own = heaps.iter().filter(|heap| heap.placement != Placement::System);
        Ok(Some(Self {
            device: Device { name: Some(identity.name.clone()), address },
            integrated: identity.kind == DeviceKind::Integrated,
            memory: own.filter_map(|heap| heap.size).max(),
        }))
    }
}

/// The chosen GPU, or all: those of the providers, and those that no backend serves.
fn gpus(machine: &Machine, selector: Option<&str>) -> Result<Vec<Gpu>> {
    if let Some(selector) = selector {
        let provider = match (find(selector), selector.parse()) {
            (Ok(provider), _) => provider,
            (Err(_), Ok(address)) => return Ok(vec![Gpu::without_provider(address)]),
            (Err(error), Err(_)) => return Err(error.into()),
        };
        let gpu = Gpu::of(provider.as_ref())?.ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, "look for the way to its memory")
                .on(provider.identity())
                .because(
                    "it stands for no PCI function: its memory is system memory, which every NIC reaches",
                )
        })?;
        return Ok(vec![gpu]);
    }
    let mut gpus: Vec<Gpu> = Vec::new();
    for provider in &discover().providers {
        // Vulkan serves GPUs that their kernel driver's backend serves too.
        let is_new = |gpu: &Gpu| gpus.iter().all(|other| other.device.address != gpu.device.address);
        let gpu = Gpu::of(provider.as_ref())?.filter(is_new);
        gpus.extend(gpu);
    }
    for address in machine.gpus()? {
        if gpus.iter().all(|gpu| gpu.device.address != address) {
            gpus.push(Gpu::without_provider(address));
        }
    }
    Ok(gpus)
}

/// The chosen NIC, or all.
fn nics(machine: &Machine, selector: Option<&str>) -> Result<Vec<Device>> {
    let Some(selector) = selector else {
        let named = |address: PciAddress| Device {
            name: Nic::open(address).ok().map(|nic| nic.name().to_owned()),
            address,
        };
        return Ok(machine.nics()?.into_iter().map(named).collect());
    };
    match (Nic::open(selector), selector.parse()) {
        (Ok(nic), _) => {
            let address = nic.identity().pci.ok_or_else(|| {
                Error::new(ErrorKind::InvalidInput, "look for the way from the NIC")
                    .on(&nic)
                    .because("it is no PCI function, and no driver offers it peer-to-peer")
            })?;
            Ok(vec![Device { name: Some(nic.name().to_owned()), address }])
        }
        // A NIC whose driver is not loaded has no interface, but has its place.
        (Err(_), Ok(address)) => Ok(vec![Device::unnamed(address)]),
        (Err(error), Err(_)) => Err(error.into()),
    }
}

fn notes(gpu: &Gpu, topology: &Topology) -> Vec<String> {
    let mut notes: Vec<_> = topology.cautions().iter().map(ToString::to_string).collect();
    if gpu.integrated {
        notes.push("an integrated GPU's memory is system memory, which every NIC reaches".to_owned());
    }
    notes
}

fn lacks_privilege(topology: &Topology) -> bool {
    let mut functions = topology.exporter.path().chain(topology.importer.path());
    functions.any(|function| function.access_control == AccessControl::Unread(Unread::Privilege))
}

fn describe(gpu: &Gpu, nic: &Device, topology: &Topology) -> Value {
    let (verdict, route, remedies) = match &topology.verdict {
        Verdict::Reachable(Route::BusAddresses { .. }) => ("reachable", Some("bus-addresses"), Vec::new()),
        Verdict::Reachable(Route::HostBridge { .. }) => ("reachable", Some("host-bridge"), Vec::new()),
        Verdict::Reachable(_) => ("reachable", None, Vec::new()),
        Verdict::NotReachable(obstacle) => ("not-reachable", None, vec![obstacle.remedy()]),
        Verdict::Unknown(questions) => {
            ("unknown", None, questions.iter().map(|question| question.remedy()).collect())
        }
        _ => ("unknown", None, Vec::new()),
    };
    let path = |functions: &mut dyn Iterator<Item = &Function>| -> Vec<Value> {
        functions
            .map(|function| {
                json!({
                    "address": function.address.to_string(),
                    "vendor": format!("{:04x}", function.vendor),
                    "device": format!("{:04x}", function.device),
                    "acs_redirects": function.access_control.redirects(),
                })
            })
            .collect()
    };
    json!({
        "provider": gpu.device.name,
        "gpu": gpu.device.address.to_string(),
        "interface": nic.name,
        "nic": nic.address.to_string(),
        "verdict": verdict,
        "route": route,
        "reason": topology.verdict.to_string(),
        "remedies": remedies,
        "distance": topology.distance,
        "common": topology.common.map(|common| common.to_string()),
        "gpu_path": path(&mut topology.exporter.path()),
        "nic_path": path(&mut topology.importer.path()),
        "gpu_host_bridge": topology.exporter.host_bridge.name,
        "nic_host_bridge": topology.importer.host_bridge.name,
        "evidence": topology.evidence(),
        "notes": notes(gpu, topology),
        "lacks_privilege": lacks_privilege(topology),
    })
}
