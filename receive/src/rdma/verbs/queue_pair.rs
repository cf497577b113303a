//! Queue pairs: sending, receiving, and RDMA.

use std::fmt;
use std::net::Ipv6Addr;

use devmem_provider::{Error, ErrorKind, Result};
use nix::errno::Errno;

use super::abi::{
    AddressHandleAttributes, GlobalRoute, QueuePairAttributes, QueuePairCapacity, attribute, queue_pair_kind,
    queue_pair_state, send_operations,
};
use super::completion_queue::CompletionQueue;
use super::context::Transport;
use super::domain::ProtectionDomain;
use super::failure::VerbsFailure;
use super::region::{Part, RemoteMemory};
use super::{library, random, sys};
use crate::rdma::{AccessFlags, Gid};

/// Over how many routers packets go.
const HOP_LIMIT: u8 = 64;

/// How long a connection waits for an answer, as a power of two of 4.096 µs: 67 ms; how often it asks again; and how long it
/// asks a peer to wait that comes before there is a receive: 0.64 ms (`ibv_modify_qp(3)`).
const ANSWER_TIME: u8 = 14;
const RETRIES: u8 = 7;
const NOT_READY_TIME: u8 = 12;
/// Asked without end: receives are posted some time.
const WITHOUT_END: u8 = 7;

/// Queue keys with this bit are the kernel's own.
const PRIVILEGED_KEY: u32 = 1 << 31;

/// Sequence numbers have 24 bits.
const SEQUENCE_MASK: u32 = 0x00ff_ffff;

/// What a queue pair shall be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueuePairOptions {
    transport: Option<Transport>,
    requests: u32,
    receives: u32,
}

impl Default for QueuePairOptions {
    /// The device's best transport, with room for 64 requests and 64 receives.
    fn default() -> Self {
        Self { transport: None, requests: 64, receives: 64 }
    }
}

impl QueuePairOptions {
    /// Chooses the transport.
    #[must_use]
    pub fn transport(mut self, transport: Transport) -> Self {
        self.transport = Some(transport);
        self
    }

    /// How many requests may be outstanding.
    #[must_use]
    pub fn requests(mut self, requests: u32) -> Self {
        self.requests = requests;
        self
    }

    /// How many receives may be posted.
    #[must_use]
    pub fn receives(mut self, receives: u32) -> Self {
        self.receives = receives;
        self
    }
}

/// What a peer must know of a queue pair to reach it. It is told by other means, such as a TCP connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// The sort of queue pair; both must be of one.
    pub transport: Transport,
    /// The device's address.
    pub gid: Ipv6Addr,
    /// The queue pair's number.
    pub queue_pair: u32,
    /// The key that datagrams for it must have.
    pub key: u32,
    /// The number of the first packet that it will send.
    pub sequence: u32,
    /// The port's local identifier; 0 unless the network is InfiniBand.
    pub local_identifier: u16,
    /// The size of packets, as `enum ibv_mtu`: 1 is 256 bytes, 5 is 4096.
    pub packet_size: u8,
}

/// A peer, as a queue pair addresses it.
pub struct Peer {
    handle: Option<sys::AddressHandle>,
    queue_pair: u32,
    key: u32,
}

/// Two queues of a device, for requests and for receives.
pub struct QueuePair {
    raw: sys::QueuePair,
    domain: ProtectionDomain,
    endpoint: Endpoint,
    gid: Gid,
    port: u8,
}

impl ProtectionDomain {
    /// Makes a queue pair, whose requests and receives are completed in these queues. Of datagrams it is ready to be used;
    /// receives may be posted, and [`connect`](QueuePair::connect) makes peers known.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] for more room than the device has; [`VerbsFailure::NoSuchTransport`]; what the kernel
    /// says.
    pub fn queue_pair(
        &self,
        requests: &CompletionQueue,
        receives: &CompletionQueue,
        options: QueuePairOptions,
    ) -> Result<QueuePair> {
        QueuePair::create(self, (requests, receives), options)
    }
}

