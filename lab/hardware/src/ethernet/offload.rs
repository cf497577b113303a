//! Checksum offload and segmentation, as a NIC does them.

use std::sync::Arc;

use super::{Frame, Headers, Network, Transport, checksum};

const TCP_SEQUENCE: usize = 4;
const TCP_FLAGS: usize = 13;
const TCP_CHECKSUM: usize = 16;
const TCP_FIN: u8 = 0x01;
const TCP_PSH: u8 = 0x08;
const TCP_CWR: u8 = 0x80;
const UDP_LENGTH: usize = 4;
const UDP_CHECKSUM: usize = 6;
const IPV4_TOTAL_LENGTH: usize = 2;
const IPV4_IDENTIFICATION: usize = 4;
const IPV4_CHECKSUM: usize = 10;
const IPV6_PAYLOAD_LENGTH: usize = 4;
const IPV6_HEADER: usize = 40;

/// Computes the checksum of TCP or UDP and puts it in its place; other packets stay as they are.
pub(super) fn fill_transport_checksum(bytes: &mut [u8], headers: &Headers) {
    let field = match headers.transport {
        Transport::Tcp => TCP_CHECKSUM,
        Transport::Udp => UDP_CHECKSUM,
        Transport::Other | Transport::Icmp => return,
    };
    put_u16(bytes, headers.transport_offset + field, 0);
    let mut value = checksum::finish(transport_sum(bytes, headers));
    if value == 0 && headers.transport == Transport::Udp {
        value = 0xffff; // RFC 768: zero means that there is none
    }
    put_u16(bytes, headers.transport_offset + field, value);
}

/// Whether the checksum of TCP or UDP is right; false for other packets.
pub(super) fn transport_checksum_is_right(bytes: &[u8], headers: &Headers) -> bool {
    let absent = headers.transport == Transport::Udp
        && headers.network == Network::Ipv4
        && super::u16_at(bytes, headers.transport_offset + UDP_CHECKSUM) == Some(0);
    headers.has_ports() && (absent || checksum::finish(transport_sum(bytes, headers)) == 0)
}

/// The sum over the pseudo header (RFC 9293, RFC 8200), the header of TCP or UDP and the payload.
fn transport_sum(bytes: &[u8], headers: &Headers) -> u64 {
    let segment = bytes.get(headers.transport_offset..headers.payload.end).unwrap_or_default();
    let address_length = if headers.network == Network::Ipv4 { 4 } else { 16 };
    let protocol = if headers.transport == Transport::Tcp { 6 } else { 17 };
    let mut sum = checksum::add(0, &headers.source[..address_length]);
    sum = checksum::add(sum, &headers.destination[..address_length]);
    sum = checksum::add(sum, &(segment.len() as u32).to_be_bytes());
    checksum::add(checksum::add(sum, &[0, protocol]), segment)
}

/// Computes the checksum of an IPv4 header and puts it in its place.
pub(super) fn fill_ipv4_checksum(bytes: &mut [u8], headers: &Headers) {
    let start = headers.network_offset;
    put_u16(bytes, start + IPV4_CHECKSUM, 0);
    // The header ends where the transport begins: packets with unknown transport do not come here.
    let Some(header) = bytes.get(start..headers.transport_offset) else { return };
    let value = checksum::finish(checksum::add(0, header));
    put_u16(bytes, start + IPV4_CHECKSUM, value);
}

/// The segments of a packet: payloads of at most `segment_size` bytes, each behind the packet's
/// headers with lengths, identification, sequence number, flags and checksums made right.
///
/// A packet that is one segment, or neither TCP nor UDP, comes back as it is.
pub(crate) fn segments(frame: &Arc<Frame>) -> Vec<Arc<Frame>> {
    let headers = &frame.headers;
    let size = match frame.segment_size {
        Some(size) if size > 0 && headers.has_ports() && headers.payload.len() > size => size,
        _ => return vec![Arc::clone(frame)],
    };
    let header = &frame.bytes[..headers.payload.start];
    let count = headers.payload.len().div_ceil(size);
    let mut segments = Vec::with_capacity(count);
    for (index, payload) in frame.payload().chunks(size).enumerate() {
        let mut bytes = Vec::with_capacity(header.len() + payload.len());
        bytes.extend_from_slice(header);
        bytes.extend_from_slice(payload);
        let mut headers = headers.clone();
        headers.payload.end = bytes.len();
        let position = Position { index, offset: index * size, last: index + 1 == count };
        set_lengths(&mut bytes, &headers, &position);
        let checksum_good = true; // filled just now
        segments.push(Arc::new(Frame { bytes, headers, segment_size: None, checksum_good }));
    }
    segments
}

/// Which segment of a packet.
struct Position {
    index: usize,
    /// Bytes of payload before it.
    offset: usize,
    last: bool,
}

