//! Layouts and numbers of rdma-core's user libraries, as its headers `infiniband/verbs.h` and `infiniband/efadv.h` define
//! them.
//!
//! They are part of the libraries' binary interface, which only grows: structures that the libraries allocate are
//! declared here as far as they are read, and those that a program hands over as far as every version knows them. A
//! structure's name in C is `struct ibv_` and the name that its description tells.

mod numbers;

pub use numbers::{
    PORT_ACTIVE, WC_WITH_IMM, attribute, completed, efa_capabilities, efa_status, initial, queue_pair_kind,
    queue_pair_state, request, send_flags, send_operations, status,
};

use std::ffi::{c_int, c_uint, c_void};

/// A function of a provider, which may be missing.
type Operation<F> = Option<F>;

/// A place of a table that is not used here.
type Unused = *const c_void;

/// `device`: an RDMA device in the list of the library.
#[repr(C)]
#[derive(Debug)]
pub struct Device {
    _opaque: [u8; 0],
}

/// `pd`: a protection domain.
#[repr(C)]
#[derive(Debug)]
pub struct ProtectionDomain {
    _opaque: [u8; 0],
}

/// `ah`: an address handle.
#[repr(C)]
#[derive(Debug)]
pub struct AddressHandle {
    _opaque: [u8; 0],
}

/// `cq`: a completion queue.
#[repr(C)]
#[derive(Debug)]
pub struct CompletionQueue {
    _opaque: [u8; 0],
}

/// `context_ops`: what a provider does for the inline functions of the header.
#[repr(C)]
#[derive(Debug)]
pub struct ContextOperations {
    _before_poll: [Unused; 11],
    /// `ibv_poll_cq()`.
    pub poll_cq: Operation<unsafe extern "C" fn(*mut CompletionQueue, c_int, *mut WorkCompletion) -> c_int>,
    /// `ibv_req_notify_cq()`.
    pub req_notify_cq: Operation<unsafe extern "C" fn(*mut CompletionQueue, c_int) -> c_int>,
    _before_post: [Unused; 12],
    /// `ibv_post_send()`.
    pub post_send: Operation<
        unsafe extern "C" fn(*mut QueuePair, *mut SendWorkRequest, *mut *mut SendWorkRequest) -> c_int,
    >,
    /// `ibv_post_recv()`.
    pub post_recv: Operation<
        unsafe extern "C" fn(*mut QueuePair, *mut ReceiveWorkRequest, *mut *mut ReceiveWorkRequest) -> c_int,
    >,
    _after_post: [Unused; 5],
}

/// `context`: an opened device.
#[repr(C)]
#[derive(Debug)]
pub struct Context {
    /// The device.
    pub device: *mut Device,
    /// What its provider does.
    pub ops: ContextOperations,
    /// The descriptor of the device's node.
    pub cmd_fd: c_int,
}

/// `mr`: a memory region.
#[repr(C)]
#[derive(Debug)]
pub struct MemoryRegion {
    _context: Unused,
    _domain: Unused,
    _address: Unused,
    _length: usize,
    _handle: u32,
    /// The key by which this device's own requests name it.
    pub lkey: u32,
    /// The key by which peers name it.
    pub rkey: u32,
}

/// `comp_channel`: where completion queues tell that they have something.
#[repr(C)]
#[derive(Debug)]
pub struct CompletionChannel {
    _context: Unused,
    /// The descriptor that becomes readable.
    pub fd: c_int,
    _references: c_int,
}

/// `qp`: a queue pair.
#[repr(C)]
#[derive(Debug)]
pub struct QueuePair {
    _context: Unused,
    _program_context: Unused,
    _domain: Unused,
    _send_cq: Unused,
    _recv_cq: Unused,
    _shared_receive_queue: Unused,
    _handle: u32,
    /// Its number, by which peers name it.
    pub qp_num: u32,
    _state: u32,
    _kind: u32,
    _mutex: libc::pthread_mutex_t,
    _condition: libc::pthread_cond_t,
    _events_completed: u32,
}

