//! Where the headers of a packet are and what they say.

use std::ops::Range;

use super::{ETHERNET_HEADER, u16_at};

/// The protocol above Ethernet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    Other,
    Ipv4,
    Ipv6,
}

/// The protocol above IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// Another protocol, a fragment, or headers that are cut short.
    Other,
    Tcp,
    Udp,
    Icmp,
}

/// What a NIC finds out about a packet before it decides where to put it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Headers {
    pub(crate) network: Network,
    pub(crate) transport: Transport,
    /// Source address; IPv4 addresses are in the first four bytes.
    pub(crate) source: [u8; 16],
    /// Destination address, in the same form.
    pub(crate) destination: [u8; 16],
    /// Source port of TCP or UDP.
    pub(crate) source_port: u16,
    /// Destination port of TCP or UDP.
    pub(crate) destination_port: u16,
    /// Type of service (IPv4) or traffic class (IPv6).
    pub(crate) traffic_class: u8,
    /// Offset of the IP header.
    pub(crate) network_offset: usize,
    /// Offset of the TCP, UDP or ICMP header.
    pub(crate) transport_offset: usize,
    /// What TCP or UDP carry, without the padding of short frames. Empty for all else.
    pub(crate) payload: Range<usize>,
    /// An IPv6 packet with routing or destination options.
    pub(crate) ipv6_extension: bool,
}

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: [u16; 2] = [0x8100, 0x88a8];
const VLAN_TAG: usize = 4;
const MAXIMUM_VLAN_TAGS: usize = 2;

const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;
const PROTOCOL_ICMPV6: u8 = 58;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const DESTINATION_OPTIONS: u8 = 60;

/// Extension headers of one IPv6 packet that are followed; with more the transport counts as unknown.
const MAXIMUM_EXTENSION_HEADERS: usize = 8;

