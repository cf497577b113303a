//! Which queue a packet goes to.

use serde_json::json;

use crate::Machine;
use crate::driver::{Body, Driver, Offload, PASSED, PLAIN, QUEUES, ReceiveQueue, TransmitQueue};
use crate::packets::{tcp, udp};

const CHECKSUM: Offload = Offload { checksum: true, segmentation: None };

/// Two NICs; the second one has all queues, with buffers.
fn machine() -> (Machine, TransmitQueue, Vec<ReceiveQueue>) {
    let mut machine = Machine::pair();
    let out = machine.drivers[0].create_transmit_queue(0);
    let b = &mut machine.drivers[1];
    let mut queues = Vec::new();
    for index in 0..QUEUES {
        let mut queue = b.create_receive_queue(index, &crate::driver::PLAIN);
        b.post_all(&mut queue);
        queues.push(queue);
    }
    (machine, out, queues)
}

/// Adds a rule for TCP over IPv4 on the ports, given as key and mask.
fn add_rule(
    driver: &mut Driver,
    location: u32,
    queue: u16,
    source: (u16, u16),
    destination: (u16, u16),
) -> u32 {
    let command = driver.memory.allocate(92);
    let rule = Body::default()
        .u16(6, queue)
        .u16(8 + 32, source.0)
        .u16(8 + 34, destination.0)
        .u16(48 + 32, source.1)
        .u16(48 + 34, destination.1)
        .u32(88, location);
    driver.memory.write(command, &rule.0);
    extended(driver, command)
}

fn extended(driver: &mut Driver, command: u64) -> u32 {
    driver.command(0xff, Body::default().u32(0, 0x101).u32(4, 92).u64(8, command))
}

/// Sends TCP packets from ports and tells which queue each came to.
fn queues_of(
    machine: &mut Machine,
    out: &mut TransmitQueue,
    queues: &mut [ReceiveQueue],
    ports: &[(u16, u16)],
) -> Vec<usize> {
    let [a, b] = &mut machine.drivers[..] else { panic!() };
    let mut found = Vec::new();
    for ports in ports {
        a.send(out, &tcp(a.mac, b.mac, *ports, b"flow"), CHECKSUM, 9000);
        let arrived: Vec<usize> = queues.iter_mut().map(|queue| queue.poll().len()).collect();
        assert_eq!(arrived.iter().sum::<usize>(), 1);
        let queue = arrived.iter().position(|count| *count == 1).unwrap();
        b.post(&mut queues[queue], 1);
        found.push(queue);
    }
    found
}

#[test]
fn rules_with_partial_masks() {
    let (mut machine, mut out, mut queues) = machine();
    for queue in 0..4 {
        assert_eq!(
            add_rule(&mut machine.drivers[1], queue.into(), queue, (queue, 3), (5201, 0xffff)),
            PASSED
        );
    }
    let ports: Vec<_> = (0..8).map(|port| (40000 + port, 5201)).collect();
    assert_eq!(queues_of(&mut machine, &mut out, &mut queues, &ports), [0, 1, 2, 3, 0, 1, 2, 3]);
    assert_eq!(machine.counter(1, "/steered"), 8);

    // What the driver reads back: descriptor, then location, type, queue, key and mask.
    let b = &mut machine.drivers[1];
    let answer = b.memory.allocate(4096);
    let query = |kind, start| Body::default().u16(0, kind).u32(4, start).u64(8, 4096).u64(16, answer);
    assert_eq!(b.command(0x10, query(0, 2)), PASSED);
    let words = b.memory.array::<16>(answer);
    assert_eq!(words, [4u32, 64, 2, 16 + 2 * 88].map(u32::to_be_bytes).concat()[..]);
    assert_eq!(b.memory.array::<8>(answer + 16), [0, 0, 0, 2, 0, 0, 0, 2]);
    assert_eq!(b.command(0x10, query(1, 0)), PASSED);
    assert_eq!(b.memory.array::<8>(answer + 16), [0, 0, 0, 0, 0, 0, 0, 1]);

    // Delete all: packets are hashed again.
    let reset = b.memory.allocate(92);
    b.memory.write(reset, &[0, 2]);
    assert_eq!(extended(b, reset), PASSED);
    assert_eq!(machine.counter(1, "/flow_rules"), 0);
}