/// `qp_ex`: a queue pair whose requests are built by function calls.
#[repr(C)]
#[derive(Debug)]
pub struct ExtendedQueuePair {
    _base: QueuePair,
    _comp_mask: u64,
    /// The identifier of the request that is begun next.
    pub wr_id: u64,
    /// Its flags.
    pub wr_flags: c_uint,
    _before_read: [Unused; 4],
    /// Begins an RDMA read: key and address.
    pub wr_rdma_read: Operation<unsafe extern "C" fn(*mut Self, u32, u64)>,
    /// Begins an RDMA write: key and address.
    pub wr_rdma_write: Operation<unsafe extern "C" fn(*mut Self, u32, u64)>,
    /// The same with immediate data, in network byte order.
    pub wr_rdma_write_imm: Operation<unsafe extern "C" fn(*mut Self, u32, u64, u32)>,
    /// Begins a message.
    pub wr_send: Operation<unsafe extern "C" fn(*mut Self)>,
    /// The same with immediate data, in network byte order.
    pub wr_send_imm: Operation<unsafe extern "C" fn(*mut Self, u32)>,
    _before_address: [Unused; 2],
    /// Says whom the request is for: queue pair and queue key.
    pub wr_set_ud_addr: Operation<unsafe extern "C" fn(*mut Self, *mut AddressHandle, u32, u32)>,
    _before_sge: [Unused; 3],
    /// Says which memory the request is about: key, address and length.
    pub wr_set_sge: Operation<unsafe extern "C" fn(*mut Self, u32, u64, u32)>,
    _before_start: [Unused; 1],
    /// Begins a batch of requests, and takes the queue's lock.
    pub wr_start: Operation<unsafe extern "C" fn(*mut Self)>,
    /// Posts them, and lets the lock go.
    pub wr_complete: Operation<unsafe extern "C" fn(*mut Self) -> c_int>,
    /// Gives them up, and lets the lock go.
    pub wr_abort: Operation<unsafe extern "C" fn(*mut Self)>,
}

/// `wc`: the end of a request.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct WorkCompletion {
    /// The request's identifier.
    pub wr_id: u64,
    /// How it ended: one of [`status`].
    pub status: u32,
    /// What it did: one of [`completed`]. Meant only if it succeeded.
    pub opcode: u32,
    /// The device's own word for the failure.
    pub vendor_err: u32,
    /// Bytes that were received.
    pub byte_len: u32,
    /// Immediate data in network byte order.
    pub imm_data: u32,
    /// The queue pair.
    pub qp_num: u32,
    /// The peer's queue pair, of datagrams that were received.
    pub src_qp: u32,
    /// Which of the fields are meant.
    pub wc_flags: c_uint,
    /// Index of the partition key.
    pub pkey_index: u16,
    /// The peer's local identifier.
    pub slid: u16,
    /// The service level.
    pub sl: u8,
    /// Bits of the local identifier.
    pub dlid_path_bits: u8,
}

/// `sge`: a piece of memory.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct ScatterGatherElement {
    /// Its address, as its region counts.
    pub addr: u64,
    /// Its length in bytes.
    pub length: u32,
    /// The region's key.
    pub lkey: u32,
}

/// Memory of a peer.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Rdma {
    /// Its address.
    pub remote_addr: u64,
    /// Its key.
    pub rkey: u32,
}

/// The receiver of a datagram.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Datagram {
    /// Its device.
    pub ah: *mut AddressHandle,
    /// Its queue pair.
    pub remote_qpn: u32,
    /// The key of that queue pair.
    pub remote_qkey: u32,
}

/// What a request is directed at.
#[repr(C)]
#[derive(Clone, Copy)]
pub union Target {
    /// Of RDMA reads and writes.
    pub rdma: Rdma,
    /// Of datagrams.
    pub ud: Datagram,
    /// The size of the largest, that of atomic operations.
    pub atomic: [u64; 4],
}