fn set_lengths(bytes: &mut [u8], headers: &Headers, position: &Position) {
    let network = headers.network_offset;
    let transport = headers.transport_offset;
    let end = headers.payload.end;
    match headers.network {
        Network::Ipv4 => {
            put_u16(bytes, network + IPV4_TOTAL_LENGTH, (end - network) as u16);
            add_u16(bytes, network + IPV4_IDENTIFICATION, position.index as u16);
            fill_ipv4_checksum(bytes, headers);
        }
        Network::Ipv6 => put_u16(bytes, network + IPV6_PAYLOAD_LENGTH, (end - network - IPV6_HEADER) as u16),
        Network::Other => {}
    }
    if headers.transport == Transport::Udp {
        put_u16(bytes, transport + UDP_LENGTH, (end - transport) as u16);
    } else if let Some(field) = bytes.get_mut(transport + TCP_SEQUENCE..transport + TCP_FLAGS + 1) {
        let sequence = u32::from_be_bytes([field[0], field[1], field[2], field[3]]);
        field[..4].copy_from_slice(&sequence.wrapping_add(position.offset as u32).to_be_bytes());
        let flags = &mut field[TCP_FLAGS - TCP_SEQUENCE];
        if !position.last {
            *flags &= !(TCP_FIN | TCP_PSH);
        }
        if position.index > 0 {
            *flags &= !TCP_CWR;
        }
    }
    fill_transport_checksum(bytes, headers);
}

fn put_u16(bytes: &mut [u8], offset: usize, value: u16) {
    if let Some(field) = bytes.get_mut(offset..offset + 2) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

fn add_u16(bytes: &mut [u8], offset: usize, value: u16) {
    let old = super::u16_at(bytes, offset).unwrap_or(0);
    put_u16(bytes, offset, old.wrapping_add(value));
}

#[cfg(test)]
mod tests {
    use super::super::{Offload, samples};
    use super::*;

    /// Whether the checksums of a packet are right.
    fn checksums_are_right(frame: &Frame) -> bool {
        let header = &frame.bytes[frame.headers.network_offset..frame.headers.transport_offset];
        let ip = frame.headers.network != Network::Ipv4 || checksum::finish(checksum::add(0, header)) == 0;
        ip && transport_checksum_is_right(&frame.bytes, &frame.headers)
    }

    fn check_segments(bytes: Vec<u8>, size: usize) -> Vec<Arc<Frame>> {
        let whole = Frame::new(bytes, &cut(size)).unwrap();
        assert!(checksums_are_right(&whole));
        let parts = segments(&whole);
        let payload: Vec<u8> = parts.iter().flat_map(|part| part.payload().to_vec()).collect();
        assert_eq!(payload, whole.payload());
        for part in &parts {
            assert_eq!(Headers::parse(&part.bytes).as_ref(), Some(&part.headers), "as if received");
            assert!(checksums_are_right(part));
        }
        parts
    }

    fn cut(size: usize) -> Offload {
        Offload { checksum: true, segment_size: Some(size) }
    }

    #[test]
    fn tcp_segments_are_packets_of_their_own() {
        let payload: Vec<u8> = (0..10_000).map(|index| (index % 251) as u8).collect();
        let parts = check_segments(samples::tcp4(1, 2, &payload), 1448);
        assert_eq!(parts.len(), 7);
        let sequence = |part: &Frame| u32::from_be_bytes(part.bytes[38..42].try_into().unwrap());
        let flags = |part: &Frame| part.bytes[34 + TCP_FLAGS];
        assert_eq!(sequence(&parts[3]), 0xffff_f000_u32.wrapping_add(3 * 1448), "wraps");
        assert_eq!(flags(&parts[0]), 0x90, "CWR on the first");
        assert_eq!(flags(&parts[3]), 0x10);
        assert_eq!(flags(&parts[6]), 0x19, "FIN and PSH on the last");
        assert_eq!(parts[6].bytes[18..20], 0x123a_u16.to_be_bytes(), "identification counts");
    }

    #[test]
    fn ipv6_and_udp_segments() {
        assert_eq!(check_segments(samples::tcp6(1, 2, &[7; 3000]), 1000).len(), 3);
        let parts = check_segments(samples::udp4(1, 2, &[7; 2500]), 1000);
        assert_eq!(parts.len(), 3);
        assert_eq!(parts[2].bytes[38..40], 508_u16.to_be_bytes(), "UDP length");
    }

    #[test]
    fn what_fits_stays_whole() {
        let frame = Frame::new(samples::tcp4(1, 2, &[1; 100]), &cut(100)).unwrap();
        assert!(Arc::ptr_eq(&segments(&frame)[0], &frame));
        let frame = Frame::new(samples::arp(), &cut(10)).unwrap();
        assert_eq!(segments(&frame).len(), 1);
    }

    #[test]
    fn a_wrong_checksum_is_replaced() {
        let mut bytes = samples::udp4(9, 10, b"checksum");
        let right = bytes.clone();
        bytes[34 + UDP_CHECKSUM] ^= 0xff;
        assert!(!Frame::new(bytes.clone(), &Offload::default()).unwrap().checksum_good);
        let offloaded = Frame::new(bytes, &Offload { checksum: true, segment_size: None }).unwrap();
        assert!(offloaded.checksum_good);
        assert_eq!(offloaded.bytes, right);
    }
}
