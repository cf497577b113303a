//! Control requests: ground truth, faults, statistics.

use std::time::{Duration, Instant};

use devmem_lab_hardware::{HardwareConfig, NicConfig, SwitchFaults};
use serde_json::json;

use crate::Machine;
use crate::driver::{Offload, PLAIN, ReceiveSetup, SPLIT};
use crate::packets::{TCP_HEADERS, pattern, tcp, tcp_at, udp};

const CHECKSUM: Offload = Offload { checksum: true, segmentation: None };
const NONCE: &str = "000102030405060708090a0b0c0d0e0f";

fn mark(index: u64) -> Vec<u8> {
    let nonce: Vec<u8> = (0..16).collect();
    [&nonce[..], &index.to_le_bytes(), &(index ^ 0x9e37_79b9_7f4a_7c15).to_le_bytes()].concat()
}

#[test]
fn payload_is_found_in_the_buffer_it_was_received_into() {
    let mut machine = Machine::pair();
    let [a, b] = &mut machine.drivers[..] else { panic!() };
    let mut out = a.create_transmit_queue(0);
    let mut into = b.create_receive_queue(0, &SPLIT);
    // The first two of the queue's buffers are a DMA-buf.
    for page in 0..2 {
        machine.memory.write(into.buffers + page * 4096, &mark(page));
    }
    machine.hardware.request(&json!({"op": "ground_truth_start"}));
    let located =
        machine.hardware.request(&json!({"op": "locate", "name": "buffer", "nonce": NONCE, "pages": 2}));
    let expected = json!({"pages": 2, "found": 2, "guest_ram_pages": 2, "device_window_pages": 0,
               "devices": {}, "duplicates": 0});
    assert_eq!(located, expected);
    b.post_all(&mut into);
    a.send(&mut out, &tcp(a.mac, b.mac, (1, 2), &pattern(8000)), CHECKSUM, 9000);
    a.send(&mut out, &udp(a.mac, b.mac, (1, 2), &pattern(500)), CHECKSUM, 9000);
    assert_eq!(into.poll().len(), 2);
    let truth = machine.request(json!({"op": "ground_truth"}));
    let counts = json!({
        "dmabuf_bytes": 8000, "elsewhere_bytes": 500, "guest_ram_bytes": 8500, "device_window_bytes": 0,
        "header_buffer_bytes": 0, "buffers": {"buffer": 8000},
    });
    for (name, value) in counts.as_object().unwrap() {
        assert_eq!(&truth[name], value, "{name}");
        assert_eq!(&truth["nics"][1][name], value, "{name}");
    }
    assert_eq!(truth["nics"][0]["elsewhere_bytes"], 0);
}

#[test]
fn payload_that_was_not_split_off_counts_too() {
    let mut machine = Machine::pair();
    let [a, b] = &mut machine.drivers[..] else { panic!() };
    let mut out = a.create_transmit_queue(0);
    let mut into = b.create_receive_queue(0, &PLAIN);
    b.post_all(&mut into);
    machine.hardware.request(&json!({"op": "ground_truth_start", "tcp_destination_port": 2, "nic": 1}));
    a.send(&mut out, &tcp(a.mac, b.mac, (1, 2), &pattern(5000)), CHECKSUM, 9000);
    a.send(&mut out, &tcp(a.mac, b.mac, (1, 3), &pattern(700)), CHECKSUM, 9000);
    let truth = machine.request(json!({"op": "ground_truth"}));
    assert_eq!(truth["elsewhere_bytes"], 5000, "no headers, and not the other port");
}

#[test]
fn the_fault_linear_puts_payload_into_header_buffers() {
    let mut machine = Machine::pair();
    let [a, b] = &mut machine.drivers[..] else { panic!() };
    let mut out = a.create_transmit_queue(0);
    let mut into = b.create_receive_queue(0, &SPLIT);
    b.post_all(&mut into);
    machine
        .hardware
        .request(&json!({"op": "nic_fault", "nic": 1, "fault": "linear", "bytes": 16, "every": 2}));
    let payload = pattern(1000);
    for number in 0..4 {
        let packet = tcp_at(number * 1000, a.mac, b.mac, (1, 2), &payload);
        a.send(&mut out, &packet, CHECKSUM, 9000);
    }
    let headers: Vec<usize> = into
        .poll()
        .iter()
        .map(|packet| {
            assert_eq!(packet.bytes()[TCP_HEADERS..], payload);
            packet.header.as_ref().unwrap().len() - TCP_HEADERS
        })
        .collect();
    assert_eq!(headers, [0, 16, 0, 16]);
    let truth = machine.request(json!({"op": "ground_truth"}));
    assert_eq!((&truth["header_buffer_bytes"], &truth["elsewhere_bytes"]), (&json!(32), &json!(3968)));
}