/// `send_wr`: a request of a send queue.
#[repr(C)]
pub struct SendWorkRequest {
    /// The program's identifier.
    pub wr_id: u64,
    /// The next of a list.
    pub next: *mut SendWorkRequest,
    /// The memory that it is about.
    pub sg_list: *mut ScatterGatherElement,
    /// Of how many pieces.
    pub num_sge: c_int,
    /// What it does: one of [`request`].
    pub opcode: u32,
    /// Its flags: those of [`send_flags`].
    pub send_flags: c_uint,
    /// Immediate data in network byte order.
    pub imm_data: u32,
    /// What it is directed at.
    pub wr: Target,
    _queue_pair_kind: u64,
    _window_or_segmentation: [u64; 6],
}

impl SendWorkRequest {
    /// One request about one piece of memory.
    #[must_use]
    pub fn new(wr_id: u64, opcode: u32, memory: *mut ScatterGatherElement) -> Self {
        Self {
            wr_id,
            next: std::ptr::null_mut(),
            sg_list: memory,
            num_sge: 1,
            opcode,
            send_flags: send_flags::SIGNALED,
            imm_data: 0,
            wr: Target { atomic: [0; 4] },
            _queue_pair_kind: 0,
            _window_or_segmentation: [0; 6],
        }
    }
}

/// `recv_wr`: memory for a message that will come.
#[repr(C)]
#[derive(Debug)]
pub struct ReceiveWorkRequest {
    /// The program's identifier.
    pub wr_id: u64,
    /// The next of a list.
    pub next: *mut ReceiveWorkRequest,
    /// The memory.
    pub sg_list: *mut ScatterGatherElement,
    /// Of how many pieces.
    pub num_sge: c_int,
}

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
    /// One of [`queue_pair_kind`].
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
    /// What its requests will do: those of [`send_operations`].
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
    /// One of [`queue_pair_state`].
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
    /// [`PORT_ACTIVE`], or a number that means something else.
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
    /// Those of [`efa_capabilities`].
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

const _: () = {
    use std::mem::offset_of;
    assert!(offset_of!(ContextOperations, poll_cq) == 11 * size_of::<usize>());
    assert!(offset_of!(ContextOperations, post_recv) == 26 * size_of::<usize>());
    assert!(size_of::<ContextOperations>() == 32 * size_of::<usize>());
    assert!(size_of::<WorkCompletion>() == 48);
    assert!(size_of::<ScatterGatherElement>() == 16);
    assert!(size_of::<GlobalRoute>() == 24);
    assert!(size_of::<AddressHandleAttributes>() == 32);
    assert!(size_of::<QueuePairAttributes>() == 144);
    assert!(size_of::<DeviceAttributes>() == 232);
    assert!(size_of::<EfaDeviceAttributes>() == 32);
    assert!(size_of::<EfaQueuePairAttributes>() == 16);
    assert!(offset_of!(PortAttributes, lid) == 34);
};

#[cfg(target_arch = "x86_64")]
const _: () = {
    use std::mem::offset_of;
    assert!(offset_of!(Context, cmd_fd) == 264);
    assert!(offset_of!(QueuePair, qp_num) == 52);
    assert!(size_of::<QueuePair>() == 160);
    assert!(offset_of!(ExtendedQueuePair, wr_rdma_read) == 216);
    assert!(offset_of!(ExtendedQueuePair, wr_set_ud_addr) == 272);
    assert!(offset_of!(ExtendedQueuePair, wr_set_sge) == 304);
    assert!(offset_of!(ExtendedQueuePair, wr_start) == 320);
    assert!(size_of::<SendWorkRequest>() == 128);
    assert!(size_of::<ReceiveWorkRequest>() == 32);
    assert!(size_of::<QueuePairInitialAttributes>() == 136);
    assert!(offset_of!(QueuePairInitialAttributes, comp_mask) == 60);
    assert!(offset_of!(QueuePairInitialAttributes, send_ops_flags) == 128);
};
