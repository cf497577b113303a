//! Buffers, header split, waiting packets, queues that come and go, interrupts.

use devmem_lab_hardware::{HardwareConfig, NicConfig};

use crate::driver::{BUFFER, Offload, PLAIN, QUEUES, ReceiveSetup, SPLIT};
use crate::packets::{TCP_HEADERS, arp, pattern, tcp, udp};
use crate::{Machine, two_nics};

const CHECKSUM: Offload = Offload { checksum: true, segmentation: None };

#[test]
fn headers_are_split_off() {
    let mut machine = Machine::pair();
    let [a, b] = &mut machine.drivers[..] else { panic!() };
    let mut out = a.create_transmit_queue(0);
    let mut into = b.create_receive_queue(0, &SPLIT);
    b.post_all(&mut into);
    let payload = pattern(5000);
    let packet = tcp(a.mac, b.mac, (1, 2), &payload);
    for packet in
        [&packet, &tcp(a.mac, b.mac, (1, 2), b""), &udp(a.mac, b.mac, (1, 2), b"datagram"), &arp(a.mac)]
    {
        a.send(&mut out, packet, CHECKSUM, 9000);
    }
    let received = into.poll();
    let header = received[0].header.as_ref().unwrap();
    assert_eq!(header[..34], packet[..34]);
    assert_eq!(header.len(), TCP_HEADERS);
    assert_eq!((&received[0].data, &received[0].buffers[..]), (&payload, &[BUFFER, 5000 - BUFFER][..]));
    assert_eq!(
        received[1].buffers,
        [0],
        "an acknowledgement has headers only, and takes a buffer all the same"
    );
    assert_eq!(received[2].data, b"datagram");
    assert_eq!((received[3].header.as_ref(), &received[3].data), (None, &arp(a.mac)), "nothing to split");
}

#[test]
fn headers_too_long_for_their_buffer_stay_with_the_data() {
    let mut machine = Machine::pair();
    let [a, b] = &mut machine.drivers[..] else { panic!() };
    let mut out = a.create_transmit_queue(0);
    let mut into = b.create_receive_queue(0, &SPLIT);
    b.post_all(&mut into);
    let mut packet = tcp(a.mac, b.mac, (1, 2), &[5; 300]);
    packet[14] = 0x4f; // 40 bytes of IP options
    packet.splice(34..34, [1; 40]);
    let total = (packet.len() - 14) as u16;
    packet[16..18].copy_from_slice(&total.to_be_bytes());
    packet[34 + 40 + 12] = 0xf0; // 40 bytes of TCP options
    a.send(&mut out, &packet, Offload::default(), 9000);
    let received = into.poll();
    assert!(received[0].overflow && received[0].header.is_none());
    assert_eq!(received[0].data, packet);
}

#[test]
fn packets_wait_for_buffers() {
    let mut machine = Machine::pair();
    let [a, b] = &mut machine.drivers[..] else { panic!() };
    let mut out = a.create_transmit_queue(0);
    let mut into = b.create_receive_queue(0, &SPLIT);
    for number in 0..20u8 {
        a.send(&mut out, &tcp(a.mac, b.mac, (1, 2), &[number; 6000]), CHECKSUM, 9000);
    }
    assert!(into.poll().is_empty());
    b.post(&mut into, 5);
    let first: Vec<u8> = into.poll().iter().map(|packet| packet.data[0]).collect();
    assert_eq!(first, [0, 1], "two buffers each, and one is too few");
    b.post(&mut into, 37);
    let rest: Vec<u8> = into.poll().iter().map(|packet| packet.data[0]).collect();
    assert_eq!(rest, (2..20).chain([]).collect::<Vec<u8>>()[..rest.len()]);
    b.post(&mut into, 6);
    assert_eq!(rest.len() + into.poll().len(), 18, "none was lost");
    assert_eq!(machine.counter(1, "/received/backlog_drops"), 0);
    assert!(machine.counter(1, "/received/no_buffer") > 0);
}

#[test]
fn the_backlog_is_bounded() {
    let config = NicConfig { backlog_kib: 16, ..NicConfig::default() };
    let mut machine = Machine::new(&HardwareConfig { nics: vec![config; 2], ..HardwareConfig::default() });
    let [a, b] = &mut machine.drivers[..] else { panic!() };
    let mut out = a.create_transmit_queue(0);
    let _into = b.create_receive_queue(0, &PLAIN);
    for _ in 0..10 {
        a.send(&mut out, &udp(a.mac, b.mac, (1, 2), &[0; 4000]), CHECKSUM, 9000);
    }
    assert_eq!(machine.counter(1, "/receive_queues/0/waiting"), 3);
    assert_eq!(machine.counter(1, "/received/backlog_drops"), 7);
}