#[test]
fn what_is_sent_again_is_counted_apart() {
    let mut machine = Machine::pair();
    let [a, b] = &mut machine.drivers[..] else { panic!() };
    let mut out = a.create_transmit_queue(0);
    let mut into = b.create_receive_queue(0, &SPLIT);
    b.post_all(&mut into);
    for length in [1000, 1000, 1500] {
        a.send(&mut out, &tcp(a.mac, b.mac, (1, 2), &pattern(length)), CHECKSUM, 9000);
    }
    assert_eq!(into.poll().len(), 3);
    let truth = machine.request(json!({"op": "ground_truth"}));
    assert_eq!((&truth["elsewhere_bytes"], &truth["repeated_bytes"]), (&json!(1500), &json!(2000)));
}

/// Sends 300 numbered segments of one large packet each through a faulty switch; the order in which
/// they arrive. What is sent next waits until all have: a reordered segment at the end is let go by the clock.
fn arrivals(seed: u64) -> Vec<u32> {
    let faults = SwitchFaults { drop: 0.1, reorder: 0.1, duplicate: 0.1, delay_us: 0, seed };
    let config = HardwareConfig { nics: vec![NicConfig::default(); 2], faults, ..HardwareConfig::default() };
    let mut machine = Machine::new(&config);
    let [a, b] = &mut machine.drivers[..] else { panic!() };
    let mut out = a.create_transmit_queue(0);
    let mut into = b.create_receive_queue(0, &ReceiveSetup { header_split: true, ..PLAIN });
    b.post_all(&mut into);
    let segmentation = Offload { checksum: true, segmentation: Some((100, TCP_HEADERS as u8)) };
    let mut order = Vec::new();
    let count =
        |fate: &str| machine.hardware.request(&json!({"op": "statistics"}))["switch"][fate].as_u64().unwrap();
    for sent in (20..=300).step_by(20) {
        a.send(&mut out, &tcp(a.mac, b.mac, (1, 2), &pattern(2000)), segmentation, 9000);
        let deadline = Instant::now() + Duration::from_secs(60);
        while order.len() as u64 != sent - count("dropped") + count("duplicated") {
            assert!(Instant::now() < deadline, "{} of {sent} arrived", order.len());
            let received = into.poll();
            b.post(&mut into, received.len() as u16);
            let sequence = |packet: &crate::driver::Received| crate::packets::check_tcp(&packet.bytes()).0;
            order.extend(received.iter().map(sequence));
        }
    }
    for fate in ["dropped", "reordered", "duplicated"] {
        assert_ne!(count(fate), 0, "{fate}");
    }
    order
}

#[test]
fn the_seed_decides_on_every_segment() {
    let first = arrivals(7);
    assert_eq!(first, arrivals(7));
    let common = first.iter().zip(arrivals(8)).take_while(|&(a, b)| *a == b).count();
    assert!(common < 100, "another seed begins with the same {common}");
}

#[test]
fn wrong_requests_are_answered() {
    let machine = Machine::pair();
    for request in [
        json!({"op": "explode"}),
        json!({}),
        json!(7),
        json!({"op": "link", "nic": 2, "up": true}),
        json!({"op": "nic_fault", "nic": 9, "fault": "none"}),
        json!({"op": "nic_fault", "nic": 0, "fault": "linear"}),
        json!({"op": "switch", "drop": 2}),
        json!({"op": "locate", "name": "x", "nonce": "xyz", "pages": 1}),
        json!({"op": "locate", "name": "x", "nonce": NONCE, "pages": 0}),
        json!({"op": "ground_truth_start", "nic": 5}),
    ] {
        let reply = machine.hardware.request(&request);
        assert!(reply["error"].as_str().is_some_and(|error| !error.is_empty()), "{request}: {reply}");
    }
}
