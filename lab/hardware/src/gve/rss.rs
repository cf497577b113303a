//! Receive side scaling: a hash of the packet's addresses and ports chooses its queue.

use super::command::Status;
use super::description::{HASH_KEY_SIZE, INDIRECTION_TABLE_SIZE};
use crate::ethernet::{Headers, Network, Transport};

const HASH_IPV4: u16 = 1 << 0;
const HASH_TCP4: u16 = 1 << 1;
const HASH_IPV6: u16 = 1 << 2;
const HASH_TCP6: u16 = 1 << 4;
const HASH_UDP4: u16 = 1 << 6;
const HASH_UDP6: u16 = 1 << 7;

/// The Toeplitz hash by its number in ETH_RSS_HASH_TOP.
pub(super) const ALGORITHM_TOEPLITZ: u8 = 1;

/// The key that Microsoft published with its verification vectors; devices begin with it.
const DEFAULT_KEY: [u8; HASH_KEY_SIZE] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0,
    0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42,
    0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

/// The hash configuration of a NIC.
pub(super) struct Rss {
    pub(super) hash_types: u16,
    pub(super) key: [u8; HASH_KEY_SIZE],
    table: [u16; INDIRECTION_TABLE_SIZE],
}

impl Rss {
    /// The configuration after a reset: TCP and UDP, spread over all queues.
    pub(super) fn new(queues: u16) -> Rss {
        let table = std::array::from_fn(|index| (index % usize::from(queues.max(1))) as u16);
        Rss { hash_types: HASH_TCP4 | HASH_UDP4 | HASH_TCP6 | HASH_UDP6, key: DEFAULT_KEY, table }
    }

    /// The table as drivers read it.
    pub(super) fn encode_table(&self) -> Vec<u8> {
        self.table.iter().flat_map(|queue| u32::from(*queue).to_be_bytes()).collect()
    }

    /// Replaces the table.
    ///
    /// # Errors
    /// The status to complete the command with, when an entry names no queue.
    pub(super) fn set_table(&mut self, bytes: &[u8], queues: u16) -> Result<(), Status> {
        let mut table = [0; INDIRECTION_TABLE_SIZE];
        for (entry, bytes) in table.iter_mut().zip(bytes.chunks_exact(4)) {
            let queue = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            *entry = u16::try_from(queue).ok().filter(|queue| *queue < queues).ok_or(Status::OutOfRange)?;
        }
        self.table = table;
        Ok(())
    }

    /// The hash of a packet; 0 for packets that are not hashed.
    pub(super) fn hash(&self, headers: &Headers) -> u32 {
        let (length, addresses, tcp, udp) = match headers.network {
            Network::Ipv4 => (4, HASH_IPV4, HASH_TCP4, HASH_UDP4),
            Network::Ipv6 => (16, HASH_IPV6, HASH_TCP6, HASH_UDP6),
            Network::Other => return 0,
        };
        let with_ports = match headers.transport {
            Transport::Tcp => self.hash_types & tcp != 0,
            Transport::Udp => self.hash_types & udp != 0,
            Transport::Other | Transport::Icmp => false,
        };
        if !with_ports && self.hash_types & addresses == 0 {
            return 0;
        }
        let mut input = [0; 36];
        input[..length].copy_from_slice(&headers.source[..length]);
        input[length..length * 2].copy_from_slice(&headers.destination[..length]);
        let mut end = length * 2;
        if with_ports {
            input[end..end + 2].copy_from_slice(&headers.source_port.to_be_bytes());
            input[end + 2..end + 4].copy_from_slice(&headers.destination_port.to_be_bytes());
            end += 4;
        }
        toeplitz(&self.key, &input[..end])
    }

    /// The queue for a hash.
    pub(super) fn queue(&self, hash: u32) -> u16 {
        self.table[hash as usize % INDIRECTION_TABLE_SIZE]
    }
}

