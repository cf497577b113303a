//! What the device says of itself: the answer to DESCRIBE_DEVICE, and the packet types.

use crate::config::NicConfig;
use crate::ethernet::{MacAddress, Network, Transport};

/// Ring entries that the driver begins with, within what the configuration allows.
const DEFAULT_TRANSMIT_RING: u16 = 512;
const DEFAULT_RECEIVE_RING: u16 = 1024;

/// Bytes that the driver begins with as MTU.
const DEFAULT_MTU: u16 = 1500;

/// Bytes of a receive buffer at most: a page, so that a full buffer is a full page.
pub(super) const PACKET_BUFFER_SIZE: u16 = 4096;

/// Bytes of a hash key.
pub(super) const HASH_KEY_SIZE: usize = 40;

/// Entries of the table that receive queues are chosen from.
pub(super) const INDIRECTION_TABLE_SIZE: usize = 128;

/// Version of the descriptor that drivers ask for.
pub(super) const DESCRIPTOR_VERSION: u32 = 1;

const OPTION_DQO_RDA: u16 = 0x4;
const OPTION_MODIFY_RING: u16 = 0x6;
const OPTION_JUMBO_FRAMES: u16 = 0x8;
const OPTION_BUFFER_SIZES: u16 = 0xa;
const OPTION_FLOW_STEERING: u16 = 0xb;
const OPTION_RSS: u16 = 0xe;

const FEATURE_MODIFY_RING: u32 = 1 << 0;
const FEATURE_JUMBO_FRAMES: u32 = 1 << 2;
const FEATURE_BUFFER_SIZES: u32 = 1 << 4;
const FEATURE_FLOW_STEERING: u32 = 1 << 5;
const FEATURE_RSS: u32 = 1 << 7;

/// The device descriptor: 40 bytes and the options that follow them, all big-endian.
pub(super) fn device_descriptor(config: &NicConfig, mac: MacAddress) -> Vec<u8> {
    let options = options(config);
    let ring = |size: u16| size.clamp(config.minimum_ring_size, config.maximum_ring_size);
    let options_length: usize = options.iter().map(Vec::len).sum();
    let mut bytes = Vec::new();
    bytes.extend(0u64.to_be_bytes()); // registered pages: only of page list formats
    for field in [
        0,
        ring(DEFAULT_TRANSMIT_RING),
        ring(DEFAULT_RECEIVE_RING),
        config.queue_pairs,
        DEFAULT_MTU.min(config.mtu),
        config.queue_pairs * 2, // event counters, which the DQO formats do not use
        0,                      // pages per list for transmission
        0,                      // and for reception: there are no page lists
    ] {
        bytes.extend(field.to_be_bytes());
    }
    bytes.extend(mac);
    bytes.extend((options.len() as u16).to_be_bytes());
    bytes.extend(((40 + options_length) as u16).to_be_bytes());
    bytes.extend([0; 6]);
    bytes.extend(options.into_iter().flatten());
    bytes
}

fn options(config: &NicConfig) -> Vec<Vec<u8>> {
    let header_buffer = if config.header_split { config.header_buffer_size } else { 0 };
    let mut features = FEATURE_MODIFY_RING | FEATURE_JUMBO_FRAMES | FEATURE_BUFFER_SIZES;
    let mut others = vec![
        option(
            OPTION_MODIFY_RING,
            FEATURE_MODIFY_RING,
            &[
                config.maximum_ring_size, // receive
                config.maximum_ring_size, // transmit
                config.minimum_ring_size, // receive
                config.minimum_ring_size, // transmit
            ],
        ),
        option(OPTION_JUMBO_FRAMES, FEATURE_JUMBO_FRAMES, &[config.mtu, 0]),
        option(OPTION_BUFFER_SIZES, FEATURE_BUFFER_SIZES, &[PACKET_BUFFER_SIZE, header_buffer]),
    ];
    if config.flow_rules > 0 {
        features |= FEATURE_FLOW_STEERING;
        let [high, low] = [(config.flow_rules >> 16) as u16, config.flow_rules as u16];
        others.push(option(OPTION_FLOW_STEERING, FEATURE_FLOW_STEERING, &[0, 0, high, low]));
    }
    if config.rss {
        features |= FEATURE_RSS;
        let sizes = [HASH_KEY_SIZE as u16, INDIRECTION_TABLE_SIZE as u16];
        others.push(option(OPTION_RSS, FEATURE_RSS, &sizes));
    }
    // The driver believes only the features of the option for the format it chose.
    let mut all = vec![option(OPTION_DQO_RDA, features, &[0, 0])];
    all.append(&mut others);
    all
}

