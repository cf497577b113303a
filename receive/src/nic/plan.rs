//! What a NIC is to be prepared for.

use std::net::IpAddr;

/// Which receive queues are to be bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queues(pub(super) QueueChoice);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum QueueChoice {
    Count(u32),
    List(Vec<u32>),
}

impl Queues {
    /// One queue of the NIC's choice.
    #[must_use]
    pub fn one() -> Self {
        Self::count(1)
    }

    /// As many queues, of the NIC's choice: idle ones, from the last one down. Queue 0 is never taken,
    /// as there must be one for other packets, and not every driver can restart it.
    #[must_use]
    pub fn count(count: u32) -> Self {
        Self(QueueChoice::Count(count))
    }

    /// These queues. Queue 0 cannot be among them.
    #[must_use]
    pub fn list(queues: impl IntoIterator<Item = u32>) -> Self {
        Self(QueueChoice::List(queues.into_iter().collect()))
    }
}

/// TCP connections whose packets are to arrive on the bound queues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    pub(super) port: u16,
    pub(super) addresses: Vec<IpAddr>,
}

impl Flow {
    /// Connections to this local port, over IPv4 and IPv6.
    #[must_use]
    pub fn tcp_port(port: u16) -> Self {
        Self { port, addresses: Vec::new() }
    }

    /// Only those to this local address; several may be added. An unspecified address (`0.0.0.0`, `::`)
    /// stands for all of its family.
    #[must_use]
    pub fn to(mut self, address: IpAddr) -> Self {
        self.addresses.push(address.to_canonical());
        self
    }
}

/// What [`Nic::prepare`](super::Nic::prepare) shall do.
///
/// Say with [`buffer_bytes`](Self::buffer_bytes) how large the buffer is that will be bound: as soon as a queue
/// is bound, its receive ring takes a page for each of its entries, so that the rings of a few queues can take
/// the whole of a small buffer and leave other queues without a page for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub(super) queues: Queues,
    pub(super) flows: Vec<Flow>,
    pub(super) header_split: bool,
    pub(super) buffer_bytes: Option<u64>,
}

impl Plan {
    /// Sends the packets of a flow to the queues, with header split on.
    #[must_use]
    pub fn new(queues: Queues, flow: Flow) -> Self {
        Self { queues, flows: vec![flow], header_split: true, buffer_bytes: None }
    }

    /// Keeps other packets off the queues, with header split on, and leaves it to the caller to bring
    /// packets there.
    #[must_use]
    pub fn without_flow(queues: Queues) -> Self {
        Self { queues, flows: Vec::new(), header_split: true, buffer_bytes: None }
    }

    /// Adds another flow.
    #[must_use]
    pub fn flow(mut self, flow: Flow) -> Self {
        self.flows.push(flow);
        self
    }

    /// Whether to turn header split on (the default), which binding memory requires, or to leave it as it is.
    #[must_use]
    pub fn header_split(mut self, on: bool) -> Self {
        self.header_split = on;
        self
    }

    /// The size of the buffer that will be bound to the queues, in bytes.
    ///
    /// The receive rings, which are of one size for every queue of a NIC, are then made so small that those of
    /// the bound queues take at most half of the buffer's pages, or as small as the driver allows. If they do
    /// not even fit into the whole buffer, several queues are refused. One queue works all the same: its ring
    /// is never full, and the NIC has a page only when one is given back.
    ///
    /// Without it the rings stay as they are.
    #[must_use]
    pub fn buffer_bytes(mut self, bytes: u64) -> Self {
        self.buffer_bytes = Some(bytes);
        self
    }
}
