//! What rdma-core's headers should say: those of `libibverbs-dev`.

use devmem_receive::rdma::verbs::abi::{
    self, AddressHandleAttributes, CompletionChannel, Context, ContextOperations, DeviceAttributes,
    EfaDeviceAttributes, EfaQueuePairAttributes, ExtendedQueuePair, GlobalRoute, MemoryRegion,
    PortAttributes, QueuePair, QueuePairAttributes, QueuePairCapacity, QueuePairInitialAttributes,
    ReceiveWorkRequest, ScatterGatherElement, SendWorkRequest, WorkCompletion,
};
use devmem_uapi_check::{Header, constants, layouts};

pub(crate) fn all() -> Vec<Header> {
    vec![
        Header::new("infiniband/verbs.h").values(numbers()).values(exact()).values(beginnings()),
        Header::new("infiniband/efadv.h").values(efa()),
    ]
}

fn numbers() -> Vec<(String, i128)> {
    [
        constants!("IBV_WC_", abi::status: SUCCESS, LOC_LEN_ERR, LOC_QP_OP_ERR, LOC_PROT_ERR, WR_FLUSH_ERR,
            BAD_RESP_ERR, LOC_ACCESS_ERR, REM_INV_REQ_ERR, REM_ACCESS_ERR, REM_OP_ERR, RETRY_EXC_ERR,
            RNR_RETRY_EXC_ERR, REM_INV_RD_REQ_ERR, REM_ABORT_ERR, FATAL_ERR, RESP_TIMEOUT_ERR),
        constants!("IBV_WC_", abi::completed: SEND, RDMA_WRITE, RDMA_READ, RECV, RECV_RDMA_WITH_IMM),
        constants!("IBV_", abi: WC_WITH_IMM, PORT_ACTIVE),
        constants!("IBV_WR_", abi::request: RDMA_WRITE, RDMA_WRITE_WITH_IMM, SEND, SEND_WITH_IMM, RDMA_READ),
        constants!("IBV_SEND_", abi::send_flags: SIGNALED),
        constants!("IBV_QPT_", abi::queue_pair_kind: RC, UD, DRIVER),
        constants!("IBV_QP_EX_WITH_", abi::send_operations: RDMA_WRITE, RDMA_WRITE_WITH_IMM, SEND, SEND_WITH_IMM,
            RDMA_READ),
        constants!("IBV_QP_INIT_ATTR_", abi::initial: PD, SEND_OPS_FLAGS),
        constants!("IBV_QPS_", abi::queue_pair_state: INIT, RTR, RTS, ERR),
        constants!("IBV_QP_", abi::attribute: STATE, ACCESS_FLAGS, PKEY_INDEX, PORT, QKEY, AV, PATH_MTU, TIMEOUT,
            RETRY_CNT, RNR_RETRY, RQ_PSN, MAX_QP_RD_ATOMIC, MIN_RNR_TIMER, SQ_PSN, MAX_DEST_RD_ATOMIC, DEST_QPN),
    ]
    .concat()
}

/// Structures that no version has changed.
fn exact() -> Vec<(String, i128)> {
    layouts! {
        ContextOperations as "ibv_context_ops" { poll_cq, req_notify_cq, post_send, post_recv }
        CompletionChannel as "ibv_comp_channel" { fd }
        QueuePair as "ibv_qp" { qp_num }
        WorkCompletion as "ibv_wc" { wr_id, status, opcode, vendor_err, byte_len, imm_data, qp_num, src_qp, wc_flags,
            pkey_index, slid, sl, dlid_path_bits }
        ScatterGatherElement as "ibv_sge" { addr, length, lkey }
        SendWorkRequest as "ibv_send_wr" { wr_id, next, sg_list, num_sge, opcode, send_flags, imm_data, wr }
        ReceiveWorkRequest as "ibv_recv_wr" { wr_id, next, sg_list, num_sge }
        QueuePairCapacity as "ibv_qp_cap" { max_send_wr, max_recv_wr, max_send_sge, max_recv_sge, max_inline_data }
        QueuePairInitialAttributes as "ibv_qp_init_attr_ex" { qp_context, send_cq, recv_cq, srq, cap, qp_type, sq_sig_all,
            comp_mask, pd, send_ops_flags }
        GlobalRoute as "ibv_global_route" { dgid, flow_label, sgid_index, hop_limit, traffic_class }
        AddressHandleAttributes as "ibv_ah_attr" { grh, dlid, sl, src_path_bits, static_rate, is_global, port_num }
        QueuePairAttributes as "ibv_qp_attr" { qp_state, cur_qp_state, path_mtu, path_mig_state, qkey, rq_psn, sq_psn,
            dest_qp_num, qp_access_flags, cap, ah_attr, alt_ah_attr, pkey_index, alt_pkey_index, en_sqd_async_notify,
            sq_draining, max_rd_atomic, max_dest_rd_atomic, min_rnr_timer, port_num, timeout, retry_cnt, rnr_retry,
            alt_port_num, alt_timeout, rate_limit }
        DeviceAttributes as "ibv_device_attr" { vendor_id, max_qp, max_qp_wr, max_sge, max_cq, max_cqe, max_qp_rd_atom,
            max_qp_init_rd_atom }
    }
}

/// Structures of which only the beginning is declared, or at whose end versions add: where members are, not the size.
fn beginnings() -> Vec<(String, i128)> {
    let members = layouts! {
        Context as "ibv_context" { device, ops, cmd_fd }
        MemoryRegion as "ibv_mr" { lkey, rkey }
        ExtendedQueuePair as "ibv_qp_ex" { wr_id, wr_flags, wr_rdma_read, wr_rdma_write, wr_rdma_write_imm, wr_send,
            wr_send_imm, wr_set_ud_addr, wr_set_sge, wr_start, wr_complete, wr_abort }
        PortAttributes as "ibv_port_attr" { state, max_mtu, active_mtu, gid_tbl_len, port_cap_flags, max_msg_sz,
            bad_pkey_cntr, qkey_viol_cntr, pkey_tbl_len, lid }
    };
    without_sizes(members)
}

fn without_sizes(members: Vec<(String, i128)>) -> Vec<(String, i128)> {
    members.into_iter().filter(|(expression, _)| expression.starts_with("offsetof")).collect()
}

fn efa() -> Vec<(String, i128)> {
    [
        constants!("EFADV_DEVICE_ATTR_CAPS_", abi::efa_capabilities: RDMA_READ, RDMA_WRITE),
        without_sizes(layouts! {
            EfaDeviceAttributes as "efadv_device_attr" { comp_mask, max_sq_wr, max_rq_wr, max_sq_sge, max_rq_sge,
                inline_buf_size, device_caps, max_rdma_size }
            EfaQueuePairAttributes as "efadv_qp_init_attr" { driver_qp_type }
        }),
        vec![("EFADV_QP_DRIVER_TYPE_SRD".to_owned(), 0)],
    ]
    .concat()
}
