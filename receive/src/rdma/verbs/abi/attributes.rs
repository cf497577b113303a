//! What queue pairs, address handles, ports and devices are or shall be.

use std::ffi::{c_int, c_uint, c_void};

use super::{CompletionQueue, ProtectionDomain};

/// `qp_cap`: the room of a queue pair.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct QueuePairCapacity {
    /// Requests that may be outstanding.
    pub max_send_wr: u32,
    /// Receives that may be posted.
    pub max_recv_wr: u32,
    /// Pieces of memory in a request.
    pub max_send_sge: u32,
    /// Pieces of memory in a receive.
    pub max_recv_sge: u32,
    /// Bytes that a request itself may hold.
    pub max_inline_data: u32,
}

/// `qp_init_attr_ex`, whose beginning is `qp_init_attr`: what a queue pair shall be.
#[repr(C)]
#[derive(Debug)]
pub struct QueuePairInitialAttributes {
    /// The program's own.
    pub qp_context: *mut c_void,
    /// Where requests are completed.
    pub send_cq: *mut CompletionQueue,
    /// Where receives are completed.
    pub recv_cq: *mut CompletionQueue,
    /// A receive queue that is shared with others.
    pub srq: *mut c_void,
    /// Its room. Told what it came to.
    pub cap: QueuePairCapacity,
    /// One of [`queue_pair_kind`](super::queue_pair_kind).
    pub qp_type: u32,
    /// Whether every request is completed.
    pub sq_sig_all: c_int,
    /// Which of the fields from here on are meant.
    pub comp_mask: u32,
    /// Its protection domain.
    pub pd: *mut ProtectionDomain,
    _xrc_domain: *mut c_void,
    _create_flags: u32,
    _max_tso_header: u16,
    _indirection_table: *mut c_void,
    _hash: [u64; 3],
    _source_qpn: u32,
    /// What its requests will do: those of [`send_operations`](super::send_operations).
    pub send_ops_flags: u64,
}

impl QueuePairInitialAttributes {
    /// A queue pair whose queues are completed in these.
    #[must_use]
    pub fn new(
        qp_type: u32,
        send_cq: *mut CompletionQueue,
        recv_cq: *mut CompletionQueue,
        cap: QueuePairCapacity,
    ) -> Self {
        Self {
            qp_context: std::ptr::null_mut(),
            send_cq,
            recv_cq,
            srq: std::ptr::null_mut(),
            cap,
            qp_type,
            sq_sig_all: 1,
            comp_mask: 0,
            pd: std::ptr::null_mut(),
            _xrc_domain: std::ptr::null_mut(),
            _create_flags: 0,
            _max_tso_header: 0,
            _indirection_table: std::ptr::null_mut(),
            _hash: [0; 3],
            _source_qpn: 0,
            send_ops_flags: 0,
        }
    }
}

/// `global_route`: the address of a device in its network.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct GlobalRoute {
    /// The peer's GID.
    pub dgid: [u64; 2],
    /// Chooses among several ways.
    pub flow_label: u32,
    /// The own GID, by its index.
    pub sgid_index: u8,
    /// Over how many routers.
    pub hop_limit: u8,
    /// The class of traffic.
    pub traffic_class: u8,
}

/// `ah_attr`: the way to a peer.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct AddressHandleAttributes {
    /// By GID.
    pub grh: GlobalRoute,
    /// By local identifier.
    pub dlid: u16,
    /// The service level.
    pub sl: u8,
    /// Bits of the own local identifier.
    pub src_path_bits: u8,
    /// The rate.
    pub static_rate: u8,
    /// Whether there is a way by GID.
    pub is_global: u8,
    /// The own port.
    pub port_num: u8,
}

