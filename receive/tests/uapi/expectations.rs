//! What the headers should say.

use devmem_receive::ethtool::ioctl_uapi::{self, DrvInfo, RxFh, RxFlowSpec, RxNfc};
use devmem_receive::ethtool::uapi as ethtool;
use devmem_receive::netdev::uapi as netdev;
use devmem_uapi_check::{Header, constants, layouts};

pub(crate) fn all() -> Vec<Header> {
    vec![
        Header::new("linux/netdev.h").values(netdev_family()),
        Header::new("linux/ethtool_netlink.h").values(ethtool_family()),
        Header::new("linux/ethtool.h").values(ethtool_ioctl()),
    ]
}

fn netdev_family() -> Vec<(String, i128)> {
    [
        constants!("NETDEV_CMD_", netdev: DEV_GET, PAGE_POOL_GET, PAGE_POOL_STATS_GET, QUEUE_GET, NAPI_GET,
            QSTATS_GET, BIND_RX, BIND_TX),
        constants!("NETDEV_", netdev: QUEUE_TYPE_RX, QUEUE_TYPE_TX, QSTATS_SCOPE_QUEUE),
        constants!("NETDEV_A_DEV_", netdev::dev: IFINDEX, XDP_FEATURES, XDP_ZC_MAX_SEGS),
        constants!("NETDEV_A_DMABUF_", netdev::dmabuf: IFINDEX, QUEUES, FD, ID),
        constants!("NETDEV_A_QUEUE_", netdev::queue: ID, IFINDEX, TYPE, NAPI_ID, DMABUF, IO_URING, XSK, LEASE),
        constants!("NETDEV_A_LEASE_", netdev::lease: IFINDEX, QUEUE, NETNS_ID),
        constants!("NETDEV_A_NAPI_", netdev::napi: IFINDEX, ID, IRQ, PID),
        constants!("NETDEV_A_PAGE_POOL_", netdev::page_pool: ID, IFINDEX, NAPI_ID, INFLIGHT, INFLIGHT_MEM,
            DETACH_TIME, DMABUF, IO_URING),
        constants!("NETDEV_A_PAGE_POOL_STATS_", netdev::page_pool_stats: INFO, ALLOC_FAST, ALLOC_SLOW,
            ALLOC_SLOW_HIGH_ORDER, ALLOC_EMPTY, ALLOC_REFILL, ALLOC_WAIVE, RECYCLE_CACHED, RECYCLE_CACHE_FULL,
            RECYCLE_RING, RECYCLE_RING_FULL, RECYCLE_RELEASED_REFCNT),
        constants!("NETDEV_A_QSTATS_", netdev::qstats: IFINDEX, QUEUE_TYPE, QUEUE_ID, SCOPE, RX_PACKETS, RX_BYTES,
            TX_PACKETS, TX_BYTES, RX_ALLOC_FAIL, RX_HW_DROPS, RX_HW_DROP_OVERRUNS),
    ]
    .concat()
}

fn ethtool_family() -> Vec<(String, i128)> {
    [
        constants!("ETHTOOL_MSG_", ethtool::request: FEATURES_GET, FEATURES_SET, RINGS_GET, RINGS_SET, CHANNELS_GET,
            CHANNELS_SET, RSS_GET, RSS_SET, RSS_CREATE_ACT, RSS_DELETE_ACT),
        constants!("ETHTOOL_MSG_", ethtool: RINGS_NTF),
        constants!("ETHTOOL_A_HEADER_", ethtool::header: DEV_INDEX, DEV_NAME),
        constants!("ETHTOOL_A_RINGS_", ethtool: HEADER),
        constants!("ETHTOOL_A_CHANNELS_", ethtool: HEADER),
        constants!("ETHTOOL_A_FEATURES_", ethtool: HEADER),
        constants!("ETHTOOL_A_RSS_", ethtool: HEADER),
        constants!("ETHTOOL_A_RINGS_", ethtool::rings: RX_MAX, TX_MAX, RX, TX, RX_BUF_LEN, TCP_DATA_SPLIT,
            HDS_THRESH, HDS_THRESH_MAX),
        constants!("ETHTOOL_TCP_DATA_SPLIT_", ethtool::tcp_data_split: UNKNOWN, DISABLED, ENABLED),
        constants!("ETHTOOL_A_CHANNELS_", ethtool::channels: RX_MAX, TX_MAX, OTHER_MAX, COMBINED_MAX, RX_COUNT,
            TX_COUNT, OTHER_COUNT, COMBINED_COUNT),
        constants!("ETHTOOL_A_FEATURES_", ethtool::features: HW, WANTED, ACTIVE, NOCHANGE),
        constants!("ETHTOOL_A_BITSET_", ethtool::bitset: BITS, BITS_BIT, BIT_NAME, BIT_VALUE),
        constants!("ETHTOOL_A_RSS_", ethtool::rss: CONTEXT, HFUNC, INDIR, HKEY, INPUT_XFRM),
    ]
    .concat()
}

fn ethtool_ioctl() -> Vec<(String, i128)> {
    [
        constants!("ETHTOOL_", ioctl_uapi: GDRVINFO, GRXCLSRLCNT, GRXCLSRULE, GRXCLSRLALL, SRXCLSRLDEL, SRXCLSRLINS,
            SRSSH),
        constants!("", ioctl_uapi: TCP_V4_FLOW, TCP_V6_FLOW, FLOW_RSS),
        vec![
            ("RX_CLS_LOC_SPECIAL".to_owned(), ioctl_uapi::LOCATION_SPECIAL.into()),
            ("RX_CLS_LOC_ANY".to_owned(), ioctl_uapi::LOCATION_ANY.into()),
            ("RX_CLS_FLOW_DISC".to_owned(), ioctl_uapi::DISCARD.into()),
            ("ETH_RXFH_CONTEXT_ALLOC".to_owned(), ioctl_uapi::RSS_CONTEXT_NEW.into()),
            ("RXH_XFRM_NO_CHANGE".to_owned(), ioctl_uapi::RSS_TRANSFORMATION_UNCHANGED.into()),
        ],
        layouts! {
            RxFlowSpec as "ethtool_rx_flow_spec" { flow_type, h_u, h_ext, m_u, m_ext, ring_cookie, location }
            RxNfc as "ethtool_rxnfc" { cmd, flow_type, data, fs, rule_cnt, rule_locs }
            DrvInfo as "ethtool_drvinfo" {
                cmd, driver, version, fw_version, bus_info, erom_version, n_priv_flags, n_stats,
                testinfo_len, eedump_len, regdump_len
            }
            RxFh as "ethtool_rxfh" { cmd, rss_context, indir_size, key_size, hfunc, input_xfrm, rsvd32 }
        },
    ]
    .concat()
}
