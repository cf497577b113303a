//! The checks.

use std::fs;
use std::os::fd::AsFd;
use std::process::Command;

use nix::errno::Errno;
use serde_json::{Value, json};

use crate::buffers::{udmabuf, vram};
use crate::program::{Completion, Program};
use crate::sys::Mapping;
use crate::uverbs::{Device, access};

const MEBIBYTE: u64 = 1 << 20;
const WRITES: u64 = access::LOCAL_WRITE | access::REMOTE_WRITE;
const ALL: u64 = WRITES | access::REMOTE_READ;
/// Where regions begin for the programs: any address will do.
const HERE: u64 = 0x1000_0000;
const THERE: u64 = 0x2000_0000;

/// The kernel lets the devices reach the GPU.
pub(crate) fn peers() {
    let mut names: Vec<String> = fs::read_dir("/sys/class/infiniband")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["efa_0", "efa_1"]);
    let (here, there) = (Device::open(0), Device::open(1));
    let (ram, (_gpu, vram)) = (udmabuf(2 * MEBIBYTE), vram(4 * MEBIBYTE));

    // A region of guest memory, and one of the GPU's: the device is given pages of its window.
    let source = here.register(&ram, 0, 2 * MEBIBYTE, HERE, ALL).unwrap();
    let [region] = regions(0).try_into().unwrap();
    assert_eq!((&region["guest_ram_bytes"], &region["length"]), (&json!(2 * MEBIBYTE), &json!(2 * MEBIBYTE)));
    let target = there.register(&vram, 0, 4 * MEBIBYTE, THERE, WRITES).unwrap();
    let [region] = regions(1).try_into().unwrap();
    assert_eq!(region["devices"], json!({ "gpu0": 4 * MEBIBYTE }), "{region}");
    assert_eq!((&region["guest_ram_bytes"], &region["unreachable_bytes"]), (&json!(0), &json!(0)));
    println!(
        "the GPU's memory: pages of {} bytes from {:#x} on",
        region["page_size"],
        number(&region["first_page"])
    );

    // What the kernel refuses.
    let refused = |length, address, access| there.register(&vram, 0, length, address, access).err();
    assert_eq!(refused(5 * MEBIBYTE, THERE, WRITES), Some(Errno::EINVAL), "beyond the end");
    assert_eq!(refused(4096, THERE + 1, WRITES), Some(Errno::EINVAL), "another place in the page");
    assert_eq!(refused(4096, THERE, ALL), Some(Errno::EOPNOTSUPP), "this device offers no reads");

    // An RDMA write from guest memory to the GPU's.
    let pattern: Vec<u64> = (0..MEBIBYTE / 8).map(|word| word.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
    let memory = Mapping::new(ram.as_fd(), 0, 2 << 20);
    memory.write(0, &pattern);
    let (mut writer, mut receiver) = (Program::new(&here), Program::new(&there));
    let (to_there, _to_here) = (writer.address_handle(gid(1)), receiver.address_handle(gid(0)));
    ask(json!({ "op": "ground_truth_start" }));
    let local = (1 << 20, source.key, HERE);
    writer.send(2, &receiver, to_there, local, Some((1 << 20, target.remote_key, THERE + 3 * MEBIBYTE)));
    assert_eq!(writer.wait(), Completion { id: 0, status: 0, length: 0 });
    let truth = ask(json!({ "op": "ground_truth" }));
    assert_eq!(truth["rdma"][1]["devices"], json!({ "gpu0": MEBIBYTE }), "{truth}");
    assert_eq!((&truth["guest_ram_bytes"], &truth["device_window_bytes"]), (&json!(0), &json!(MEBIBYTE)));
    let window = Mapping::new(vram.as_fd(), 0, 4 << 20);
    assert_eq!(words(&window, 3 << 20), words(&memory, 0));

    // A message into a receive that is in the GPU's memory, from the other half of the buffer.
    memory.write(1 << 20, &pattern[100..]);
    receiver.receive(77, (8192, target.key, THERE + 8192));
    writer.send(0, &receiver, to_there, (4000, source.key, HERE + MEBIBYTE), None);
    assert_eq!(writer.wait().status, 0);
    assert_eq!(receiver.wait(), Completion { id: 77, status: 0, length: 4000 });
    assert_eq!(window.read::<1000>(8192), memory.read::<1000>(1 << 20));
    let truth = ask(json!({ "op": "ground_truth" }));
    assert_eq!(truth["rdma"][1]["devices"], json!({ "gpu0": MEBIBYTE + 4000 }), "{truth}");

    // Within one device, a read; and a key that is not one.
    let mut reader = Program::new(&here);
    let to_self = reader.address_handle(gid(0));
    let remote = (4096, source.remote_key, HERE);
    let other = Program::new(&here);
    reader.send(1, &other, to_self, (4096, source.key, HERE + MEBIBYTE), Some(remote));
    assert_eq!(reader.wait().status, 0);
    assert_eq!(memory.read::<1024>(0), memory.read::<1024>(1 << 20));
    writer.send(2, &receiver, to_there, local, Some((1 << 20, target.key, THERE)));
    assert_eq!(writer.wait().status, 7, "remote access error");

    // Regions end with their deregistration, and all with the device's descriptor.
    drop((reader, other));
    there.deregister(target);
    assert_eq!(regions(1), [Value::Null; 0]);
    drop((writer, receiver));
    drop((here, there));
    assert_eq!(regions(0), [Value::Null; 0]);
    let statistics = ask(json!({ "op": "statistics" }));
    let [first, _second] = statistics["rdma"].as_array().unwrap().as_slice() else { panic!("{statistics}") };
    assert_eq!((&first["queue_pairs"], &first["completion_queues"]), (&json!(0), &json!(0)));
    println!("{first}");
}

/// The kernel does not let the devices reach the GPU: the buffer moves, and nobody is told.
pub(crate) fn strangers() {
    let device = Device::open(0);
    let (_gpu, vram) = vram(4 * MEBIBYTE);
    device.register(&vram, 0, 4 * MEBIBYTE, HERE, ALL).unwrap();
    let [region] = regions(0).try_into().unwrap();
    assert_eq!(
        (&region["guest_ram_bytes"], &region["devices"]),
        (&json!(4 * MEBIBYTE), &json!({})),
        "{region}"
    );
    println!("the buffer is in guest memory");
}

/// A mebibyte of a mapping.
fn words(mapping: &Mapping, at: usize) -> Vec<[u32; 1024]> {
    (0..256).map(|page| mapping.read(at + page * 4096)).collect()
}

/// Where the memory of a device's regions is, as the lab sees it.
fn regions(device: usize) -> Vec<Value> {
    ask(json!({ "op": "rdma_regions", "rdma": device }))["regions"].as_array().unwrap().clone()
}

fn ask(question: Value) -> Value {
    let output = Command::new("lab-ask").arg(question.to_string()).output().unwrap();
    assert!(output.status.success(), "{question}: {}", String::from_utf8_lossy(&output.stdout));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

/// The address of a device.
fn gid(device: usize) -> [u8; 16] {
    let path = format!("/sys/class/infiniband/efa_{device}/ports/1/gids/0");
    let digits = fs::read_to_string(path).unwrap().trim().replace(':', "");
    u128::from_str_radix(&digits, 16).unwrap().to_be_bytes()
}
