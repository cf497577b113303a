//! What the tool foretells of peer-to-peer on every topology of the lab, with a processor that the kernel trusts
//! with requests between peers and with one that it does not.

// The helpers outside of #[test] functions are test code too.
#![allow(clippy::unwrap_used)]

use devmem_lab::{Machine, Topology};
use serde_json::{Value, json};

const TOOL: &str = "/usr/bin/nic-to-gpu-copy";

/// AMD before Zen, which QEMU emulates by default, and Zen (`cpu_supports_p2pdma()` in
/// `drivers/pci/p2pdma.c`).
const UNTRUSTED: &str = "max";
const TRUSTED: &str = "EPYC";

/// What the tool says of two functions that sit on a topology, the second at `address`.
fn foretell(topology: Topology, processor: &str, address: &str) -> Value {
    let outcome = Machine::new()
        .kernel_of_environment()
        .unwrap()
        .nic("gve")
        .nic("gve")
        .topology(topology)
        .cpu(processor)
        .file(env!("CARGO_BIN_EXE_nic-to-gpu-copy").as_ref(), TOOL)
        .command([TOOL, "topology", "--json", "--nic", "eth0", "--provider", address])
        .run()
        .unwrap();
    assert!(outcome.is_success(), "{}", outcome.report());
    let answer: Value = serde_json::from_str(&outcome.stdout_text()).unwrap();
    answer["pairs"][0].clone()
}

fn verdict(topology: Topology, processor: &str, address: &str) -> (Value, Value) {
    let pair = foretell(topology, processor, address);
    (pair["verdict"].clone(), pair["route"].clone())
}

fn reachable(route: &str) -> (Value, Value) {
    (json!("reachable"), json!(route))
}

#[test]
fn the_root_bus_and_root_ports_connect_where_the_processor_is_trusted() {
    for (topology, address) in [(Topology::RootBus, "0000:00:11.0"), (Topology::RootPorts, "0000:02:00.0")] {
        let refused = verdict(topology, UNTRUSTED, address);
        assert_eq!(refused, (json!("not-reachable"), Value::Null), "{topology}");
        assert_eq!(verdict(topology, TRUSTED, address), reachable("host-bridge"), "{topology}");
    }
}

#[test]
fn a_switch_connects_by_itself() {
    assert_eq!(verdict(Topology::Switch, UNTRUSTED, "0000:04:00.0"), reachable("bus-addresses"));
}

#[test]
fn a_switch_that_redirects_leaves_it_to_the_host_bridge() {
    let pair = foretell(Topology::SwitchWithAcs, UNTRUSTED, "0000:04:00.0");
    assert_eq!(pair["verdict"], "not-reachable");
    assert!(pair["reason"].to_string().contains("ACS"), "{}", pair["reason"]);
    assert_eq!(verdict(Topology::SwitchWithAcs, TRUSTED, "0000:04:00.0"), reachable("host-bridge"));
}
