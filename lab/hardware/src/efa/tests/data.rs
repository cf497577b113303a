//! Messages and RDMA between two devices, and of one with itself.

use std::collections::BTreeMap;

use super::super::fields::Structure;
use super::driver::{Driver, Machine, Program, SRD, Send, UD};
use crate::bus::PAGE_SIZE;

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|index| (index * 7 % 251) as u8).collect()
}

/// Two devices that know each other, each with a queue pair.
fn pair(machine: &Machine, transport: u8) -> (Program<'_>, Program<'_>, u16) {
    let [first, second] = machine.drivers.as_slice() else { panic!() };
    let handle = first.address_handle(second);
    second.address_handle(first);
    (first.queue_pair(transport), second.queue_pair(transport), handle)
}

fn filled(driver: &Driver, bytes: u64) -> (u64, u32, u32) {
    let buffer = driver.buffer(bytes);
    driver.memory.write(buffer.0, &pattern(bytes as usize)).unwrap();
    buffer
}

#[test]
fn messages_arrive_in_posted_receives() {
    let machine = Machine::new(2);
    let (sender, receiver, handle) = pair(&machine, SRD);
    let (source, key, _) = filled(sender.driver, 8192);
    let (target, target_key, _) = receiver.driver.buffer(8192);
    receiver.receive(7, (8192, target_key, target));
    let local = (5000, key, source + 10);
    sender.send(&Send { to: receiver.number, handle, immediate: Some(0xfeed), local, ..Send::default() });
    let sent = sender.poll().unwrap();
    assert_eq!((sent.id, sent.status, sent.flags), (100, 0, 1 << 1));
    let received = receiver.poll().unwrap();
    assert_eq!((received.id, received.status, received.length), (7, 0, 5000));
    assert_eq!((received.flags, received.immediate), (2 << 1 | 1 << 3, 0xfeed));
    assert_eq!((received.source, received.handle), (sender.number, 0));
    assert_eq!(receiver.driver.bytes(target, 5000), pattern(8192)[10..5010]);
    let truth = machine.ground_truth.report(&machine.bus);
    assert_eq!((truth.rdma[1].guest_ram_bytes, truth.rdma[0].guest_ram_bytes), (5000, 0));
    let counters = receiver.driver.device.statistics().counters;
    assert_eq!((counters.receives, counters.receive_bytes, counters.received_packets), (1, 5000, 1));
    assert!(machine.misuse.entries().is_empty());
}

#[test]
fn datagrams_leave_room_for_a_header_and_tell_their_sender() {
    let machine = Machine::new(2);
    let [first, second] = machine.drivers.as_slice() else { panic!() };
    let handle = first.address_handle(second);
    // The second one has no handle for the first, whose address it then is told.
    let (sender, receiver) = (first.queue_pair(UD), second.queue_pair(UD));
    let (source, key, _) = filled(first, 4096);
    let (target, target_key, _) = second.buffer(4096);
    let send = Send { to: receiver.number, handle, local: (100, key, source), ..Send::default() };
    sender.send(&send);
    assert_eq!(sender.poll().unwrap().status, 0, "nobody was there, which the sender does not learn");
    assert_eq!(second.device.statistics().counters.dropped, 1);
    receiver.receive(1, (200, target_key, target));
    sender.send(&send);
    let received = receiver.poll().unwrap();
    assert_eq!((received.bytes[6], received.handle), (140, 0xffff));
    assert_eq!(received.bytes[16..], first.device.gid);
    assert_eq!(second.bytes(target, 140)[40..], pattern(100));
    assert_eq!(second.bytes(target, 40), [0; 40]);
    assert_eq!(machine.ground_truth.report(&machine.bus).total.guest_ram_bytes, 100);
}