/// An option: its id, the length of what follows its header, the features it requires (none), the
/// features it supports and its fields.
fn option(id: u16, features: u32, fields: &[u16]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(id.to_be_bytes());
    bytes.extend(((4 + fields.len() * 2) as u16).to_be_bytes());
    bytes.extend(0u32.to_be_bytes());
    bytes.extend(features.to_be_bytes());
    fields.iter().for_each(|field| bytes.extend(field.to_be_bytes()));
    bytes
}

/// Entries of the packet type map.
const PACKET_TYPES: usize = 1024;

/// The answer to GET_PTYPE_MAP: for each packet type the kind of its network and transport protocol.
pub(super) fn packet_type_map() -> Vec<u8> {
    let mut map = vec![0; PACKET_TYPES * 2];
    for network in [Network::Other, Network::Ipv4, Network::Ipv6] {
        for transport in [Transport::Other, Transport::Tcp, Transport::Udp, Transport::Icmp] {
            let index = usize::from(packet_type(network, transport)) * 2;
            map[index] = network_code(network);
            map[index + 1] = transport_code(transport);
        }
    }
    map
}

/// The packet type of a completion.
pub(super) fn packet_type(network: Network, transport: Transport) -> u16 {
    u16::from(network_code(network)) << 3 | u16::from(transport_code(transport))
}

fn network_code(network: Network) -> u8 {
    match network {
        Network::Other => 0,
        Network::Ipv4 => 2,
        Network::Ipv6 => 3,
    }
}

fn transport_code(transport: Transport) -> u8 {
    match transport {
        Transport::Other => 0,
        Transport::Tcp => 2,
        Transport::Udp => 3,
        Transport::Icmp => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Option id, length and supported features.
    fn parse_options(descriptor: &[u8]) -> Vec<(u16, u16, u32)> {
        let u16_at = |at: usize| u16::from_be_bytes(descriptor[at..at + 2].try_into().unwrap());
        let u32_at = |at: usize| u32::from_be_bytes(descriptor[at..at + 4].try_into().unwrap());
        assert_eq!(usize::from(u16_at(32)), descriptor.len());
        let (mut at, mut options) = (40, Vec::new());
        for _ in 0..u16_at(30) {
            assert_eq!(u32_at(at + 4), 0, "no feature is required");
            options.push((u16_at(at), u16_at(at + 2), u32_at(at + 8)));
            at += 8 + usize::from(u16_at(at + 2));
        }
        assert_eq!(at, descriptor.len());
        options
    }

    #[test]
    fn options_follow_the_configuration() {
        let all = parse_options(&device_descriptor(&NicConfig::default(), [2; 6]));
        assert_eq!(all, [(4, 8, 0xb5), (6, 12, 1), (8, 8, 4), (10, 8, 0x10), (11, 12, 0x20), (14, 8, 0x80)]);
        let config = NicConfig { rss: false, flow_rules: 0, ..NicConfig::default() };
        let few = parse_options(&device_descriptor(&config, [2; 6]));
        assert_eq!(few[0], (4, 8, 0x15));
        assert_eq!(few.len(), 4);
    }

    #[test]
    fn fields_are_where_the_driver_looks() {
        let config = NicConfig { mtu: 1400, maximum_ring_size: 256, ..NicConfig::default() };
        let descriptor = device_descriptor(&config, [2, 0, 0, 0, 0, 9]);
        assert_eq!(descriptor[8..24], [0, 0, 1, 0, 1, 0, 0, 4, 5, 0x78, 0, 8, 0, 0, 0, 0]);
        assert_eq!(descriptor[24..30], [2, 0, 0, 0, 0, 9]);
        assert_eq!(descriptor.len() - 40, 16 + 20 + 16 + 16 + 20 + 16);
    }

    #[test]
    fn packet_types_are_mapped() {
        let map = packet_type_map();
        assert_eq!(map.len(), 2048);
        let index = usize::from(packet_type(Network::Ipv6, Transport::Tcp)) * 2;
        assert_eq!(map[index..index + 2], [3, 2]);
        assert_eq!(map[..2], [0, 0]);
    }
}
