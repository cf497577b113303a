//! Packets on the wire: what their headers say, their checksums, and how large ones are segmented.

mod checksum;
mod headers;
mod offload;

pub(crate) use headers::{Headers, Network, Transport};
pub(crate) use offload::segments;

use std::sync::Arc;

/// An Ethernet address.
pub type MacAddress = [u8; 6];

/// Bytes of an Ethernet header without tags.
pub(crate) const ETHERNET_HEADER: usize = 14;

/// A packet between two ports of the switch.
///
/// It may be larger than the wire allows: then `segment_size` says into what payloads it is to be cut
/// where large packets are not taken (see [`segments`]).
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) bytes: Vec<u8>,
    pub(crate) headers: Headers,
    /// Payload bytes of each segment; `None` when the packet is one segment.
    pub(crate) segment_size: Option<usize>,
    /// Whether the checksum of TCP or UDP was found or made right; false for all other packets.
    pub(crate) checksum_good: bool,
}

/// What the sender of a packet leaves to its NIC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Offload {
    /// Compute the checksum of TCP or UDP.
    pub(crate) checksum: bool,
    /// Cut the payload into pieces of this many bytes.
    pub(crate) segment_size: Option<usize>,
}

impl Frame {
    /// A frame of these bytes, whose checksum is computed or else checked. `None` when they are too
    /// short for an Ethernet header.
    pub(crate) fn new(mut bytes: Vec<u8>, offload: &Offload) -> Option<Arc<Frame>> {
        let headers = Headers::parse(&bytes)?;
        let checksum_good = if offload.checksum {
            offload::fill_transport_checksum(&mut bytes, &headers);
            headers.has_ports()
        } else {
            offload::transport_checksum_is_right(&bytes, &headers)
        };
        let larger = |size: &usize| headers.has_ports() && headers.payload.len() > *size;
        let segment_size = offload.segment_size.filter(larger);
        Some(Arc::new(Frame { bytes, headers, segment_size, checksum_good }))
    }

    pub(crate) fn destination(&self) -> MacAddress {
        mac_at(&self.bytes, 0)
    }

    pub(crate) fn source(&self) -> MacAddress {
        mac_at(&self.bytes, 6)
    }

    /// The bytes that TCP or UDP carry.
    pub(crate) fn payload(&self) -> &[u8] {
        self.bytes.get(self.headers.payload.clone()).unwrap_or_default()
    }
}

fn mac_at(bytes: &[u8], offset: usize) -> MacAddress {
    bytes.get(offset..offset + 6).and_then(|bytes| bytes.try_into().ok()).unwrap_or_default()
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(offset..offset + 2)?.try_into().ok()?))
}

/// Builders of packets for tests.
#[cfg(test)]
pub(crate) mod samples {
    use super::*;

    /// A TCP packet with right checksums and `payload`, from port `source` to port `destination`.
    pub(crate) fn tcp4(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
        let total = (20 + 32 + payload.len()) as u16;
        bytes.extend([
            0x45,
            0,
            total.to_be_bytes()[0],
            total.to_be_bytes()[1],
            0x12,
            0x34,
            0x40,
            0,
            64,
            6,
            0,
            0,
        ]);
        bytes.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        bytes.extend(tcp_header(source, destination));
        bytes.extend(payload);
        finish(bytes)
    }

    /// As [`tcp4`], over IPv6.
    pub(crate) fn tcp6(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x86, 0xdd];
        let length = (32 + payload.len()) as u16;
        bytes.extend([0x60, 0, 0, 0, length.to_be_bytes()[0], length.to_be_bytes()[1], 6, 64]);
        bytes.extend([0xfd; 16]);
        bytes.extend([0xfe; 16]);
        bytes.extend(tcp_header(source, destination));
        bytes.extend(payload);
        finish(bytes)
    }

    /// A UDP packet over IPv4.
    pub(crate) fn udp4(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
        let total = (20 + 8 + payload.len()) as u16;
        bytes.extend([0x45, 0, total.to_be_bytes()[0], total.to_be_bytes()[1], 0, 9, 0x40, 0, 64, 17, 0, 0]);
        bytes.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        bytes.extend(source.to_be_bytes());
        bytes.extend(destination.to_be_bytes());
        bytes.extend((8 + payload.len() as u16).to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(payload);
        finish(bytes)
    }

    /// An ARP request of the station `02:00:00:00:00:01`, to all.
    pub(crate) fn arp() -> Vec<u8> {
        let mut bytes = vec![0xff; 6];
        bytes.extend([2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        bytes.resize(60, 0);
        bytes
    }

    fn tcp_header(source: u16, destination: u16) -> Vec<u8> {
        let mut header = Vec::new();
        header.extend(source.to_be_bytes());
        header.extend(destination.to_be_bytes());
        header.extend(0xffff_f000_u32.to_be_bytes()); // the sequence number wraps soon
        header.extend([0, 0, 0, 7, 0x80, 0x99, 1, 0, 0, 0, 0, 0]); // CWR, ACK, PSH and FIN
        header.extend([1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8]); // timestamps
        header
    }

    fn finish(mut bytes: Vec<u8>) -> Vec<u8> {
        let headers = Headers::parse(&bytes).unwrap();
        if headers.network == Network::Ipv4 {
            offload::fill_ipv4_checksum(&mut bytes, &headers);
        }
        offload::fill_transport_checksum(&mut bytes, &headers);
        bytes
    }
}
