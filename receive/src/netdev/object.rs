//! The objects that the `netdev` family describes.

use super::uapi;
use crate::netlink::{Attribute, AttributeIter, Malformed};

bitflags::bitflags! {
    /// What a device can do with XDP programs (`enum netdev_xdp_act`).
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
    pub struct XdpFeatures: u64 {
        /// Programs can pass, drop, abort and send back packets.
        const BASIC = 1;
        /// Programs can redirect packets.
        const REDIRECT = 2;
        /// The device takes redirected packets.
        const NDO_XMIT = 4;
        /// AF_XDP without copies.
        const XSK_ZEROCOPY = 8;
        /// Programs can run on the device.
        const HW_OFFLOAD = 16;
        /// Packets of several buffers on receive.
        const RX_SG = 32;
        /// Packets of several buffers on transmit.
        const NDO_XMIT_SG = 64;
    }
}

/// A device as `dev-get` describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Device {
    /// The interface.
    pub ifindex: u32,
    /// What it can do with XDP programs.
    pub xdp_features: XdpFeatures,
    /// The most buffers of an AF_XDP packet without copies.
    pub xdp_zero_copy_max_segments: Option<u32>,
}

/// Receive or transmit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum QueueKind {
    /// A receive queue.
    #[default]
    Receive,
    /// A transmit queue.
    Transmit,
}

impl QueueKind {
    /// `NETDEV_QUEUE_TYPE_*`.
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            Self::Receive => uapi::QUEUE_TYPE_RX,
            Self::Transmit => uapi::QUEUE_TYPE_TX,
        }
    }

    fn decode(attribute: &Attribute<'_>) -> Result<Self, Malformed> {
        match attribute.u32()? {
            uapi::QUEUE_TYPE_RX => Ok(Self::Receive),
            uapi::QUEUE_TYPE_TX => Ok(Self::Transmit),
            _ => Err(Malformed("a queue that neither receives nor transmits")),
        }
    }
}

/// A queue as `queue-get` describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Queue {
    /// Its number among the queues of its kind.
    pub id: u32,
    /// The interface.
    pub ifindex: u32,
    /// Receive or transmit.
    pub kind: QueueKind,
    /// What polls it.
    pub napi_id: Option<u32>,
    /// The number of the DMA-buf binding that it receives into.
    pub dmabuf: Option<u32>,
    /// It receives into memory of io_uring.
    pub io_uring: bool,
    /// It belongs to an AF_XDP socket.
    pub xsk: bool,
    /// It is leased to another device.
    pub lease: Option<Lease>,
}

impl Queue {
    /// Who has the queue, in words; `None` when it is free to be bound.
    #[must_use]
    pub fn occupied_by(&self) -> Option<String> {
        if let Some(id) = self.dmabuf {
            Some(format!("DMA-buf binding {id}"))
        } else if self.io_uring {
            Some("io_uring zero-copy receive".to_owned())
        } else if self.xsk {
            Some("an AF_XDP socket".to_owned())
        } else {
            self.lease.map(|lease| format!("a lease to interface {}", lease.ifindex))
        }
    }
}

/// Whom a queue is leased to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lease {
    /// The other interface.
    pub ifindex: u32,
    /// The queue of the other interface.
    pub queue: u32,
    /// The other interface's network namespace, where it is another one.
    pub namespace: Option<i32>,
}

/// A NAPI instance as `napi-get` describes it: what polls queues.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Napi {
    /// Its number, unique in the kernel.
    pub id: u32,
    /// The interface.
    pub ifindex: u32,
    /// Its interrupt.
    pub irq: Option<u32>,
    /// The thread that polls it, where polling is threaded.
    pub pid: Option<u32>,
}