#[test]
fn a_queue_restarts_while_others_run() {
    let mut machine = Machine::pair();
    let [a, b] = &mut machine.drivers[..] else { panic!() };
    let mut out = a.create_transmit_queue(0);
    let mut zero = b.create_receive_queue(0, &PLAIN);
    let mut one = b.create_receive_queue(1, &PLAIN);
    b.post_all(&mut zero);
    b.post(&mut one, 10);
    b.destroy_receive_queue(1);
    a.send(&mut out, &arp(a.mac), CHECKSUM, 9000);
    assert_eq!(zero.poll().len(), 1);
    let small = ReceiveSetup { buffer_size: 2048, ..SPLIT };
    let mut again = b.create_receive_queue(1, &small);
    b.post_all(&mut again);
    assert!(one.poll().is_empty());
    a.send(&mut out, &arp(a.mac), CHECKSUM, 9000);
    assert_eq!(zero.poll().len(), 1);
    assert_eq!(machine.hardware.misuse(), [""; 0]);
}

#[test]
fn one_interrupt_for_a_batch_and_none_while_masked() {
    let mut machine = Machine::pair();
    let [a, b] = &mut machine.drivers[..] else { panic!() };
    let mut out = a.create_transmit_queue(0);
    let mut into = b.create_receive_queue(0, &PLAIN);
    let vector = QUEUES; // the first of the receive queues
    b.post_all(&mut into);
    b.enable_interrupt(vector);
    let packet = tcp(a.mac, b.mac, (1, 2), b"x");
    for _ in 0..5 {
        out.put(&packet, CHECKSUM, 9000);
    }
    a.ring(out.doorbell, out.tail.into());
    assert_eq!((b.interrupts(vector), into.poll().len()), (1, 5));
    a.send(&mut out, &packet, CHECKSUM, 9000);
    assert_eq!((b.interrupts(vector), into.poll().len()), (0, 1), "it masked itself");
    b.enable_interrupt(vector);
    assert_eq!(b.interrupts(vector), 1, "what happened meanwhile is not forgotten");
    a.enable_interrupt(0);
    assert_eq!(a.interrupts(0), 1, "packets were sent");
}

#[test]
fn what_happens_before_a_vector_is_connected_is_not_lost() {
    let mut machine = Machine::pair();
    let [a, b] = &mut machine.drivers[..] else { panic!() };
    let mut out = a.create_transmit_queue(0);
    let mut into = b.create_receive_queue(0, &PLAIN);
    b.post_all(&mut into);
    b.enable_interrupt(QUEUES);
    b.disconnect_vector(QUEUES);
    a.send(&mut out, &arp(a.mac), CHECKSUM, 9000);
    assert_eq!(b.interrupts(QUEUES), 0);
    b.connect_vector(QUEUES);
    assert_eq!(b.interrupts(QUEUES), 1);
}

#[test]
fn moderated_interrupts_come_late_but_come() {
    let mut machine = Machine::pair();
    let [a, b] = &mut machine.drivers[..] else { panic!() };
    let mut out = a.create_transmit_queue(0);
    let mut into = b.create_receive_queue(0, &PLAIN);
    b.post_all(&mut into);
    let packet = tcp(a.mac, b.mac, (1, 2), b"x");
    let doorbell = QUEUES * 2 + QUEUES;
    let eight_milliseconds = 4000 << 5;
    b.ring(doorbell, 1 | eight_milliseconds);
    a.send(&mut out, &packet, CHECKSUM, 9000);
    b.wait_for_interrupt(QUEUES);
    b.enable_interrupt(QUEUES);
    a.send(&mut out, &packet, CHECKSUM, 9000);
    b.wait_for_interrupt(QUEUES);
}

#[test]
fn a_reset_forgets_queues_and_starts_anew() {
    let mut machine = Machine::new(&two_nics());
    let [a, b] = &mut machine.drivers[..] else { panic!() };
    let mut out = a.create_transmit_queue(0);
    let mut into = b.create_receive_queue(0, &PLAIN);
    b.post_all(&mut into);
    b.start();
    let packet = tcp(a.mac, b.mac, (1, 2), b"x");
    a.send(&mut out, &packet, CHECKSUM, 9000);
    assert!(into.poll().is_empty());
    let mut into = b.create_receive_queue(0, &PLAIN);
    b.post_all(&mut into);
    a.send(&mut out, &packet, CHECKSUM, 9000);
    assert_eq!(into.poll().len(), 1);
    b.write_register(4, &1u32.to_be_bytes());
    assert_eq!(b.read_register(24), 0, "a driver that takes over counts its commands anew");
    assert_eq!(machine.counter(1, "/no_queue"), 1);
    assert_eq!(machine.counter(1, "/resets"), 2);
}