/// `qp_attr`: the state of a queue pair.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct QueuePairAttributes {
    /// One of [`queue_pair_state`](super::queue_pair_state).
    pub qp_state: u32,
    /// The present one.
    pub cur_qp_state: u32,
    /// The size of packets, as a number from 1 (256 bytes) to 5 (4096).
    pub path_mtu: u32,
    /// Of path migration.
    pub path_mig_state: u32,
    /// The key that datagrams must have.
    pub qkey: u32,
    /// The first sequence number to receive.
    pub rq_psn: u32,
    /// The first sequence number to send.
    pub sq_psn: u32,
    /// The peer's queue pair, of connections.
    pub dest_qp_num: u32,
    /// What the peer may do.
    pub qp_access_flags: c_uint,
    /// The room.
    pub cap: QueuePairCapacity,
    /// The way to the peer, of connections.
    pub ah_attr: AddressHandleAttributes,
    /// Another way.
    pub alt_ah_attr: AddressHandleAttributes,
    /// Index of the partition key.
    pub pkey_index: u16,
    /// That of the other way.
    pub alt_pkey_index: u16,
    /// Whether the end of sending is told.
    pub en_sqd_async_notify: u8,
    /// Whether it is ending.
    pub sq_draining: u8,
    /// Reads that may be outstanding.
    pub max_rd_atomic: u8,
    /// Reads of the peer that may be outstanding.
    pub max_dest_rd_atomic: u8,
    /// How long a peer waits that comes before there is a receive.
    pub min_rnr_timer: u8,
    /// The own port.
    pub port_num: u8,
    /// How long an answer is waited for.
    pub timeout: u8,
    /// How often a request is sent again.
    pub retry_cnt: u8,
    /// The same where the peer had no receive; 7 is without end.
    pub rnr_retry: u8,
    /// The port of the other way.
    pub alt_port_num: u8,
    /// The time of the other way.
    pub alt_timeout: u8,
    /// A limit of the rate.
    pub rate_limit: u32,
}

/// `port_attr`: what a port is. Later versions add at the end, for which there is room.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct PortAttributes {
    /// [`PORT_ACTIVE`](super::PORT_ACTIVE), or a number that means something else.
    pub state: u32,
    /// The largest packets, as [`QueuePairAttributes::path_mtu`].
    pub max_mtu: u32,
    /// The present ones.
    pub active_mtu: u32,
    /// The size of its table of GIDs.
    pub gid_tbl_len: c_int,
    /// What it can do.
    pub port_cap_flags: u32,
    /// The longest message in bytes.
    pub max_msg_sz: u32,
    /// Wrong partition keys so far.
    pub bad_pkey_cntr: u32,
    /// Wrong queue keys so far.
    pub qkey_viol_cntr: u32,
    /// The size of its table of partition keys.
    pub pkey_tbl_len: u16,
    /// Its local identifier.
    pub lid: u16,
    _later: [u32; 8],
}

/// `device_attr`: what a device is.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct DeviceAttributes {
    _versions: [u64; 12],
    /// The maker's number.
    pub vendor_id: u32,
    _part: [u32; 2],
    /// The most queue pairs.
    pub max_qp: c_int,
    /// The most requests in one.
    pub max_qp_wr: c_int,
    _capabilities: c_uint,
    /// The most pieces of memory in a request.
    pub max_sge: c_int,
    _max_sge_rd: c_int,
    /// The most completion queues.
    pub max_cq: c_int,
    /// The most entries in one.
    pub max_cqe: c_int,
    _maxima: [u32; 2],
    /// Reads of peers that may be outstanding at a queue pair.
    pub max_qp_rd_atom: c_int,
    _limits: [u32; 2],
    /// Reads that may be outstanding at a queue pair.
    pub max_qp_init_rd_atom: c_int,
    _more: [u32; 17],
    /// How many ports there are.
    _end: [u8; 4],
}

/// `efadv_device_attr`: what an EFA device can do.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct EfaDeviceAttributes {
    /// Which of the fields are meant, besides those of the first version.
    pub comp_mask: u64,
    /// The most requests in a queue pair.
    pub max_sq_wr: u32,
    /// The most receives.
    pub max_rq_wr: u32,
    /// The most pieces of memory in a request.
    pub max_sq_sge: u16,
    /// The most pieces of memory in a receive.
    pub max_rq_sge: u16,
    /// Bytes that a request itself may hold.
    pub inline_buf_size: u16,
    _reserved: [u8; 2],
    /// Those of [`efa_capabilities`](super::efa_capabilities).
    pub device_caps: u32,
    /// The longest RDMA in bytes.
    pub max_rdma_size: u32,
}

/// `efadv_qp_init_attr`: which of EFA's queue pairs.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct EfaQueuePairAttributes {
    _comp_mask: u64,
    /// 0 is SRD, and there is no other.
    pub driver_qp_type: u32,
    _flags: [u8; 4],
}