#[test]
fn rdma_reads_and_writes_reach_memory_of_a_gpu() {
    let machine = Machine::new(2);
    let (here, there, handle) = pair(&machine, SRD);
    let window = machine.bus.device_memory("gpu0", 16 * PAGE_SIZE).unwrap();
    machine.bus.place_window(&window, Some(0xe000_0000), 0..16 * PAGE_SIZE);
    // Pages that are not in order, and an address that is in the middle of one.
    let pages: Vec<u64> = (0..8).map(|page| 0xe000_0000 + (7 - page) * PAGE_SIZE).collect();
    let (_, remote_key) = there.driver.register(&pages, 0x7000_0800, 7 * PAGE_SIZE, 7);
    let (source, key, _) = filled(here.driver, 16384);
    let remote = Some((16384, remote_key, 0x7000_0900));
    let write = Send {
        operation: 2,
        to: there.number,
        handle,
        local: (16384, key, source),
        remote,
        ..Send::default()
    };
    here.send(&write);
    assert_eq!(here.poll().unwrap().status, 0);
    assert_eq!(there.poll(), None, "the other side is not told");
    let mut first = vec![0; 0x700];
    window.memory().read(7 * PAGE_SIZE + 0x900, &mut first).unwrap();
    assert_eq!(first, pattern(16384)[..0x700], "in the page that is first in the list");
    let truth = machine.ground_truth.report(&machine.bus);
    assert_eq!(truth.rdma[1].devices, BTreeMap::from([("gpu0".to_owned(), 16384)]));
    let places = there.driver.device.regions();
    assert_eq!(places[0].devices, BTreeMap::from([("gpu0".to_owned(), 7 * PAGE_SIZE)]));

    let (back, back_key, _) = here.driver.buffer(16384);
    here.send(&Send { operation: 1, local: (16384, back_key, back), ..write });
    let read = here.poll().unwrap();
    assert_eq!((read.status, read.flags), (0, 1 << 1 | 1 << 4));
    assert_eq!(here.driver.bytes(back, 16384), pattern(16384));
    assert_eq!(machine.ground_truth.report(&machine.bus).rdma[0].guest_ram_bytes, 16384);
    let counters = here.driver.device.statistics().counters;
    assert_eq!((counters.writes, counters.write_bytes), (1, 16384));
    assert_eq!((counters.reads, counters.read_bytes, counters.read_errors), (1, 16384, 0));
}

#[test]
fn immediate_data_of_a_write_takes_a_receive_unless_it_is_unsolicited() {
    for (flags, id, kind) in [(0, 9, 0), (1 << 2, 0, 1 << 7)] {
        let machine = Machine::new(1);
        let driver = &machine.drivers[0];
        let handle = driver.address_handle(driver);
        let (writer, target) = (driver.queue_pair(SRD), driver.queue_pair_with(SRD, flags));
        let (address, key, remote) = filled(driver, 0x2_0000);
        target.receive(9, (0, 0, 0));
        let (local, to) = ((0x1_0001, key, address), target.number);
        let remote = Some((0x1_0001, remote, address + 0x8000));
        writer.send(&Send { operation: 2, to, handle, immediate: Some(5), local, remote });
        assert_eq!(writer.poll().unwrap().status, 0);
        let told = target.poll().unwrap();
        assert_eq!((told.id, told.immediate, told.length), (id, 5, 0x1_0001));
        assert_eq!(told.flags, kind | 2 << 4 | 1 << 3 | 2 << 1);
    }
}