impl Headers {
    /// Reads the headers of a packet. `None` when it is too short for an Ethernet header.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Headers> {
        if bytes.len() < ETHERNET_HEADER {
            return None;
        }
        let mut headers = Headers {
            network: Network::Other,
            transport: Transport::Other,
            source: [0; 16],
            destination: [0; 16],
            source_port: 0,
            destination_port: 0,
            traffic_class: 0,
            network_offset: ETHERNET_HEADER,
            transport_offset: bytes.len(),
            payload: bytes.len()..bytes.len(),
            ipv6_extension: false,
        };
        let mut ethertype = u16_at(bytes, 12)?;
        for _ in 0..MAXIMUM_VLAN_TAGS {
            if !ETHERTYPE_VLAN.contains(&ethertype) {
                break;
            }
            let Some(inner) = u16_at(bytes, headers.network_offset + 2) else { return Some(headers) };
            ethertype = inner;
            headers.network_offset += VLAN_TAG;
        }
        // A packet whose headers are cut short is still a packet; what was understood so far stands.
        let _ = match ethertype {
            ETHERTYPE_IPV4 => headers.parse_ipv4(bytes),
            ETHERTYPE_IPV6 => headers.parse_ipv6(bytes),
            _ => None,
        };
        Some(headers)
    }

    fn parse_ipv4(&mut self, bytes: &[u8]) -> Option<()> {
        let start = self.network_offset;
        let header = bytes.get(start..start + 20)?;
        let header_length = usize::from(header[0] & 0xf) * 4;
        if header[0] >> 4 != 4 || header_length < 20 {
            return None;
        }
        self.network = Network::Ipv4;
        self.traffic_class = header[1];
        self.source[..4].copy_from_slice(&header[12..16]);
        self.destination[..4].copy_from_slice(&header[16..20]);
        let total = usize::from(u16_at(header, 2)?);
        let fragment = u16_at(header, 6)?;
        if fragment & 0x3fff != 0 {
            return None; // ports are only in the first fragment, payload only in the whole
        }
        self.parse_transport(bytes, header[9], start + header_length, start + total)
    }

    fn parse_ipv6(&mut self, bytes: &[u8]) -> Option<()> {
        let start = self.network_offset;
        let header = bytes.get(start..start + 40)?;
        if header[0] >> 4 != 6 {
            return None;
        }
        self.network = Network::Ipv6;
        self.traffic_class = header[0] << 4 | header[1] >> 4;
        self.source.copy_from_slice(&header[8..24]);
        self.destination.copy_from_slice(&header[24..40]);
        let end = start + 40 + usize::from(u16_at(header, 4)?);
        let (mut protocol, mut offset) = (header[6], start + 40);
        for _ in 0..MAXIMUM_EXTENSION_HEADERS {
            if ![HOP_BY_HOP, ROUTING, DESTINATION_OPTIONS].contains(&protocol) {
                return self.parse_transport(bytes, protocol, offset, end);
            }
            self.ipv6_extension |= protocol != HOP_BY_HOP;
            protocol = *bytes.get(offset)?;
            offset += (usize::from(*bytes.get(offset + 1)?) + 1) * 8;
        }
        None
    }

    fn parse_transport(&mut self, bytes: &[u8], protocol: u8, start: usize, end: usize) -> Option<()> {
        let end = end.min(bytes.len());
        let packet = bytes.get(..end)?;
        let header_length = match protocol {
            PROTOCOL_TCP => usize::from(*packet.get(start + 12)? >> 4) * 4,
            PROTOCOL_UDP => 8,
            PROTOCOL_ICMP | PROTOCOL_ICMPV6 => {
                self.transport = Transport::Icmp;
                self.transport_offset = start;
                return Some(());
            }
            _ => return None,
        };
        if protocol == PROTOCOL_TCP && header_length < 20 || start + header_length > end {
            return None;
        }
        self.transport = if protocol == PROTOCOL_TCP { Transport::Tcp } else { Transport::Udp };
        self.source_port = u16_at(packet, start)?;
        self.destination_port = u16_at(packet, start + 2)?;
        self.transport_offset = start;
        self.payload = start + header_length..end;
        Some(())
    }

    /// Whether the packet is one of TCP or UDP, with all its headers.
    pub(crate) fn has_ports(&self) -> bool {
        matches!(self.transport, Transport::Tcp | Transport::Udp)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::samples;
    use super::*;

    #[test]
    fn tcp_over_ipv4() {
        let headers = Headers::parse(&samples::tcp4(1000, 5201, b"payload")).unwrap();
        assert_eq!((headers.network, headers.transport), (Network::Ipv4, Transport::Tcp));
        assert_eq!((headers.source_port, headers.destination_port), (1000, 5201));
        assert_eq!(headers.source[..5], [10, 0, 0, 1, 0]);
        assert_eq!(headers.payload, 14 + 20 + 32..14 + 20 + 32 + 7);
    }

    #[test]
    fn padding_is_not_payload() {
        let mut bytes = samples::udp4(1, 2, b"x");
        let end = bytes.len();
        bytes.resize(60, 0xee);
        assert_eq!(Headers::parse(&bytes).unwrap().payload, end - 1..end);
    }

    #[test]
    fn a_vlan_tag_moves_everything() {
        let mut bytes = samples::tcp6(1, 2, b"abc");
        let plain = Headers::parse(&bytes).unwrap();
        bytes.splice(12..12, [0x81, 0, 0, 5]);
        let tagged = Headers::parse(&bytes).unwrap();
        assert_eq!(tagged.transport, Transport::Tcp);
        assert_eq!(tagged.payload, plain.payload.start + 4..plain.payload.end + 4);
    }

    #[test]
    fn extension_headers_are_followed() {
        let mut bytes = samples::tcp6(1, 2, b"abc");
        bytes[14 + 6] = DESTINATION_OPTIONS;
        bytes[14 + 5] += 8;
        bytes.splice(54..54, [PROTOCOL_TCP, 0, 1, 4, 0, 0, 0, 0]);
        let headers = Headers::parse(&bytes).unwrap();
        assert_eq!((headers.transport, headers.transport_offset), (Transport::Tcp, 62));
        assert!(headers.ipv6_extension);
    }

    #[test]
    fn a_fragment_has_no_transport() {
        let mut bytes = samples::udp4(1, 2, b"abc");
        bytes[14 + 6] = 0x20; // more fragments
        let headers = Headers::parse(&bytes).unwrap();
        assert_eq!((headers.network, headers.transport), (Network::Ipv4, Transport::Other));
        assert!(headers.payload.is_empty());
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_within_bounds(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            if let Some(headers) = Headers::parse(&bytes) {
                prop_assert!(headers.payload.start <= headers.payload.end);
                prop_assert!(headers.payload.end <= bytes.len());
            }
        }

        #[test]
        fn damaged_packets_are_parsed_within_bounds(
            at in 12usize..66, value in any::<u8>(), length in 14usize..80, six in any::<bool>(),
        ) {
            let mut bytes = if six { samples::tcp6(1, 2, b"payload") } else { samples::tcp4(1, 2, b"payload") };
            bytes[at] = value;
            bytes.truncate(length);
            let headers = Headers::parse(&bytes).unwrap();
            prop_assert!(headers.payload.start <= headers.payload.end && headers.payload.end <= bytes.len());
        }
    }
}