/// The counters of a queue. A counter that the driver does not keep is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueStatistics {
    /// The interface.
    pub ifindex: u32,
    /// Receive or transmit.
    pub kind: QueueKind,
    /// The queue.
    pub id: u32,
    /// Packets received.
    pub rx_packets: Option<u64>,
    /// Bytes received.
    pub rx_bytes: Option<u64>,
    /// Packets sent.
    pub tx_packets: Option<u64>,
    /// Bytes sent.
    pub tx_bytes: Option<u64>,
    /// Times that no memory was to be had for a packet.
    pub rx_alloc_fail: Option<u64>,
    /// Packets that the device dropped.
    pub rx_hw_drops: Option<u64>,
    /// Of those, packets for which no buffer was posted.
    pub rx_hw_drop_overruns: Option<u64>,
}

/// A page pool as `page-pool-get` describes it: what gives memory to a receive queue.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PagePool {
    /// Its number, unique in the kernel.
    pub id: u32,
    /// The interface, while it is attached to one.
    pub ifindex: Option<u32>,
    /// What polls its queue.
    pub napi_id: Option<u32>,
    /// Pages that it gave out and did not get back.
    pub inflight: Option<u64>,
    /// Bytes of those pages.
    pub inflight_bytes: Option<u64>,
    /// When it was detached (seconds on the boot clock); it waits for its last pages since.
    pub detach_time: Option<u64>,
    /// The number of the DMA-buf binding whose memory it gives.
    pub dmabuf: Option<u32>,
    /// It gives memory of io_uring.
    pub io_uring: bool,
}

/// The counters of a page pool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PagePoolStatistics {
    /// The page pool.
    pub id: u32,
    /// Allocations served from the cache.
    pub alloc_fast: u64,
    /// Allocations that went to the allocator.
    pub alloc_slow: u64,
    /// Of those, allocations of several pages at once.
    pub alloc_slow_high_order: u64,
    /// Times that the cache and the ring were empty.
    pub alloc_empty: u64,
    /// Times that the cache was refilled from the ring.
    pub alloc_refill: u64,
    /// Pages that could not be used again for being on another NUMA node.
    pub alloc_waive: u64,
    /// Pages put back into the cache.
    pub recycle_cached: u64,
    /// Times that the cache was full.
    pub recycle_cache_full: u64,
    /// Pages put back into the ring.
    pub recycle_ring: u64,
    /// Times that the ring was full.
    pub recycle_ring_full: u64,
    /// Pages released for being in use elsewhere.
    pub recycle_released_refcnt: u64,
}

fn small(attribute: &Attribute<'_>) -> Result<u32, Malformed> {
    u32::try_from(attribute.uint()?).map_err(|_| Malformed("a number beyond 32 bits"))
}

impl Device {
    pub(super) fn decode(reply: &[u8]) -> Result<Self, Malformed> {
        let mut device = Self::default();
        for attribute in AttributeIter::new(reply) {
            let attribute = attribute?;
            match attribute.kind() {
                uapi::dev::IFINDEX => device.ifindex = attribute.u32()?,
                uapi::dev::XDP_FEATURES => {
                    device.xdp_features = XdpFeatures::from_bits_retain(attribute.uint()?);
                }
                uapi::dev::XDP_ZC_MAX_SEGS => device.xdp_zero_copy_max_segments = Some(attribute.u32()?),
                _ => {}
            }
        }
        Ok(device)
    }
}

impl Queue {
    pub(super) fn decode(reply: &[u8]) -> Result<Self, Malformed> {
        Self::decode_attributes(AttributeIter::new(reply))
    }

    fn decode_attributes(attributes: AttributeIter<'_>) -> Result<Self, Malformed> {
        let mut queue = Self::default();
        for attribute in attributes {
            let attribute = attribute?;
            match attribute.kind() {
                uapi::queue::ID => queue.id = attribute.u32()?,
                uapi::queue::IFINDEX => queue.ifindex = attribute.u32()?,
                uapi::queue::TYPE => queue.kind = QueueKind::decode(&attribute)?,
                uapi::queue::NAPI_ID => queue.napi_id = Some(attribute.u32()?),
                uapi::queue::DMABUF => queue.dmabuf = Some(attribute.u32()?),
                uapi::queue::IO_URING => queue.io_uring = true,
                uapi::queue::XSK => queue.xsk = true,
                uapi::queue::LEASE => queue.lease = Some(Lease::decode(attribute.nested())?),
                _ => {}
            }
        }
        Ok(queue)
    }
}

