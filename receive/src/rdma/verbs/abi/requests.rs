//! Requests, and how they end.

use std::ffi::{c_int, c_uint};

use super::{AddressHandle, send_flags};

/// `wc`: the end of a request.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct WorkCompletion {
    /// The request's identifier.
    pub wr_id: u64,
    /// How it ended: one of [`status`](super::status).
    pub status: u32,
    /// What it did: one of [`completed`](super::completed). Meant only if it succeeded.
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
    /// What it does: one of [`request`](super::request).
    pub opcode: u32,
    /// Its flags: those of [`send_flags`](super::send_flags).
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
