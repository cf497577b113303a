//! What a NIC makes of what its driver sends.

use crate::Machine;
use crate::driver::{Completion, Offload, PLAIN, SPLIT};
use crate::packets::{TCP_HEADERS, check_tcp, pattern, tcp};

const CHECKSUM: Offload = Offload { checksum: true, segmentation: None };
const SEGMENTS_OF_1000: Offload = Offload { checksum: true, segmentation: Some((1000, TCP_HEADERS as u8)) };

#[test]
fn packets_arrive_whole_however_many_pieces() {
    let mut machine = Machine::pair();
    let [a, b] = &mut machine.drivers[..] else { panic!() };
    let mut out = a.create_transmit_queue(0);
    let mut into = b.create_receive_queue(0, &PLAIN);
    b.post_all(&mut into);
    // Long enough for both rings to go round several times.
    for round in 0..200usize {
        let packet = tcp(a.mac, b.mac, (1, 2), &pattern(round * 20));
        let tag = a.send(&mut out, &packet, CHECKSUM, 700);
        let completions = out.poll();
        assert_eq!(
            completions,
            [Completion::Descriptors(out.tail), Completion::Packet(tag)],
            "round {round}"
        );
        let received = into.poll();
        assert_eq!(received.len(), 1);
        assert_eq!(check_tcp(&received[0].bytes()), (1000, pattern(round * 20)));
        assert!(received[0].checksum_good);
        b.post(&mut into, received[0].buffers.len() as u16);
    }
    assert_eq!(machine.hardware.misuse(), [""; 0]);
}

#[test]
fn a_checksum_that_the_sender_got_wrong_is_told() {
    let mut machine = Machine::pair();
    let [a, b] = &mut machine.drivers[..] else { panic!() };
    let mut out = a.create_transmit_queue(0);
    let mut into = b.create_receive_queue(0, &PLAIN);
    b.post_all(&mut into);
    let packet = tcp(a.mac, b.mac, (1, 2), b"no checksum");
    a.send(&mut out, &packet, Offload::default(), 4096);
    let received = into.poll();
    assert_eq!(received[0].data, packet, "delivered as it was");
    assert!(!received[0].checksum_good);
}

#[test]
fn large_packets_are_segmented_for_who_does_not_coalesce() {
    let mut machine = Machine::pair();
    let [a, b] = &mut machine.drivers[..] else { panic!() };
    let mut out = a.create_transmit_queue(0);
    let mut into = b.create_receive_queue(0, &PLAIN);
    b.post_all(&mut into);
    let payload = pattern(10_500);
    a.send(&mut out, &tcp(a.mac, b.mac, (1, 2), &payload), SEGMENTS_OF_1000, 4096);
    let segments: Vec<_> = into.poll().iter().map(|packet| check_tcp(&packet.bytes())).collect();
    assert_eq!(segments.len(), 11);
    for (index, (sequence, _)) in segments.iter().enumerate() {
        assert_eq!(*sequence, 1000 + index as u32 * 1000);
    }
    let together: Vec<u8> = segments.into_iter().flat_map(|(_, payload)| payload).collect();
    assert_eq!(together, payload);
}

#[test]
fn large_packets_pass_whole_to_who_coalesces() {
    let mut machine = Machine::pair();
    let [a, b] = &mut machine.drivers[..] else { panic!() };
    let mut out = a.create_transmit_queue(0);
    let mut into = b.create_receive_queue(0, &SPLIT);
    b.post_all(&mut into);
    let payload = pattern(60_000);
    a.send(&mut out, &tcp(a.mac, b.mac, (1, 2), &payload), SEGMENTS_OF_1000, 16_000);
    let received = into.poll();
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].segment_size, Some(1000));
    assert_eq!(received[0].data, payload);
    let mut buffers = vec![4096; 14];
    buffers.push(60_000 - 14 * 4096);
    assert_eq!(received[0].buffers, buffers, "every buffer but the last is full");
    assert_eq!(machine.counter(1, "/received/coalesced"), 1);
}

#[test]
fn a_doorbell_in_the_middle_of_a_packet() {
    let mut machine = Machine::pair();
    let [a, b] = &mut machine.drivers[..] else { panic!() };
    let mut out = a.create_transmit_queue(0);
    let mut into = b.create_receive_queue(0, &PLAIN);
    b.post_all(&mut into);
    let packet = tcp(a.mac, b.mac, (1, 2), &pattern(500));
    out.put(&packet, CHECKSUM, 200);
    a.ring(out.doorbell, 2);
    assert!(into.poll().is_empty() && out.poll().is_empty());
    a.ring(out.doorbell, out.tail.into());
    assert_eq!(check_tcp(&into.poll()[0].bytes()).1, pattern(500));
}
