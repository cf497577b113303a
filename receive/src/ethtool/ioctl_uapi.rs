//! Numbers and layouts of the `SIOCETHTOOL` requests that have no netlink counterpart
//! (include/uapi/linux/ethtool.h).

/// `ETHTOOL_GDRVINFO`.
pub const GDRVINFO: u32 = 0x03;
/// `ETHTOOL_GRXCLSRLCNT`: number of flow rules.
pub const GRXCLSRLCNT: u32 = 0x2e;
/// `ETHTOOL_GRXCLSRULE`: one flow rule.
pub const GRXCLSRULE: u32 = 0x2f;
/// `ETHTOOL_GRXCLSRLALL`: the locations of all flow rules.
pub const GRXCLSRLALL: u32 = 0x30;
/// `ETHTOOL_SRXCLSRLDEL`: remove a flow rule.
pub const SRXCLSRLDEL: u32 = 0x31;
/// `ETHTOOL_SRXCLSRLINS`: insert a flow rule.
pub const SRXCLSRLINS: u32 = 0x32;
/// `ETHTOOL_SRSSH`: change an RSS context.
pub const SRSSH: u32 = 0x47;

/// `TCP_V4_FLOW`.
pub const TCP_V4_FLOW: u32 = 0x01;
/// `TCP_V6_FLOW`.
pub const TCP_V6_FLOW: u32 = 0x05;
/// `FLOW_RSS`, in a flow type: the rule spreads over an RSS context.
pub const FLOW_RSS: u32 = 0x2000_0000;
/// `RX_CLS_LOC_SPECIAL`, in the size of a rule table: the driver can choose locations.
pub const LOCATION_SPECIAL: u32 = 0x8000_0000;
/// `RX_CLS_LOC_ANY`: let the driver choose the location.
pub const LOCATION_ANY: u32 = 0xffff_ffff;
/// `RX_CLS_FLOW_DISC`, in place of a queue: drop the packets.
pub const DISCARD: u64 = u64::MAX;

/// `ETH_RXFH_CONTEXT_ALLOC`: make a new RSS context.
pub const RSS_CONTEXT_NEW: u32 = 0xffff_ffff;
/// `RXH_XFRM_NO_CHANGE`.
pub const RSS_TRANSFORMATION_UNCHANGED: u8 = 0xff;

/// `struct ethtool_rx_flow_spec`: what packets a rule matches and where they go.
///
/// `h_u` and `m_u` are unions of one layout per flow type, 52 bytes each.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, reason = "the names are those of the kernel's header")]
pub struct RxFlowSpec {
    pub flow_type: u32,
    pub h_u: [u8; 52],
    pub h_ext: [u8; 20],
    pub m_u: [u8; 52],
    pub m_ext: [u8; 20],
    pub padding: u32,
    pub ring_cookie: u64,
    pub location: u32,
    pub padding_at_end: u32,
}

/// `struct ethtool_rxnfc`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, reason = "the names are those of the kernel's header")]
pub struct RxNfc {
    pub cmd: u32,
    pub flow_type: u32,
    pub data: u64,
    pub fs: RxFlowSpec,
    /// `rule_cnt`, or `rss_context` when the flow type has [`FLOW_RSS`].
    pub rule_cnt: u32,
    /// Where the locations of [`GRXCLSRLALL`] begin; here as padding.
    pub rule_locs: u32,
}

/// `struct ethtool_drvinfo`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, reason = "the names are those of the kernel's header")]
pub struct DrvInfo {
    pub cmd: u32,
    pub driver: [u8; 32],
    pub version: [u8; 32],
    pub fw_version: [u8; 32],
    pub bus_info: [u8; 32],
    pub erom_version: [u8; 32],
    pub reserved2: [u8; 12],
    pub n_priv_flags: u32,
    pub n_stats: u32,
    pub testinfo_len: u32,
    pub eedump_len: u32,
    pub regdump_len: u32,
}

/// `struct ethtool_rxfh` without the table that follows it.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, reason = "the names are those of the kernel's header")]
pub struct RxFh {
    pub cmd: u32,
    pub rss_context: u32,
    pub indir_size: u32,
    pub key_size: u32,
    pub hfunc: u8,
    pub input_xfrm: u8,
    pub rsvd8: [u8; 2],
    pub rsvd32: u32,
}

const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<RxFlowSpec>() == 168);
    assert!(offset_of!(RxFlowSpec, h_u) == 4);
    assert!(offset_of!(RxFlowSpec, h_ext) == 56);
    assert!(offset_of!(RxFlowSpec, m_u) == 76);
    assert!(offset_of!(RxFlowSpec, m_ext) == 128);
    assert!(offset_of!(RxFlowSpec, ring_cookie) == 152);
    assert!(offset_of!(RxFlowSpec, location) == 160);
    assert!(size_of::<RxNfc>() == 192);
    assert!(offset_of!(RxNfc, data) == 8);
    assert!(offset_of!(RxNfc, fs) == 16);
    assert!(offset_of!(RxNfc, rule_cnt) == 184);
    assert!(offset_of!(RxNfc, rule_locs) == 188);
    assert!(size_of::<DrvInfo>() == 196);
    assert!(offset_of!(DrvInfo, bus_info) == 100);
    assert!(offset_of!(DrvInfo, n_priv_flags) == 176);
    assert!(size_of::<RxFh>() == 24);
    assert!(offset_of!(RxFh, hfunc) == 16);
};

impl RxNfc {
    /// A request that is all zero but for its command.
    #[must_use]
    pub const fn new(cmd: u32) -> Self {
        Self {
            cmd,
            flow_type: 0,
            data: 0,
            fs: RxFlowSpec {
                flow_type: 0,
                h_u: [0; 52],
                h_ext: [0; 20],
                m_u: [0; 52],
                m_ext: [0; 20],
                padding: 0,
                ring_cookie: 0,
                location: 0,
                padding_at_end: 0,
            },
            rule_cnt: 0,
            rule_locs: 0,
        }
    }
}
