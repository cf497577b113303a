//! Drivers and clients that do wrong: hardware refuses, reports and goes on.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use devmem_lab_hardware::Hardware;
use proptest::prelude::*;

use crate::client::{Client, DMA_MAP, REGION_READ, SET_IRQS, words};
use crate::driver::{Body, Completion, Offload, PASSED, PLAIN, ReceiveSetup};
use crate::memory::{BASE, SIZE};
use crate::packets::{TCP_HEADERS, arp, pattern, tcp};
use crate::{Machine, two_nics};

const CHECKSUM: Offload = Offload { checksum: true, segmentation: None };

/// The entries of the log, one of which must contain each text.
fn expect_misuse(machine: &Machine, texts: &[&str]) {
    let misuse = machine.hardware.misuse();
    for text in texts {
        assert!(misuse.iter().any(|entry| entry.contains(text)), "no \"{text}\" in {misuse:#?}");
    }
}

#[test]
fn commands_that_are_refused() {
    let mut machine = Machine::pair();
    let a = &mut machine.drivers[0];
    assert_eq!(a.command(0x77, Body::default()), 0xffff_fffe, "unimplemented");
    assert_eq!(a.command(3, Body::default()), 0xffff_fffe, "there are no page lists");
    assert_eq!(a.command(7, Body::default()), 0xffff_fff8, "no such queue");
    assert_eq!(a.command(8, Body::default().u32(0, 99)), 0xffff_fff8, "no such queue");
    let outside = BASE + SIZE;
    let describe = Body::default().u64(0, outside).u32(8, 1).u32(12, 4096);
    assert_eq!(a.command(1, describe), 0xffff_fff7);
    let answer = a.memory.allocate(4096);
    assert_ne!(a.command(1, Body::default().u64(0, answer).u32(8, 1).u32(12, 60)), PASSED, "no room");
    assert_ne!(a.command(1, Body::default().u64(0, answer).u32(8, 2).u32(12, 4096)), PASSED, "version 2");
    assert_ne!(a.command(2, Body::default().u32(20, 8).u32(24, 64).put(32, &[1])), PASSED, "another format");
    assert_ne!(a.command(2, Body::default().u32(20, 9).u32(24, 64).put(32, &[3])), PASSED, "nine blocks");
    let mut queue = |create: Body| a.command(5, create);
    let good = || Body::default().u64(8, answer).u32(24, u32::MAX).u16(40, 64).u16(42, 64);
    assert_ne!(queue(good().u16(40, 96)), PASSED, "not a power of two");
    assert_ne!(queue(good().u16(42, 0)), PASSED, "no completion ring");
    assert_ne!(queue(good().u16(40, 8192)), PASSED, "too large a ring");
    assert_ne!(queue(good().u32(28, 8)), PASSED, "no such notification block");
    assert_ne!(queue(good().u32(24, 0)), PASSED, "a page list");
    assert_ne!(queue(good().u32(0, 4)), PASSED, "no such queue");
    assert_ne!(queue(good().u64(8, outside)), PASSED, "no memory for its doorbell");
    assert_eq!(queue(good()), PASSED);
    assert_eq!(queue(good()), 0xffff_fff1, "it exists already");
    let small = ReceiveSetup { buffer_size: 64, ..PLAIN };
    assert_ne!(a.try_create_receive_queue(0, &small).0, PASSED);
    expect_misuse(&machine, &["0x77", "ring of 96", "page list", "memory at bus address", "version 2"]);
}

#[test]
fn an_admin_queue_that_is_not_there() {
    let mut machine = Machine::pair();
    let a = &mut machine.drivers[0];
    a.write_register(32, &[0xff; 4]);
    a.write_register(20, &100u32.to_be_bytes());
    assert_eq!(a.read_register(24), 100, "more commands than slots");
    a.write_register(20, &101u32.to_be_bytes());
    assert_eq!(a.read_register(24), 101);
    a.write_register(40, &[0, 0]);
    a.write_register(20, &102u32.to_be_bytes());
    assert_eq!(a.read_register(24), 102);
    expect_misuse(&machine, &["admin queue of 64", "admin queue: no memory", "admin queue of 0"]);
}