impl QueuePair {
    fn create(
        domain: &ProtectionDomain,
        (requests, receives): (&CompletionQueue, &CompletionQueue),
        options: QueuePairOptions,
    ) -> Result<Self> {
        let context = &domain.context;
        let capabilities = context.capabilities();
        let transport = options.transport.unwrap_or(capabilities.transport);
        let failed = |error: Error| error.on(context.device());
        let operation = || format!("make a queue pair ({transport})");
        for (what, wanted, most) in [
            ("requests", options.requests, capabilities.maximum_requests),
            ("receives", options.receives, capabilities.maximum_receives),
        ] {
            if wanted == 0 || wanted > most {
                return Err(failed(Error::new(ErrorKind::InvalidInput, operation()))
                    .because(format!("{wanted} {what} are wanted; the device has 1 to {most}")));
            }
        }
        let capacity = QueuePairCapacity {
            max_send_wr: options.requests,
            max_recv_wr: options.receives,
            max_send_sge: 1,
            max_recv_sge: 1,
            max_inline_data: 0,
        };
        let queues = (&requests.raw, &receives.raw);
        let (gid, (port, attributes)) = (context.gid()?, context.port()?);
        let made = match transport {
            Transport::ScalableReliableDatagram => {
                if capabilities.transport != transport {
                    return Err(failed(VerbsFailure::NoSuchTransport.error(operation())));
                }
                let mut operations = 0;
                if capabilities.rdma_write {
                    operations |= send_operations::RDMA_WRITE | send_operations::RDMA_WRITE_WITH_IMM;
                }
                if capabilities.rdma_read {
                    operations |= send_operations::RDMA_READ;
                }
                let efa = library::efa()?;
                sys::QueuePair::create_scalable_reliable(efa, &domain.raw, operations, queues, capacity)
            }
            Transport::UnreliableDatagram => {
                sys::QueuePair::create(&domain.raw, queue_pair_kind::UD, queues, capacity)
            }
            Transport::ReliableConnection => {
                sys::QueuePair::create(&domain.raw, queue_pair_kind::RC, queues, capacity)
            }
        };
        let raw = made.map_err(|errno| {
            failed(match errno {
                Errno::EOPNOTSUPP | Errno::ENOSYS => {
                    VerbsFailure::NoSuchTransport.error(operation()).with_errno(errno)
                }
                _ => Error::from_errno(errno, operation()),
            })
        })?;
        let endpoint = Endpoint {
            transport,
            gid: gid.address,
            queue_pair: raw.number(),
            key: random()? & !PRIVILEGED_KEY,
            sequence: random()? & SEQUENCE_MASK,
            local_identifier: attributes.lid,
            packet_size: u8::try_from(attributes.active_mtu).unwrap_or(1),
        };
        let pair = Self { raw, domain: domain.clone(), endpoint, gid, port };
        pair.initialise()?;
        Ok(pair)
    }

    /// To the state in which receives may be posted; datagrams go all the way.
    fn initialise(&self) -> Result<()> {
        let initial = QueuePairAttributes {
            qp_state: queue_pair_state::INIT,
            port_num: self.port,
            qkey: self.endpoint.key,
            qp_access_flags: (AccessFlags::LOCAL_WRITE
                | AccessFlags::REMOTE_WRITE
                | AccessFlags::REMOTE_READ)
                .bits(),
            ..QueuePairAttributes::default()
        };
        let common = attribute::PKEY_INDEX | attribute::PORT;
        if self.is_connection() {
            return self.modify(initial, common | attribute::ACCESS_FLAGS);
        }
        self.modify(initial, common | attribute::QKEY)?;
        self.modify(state(queue_pair_state::RTR), 0)?;
        let ready = QueuePairAttributes { sq_psn: self.endpoint.sequence, ..state(queue_pair_state::RTS) };
        self.modify(ready, attribute::SQ_PSN)
    }