/// The Toeplitz hash: for every bit of the input that is set, the 32 bits of the key from there on.
fn toeplitz(key: &[u8; HASH_KEY_SIZE], input: &[u8]) -> u32 {
    let mut window = u32::from_be_bytes([key[0], key[1], key[2], key[3]]);
    let mut hash = 0;
    for (index, byte) in input.iter().enumerate() {
        let next = key.get(index + 4).copied().unwrap_or(0);
        for bit in (0..8).rev() {
            if byte >> bit & 1 == 1 {
                hash ^= window;
            }
            window = window << 1 | u32::from(next >> bit & 1);
        }
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(network: Network, source: &[u8], destination: &[u8], ports: (u16, u16)) -> Headers {
        let mut headers = Headers::parse(&[0; 14]).unwrap();
        headers.network = network;
        headers.transport = Transport::Tcp;
        headers.source[..source.len()].copy_from_slice(source);
        headers.destination[..destination.len()].copy_from_slice(destination);
        (headers.source_port, headers.destination_port) = ports;
        headers
    }

    fn six(text: &str) -> [u8; 16] {
        text.parse::<std::net::Ipv6Addr>().unwrap().octets()
    }

    /// "Verifying the RSS hash calculation", Microsoft: addresses, ports, hash with and without ports.
    #[test]
    fn microsoft_vectors() {
        let mut rss = Rss::new(4);
        let mut check = |headers: Headers, with_ports: u32, without: u32| {
            rss.hash_types = HASH_TCP4 | HASH_TCP6;
            assert_eq!(rss.hash(&headers), with_ports);
            rss.hash_types = HASH_IPV4 | HASH_IPV6;
            assert_eq!(rss.hash(&headers), without);
            rss.hash_types = HASH_UDP4 | HASH_UDP6;
            assert_eq!(rss.hash(&headers), 0);
        };
        let mut four = |source: [u8; 4], destination: [u8; 4], ports, with_ports, without| {
            check(headers(Network::Ipv4, &source, &destination, ports), with_ports, without);
        };
        four([66, 9, 149, 187], [161, 142, 100, 80], (2794, 1766), 0x51ccc178, 0x323e8fc2);
        four([199, 92, 111, 2], [65, 69, 140, 83], (14230, 4739), 0xc626b0ea, 0xd718262a);
        four([24, 19, 198, 95], [12, 22, 207, 184], (12898, 38024), 0x5c2b394a, 0xd2d0a5de);
        four([38, 27, 205, 30], [209, 142, 163, 6], (48228, 2217), 0xafc7327f, 0x82989176);
        four([153, 39, 163, 191], [202, 188, 127, 2], (44251, 1303), 0x10e828a2, 0x5d1809c5);
        let mut six = |source, destination, ports, with_ports, without| {
            check(headers(Network::Ipv6, &six(source), &six(destination), ports), with_ports, without);
        };
        six("3ffe:2501:200:1fff::7", "3ffe:2501:200:3::1", (2794, 1766), 0x40207d3d, 0x2cc18cd5);
        six("3ffe:501:8::260:97ff:fe40:efab", "ff02::1", (14230, 4739), 0xdde51bbf, 0x0f0c461c);
        six(
            "3ffe:1900:4545:3:200:f8ff:fe21:67cf",
            "fe80::200:f8ff:fe21:67cf",
            (44251, 38024),
            0x02d1feef,
            0x4b61e985,
        );
    }

    #[test]
    fn the_table_names_queues_that_exist() {
        let mut rss = Rss::new(4);
        assert_eq!((rss.queue(0), rss.queue(5), rss.queue(129)), (0, 1, 1));
        let table: Vec<u8> = (0..128).flat_map(|_| 3u32.to_be_bytes()).collect();
        rss.set_table(&table, 4).unwrap();
        assert_eq!((rss.queue(0), rss.encode_table()), (3, table.clone()));
        assert_eq!(rss.set_table(&table, 3), Err(Status::OutOfRange));
    }
}
