//! The set-up of one machine, used as its services use it.

use std::time::Duration;

use devmem_lab::Machine;

use crate::{PROGRAM, setups};

/// Settings as in `devmem-conformance.env`, for the lab's NICs. The second is taken out of the lab's own namespace first, so
/// that it is where the second port of a real machine is.
const SCRIPT: &str = r#"
set -eu
export NIC=eth0 NIC_ADDRESSES='10.77.0.1/24 fd77::1/64'
export PEER_PORT=eth1 PEER_NAMESPACE=sender PEER_ADDRESSES='10.77.0.2/24 fd77::2/64'
in-peer ip link set dev eth1 netns 1
peer-namespace up
peer-namespace up
ip -n sender link show dev eth1
run() {
    run-and-compare /tmp/reports devmem-conformance run --nic "$NIC" --peer-namespace /run/netns/sender \
        --provider udmabuf --filter =pin::one_buffer --filter =receive::one_mebibyte --filter =receive::ipv6 "$@"
}
run
run
devmem-conformance restore "$NIC"
peer-namespace down
peer-namespace down
ip link show dev eth1
if ip -n sender link; then exit 1; fi
"#;

#[test]
fn one_machine_with_its_second_port_in_a_namespace() {
    let reported = "/tmp/reports/latest/report.json";
    let outcome = Machine::new()
        .nic("gve:queues=4")
        .nic("gve:queues=4")
        .file(PROGRAM.as_ref(), "/usr/bin/devmem-conformance")
        .file(&setups().join("one-machine/peer-namespace"), "/usr/bin/peer-namespace")
        .file(&setups().join("run-and-compare"), "/usr/bin/run-and-compare")
        .bring_back(reported)
        .timeout(Duration::from_secs(180))
        .kernel_of_environment()
        .unwrap()
        .command(["bash", "-c", SCRIPT])
        .run()
        .unwrap();
    assert!(outcome.is_success(), "{}", outcome.report());
    let said = outcome.stdout_text();
    assert!(said.contains("nothing changed") && said.contains("nothing to restore"), "{}", outcome.report());
    let report =
        devmem_conformance::report::json::read(&String::from_utf8_lossy(&outcome.files[reported])).unwrap();
    let passed = report[0].count(devmem_conformance::Verdict::Pass);
    assert_eq!(passed, report[0].entries.len(), "{}", outcome.report());
}