    /// What peers must know to reach it.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.endpoint.queue_pair
    }

    fn is_connection(&self) -> bool {
        self.endpoint.transport == Transport::ReliableConnection
    }

    /// Makes a peer known. Both sides must: EFA answers nobody whom it does not know. A queue pair for datagrams may have
    /// many peers; one for a connection has the first.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if the peer's is another sort of queue pair; what the kernel says.
    pub fn connect(&self, peer: &Endpoint) -> Result<Peer> {
        let failed = |error: Error| error.on(format!("{} of {}", peer.gid, self.domain.context.device()));
        if peer.transport != self.endpoint.transport {
            let (own, others) = (self.endpoint.transport, peer.transport);
            return Err(failed(Error::new(ErrorKind::InvalidInput, "reach the peer"))
                .because(format!("it has a queue pair of the sort {others}, and this side {own}")));
        }
        let way = self.way_to(peer);
        if self.is_connection() {
            self.connect_reliably(peer, way)?;
            return Ok(Peer { handle: None, queue_pair: peer.queue_pair, key: 0 });
        }
        let handle = sys::AddressHandle::create(&self.domain.raw, way)
            .map_err(|errno| failed(Error::from_errno(errno, "make an address handle")))?;
        Ok(Peer { handle: Some(handle), queue_pair: peer.queue_pair, key: peer.key })
    }

    fn connect_reliably(&self, peer: &Endpoint, way: AddressHandleAttributes) -> Result<()> {
        let reads = self.domain.context.capabilities().maximum_reads;
        let receiving = QueuePairAttributes {
            path_mtu: peer.packet_size.min(self.endpoint.packet_size).into(),
            dest_qp_num: peer.queue_pair,
            rq_psn: peer.sequence,
            ah_attr: way,
            max_dest_rd_atomic: reads,
            min_rnr_timer: NOT_READY_TIME,
            ..state(queue_pair_state::RTR)
        };
        let of_receiving = attribute::AV
            | attribute::PATH_MTU
            | attribute::DEST_QPN
            | attribute::RQ_PSN
            | attribute::MAX_DEST_RD_ATOMIC
            | attribute::MIN_RNR_TIMER;
        self.modify(receiving, of_receiving)?;
        let sending = QueuePairAttributes {
            sq_psn: self.endpoint.sequence,
            timeout: ANSWER_TIME,
            retry_cnt: RETRIES,
            rnr_retry: WITHOUT_END,
            max_rd_atomic: reads,
            ..state(queue_pair_state::RTS)
        };
        let of_sending = attribute::TIMEOUT
            | attribute::RETRY_CNT
            | attribute::RNR_RETRY
            | attribute::SQ_PSN
            | attribute::MAX_QP_RD_ATOMIC;
        self.modify(sending, of_sending)
    }

    fn way_to(&self, peer: &Endpoint) -> AddressHandleAttributes {
        let [high, low] = halves(peer.gid);
        AddressHandleAttributes {
            grh: GlobalRoute {
                dgid: [high, low],
                sgid_index: u8::try_from(self.gid.index).unwrap_or(0),
                hop_limit: HOP_LIMIT,
                ..GlobalRoute::default()
            },
            dlid: peer.local_identifier,
            is_global: 1,
            port_num: self.port,
            ..AddressHandleAttributes::default()
        }
    }

    fn modify(&self, attributes: QueuePairAttributes, mask: u32) -> Result<()> {
        self.raw.modify(attributes, mask).map_err(|errno| {
            let state = match attributes.qp_state {
                queue_pair_state::INIT => "initialised",
                queue_pair_state::RTR => "ready to receive",
                queue_pair_state::RTS => "ready to send",
                _ => "failed",
            };
            let operation = format!("bring queue pair {} to the state {state}", self.number());
            Error::from_errno(errno, operation).on(self.domain.context.device())
        })
    }

    /// Ends it: requests and receives that are outstanding are completed as flushed, and peers reach it no more.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn fail(&self) -> Result<()> {
        self.modify(state(queue_pair_state::ERR), 0)
    }

    /// Posts a receive: memory for a message, or, of no meaning but that it is there, for the immediate data of a peer's
    /// RDMA write.
    ///
    /// # Errors
    ///
    /// [`VerbsFailure::QueueFull`]; what the provider says.
    pub fn receive(&self, id: u64, part: Part<'_>) -> Result<()> {
        let posted = self.raw.post_receive(id, part.local());
        posted.map_err(|errno| self.not_posted(errno, "post a receive"))
    }

    /// Sends a message.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    pub fn send(&self, id: u64, part: Part<'_>, immediate: Option<u32>, to: &Peer) -> Result<()> {
        self.post(id, sys::Request::Send, part, immediate, to, "send")
    }

    /// Writes to a peer's memory. With immediate data the peer is told, which takes one of its posted receives; without, it
    /// notices nothing.
    ///
    /// That it was posted is no success: that, or what went wrong, its [completion](super::Completion) tells.
    ///
    /// # Errors
    ///
    /// [`VerbsFailure::QueueFull`]; [`VerbsFailure::NoRdmaWrite`]; what the provider says.
    pub fn write(
        &self,
        id: u64,
        part: Part<'_>,
        remote: RemoteMemory,
        immediate: Option<u32>,
        to: &Peer,
    ) -> Result<()> {
        if !self.domain.context.capabilities().rdma_write || self.is_unreliable() {
            return Err(self.cannot(VerbsFailure::NoRdmaWrite, "write to a peer's memory"));
        }
        let request = sys::Request::Write(remote.key, remote.address);
        self.post(id, request, part, immediate, to, "write to a peer's memory")
    }

    /// Reads a peer's memory into memory here.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write), with [`VerbsFailure::NoRdmaRead`].
    pub fn read(&self, id: u64, part: Part<'_>, remote: RemoteMemory, to: &Peer) -> Result<()> {
        if !self.domain.context.capabilities().rdma_read || self.is_unreliable() {
            return Err(self.cannot(VerbsFailure::NoRdmaRead, "read a peer's memory"));
        }
        let request = sys::Request::Read(remote.key, remote.address);
        self.post(id, request, part, None, to, "read a peer's memory")
    }

    fn is_unreliable(&self) -> bool {
        self.endpoint.transport == Transport::UnreliableDatagram
    }

    fn cannot(&self, failure: VerbsFailure, operation: &'static str) -> Error {
        let remedy = match self.endpoint.transport {
            Transport::UnreliableDatagram => "use a queue pair of another sort",
            _ => "send messages instead, or use a device that can do it",
        };
        failure.error(operation).on(self.domain.context.device()).remedy(remedy)
    }

    fn post(
        &self,
        id: u64,
        request: sys::Request,
        part: Part<'_>,
        immediate: Option<u32>,
        to: &Peer,
        operation: &'static str,
    ) -> Result<()> {
        let to = to.handle.as_ref().map(|handle| (handle, to.queue_pair, to.key));
        let post = sys::Post { id, request, immediate, local: part.local(), to };
        self.raw.post(&post).map_err(|errno| self.not_posted(errno, operation))
    }

    fn not_posted(&self, errno: Errno, operation: &'static str) -> Error {
        let error = match errno {
            // What providers return for a queue without room.
            Errno::ENOMEM => VerbsFailure::QueueFull
                .error(operation)
                .with_errno(errno)
                .remedy("take completions, or make a queue pair with more room"),
            _ => Error::from_errno(errno, operation),
        };
        error.on(format!("queue pair {} of {}", self.number(), self.domain.context.device()))
    }
}

fn state(qp_state: u32) -> QueuePairAttributes {
    QueuePairAttributes { qp_state, ..QueuePairAttributes::default() }
}

/// An address as the two numbers that lie where its bytes shall be.
fn halves(address: Ipv6Addr) -> [u64; 2] {
    let octets = address.octets();
    let (halves, _) = octets.as_chunks::<8>();
    std::array::from_fn(|at| halves.get(at).map_or(0, |half| u64::from_ne_bytes(*half)))
}

impl fmt::Debug for QueuePair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueuePair").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("queue_pair", &self.queue_pair).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_lies_in_memory_as_it_is_written() {
        let address: Ipv6Addr = "fe80::1:203:405".parse().unwrap();
        let bytes: Vec<u8> = halves(address).into_iter().flat_map(u64::to_ne_bytes).collect();
        assert_eq!(bytes, address.octets());
    }
}