#[test]
fn rules_that_cannot_be() {
    let (mut machine, ..) = machine();
    let b = &mut machine.drivers[1];
    assert_ne!(add_rule(b, 0, 4, (0, 0), (0, 0)), PASSED, "there is no queue 4");
    let command = b.memory.allocate(92);
    b.memory.write(command, &[0, 1]);
    assert_ne!(extended(b, command), PASSED, "there is no rule to delete");
    assert_eq!(machine.hardware.misuse(), [""; 0], "users may ask for what cannot be");
}

#[test]
fn the_fault_steering_hits_every_so_many() {
    let (mut machine, mut out, mut queues) = machine();
    assert_eq!(add_rule(&mut machine.drivers[1], 0, 2, (0, 0), (5201, 0xffff)), PASSED);
    machine.request(json!({"op": "nic_fault", "nic": 1, "fault": "steering", "every": 3}));
    let found = queues_of(&mut machine, &mut out, &mut queues, &[(1, 5201); 6]);
    assert_eq!(found, [2, 2, 0, 2, 2, 0]);
    queues_of(&mut machine, &mut out, &mut queues, &[(1, 5201)]);
    machine.request(json!({"op": "nic_fault", "nic": 1, "fault": "steering", "every": 3}));
    let found = queues_of(&mut machine, &mut out, &mut queues, &[(1, 5201); 3]);
    assert_eq!(found, [2, 2, 0], "counted from the request on");
    machine.request(json!({"op": "nic_fault", "nic": 1, "fault": "none"}));
    assert_eq!(queues_of(&mut machine, &mut out, &mut queues, &[(1, 5201); 3]), [2; 3]);
}

#[test]
fn the_hash_spreads_by_the_table_of_the_driver() {
    let (mut machine, mut out, mut queues) = machine();
    let ports: Vec<_> = (0..64).map(|port| (port, 80)).collect();
    let found = queues_of(&mut machine, &mut out, &mut queues, &ports);
    for queue in 0..4 {
        assert!(found.contains(&queue), "no packet to queue {queue}");
    }
    assert_eq!(found, queues_of(&mut machine, &mut out, &mut queues, &ports), "a flow keeps its queue");
    let b = &mut machine.drivers[1];
    let table = b.memory.allocate(512);
    (0..128).for_each(|entry| b.memory.write(table + entry * 4, &3u32.to_be_bytes()));
    let configure = Body::default().put(2, &[1]).u16(6, 128).u64(16, table);
    assert_eq!(b.command(0xa, configure), PASSED);
    assert_eq!(queues_of(&mut machine, &mut out, &mut queues, &ports[..8]), [3; 8]);

    let b = &mut machine.drivers[1];
    let answer = b.memory.allocate(4096);
    assert_eq!(b.command(0x12, Body::default().u64(0, 4096).u64(8, answer)), PASSED);
    assert_eq!(b.memory.array::<8>(answer), [0, 0, 2, 48, 0, 0xd2, 1, 0], "length, hash types, Toeplitz");
    assert_eq!(b.memory.array::<4>(answer + 48), [0, 0, 0, 3]);
}

#[test]
fn other_traffic_goes_to_the_first_queue_of_the_table() {
    let (mut machine, mut out, mut queues) = machine();
    let [a, b] = &mut machine.drivers[..] else { panic!() };
    let mut fragment = udp(a.mac, b.mac, (1, 2), b"fragment");
    fragment[20] = 0x20;
    a.send(&mut out, &fragment, Offload::default(), 9000);
    let received = queues[0].poll();
    assert_eq!((received.len(), received[0].hash, received[0].packet_type), (1, 0, 2 << 3));
    assert_eq!(PLAIN.buffer_size, 4096);
}