impl Lease {
    fn decode(attributes: AttributeIter<'_>) -> Result<Self, Malformed> {
        let mut lease = Self::default();
        for attribute in attributes {
            let attribute = attribute?;
            match attribute.kind() {
                uapi::lease::IFINDEX => lease.ifindex = attribute.u32()?,
                uapi::lease::QUEUE => {
                    for part in attribute.nested() {
                        let part = part?;
                        if part.kind() == uapi::queue::ID {
                            lease.queue = part.u32()?;
                        }
                    }
                }
                uapi::lease::NETNS_ID => lease.namespace = Some(attribute.i32()?),
                _ => {}
            }
        }
        Ok(lease)
    }
}

impl Napi {
    pub(super) fn decode(reply: &[u8]) -> Result<Self, Malformed> {
        let mut napi = Self::default();
        for attribute in AttributeIter::new(reply) {
            let attribute = attribute?;
            match attribute.kind() {
                uapi::napi::IFINDEX => napi.ifindex = attribute.u32()?,
                uapi::napi::ID => napi.id = attribute.u32()?,
                uapi::napi::IRQ => napi.irq = Some(attribute.u32()?),
                uapi::napi::PID => napi.pid = Some(attribute.u32()?),
                _ => {}
            }
        }
        Ok(napi)
    }
}

impl QueueStatistics {
    pub(super) fn decode(reply: &[u8]) -> Result<Self, Malformed> {
        let mut counters = Self::default();
        for attribute in AttributeIter::new(reply) {
            let attribute = attribute?;
            match attribute.kind() {
                uapi::qstats::IFINDEX => counters.ifindex = attribute.u32()?,
                uapi::qstats::QUEUE_TYPE => counters.kind = QueueKind::decode(&attribute)?,
                uapi::qstats::QUEUE_ID => counters.id = attribute.u32()?,
                uapi::qstats::RX_PACKETS => counters.rx_packets = Some(attribute.uint()?),
                uapi::qstats::RX_BYTES => counters.rx_bytes = Some(attribute.uint()?),
                uapi::qstats::TX_PACKETS => counters.tx_packets = Some(attribute.uint()?),
                uapi::qstats::TX_BYTES => counters.tx_bytes = Some(attribute.uint()?),
                uapi::qstats::RX_ALLOC_FAIL => counters.rx_alloc_fail = Some(attribute.uint()?),
                uapi::qstats::RX_HW_DROPS => counters.rx_hw_drops = Some(attribute.uint()?),
                uapi::qstats::RX_HW_DROP_OVERRUNS => counters.rx_hw_drop_overruns = Some(attribute.uint()?),
                _ => {}
            }
        }
        Ok(counters)
    }
}

impl PagePool {
    pub(super) fn decode(reply: &[u8]) -> Result<Self, Malformed> {
        let mut pool = Self::default();
        for attribute in AttributeIter::new(reply) {
            let attribute = attribute?;
            match attribute.kind() {
                uapi::page_pool::ID => pool.id = small(&attribute)?,
                uapi::page_pool::IFINDEX => pool.ifindex = Some(attribute.u32()?),
                uapi::page_pool::NAPI_ID => pool.napi_id = Some(small(&attribute)?),
                uapi::page_pool::INFLIGHT => pool.inflight = Some(attribute.uint()?),
                uapi::page_pool::INFLIGHT_MEM => pool.inflight_bytes = Some(attribute.uint()?),
                uapi::page_pool::DETACH_TIME => pool.detach_time = Some(attribute.uint()?),
                uapi::page_pool::DMABUF => pool.dmabuf = Some(attribute.u32()?),
                uapi::page_pool::IO_URING => pool.io_uring = true,
                _ => {}
            }
        }
        Ok(pool)
    }
}

