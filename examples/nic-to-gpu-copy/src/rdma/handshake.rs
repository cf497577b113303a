//! What the two sides tell each other before the first byte, each in 64 bytes. Numbers are little-endian.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv6Addr, TcpStream};

use anyhow::{Context, Result, bail};
use devmem_receive::rdma::verbs::{Endpoint, RemoteMemory, Transport};

use crate::failure;
use crate::transfer::MAXIMUM_STRIPES;

const BYTES: usize = 64;

const MAGIC: [u8; 8] = *b"DEVRDMA\x01";

/// What the sender says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) endpoint: Endpoint,
    /// Which stripe will come, of how many.
    pub(crate) stripe: u32,
    pub(crate) stripes: u32,
    /// The longest piece that the sender writes.
    pub(crate) longest: u32,
}

/// What the receiver answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Offer {
    pub(super) endpoint: Endpoint,
    /// Where the pieces go.
    pub(super) memory: RemoteMemory,
    /// How long one is, and for how many there are places.
    pub(super) piece_bytes: u32,
    pub(super) places: u32,
}

impl Hello {
    pub(super) fn send(&self, socket: &mut TcpStream) -> Result<()> {
        let numbers = [u64::from(self.stripe) | u64::from(self.stripes) << 32, self.longest.into(), 0];
        failure::of_connection_to_receiver(socket.write_all(&encode(&self.endpoint, numbers)))
    }

    pub(super) fn receive(socket: &mut TcpStream) -> Result<Self> {
        Self::decode(&receive(socket, "before it said what it sends")?)
    }

    fn decode(bytes: &[u8; BYTES]) -> Result<Self> {
        let (endpoint, [stripes, longest, _]) = decode(bytes)?;
        let (stripe, stripes) = halves(stripes);
        if stripe >= stripes || stripes > MAXIMUM_STRIPES {
            bail!("the peer sent an impossible stripe number");
        }
        Ok(Self { endpoint, stripe, stripes, longest: halves(longest).0 })
    }
}

impl Offer {
    pub(super) fn send(&self, socket: &mut TcpStream) -> Result<()> {
        let Self { endpoint, memory, piece_bytes, places } = self;
        let pieces = u64::from(*piece_bytes) | u64::from(*places) << 32;
        let bytes = encode(endpoint, [pieces, memory.address, memory.key.into()]);
        socket.write_all(&bytes).context("the connection is lost")
    }

    pub(super) fn receive(socket: &mut TcpStream) -> Result<Self> {
        let words = "without an offer; it tells the reason on its side (does it run with --path rdma?)";
        Self::decode(&receive(socket, words)?)
    }

    fn decode(bytes: &[u8; BYTES]) -> Result<Self> {
        let (endpoint, [pieces, address, key]) = decode(bytes)?;
        let (piece_bytes, places) = halves(pieces);
        if piece_bytes == 0 || places == 0 {
            bail!("the peer offers no room");
        }
        let memory = RemoteMemory { address, key: halves(key).0 };
        Ok(Self { endpoint, memory, piece_bytes, places })
    }
}

fn receive(socket: &mut TcpStream, unless: &str) -> Result<[u8; BYTES]> {
    let mut bytes = [0; BYTES];
    match socket.read_exact(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(error) => match error.kind() {
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset => {
                bail!("the peer closed the connection {unless}")
            }
            ErrorKind::WouldBlock => bail!("the peer says nothing"),
            _ => Err(error).context("the connection is lost"),
        },
    }
}

