//! Numbers and names of the `ethtool` family (include/uapi/linux/ethtool_netlink_generated.h).
//!
//! Requests and replies are numbered apart: a reply's command is not its request's.

use crate::netlink::{AttributeName, AttributeTable};

/// `ETHTOOL_GENL_NAME`.
pub const FAMILY: &str = "ethtool";
/// `ETHTOOL_MCGRP_MONITOR_NAME`: the group that is told of every change.
pub const MONITOR_GROUP: &str = "monitor";

/// `ETHTOOL_MSG_*` of requests.
#[allow(missing_docs, reason = "the names are those of the kernel's header")]
pub mod request {
    pub const FEATURES_GET: u8 = 11;
    pub const FEATURES_SET: u8 = 12;
    pub const RINGS_GET: u8 = 15;
    pub const RINGS_SET: u8 = 16;
    pub const CHANNELS_GET: u8 = 17;
    pub const CHANNELS_SET: u8 = 18;
    pub const RSS_GET: u8 = 38;
    pub const RSS_SET: u8 = 48;
    pub const RSS_CREATE_ACT: u8 = 49;
    pub const RSS_DELETE_ACT: u8 = 50;
}

/// `ETHTOOL_MSG_RINGS_NTF`: rings were changed.
pub const RINGS_NTF: u8 = 17;

/// `ETHTOOL_A_HEADER_*`.
#[allow(missing_docs, reason = "the names are those of the kernel's header")]
pub mod header {
    pub const DEV_INDEX: u16 = 1;
    pub const DEV_NAME: u16 = 2;
}

/// The header nest is attribute 1 of every command.
pub const HEADER: u16 = 1;

/// `ETHTOOL_A_RINGS_*`.
#[allow(missing_docs, reason = "the names are those of the kernel's header")]
pub mod rings {
    pub const RX_MAX: u16 = 2;
    pub const TX_MAX: u16 = 5;
    pub const RX: u16 = 6;
    pub const TX: u16 = 9;
    pub const RX_BUF_LEN: u16 = 10;
    pub const TCP_DATA_SPLIT: u16 = 11;
    pub const HDS_THRESH: u16 = 17;
    pub const HDS_THRESH_MAX: u16 = 18;
}

/// `ETHTOOL_TCP_DATA_SPLIT_*`.
#[allow(missing_docs, reason = "the names are those of the kernel's header")]
pub mod tcp_data_split {
    pub const UNKNOWN: u8 = 0;
    pub const DISABLED: u8 = 1;
    pub const ENABLED: u8 = 2;
}

/// `ETHTOOL_A_CHANNELS_*`.
#[allow(missing_docs, reason = "the names are those of the kernel's header")]
pub mod channels {
    pub const RX_MAX: u16 = 2;
    pub const TX_MAX: u16 = 3;
    pub const OTHER_MAX: u16 = 4;
    pub const COMBINED_MAX: u16 = 5;
    pub const RX_COUNT: u16 = 6;
    pub const TX_COUNT: u16 = 7;
    pub const OTHER_COUNT: u16 = 8;
    pub const COMBINED_COUNT: u16 = 9;
}

/// `ETHTOOL_A_FEATURES_*`.
#[allow(missing_docs, reason = "the names are those of the kernel's header")]
pub mod features {
    pub const HW: u16 = 2;
    pub const WANTED: u16 = 3;
    pub const ACTIVE: u16 = 4;
    pub const NOCHANGE: u16 = 5;
}

/// `ETHTOOL_A_BITSET_*`.
#[allow(missing_docs, reason = "the names are those of the kernel's header")]
pub mod bitset {
    pub const BITS: u16 = 3;
    /// `ETHTOOL_A_BITSET_BITS_BIT`.
    pub const BITS_BIT: u16 = 1;
    /// `ETHTOOL_A_BITSET_BIT_NAME`.
    pub const BIT_NAME: u16 = 2;
    /// `ETHTOOL_A_BITSET_BIT_VALUE`.
    pub const BIT_VALUE: u16 = 3;
}

/// `ETHTOOL_A_RSS_*`.
#[allow(missing_docs, reason = "the names are those of the kernel's header")]
pub mod rss {
    pub const CONTEXT: u16 = 2;
    pub const HFUNC: u16 = 3;
    pub const INDIR: u16 = 4;
    pub const HKEY: u16 = 5;
    pub const INPUT_XFRM: u16 = 6;
}

static HEADER_NAMES: AttributeTable = AttributeTable {
    attributes: &[
        AttributeName::plain(header::DEV_INDEX, "dev-index"),
        AttributeName::plain(header::DEV_NAME, "dev-name"),
    ],
};

/// Names of the attributes of the rings commands.
pub static RINGS_NAMES: AttributeTable = AttributeTable {
    attributes: &[
        AttributeName::nest(HEADER, "header", &HEADER_NAMES),
        AttributeName::plain(rings::RX, "rx"),
        AttributeName::plain(rings::TX, "tx"),
        AttributeName::plain(rings::RX_BUF_LEN, "rx-buf-len"),
        AttributeName::plain(rings::TCP_DATA_SPLIT, "tcp-data-split"),
        AttributeName::plain(rings::HDS_THRESH, "hds-thresh"),
    ],
};

/// Names of the attributes of the channels commands.
pub static CHANNELS_NAMES: AttributeTable = AttributeTable {
    attributes: &[
        AttributeName::nest(HEADER, "header", &HEADER_NAMES),
        AttributeName::plain(channels::RX_COUNT, "rx-count"),
        AttributeName::plain(channels::TX_COUNT, "tx-count"),
        AttributeName::plain(channels::OTHER_COUNT, "other-count"),
        AttributeName::plain(channels::COMBINED_COUNT, "combined-count"),
    ],
};

static BIT_NAMES: AttributeTable = AttributeTable {
    attributes: &[
        AttributeName::plain(bitset::BIT_NAME, "name"),
        AttributeName::plain(bitset::BIT_VALUE, "value"),
    ],
};
static BITS_NAMES: AttributeTable =
    AttributeTable { attributes: &[AttributeName::nest(bitset::BITS_BIT, "bit", &BIT_NAMES)] };
static BITSET_NAMES: AttributeTable =
    AttributeTable { attributes: &[AttributeName::nest(bitset::BITS, "bits", &BITS_NAMES)] };

/// Names of the attributes of the features commands.
pub static FEATURES_NAMES: AttributeTable = AttributeTable {
    attributes: &[
        AttributeName::nest(HEADER, "header", &HEADER_NAMES),
        AttributeName::nest(features::WANTED, "wanted", &BITSET_NAMES),
    ],
};

/// Names of the attributes of the RSS commands.
pub static RSS_NAMES: AttributeTable = AttributeTable {
    attributes: &[
        AttributeName::nest(HEADER, "header", &HEADER_NAMES),
        AttributeName::plain(rss::CONTEXT, "context"),
        AttributeName::plain(rss::HFUNC, "hfunc"),
        AttributeName::plain(rss::INDIR, "indir"),
        AttributeName::plain(rss::HKEY, "hkey"),
        AttributeName::plain(rss::INPUT_XFRM, "input-xfrm"),
    ],
};