#[test]
fn what_goes_wrong_is_told_in_completions() {
    let machine = Machine::new(2);
    let (here, there, handle) = pair(&machine, SRD);
    let (source, key, own_remote) = filled(here.driver, 8192);
    let (target, target_key, remote_key) = there.driver.buffer(8192);
    here.modify(|body| body.u32(0, 1 << 5).u8(25, 0));
    let status = |send: Send| {
        here.send(&send);
        here.poll().unwrap().status
    };
    let send = Send { to: there.number, handle, local: (100, key, source), ..Send::default() };
    assert_eq!(status(send), 10, "no receive was posted");
    assert_eq!(status(Send { to: 99, ..send }), 9, "no such queue pair");
    assert_eq!(status(Send { handle: 99, ..send }), 4);
    assert_eq!(status(Send { local: (100, key + 1, source), ..send }), 5);
    assert_eq!(status(Send { local: (100, own_remote, source), ..send }), 5);
    assert_eq!(status(Send { local: (8000, key, source + 193), ..send }), 5, "beyond the end");
    assert_eq!(status(Send { local: (8929, key, source), ..send }), 6, "longer than the MTU");
    assert_eq!(status(Send { operation: 3, ..send }), 3);
    there.receive(1, (99, target_key, target));
    assert_eq!(status(send), 11, "too long for the receive");
    assert_eq!(there.poll().unwrap().status, 6);
    there.receive(2, (100, target_key + 1, target));
    assert_eq!(status(send), 8);
    assert_eq!(there.poll().unwrap().status, 5);

    let write = Send { operation: 2, remote: Some((100, remote_key, target)), ..send };
    assert_eq!(status(write), 0);
    assert_eq!(status(Send { remote: Some((99, remote_key, target)), ..write }), 6, "other lengths");
    assert_eq!(status(Send { remote: Some((100, target_key, target)), ..write }), 7, "not the remote key");
    assert_eq!(status(Send { remote: Some((100, remote_key, target + 8093)), ..write }), 7);
    let (_, read_only) = there.driver.register(&[target, target], 0, 8192, 4);
    assert_eq!(status(Send { remote: Some((100, read_only, 0)), ..write }), 7, "not for writing");
    let read = Send { operation: 1, remote: Some((100, read_only, 0)), ..write };
    assert_eq!(status(read), 0);
    assert_eq!(status(Send { remote: Some((5 << 20, remote_key, target)), ..read }), 6);
    let counters = here.driver.device.statistics().counters;
    assert_eq!((counters.write_errors, counters.read_errors), (3, 0));
    assert!(machine.misuse.entries().is_empty(), "{:?}", machine.misuse.entries());
}

#[test]
fn rdma_needs_an_address_handle_on_both_sides() {
    let machine = Machine::new(2);
    let [first, second] = machine.drivers.as_slice() else { panic!() };
    let handle = first.address_handle(second);
    let (here, there) = (first.queue_pair(SRD), second.queue_pair(SRD));
    let (source, key, _) = filled(first, 4096);
    let (target, _, remote_key) = second.buffer(4096);
    let (local, remote) = ((8, key, source), Some((8, remote_key, target)));
    let write = Send { operation: 2, to: there.number, handle, local, remote, ..Send::default() };
    here.send(&write);
    assert_eq!(here.poll().unwrap().status, 14);
    second.address_handle(first);
    here.send(&write);
    assert_eq!(here.poll().unwrap().status, 0);
}

#[test]
fn what_is_switched_off_is_refused() {
    let machine = Machine::with(1, "efa:rdma-read=off");
    let driver = &machine.drivers[0];
    let handle = driver.address_handle(driver);
    let program = driver.queue_pair(SRD);
    let (address, key, remote) = driver.buffer(4096);
    let (local, remote) = ((8, key, address), Some((8, remote, address)));
    program.send(&Send { operation: 1, to: program.number, handle, local, remote, ..Send::default() });
    assert_eq!(program.poll().unwrap().status, 3);
}

#[test]
fn a_sender_waits_for_its_receiver() {
    let machine = Machine::new(2);
    let (sender, receiver, handle) = pair(&machine, SRD);
    let (source, key, _) = filled(sender.driver, 4096);
    let (target, target_key, _) = receiver.driver.buffer(4096);
    for first in [0, 8] {
        let local = (8, key, source + first);
        sender.send(&Send { to: receiver.number, handle, local, ..Send::default() });
    }
    assert_eq!(sender.poll(), None);
    receiver.receive(1, (8, target_key, target));
    receiver.receive(2, (8, target_key, target + 8));
    assert_eq!([sender.wait().id, sender.wait().id], [100, 101], "in order");
    assert_eq!([receiver.wait().id, receiver.wait().id], [1, 2]);
    assert_eq!(receiver.driver.bytes(target, 16), pattern(16));
}

