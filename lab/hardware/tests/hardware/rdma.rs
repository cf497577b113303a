//! RDMA devices over vfio-user, and what can be asked of them.

use devmem_lab_hardware::{Hardware, HardwareConfig};
use serde_json::json;

use crate::client::{Client, GET_REGION_INFO, words};

fn hardware(rdma: &[&str]) -> (Hardware, tempfile::TempDir) {
    let rdma = rdma.iter().map(|text| text.parse().unwrap()).collect();
    let config = HardwareConfig { rdma, ..HardwareConfig::default() };
    let sockets = tempfile::tempdir().unwrap();
    (Hardware::start(&config, sockets.path()).unwrap(), sockets)
}

#[test]
fn send_queues_are_memory_that_a_program_maps() {
    let (hardware, _sockets) = hardware(&["efa"]);
    let mut client = Client::connect(&hardware.functions()[0].socket);
    let mut region = |index: u32| {
        let reply = client.call(GET_REGION_INFO, &words(&[32, 0, index, 0, 0, 0, 0, 0]), &[]).unwrap();
        let flags = u32::from_ne_bytes(reply[4..8].try_into().unwrap());
        (flags, u64::from_ne_bytes(reply[16..24].try_into().unwrap()))
    };
    let (access, mapped) = (3, 1 << 2);
    assert_eq!(region(0), (access, 1 << 20), "registers and doorbells");
    assert_eq!(region(2), (access | mapped, 4 << 20), "send queues");
    // What a program writes there is in the device's memory, mapped or not.
    client.write(2, 0x4000, b"work").unwrap();
    assert_eq!(client.read(2, 0x4000, 4).unwrap(), b"work");
    assert!(client.write(2, 4 << 20, b"x").is_err());
}

#[test]
fn regions_counters_and_ground_truth_can_be_asked_for() {
    let (hardware, _sockets) = hardware(&["efa", "efa:mtu=1024"]);
    assert_eq!(hardware.request(&json!({ "op": "rdma_regions", "rdma": 1 })), json!({ "regions": [] }));
    let error = hardware.request(&json!({ "op": "rdma_regions", "rdma": 2 }));
    assert_eq!(error["error"], "there is no RDMA device 2, the machine has 2");
    let statistics = hardware.request(&json!({ "op": "statistics" }));
    assert_eq!(statistics["rdma"][1]["queue_pairs"], 0);
    let truth = hardware.request(&json!({ "op": "ground_truth" }));
    assert_eq!((truth["rdma"].as_array().map(Vec::len), &truth["nics"]), (Some(2), &json!([])));
    let descriptions = hardware.functions().iter().map(|function| function.description.as_str());
    assert_eq!(descriptions.collect::<Vec<_>>(), ["EFA 0, an RDMA device", "EFA 1, an RDMA device"]);
}