#[test]
fn packets_that_cannot_be_sent_are_completed_all_the_same() {
    let mut machine = Machine::pair();
    let [a, b] = &mut machine.drivers[..] else { panic!() };
    let mut out = a.create_transmit_queue(0);
    let mut into = b.create_receive_queue(0, &PLAIN);
    b.post_all(&mut into);
    let packet = tcp(a.mac, b.mac, (1, 2), &pattern(2000));
    let segmented = |size, header| Offload { checksum: true, segmentation: Some((size, header)) };
    let mut tags = vec![
        a.send(&mut out, &[0; 16], CHECKSUM, 9000),
        a.send(&mut out, &vec![0; 9729], CHECKSUM, 9000),
        a.send(&mut out, &packet, segmented(80, TCP_HEADERS as u8), 9000),
        a.send(&mut out, &packet, segmented(1000, 20), 9000),
        a.send(&mut out, &arp(a.mac), segmented(1000, 14), 9000),
    ];
    // A type that there is not, and a piece that is nowhere, each before the end of a packet.
    out.put_descriptor(&[0x1f; 16]);
    tags.push(a.send(&mut out, &packet, CHECKSUM, 9000));
    let mut nowhere = [0; 16];
    (nowhere[8], nowhere[14]) = (0xc, 100);
    out.put_descriptor(&nowhere);
    tags.push(a.send(&mut out, &packet, CHECKSUM, 9000));
    tags.push(a.send(&mut out, &packet, CHECKSUM, 9000));
    let completed: Vec<u16> = out
        .poll()
        .into_iter()
        .filter_map(|completion| match completion {
            Completion::Packet(tag) => Some(tag),
            Completion::Descriptors(_) => None,
        })
        .collect();
    assert_eq!(completed, tags);
    assert_eq!(into.poll().len(), 1, "only the last one was right");
    assert_eq!(machine.counter(0, "/transmitted/errors"), 7);
    expect_misuse(
        &machine,
        &["of 16 bytes", "of 9729 bytes", "into 80 bytes", "behind 20 bytes", "type 0x1f"],
    );
}

#[test]
fn doorbells_that_lead_nowhere() {
    let mut machine = Machine::pair();
    let a = &mut machine.drivers[0];
    let out = a.create_transmit_queue(0);
    a.ring(out.doorbell, 64);
    a.ring(out.doorbell, u32::MAX);
    a.ring(1, 0);
    a.ring(5, 0);
    a.ring(500, 1);
    a.client.write(2, 2, &[0; 2]).unwrap();
    a.client.write(0, 8, &[0; 4]).unwrap();
    a.client.write(0, 0x100, &[0; 4]).unwrap();
    a.client.write(1, 0, &[0; 4]).unwrap();
    expect_misuse(
        &machine,
        &["no descriptor 64", "queue 1, which does not exist", "doorbell 500", "BAR 2", "0x8 of BAR 0"],
    );
}

#[test]
fn a_packet_that_never_fits_does_not_block_the_queue() {
    let mut machine = Machine::pair();
    let [a, b] = &mut machine.drivers[..] else { panic!() };
    let mut out = a.create_transmit_queue(0);
    let tiny = ReceiveSetup { buffer_size: 128, coalescing: true, ..PLAIN };
    let mut into = b.create_receive_queue(0, &tiny);
    b.post_all(&mut into);
    let large = Offload { checksum: true, segmentation: Some((1000, TCP_HEADERS as u8)) };
    a.send(&mut out, &tcp(a.mac, b.mac, (1, 2), &pattern(20_000)), large, 9000);
    a.send(&mut out, &arp(a.mac), CHECKSUM, 9000);
    assert_eq!(into.poll().len(), 1);
    assert_eq!(machine.counter(1, "/received/too_large"), 1);
}

