//! The link, and what vfio-user itself does.

use serde_json::json;

use crate::Machine;
use crate::client::{Client, GET_INFO, GET_IRQ_INFO, GET_REGION_INFO, RESET, words};
use crate::driver::{Driver, Offload, PLAIN, QUEUES};
use crate::memory::BASE;
use crate::packets::arp;

const LINK_UP: u32 = 1 << 2;

#[test]
fn the_driver_is_told_of_the_link() {
    let mut machine = Machine::pair();
    let [a, b] = &mut machine.drivers[..] else { panic!() };
    let mut out = a.create_transmit_queue(0);
    let mut into = b.create_receive_queue(0, &PLAIN);
    b.post_all(&mut into);
    assert_eq!(b.read_register(0) & LINK_UP, LINK_UP);
    let set = |up| {
        let reply = machine.hardware.request(&json!({"op": "link", "nic": 1, "up": up}));
        assert_eq!(reply, json!({}));
    };
    set(false);
    assert_eq!(b.interrupts(QUEUES * 2), 1, "the management vector is the last one");
    assert_eq!(b.read_register(0) & LINK_UP, 0);
    a.send(&mut out, &arp(a.mac), Offload::default(), 9000);
    assert!(into.poll().is_empty());
    assert_eq!(out.poll().len(), 2, "sent all the same");
    b.start();
    assert_eq!(b.read_register(0) & LINK_UP, 0, "a reset does not plug the cable in");
    set(true);
    assert_eq!(b.interrupts(QUEUES * 2), 1);
    let mut into = b.create_receive_queue(0, &PLAIN);
    b.post_all(&mut into);
    a.send(&mut out, &arp(a.mac), Offload::default(), 9000);
    assert_eq!(into.poll().len(), 1);
    assert_eq!(machine.counter(1, "/link_down"), 1);
}

#[test]
fn what_qemu_asks_first() {
    let mut machine = Machine::pair();
    let client = &mut machine.drivers[0].client;
    assert_eq!(client.call(GET_INFO, &words(&[16, 0, 0, 0]), &[]), Ok(words(&[16, 3, 9, 5])));
    let mut sizes = Vec::new();
    for region in 0..9 {
        let reply = client.call(GET_REGION_INFO, &words(&[32, 0, region, 0, 0, 0, 0, 0]), &[]).unwrap();
        sizes.push(u64::from_ne_bytes(reply[16..24].try_into().unwrap()));
    }
    assert_eq!(sizes, [4096, 8192, 4096, 0, 0, 0, 0, 256, 0]);
    let mut counts = Vec::new();
    for index in 0..5 {
        let reply = client.call(GET_IRQ_INFO, &words(&[16, 0, index, 0]), &[]).unwrap();
        counts.push(u32::from_ne_bytes(reply[12..16].try_into().unwrap()));
    }
    assert_eq!(counts, [0, 0, QUEUES * 2 + 1, 0, 0]);
    assert_eq!(client.read(7, 0, 4), Ok(vec![0xe0, 0x1a, 0x42, 0]));
    client.write(7, 4, &[6, 0]).unwrap();
    assert_eq!(client.read(7, 4, 2), Ok(vec![6, 0]));
    client.call(RESET, &[], &[]).unwrap();
    assert_eq!(client.read(7, 4, 2), Ok(vec![0, 0]));
}

#[test]
fn the_next_client_finds_a_fresh_function() {
    let mut machine = Machine::pair();
    let mut into = machine.drivers[1].create_receive_queue(0, &PLAIN);
    machine.drivers[1].post_all(&mut into);
    let socket = machine.hardware.functions()[1].socket.clone();
    machine.drivers.pop();
    let mut client = Client::connect(&socket);
    assert_eq!(client.read(0, 32, 8), Ok(vec![0; 8]), "no admin queue");
    drop(client);
    let memory = machine.memory.clone();
    machine.drivers.push(Driver::probe(&socket, &memory));
    machine.drivers[1].create_receive_queue(0, &PLAIN);
    assert_eq!(machine.hardware.misuse(), [""; 0]);
}

#[test]
fn memory_that_is_unmapped_is_out_of_reach() {
    let mut machine = Machine::pair();
    let [a, b] = &mut machine.drivers[..] else { panic!() };
    let mut out = a.create_transmit_queue(0);
    let mut into = b.create_receive_queue(0, &PLAIN);
    b.post_all(&mut into);
    b.client.unmap(into.buffers, 4096);
    a.send(&mut out, &arp(a.mac), Offload::default(), 9000);
    let received = into.poll();
    assert!(received[0].error, "the completion says that the packet is not there");
    let misuse = machine.hardware.misuse();
    assert_eq!(misuse.len(), 1);
    assert!(misuse[0].contains(&format!("{:#x}", into.buffers)), "{misuse:?}");
    assert!(into.buffers > BASE);
}
