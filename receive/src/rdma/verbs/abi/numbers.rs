//! Numbers: of states, of what requests do, and of how they end.

/// `enum ibv_wc_status`.
#[expect(missing_docs, reason = "the header's words; `CompletionStatus` explains them")]
pub mod status {
    pub const SUCCESS: u32 = 0;
    pub const LOC_LEN_ERR: u32 = 1;
    pub const LOC_QP_OP_ERR: u32 = 2;
    pub const LOC_PROT_ERR: u32 = 4;
    pub const WR_FLUSH_ERR: u32 = 5;
    pub const BAD_RESP_ERR: u32 = 7;
    pub const LOC_ACCESS_ERR: u32 = 8;
    pub const REM_INV_REQ_ERR: u32 = 9;
    pub const REM_ACCESS_ERR: u32 = 10;
    pub const REM_OP_ERR: u32 = 11;
    pub const RETRY_EXC_ERR: u32 = 12;
    pub const RNR_RETRY_EXC_ERR: u32 = 13;
    pub const REM_INV_RD_REQ_ERR: u32 = 15;
    pub const REM_ABORT_ERR: u32 = 16;
    pub const FATAL_ERR: u32 = 19;
    pub const RESP_TIMEOUT_ERR: u32 = 20;
}

/// `enum ibv_wc_opcode`.
#[expect(missing_docs, reason = "the header's words")]
pub mod completed {
    pub const SEND: u32 = 0;
    pub const RDMA_WRITE: u32 = 1;
    pub const RDMA_READ: u32 = 2;
    pub const RECV: u32 = 128;
    pub const RECV_RDMA_WITH_IMM: u32 = 129;
}

/// `enum ibv_wc_flags`: there is immediate data.
pub const WC_WITH_IMM: u32 = 2;

/// `enum ibv_wr_opcode`.
#[expect(missing_docs, reason = "the header's words")]
pub mod request {
    pub const RDMA_WRITE: u32 = 0;
    pub const RDMA_WRITE_WITH_IMM: u32 = 1;
    pub const SEND: u32 = 2;
    pub const SEND_WITH_IMM: u32 = 3;
    pub const RDMA_READ: u32 = 4;
}

/// `enum ibv_send_flags`.
pub mod send_flags {
    /// The request is completed when it succeeds, too.
    pub const SIGNALED: u32 = 2;
}

/// `enum ibv_qp_type`.
#[expect(missing_docs, reason = "the header's words")]
pub mod queue_pair_kind {
    pub const RC: u32 = 2;
    pub const UD: u32 = 4;
    pub const DRIVER: u32 = 255;
}

/// `enum ibv_qp_create_send_ops_flags`.
#[expect(missing_docs, reason = "the header's words")]
pub mod send_operations {
    pub const RDMA_WRITE: u64 = 1;
    pub const RDMA_WRITE_WITH_IMM: u64 = 2;
    pub const SEND: u64 = 4;
    pub const SEND_WITH_IMM: u64 = 8;
    pub const RDMA_READ: u64 = 16;
}

/// `enum ibv_qp_init_attr_mask`.
pub mod initial {
    /// [`QueuePairInitialAttributes::pd`](super::super::QueuePairInitialAttributes) is meant.
    pub const PD: u32 = 1;
    /// [`QueuePairInitialAttributes::send_ops_flags`](super::super::QueuePairInitialAttributes) is meant.
    pub const SEND_OPS_FLAGS: u32 = 64;
}

/// `enum ibv_qp_state`.
#[expect(missing_docs, reason = "the header's words")]
pub mod queue_pair_state {
    pub const INIT: u32 = 1;
    pub const RTR: u32 = 2;
    pub const RTS: u32 = 3;
    pub const ERR: u32 = 6;
}

/// `enum ibv_qp_attr_mask`.
#[expect(missing_docs, reason = "the header's words")]
pub mod attribute {
    pub const STATE: u32 = 1;
    pub const ACCESS_FLAGS: u32 = 1 << 3;
    pub const PKEY_INDEX: u32 = 1 << 4;
    pub const PORT: u32 = 1 << 5;
    pub const QKEY: u32 = 1 << 6;
    pub const AV: u32 = 1 << 7;
    pub const PATH_MTU: u32 = 1 << 8;
    pub const TIMEOUT: u32 = 1 << 9;
    pub const RETRY_CNT: u32 = 1 << 10;
    pub const RNR_RETRY: u32 = 1 << 11;
    pub const RQ_PSN: u32 = 1 << 12;
    pub const MAX_QP_RD_ATOMIC: u32 = 1 << 13;
    pub const MIN_RNR_TIMER: u32 = 1 << 15;
    pub const SQ_PSN: u32 = 1 << 16;
    pub const MAX_DEST_RD_ATOMIC: u32 = 1 << 17;
    pub const DEST_QPN: u32 = 1 << 20;
}

/// `enum ibv_port_state`: it can send and receive.
pub const PORT_ACTIVE: u32 = 4;

/// Of `efadv_device_attr.device_caps`.
pub mod efa_capabilities {
    /// It reads peers' memory.
    pub const RDMA_READ: u32 = 1;
    /// It writes peers' memory.
    pub const RDMA_WRITE: u32 = 8;
}

/// `enum efa_io_comp_status` of EFA devices, which a completion's
/// [`vendor_err`](super::WorkCompletion::vendor_err) is.
#[expect(missing_docs, reason = "the header's words; `CompletionStatus` explains them")]
pub mod efa_status {
    pub const OK: u32 = 0;
    pub const FLUSHED: u32 = 1;
    pub const LOCAL_QP_INTERNAL: u32 = 2;
    pub const LOCAL_UNSUPPORTED_OP: u32 = 3;
    pub const LOCAL_INVALID_AH: u32 = 4;
    pub const LOCAL_INVALID_LKEY: u32 = 5;
    pub const LOCAL_BAD_LENGTH: u32 = 6;
    pub const REMOTE_BAD_ADDRESS: u32 = 7;
    pub const REMOTE_ABORT: u32 = 8;
    pub const REMOTE_BAD_DEST_QPN: u32 = 9;
    pub const REMOTE_RNR: u32 = 10;
    pub const REMOTE_BAD_LENGTH: u32 = 11;
    pub const REMOTE_BAD_STATUS: u32 = 12;
    pub const LOCAL_UNRESP_REMOTE: u32 = 13;
    pub const REMOTE_UNKNOWN_PEER: u32 = 14;
    pub const LOCAL_UNREACH_REMOTE: u32 = 15;
}