#[test]
fn clients_that_misbehave_are_refused_or_dropped() {
    let machine = Machine::pair();
    drop(machine);
    let folder = tempfile::tempdir().unwrap();
    let hardware = Hardware::start(&two_nics(), folder.path()).unwrap();
    let socket = &hardware.functions()[0].socket;
    let mut client = Client::connect(socket);
    assert_eq!(client.call(15, b"unknown commands are skipped whole", &[]), Err(95));
    assert_eq!(client.call(DMA_MAP, &[0; 8], &[]), Err(22), "cut short");
    assert_eq!(client.map(u64::MAX, 4096, None, true), Err(22));
    assert_eq!(
        client.map(0, 4096, Some((0, 0)), true).map_err(|error| error > 0),
        Err(true),
        "nothing to map"
    );
    assert_eq!(client.read(0, 4095, 2), Err(22), "beyond the BAR");
    assert_eq!(client.read(3, 0, 4), Err(22), "no such BAR");
    assert_eq!(client.read(0, u64::MAX, 4), Err(22));
    assert_eq!(client.read(0, 0, u32::MAX), Err(22), "no such amount");
    assert_eq!(client.call(REGION_READ, &[], &[]), Err(22));
    assert_eq!(client.set_vector(99, None), Err(22));
    assert_eq!(client.call(SET_IRQS, &words(&[20, 0x24, 2, 0, u32::MAX]), &[]), Err(22));
    assert!(client.read(0, 0, 4).is_ok(), "and it still works");
    drop(client);

    // A message that claims an impossible size ends the connection, not the server.
    for header in [[0u8; 16], [0xff; 16]] {
        let mut stream = UnixStream::connect(socket).unwrap();
        stream.write_all(&header).unwrap();
        assert_eq!(stream.read(&mut [0; 16]).unwrap_or(0), 0);
    }
    // Half a message.
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.write_all(&[1; 7]).unwrap();
    drop(stream);
    assert!(Client::connect(socket).read(0, 0, 4).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is in the rings and the admin queue, the device answers the next register read.
    #[test]
    fn nothing_in_memory_breaks_the_device(
        descriptors in proptest::collection::vec(any::<[u8; 16]>(), 1..63),
        kinds in proptest::collection::vec(prop_oneof![Just(0x04u8), Just(0x05), Just(0x0c), Just(0x2c), any::<u8>()], 63),
        buffers in proptest::collection::vec(any::<[u8; 32]>(), 63),
        command in any::<[u8; 48]>(),
        opcode in 0u32..0x14,
        pattern in any::<[u8; 64]>(),
    ) {
        let mut machine = Machine::pair();
        let [a, b] = &mut machine.drivers[..] else { panic!() };
        let mut out = a.create_transmit_queue(0);
        let into = b.create_receive_queue(0, &PLAIN);
        for (index, buffer) in buffers.iter().enumerate() {
            b.memory.write(into.ring + index as u64 * 32, buffer);
        }
        b.ring(into.doorbell, 63);
        let packets = a.memory.allocate(4096);
        a.memory.write(packets, &tcp(a.mac, b.mac, (1, 2), &pattern));
        for (mut descriptor, kind) in descriptors.into_iter().zip(kinds) {
            descriptor[8] = kind;
            if kind & 0x1f == 0xc && descriptor[0] & 1 == 0 {
                descriptor[..8].copy_from_slice(&packets.to_le_bytes());
                descriptor[15] = 0;
            }
            out.put_descriptor(&descriptor);
        }
        a.ring(out.doorbell, out.tail.into());
        a.command(opcode, Body::default().put(0, &command));
        prop_assert!(a.read_register(8) == 4);
        b.command(opcode, Body::default().put(0, &command));
        b.ring(into.doorbell, u32::from(command[0]));
        prop_assert!(b.read_register(8) == 4);
    }
}
