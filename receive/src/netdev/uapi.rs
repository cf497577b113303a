//! Numbers and names of the `netdev` family (include/uapi/linux/netdev.h).

use crate::netlink::{AttributeName, AttributeTable, Attributes};

/// `NETDEV_FAMILY_NAME`.
pub const FAMILY: &str = "netdev";

/// `NETDEV_CMD_DEV_GET`.
pub const DEV_GET: u8 = 1;
/// `NETDEV_CMD_PAGE_POOL_GET`.
pub const PAGE_POOL_GET: u8 = 5;
/// `NETDEV_CMD_PAGE_POOL_STATS_GET`.
pub const PAGE_POOL_STATS_GET: u8 = 9;
/// `NETDEV_CMD_QUEUE_GET`.
pub const QUEUE_GET: u8 = 10;
/// `NETDEV_CMD_NAPI_GET`.
pub const NAPI_GET: u8 = 11;
/// `NETDEV_CMD_QSTATS_GET`.
pub const QSTATS_GET: u8 = 12;
/// `NETDEV_CMD_BIND_RX`.
pub const BIND_RX: u8 = 13;
/// `NETDEV_CMD_BIND_TX`.
pub const BIND_TX: u8 = 15;

/// `NETDEV_QUEUE_TYPE_RX`.
pub const QUEUE_TYPE_RX: u32 = 0;
/// `NETDEV_QUEUE_TYPE_TX`.
pub const QUEUE_TYPE_TX: u32 = 1;
/// `NETDEV_QSTATS_SCOPE_QUEUE`.
pub const QSTATS_SCOPE_QUEUE: u32 = 1;
/// A file descriptor that no process can have: -1.
pub const NO_DESCRIPTOR: u32 = u32::MAX;

/// `NETDEV_A_DEV_*`.
#[allow(missing_docs, reason = "the names are those of the kernel's header")]
pub mod dev {
    pub const IFINDEX: u16 = 1;
    pub const XDP_FEATURES: u16 = 3;
    pub const XDP_ZC_MAX_SEGS: u16 = 4;
}

/// `NETDEV_A_DMABUF_*`.
#[allow(missing_docs, reason = "the names are those of the kernel's header")]
pub mod dmabuf {
    pub const IFINDEX: u16 = 1;
    pub const QUEUES: u16 = 2;
    pub const FD: u16 = 3;
    pub const ID: u16 = 4;
}

/// `NETDEV_A_QUEUE_*`.
#[allow(missing_docs, reason = "the names are those of the kernel's header")]
pub mod queue {
    pub const ID: u16 = 1;
    pub const IFINDEX: u16 = 2;
    pub const TYPE: u16 = 3;
    pub const NAPI_ID: u16 = 4;
    pub const DMABUF: u16 = 5;
    pub const IO_URING: u16 = 6;
    pub const XSK: u16 = 7;
    pub const LEASE: u16 = 8;
}

/// `NETDEV_A_LEASE_*`.
#[allow(missing_docs, reason = "the names are those of the kernel's header")]
pub mod lease {
    pub const IFINDEX: u16 = 1;
    pub const QUEUE: u16 = 2;
    pub const NETNS_ID: u16 = 3;
}

/// `NETDEV_A_NAPI_*`.
#[allow(missing_docs, reason = "the names are those of the kernel's header")]
pub mod napi {
    pub const IFINDEX: u16 = 1;
    pub const ID: u16 = 2;
    pub const IRQ: u16 = 3;
    pub const PID: u16 = 4;
}

/// `NETDEV_A_PAGE_POOL_*`.
#[allow(missing_docs, reason = "the names are those of the kernel's header")]
pub mod page_pool {
    pub const ID: u16 = 1;
    pub const IFINDEX: u16 = 2;
    pub const NAPI_ID: u16 = 3;
    pub const INFLIGHT: u16 = 4;
    pub const INFLIGHT_MEM: u16 = 5;
    pub const DETACH_TIME: u16 = 6;
    pub const DMABUF: u16 = 7;
    pub const IO_URING: u16 = 8;
}

/// `NETDEV_A_PAGE_POOL_STATS_*`.
#[allow(missing_docs, reason = "the names are those of the kernel's header")]
pub mod page_pool_stats {
    pub const INFO: u16 = 1;
    pub const ALLOC_FAST: u16 = 8;
    pub const ALLOC_SLOW: u16 = 9;
    pub const ALLOC_SLOW_HIGH_ORDER: u16 = 10;
    pub const ALLOC_EMPTY: u16 = 11;
    pub const ALLOC_REFILL: u16 = 12;
    pub const ALLOC_WAIVE: u16 = 13;
    pub const RECYCLE_CACHED: u16 = 14;
    pub const RECYCLE_CACHE_FULL: u16 = 15;
    pub const RECYCLE_RING: u16 = 16;
    pub const RECYCLE_RING_FULL: u16 = 17;
    pub const RECYCLE_RELEASED_REFCNT: u16 = 18;
}