impl PagePoolStatistics {
    pub(super) fn decode(reply: &[u8]) -> Result<Self, Malformed> {
        let mut counters = Self::default();
        for attribute in AttributeIter::new(reply) {
            let attribute = attribute?;
            let counter = match attribute.kind() {
                uapi::page_pool_stats::INFO => {
                    counters.id = PagePool::decode(attribute.payload())?.id;
                    continue;
                }
                uapi::page_pool_stats::ALLOC_FAST => &mut counters.alloc_fast,
                uapi::page_pool_stats::ALLOC_SLOW => &mut counters.alloc_slow,
                uapi::page_pool_stats::ALLOC_SLOW_HIGH_ORDER => &mut counters.alloc_slow_high_order,
                uapi::page_pool_stats::ALLOC_EMPTY => &mut counters.alloc_empty,
                uapi::page_pool_stats::ALLOC_REFILL => &mut counters.alloc_refill,
                uapi::page_pool_stats::ALLOC_WAIVE => &mut counters.alloc_waive,
                uapi::page_pool_stats::RECYCLE_CACHED => &mut counters.recycle_cached,
                uapi::page_pool_stats::RECYCLE_CACHE_FULL => &mut counters.recycle_cache_full,
                uapi::page_pool_stats::RECYCLE_RING => &mut counters.recycle_ring,
                uapi::page_pool_stats::RECYCLE_RING_FULL => &mut counters.recycle_ring_full,
                uapi::page_pool_stats::RECYCLE_RELEASED_REFCNT => &mut counters.recycle_released_refcnt,
                _ => continue,
            };
            *counter = attribute.uint()?;
        }
        Ok(counters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Attributes;
    use proptest::prelude::*;

    #[test]
    fn a_leased_queue_is_read_with_its_lease() {
        let lease = Attributes::new()
            .u32(uapi::lease::IFINDEX, 9)
            .nest(uapi::lease::QUEUE, Attributes::new().u32(uapi::queue::ID, 1).u32(uapi::queue::TYPE, 0))
            .u32(uapi::lease::NETNS_ID, u32::MAX);
        let reply = Attributes::new()
            .u32(uapi::queue::ID, 3)
            .u32(uapi::queue::TYPE, 0)
            .u32(uapi::queue::IFINDEX, 2)
            .nest(uapi::queue::LEASE, lease);
        let queue = Queue::decode(reply.as_bytes()).unwrap();
        assert_eq!(queue.lease, Some(Lease { ifindex: 9, queue: 1, namespace: Some(-1) }));
        assert_eq!(queue.occupied_by().as_deref(), Some("a lease to interface 9"));
        assert_eq!((queue.id, queue.kind), (3, QueueKind::Receive));
    }

    #[test]
    fn counters_beyond_32_bits_are_whole() {
        let reply = Attributes::new()
            .u32(uapi::qstats::QUEUE_TYPE, 1)
            .bytes(uapi::qstats::RX_BYTES, &5_000_000_000u64.to_ne_bytes())
            .u32(uapi::qstats::RX_PACKETS, 12);
        let counters = QueueStatistics::decode(reply.as_bytes()).unwrap();
        assert_eq!((counters.rx_bytes, counters.rx_packets), (Some(5_000_000_000), Some(12)));
        assert_eq!(counters.kind, QueueKind::Transmit);
    }

    proptest! {
        #[test]
        fn any_reply_ends_without_panic(kinds: Vec<(u16, Vec<u8>)>, bytes: Vec<u8>) {
            let mut attributes = Attributes::new();
            for (kind, payload) in &kinds {
                attributes = attributes.bytes(kind % 24, payload);
            }
            for reply in [attributes.as_bytes(), &bytes] {
                let _ = (Device::decode(reply), Queue::decode(reply), Napi::decode(reply));
                let _ = (QueueStatistics::decode(reply), PagePool::decode(reply));
                let _ = PagePoolStatistics::decode(reply);
            }
        }
    }
}