#[test]
fn a_wrong_queue_key_keeps_messages_out() {
    let machine = Machine::new(2);
    let (sender, receiver, handle) = pair(&machine, SRD);
    let (source, key, _) = filled(sender.driver, 4096);
    receiver.modify(|body| body.u32(0, 1 << 2).u32(16, 5));
    sender.send(&Send { to: receiver.number, handle, local: (8, key, source), ..Send::default() });
    assert_ne!(sender.poll().unwrap().status, 0);
    assert_eq!(receiver.driver.device.statistics().counters.queue_key_violations, 1);
}

#[test]
fn the_error_state_flushes_both_queues() {
    let machine = Machine::new(2);
    let (here, there, handle) = pair(&machine, SRD);
    let (source, key, _) = filled(here.driver, 4096);
    here.receive(50, (8, key, source));
    let send = Send { to: there.number, handle, local: (8, key, source), ..Send::default() };
    here.send(&send); // waits for a receive
    here.modify(|body| body.u32(0, 1).u32(8, 6));
    let flushed = [here.poll().unwrap(), here.poll().unwrap()].map(|seen| (seen.id, seen.status));
    assert_eq!(flushed, [(100, 1), (50, 1)]);
    here.receive(51, (8, key, source));
    here.send(&send);
    let flushed = [here.poll().unwrap(), here.poll().unwrap()].map(|seen| (seen.id, seen.status));
    assert_eq!(flushed, [(51, 1), (101, 1)]);
    assert_eq!(here.poll(), None);
}

#[test]
fn an_armed_queue_interrupts_once() {
    let machine = Machine::new(1);
    let driver = &machine.drivers[0];
    let handle = driver.address_handle(driver);
    let program = driver.queue_pair(SRD);
    let (address, key, remote) = driver.buffer(4096);
    let (local, remote) = ((8, key, address), Some((8, remote, address + 8)));
    let write = Send { operation: 2, to: program.number, handle, local, remote, ..Send::default() };
    let arm_events = || driver.write_register(0x68, 1 << 31 | u32::from(driver.event_queue));
    arm_events();
    program.send(&write);
    assert_eq!(driver.interrupts(1), 0, "nobody waits");
    program.arm();
    assert_eq!(driver.interrupts(1), 1, "a completion is there already");
    assert!(program.poll().is_some());
    program.arm();
    program.send(&write);
    assert_eq!(driver.interrupts(1), 0, "the driver has not armed again");
    arm_events();
    assert_eq!(driver.interrupts(1), 1);
    let event = driver.bytes(driver.event_ring + 16, 16);
    assert_eq!((event[0] & 1, event[8..10].to_vec()), (1, program.queue.to_le_bytes().to_vec()));
}

#[test]
fn inline_data_and_requests_without_completion() {
    let machine = Machine::new(2);
    let (sender, receiver, handle) = pair(&machine, SRD);
    let (target, key, _) = receiver.driver.buffer(4096);
    receiver.receive(3, (64, key, target));
    let entry = Structure::new(64)
        .u16(0, 1)
        .u8(2, 1 << 7 | 1 << 5)
        .u8(3, 1 << 2 | 1 << 3)
        .u16(4, receiver.number)
        .u16(6, 32)
        .u16(12, handle)
        .u32(16, super::driver::QUEUE_KEY)
        .put(32, &pattern(32));
    sender.post(&entry.bytes());
    assert_eq!(sender.poll(), None, "it did not want to be told");
    assert_eq!(receiver.poll().unwrap().length, 32);
    assert_eq!(receiver.driver.bytes(target, 32), pattern(32));
}