/// `NETDEV_A_QSTATS_*`.
#[allow(missing_docs, reason = "the names are those of the kernel's header")]
pub mod qstats {
    pub const IFINDEX: u16 = 1;
    pub const QUEUE_TYPE: u16 = 2;
    pub const QUEUE_ID: u16 = 3;
    pub const SCOPE: u16 = 4;
    pub const RX_PACKETS: u16 = 8;
    pub const RX_BYTES: u16 = 9;
    pub const TX_PACKETS: u16 = 10;
    pub const TX_BYTES: u16 = 11;
    pub const RX_ALLOC_FAIL: u16 = 12;
    pub const RX_HW_DROPS: u16 = 13;
    pub const RX_HW_DROP_OVERRUNS: u16 = 14;
}

/// Names of the attributes of `dev-get`.
pub static DEV_NAMES: AttributeTable =
    AttributeTable { attributes: &[AttributeName::plain(dev::IFINDEX, "ifindex")] };

/// Names of the attributes of `queue-get` and of a queue in `bind-rx`.
pub static QUEUE_NAMES: AttributeTable = AttributeTable {
    attributes: &[
        AttributeName::plain(queue::ID, "id"),
        AttributeName::plain(queue::IFINDEX, "ifindex"),
        AttributeName::plain(queue::TYPE, "type"),
    ],
};

/// Names of the attributes of `bind-rx` and `bind-tx`.
pub static DMABUF_NAMES: AttributeTable = AttributeTable {
    attributes: &[
        AttributeName::plain(dmabuf::IFINDEX, "ifindex"),
        AttributeName::nest(dmabuf::QUEUES, "queues", &QUEUE_NAMES),
        AttributeName::plain(dmabuf::FD, "fd"),
        AttributeName::plain(dmabuf::ID, "id"),
    ],
};

/// Names of the attributes of `napi-get`.
pub static NAPI_NAMES: AttributeTable = AttributeTable {
    attributes: &[AttributeName::plain(napi::IFINDEX, "ifindex"), AttributeName::plain(napi::ID, "id")],
};

/// Names of the attributes of `qstats-get`.
pub static QSTATS_NAMES: AttributeTable = AttributeTable {
    attributes: &[
        AttributeName::plain(qstats::IFINDEX, "ifindex"),
        AttributeName::plain(qstats::SCOPE, "scope"),
    ],
};

/// Names of the attributes of `page-pool-get`.
pub static PAGE_POOL_NAMES: AttributeTable =
    AttributeTable { attributes: &[AttributeName::plain(page_pool::ID, "id")] };

/// Names of the attributes of `page-pool-stats-get`.
pub static PAGE_POOL_STATS_NAMES: AttributeTable =
    AttributeTable { attributes: &[AttributeName::nest(page_pool_stats::INFO, "info", &PAGE_POOL_NAMES)] };

/// The attributes of a `bind-rx` request.
#[must_use]
pub fn bind_rx(ifindex: u32, queues: &[u32], descriptor: u32) -> Attributes {
    let mut attributes = Attributes::new().u32(dmabuf::IFINDEX, ifindex).u32(dmabuf::FD, descriptor);
    for &id in queues {
        let queue = Attributes::new().u32(queue::ID, id).u32(queue::TYPE, QUEUE_TYPE_RX);
        attributes = attributes.nest(dmabuf::QUEUES, queue);
    }
    attributes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes that follow from the kernel's specification for `bind-rx` of queues 1 and 2.
    #[test]
    #[cfg(target_endian = "little")]
    fn bind_rx_is_encoded_as_specified() {
        let golden: &[u8] = &[
            8, 0, 1, 0, 7, 0, 0, 0, // ifindex = 7
            8, 0, 3, 0, 5, 0, 0, 0, // fd = 5
            20, 0, 2, 0x80, // queues, nested
            8, 0, 1, 0, 1, 0, 0, 0, // id = 1
            8, 0, 3, 0, 0, 0, 0, 0, // type = rx
            20, 0, 2, 0x80, // queues, nested
            8, 0, 1, 0, 2, 0, 0, 0, // id = 2
            8, 0, 3, 0, 0, 0, 0, 0, // type = rx
        ];
        assert_eq!(bind_rx(7, &[1, 2], 5).as_bytes(), golden);
    }
}
