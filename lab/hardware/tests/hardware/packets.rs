//! Packets for the tests, and checksums by the definition of RFC 1071.

pub(crate) const TCP_HEADERS: usize = 14 + 20 + 20;

/// A TCP packet over IPv4 with sequence number 1000 and no checksum in its TCP header.
pub(crate) fn tcp(from: [u8; 6], to: [u8; 6], ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    tcp_at(0, from, to, ports, payload)
}

/// The same with the bytes at `position` of the stream.
pub(crate) fn tcp_at(
    position: u32,
    from: [u8; 6],
    to: [u8; 6],
    ports: (u16, u16),
    payload: &[u8],
) -> Vec<u8> {
    let mut packet = ethernet(from, to, [8, 0]);
    packet.extend(ipv4(6, 20 + payload.len()));
    packet.extend(ports.0.to_be_bytes());
    packet.extend(ports.1.to_be_bytes());
    packet.extend((1000 + position).to_be_bytes());
    packet.extend([0, 0, 0, 0, 0x50, 0x18, 1, 0, 0, 0, 0, 0]);
    packet.extend(payload);
    packet
}

/// A UDP packet over IPv4 with no checksum in its header.
pub(crate) fn udp(from: [u8; 6], to: [u8; 6], ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let mut packet = ethernet(from, to, [8, 0]);
    packet.extend(ipv4(17, 8 + payload.len()));
    packet.extend(ports.0.to_be_bytes());
    packet.extend(ports.1.to_be_bytes());
    packet.extend((8 + payload.len() as u16).to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(payload);
    packet
}

/// An ARP request to all.
pub(crate) fn arp(from: [u8; 6]) -> Vec<u8> {
    let mut packet = ethernet(from, [0xff; 6], [8, 6]);
    packet.resize(60, 7);
    packet
}

/// `count` bytes that do not repeat soon.
pub(crate) fn pattern(count: usize) -> Vec<u8> {
    (0..count).map(|index| (index * 7 + index / 251) as u8).collect()
}

fn ethernet(from: [u8; 6], to: [u8; 6], ethertype: [u8; 2]) -> Vec<u8> {
    [&to[..], &from, &ethertype].concat()
}

fn ipv4(protocol: u8, length: usize) -> Vec<u8> {
    let total = (20 + length) as u16;
    let mut header = vec![0x45, 0];
    header.extend(total.to_be_bytes());
    header.extend([0, 77, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header
}

fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0u64;
    for pair in bytes.chunks(2) {
        sum += u64::from(pair[0]) << 8 | pair.get(1).map_or(0, |byte| u64::from(*byte));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Checks lengths and checksums of a TCP packet over IPv4; its sequence number and its payload.
pub(crate) fn check_tcp(packet: &[u8]) -> (u32, Vec<u8>) {
    let total = usize::from(u16::from_be_bytes([packet[16], packet[17]]));
    assert_eq!(total, packet.len() - 14, "IP length");
    assert_eq!(checksum(&packet[14..34]), 0, "IP checksum");
    let segment = &packet[34..];
    let mut pseudo = packet[26..34].to_vec();
    pseudo.extend([0, 6]);
    pseudo.extend((segment.len() as u16).to_be_bytes());
    pseudo.extend(segment);
    assert_eq!(checksum(&pseudo), 0, "TCP checksum");
    (u32::from_be_bytes(segment[4..8].try_into().unwrap()), segment[20..].to_vec())
}