fn encode(endpoint: &Endpoint, numbers: [u64; 3]) -> [u8; BYTES] {
    let transport = match endpoint.transport {
        Transport::ScalableReliableDatagram => 1,
        Transport::ReliableConnection => 2,
        _ => 0,
    };
    let mut bytes = [0; BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..10].copy_from_slice(&[transport, endpoint.packet_size]);
    bytes[10..12].copy_from_slice(&endpoint.local_identifier.to_le_bytes());
    bytes[12..16].copy_from_slice(&endpoint.queue_pair.to_le_bytes());
    bytes[16..20].copy_from_slice(&endpoint.key.to_le_bytes());
    bytes[20..24].copy_from_slice(&endpoint.sequence.to_le_bytes());
    bytes[24..40].copy_from_slice(&endpoint.gid.octets());
    for (place, number) in bytes[40..].chunks_exact_mut(8).zip(numbers) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    bytes
}

fn decode(bytes: &[u8; BYTES]) -> Result<(Endpoint, [u64; 3])> {
    if bytes[..8] != MAGIC {
        bail!(
            "the peer does not speak this path's protocol; use --path rdma and the same version on both sides"
        );
    }
    let transport = match bytes[8] {
        1 => Transport::ScalableReliableDatagram,
        2 => Transport::ReliableConnection,
        _ => bail!("the peer has a sort of queue pair that this version does not know"),
    };
    let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
    let endpoint = Endpoint {
        transport,
        gid: Ipv6Addr::from(std::array::from_fn::<u8, 16, _>(|i| bytes[24 + i])),
        queue_pair: word(12),
        key: word(16),
        sequence: word(20),
        local_identifier: u16::from_le_bytes([bytes[10], bytes[11]]),
        packet_size: bytes[9],
    };
    let numbers =
        std::array::from_fn(|at| u64::from_le_bytes(std::array::from_fn(|i| bytes[40 + 8 * at + i])));
    Ok((endpoint, numbers))
}

/// The lower and the upper half.
fn halves(number: u64) -> (u32, u32) {
    let bytes = number.to_le_bytes();
    let half = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
    (half(0), half(4))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn endpoint() -> Endpoint {
        Endpoint {
            transport: Transport::ScalableReliableDatagram,
            gid: "fe80::ff:fe00:1".parse().unwrap(),
            queue_pair: 5,
            key: 0x0102_0304,
            sequence: 77,
            local_identifier: 9,
            packet_size: 5,
        }
    }

    #[test]
    fn what_is_sent_is_what_is_read() {
        let mut pair = pair();
        let hello = Hello { endpoint: endpoint(), stripe: 2, stripes: 3, longest: 1 << 20 };
        hello.send(&mut pair.0).unwrap();
        assert_eq!(Hello::receive(&mut pair.1).unwrap(), hello);
        let memory = RemoteMemory { address: 1 << 40, key: 0xffff_0001 };
        let offer = Offer { endpoint: endpoint(), memory, piece_bytes: 4096, places: 7 };
        offer.send(&mut pair.1).unwrap();
        assert_eq!(Offer::receive(&mut pair.0).unwrap(), offer);
    }

    #[test]
    fn a_peer_of_another_path_or_that_goes_away_is_told() {
        let (mut one, mut other) = pair();
        one.write_all(&crate::transfer::Header::split([0; 16], 5, 1, None)[0].encode()).unwrap();
        assert!(Hello::receive(&mut other).unwrap_err().to_string().contains("--path rdma"));
        drop(one);
        assert!(Hello::receive(&mut other).unwrap_err().to_string().contains("before it said"));
        let bytes = encode(&endpoint(), [3 << 32 | 3, 0, 0]);
        assert!(Hello::decode(&bytes).is_err(), "stripe 3 of 3");
        assert!(Offer::decode(&encode(&endpoint(), [1, 0, 0])).is_err(), "no places");
    }

    fn pair() -> (TcpStream, TcpStream) {
        let listener = std::net::TcpListener::bind("[::1]:0").unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (one, listener.accept().unwrap().0)
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), BYTES)) {
            let mut bytes: [u8; BYTES] = bytes.try_into().unwrap();
            bytes[..8].copy_from_slice(&MAGIC);
            let _ = (Hello::decode(&bytes), Offer::decode(&bytes));
        }
    }
}
