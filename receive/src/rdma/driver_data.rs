//! What drivers want of a program that opens their device, beside what the kernel itself wants.
//!
//! Each driver has a library in rdma-core, and defines what that library sends with the request for a context in a header
//! of its own. A memory region takes nothing of it but that the request is understood. EFA's is used by the lab; the
//! others are what the headers and the drivers' sources say, and were not tried on hardware.

use super::uapi::driver;

/// More than any driver answers, of a context or of a protection domain.
pub(super) const ANSWER_BYTES: usize = 192;

/// What is sent with the request for a context; nothing where that is not known to be wanted.
pub(super) fn for_context(driver: u32) -> Vec<u8> {
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    match driver {
        // `struct efa_ibv_alloc_ucontext_cmd` of `rdma/efa-abi.h`: batches and least sizes of send queues are heeded,
        // as no queue is made.
        driver::EFA => words(&[1 | 1 << 1, 0]),
        // `struct mlx5_ib_alloc_ucontext_req_v2` of `rdma/mlx5-abi.h`: doorbells as libmlx5 asks for, which knows
        // `MLX5_LIB_CAP_4K_UAR`.
        driver::MLX5 => words(&[16, 4, 0, 0, 0, 0, 1, 0]),
        // `struct irdma_alloc_ucontext_req` of `rdma/irdma-abi.h`: version 5.
        driver::IRDMA => words(&[0, u32::from_ne_bytes([5, 0, 0, 0]), 0, 0]),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use devmem_uapi_check::Header;

    #[test]
    fn sizes_are_those_of_the_headers() {
        let bytes = |driver| i128::try_from(for_context(driver).len()).unwrap();
        Header::new("rdma/efa-abi.h")
            .value("sizeof(struct efa_ibv_alloc_ucontext_cmd)", bytes(driver::EFA))
            // The bits have one name in older headers and another in newer ones.
            .value("EFA_ALLOC_UCONTEXT_CMD_COMP_TX_BATCH | EFA_ALLOC_UCONTEXT_CMD_COMP_MIN_SQ_WR", 3)
            .value(
                "EFA_ALLOC_UCONTEXT_CMD_SUPP_CAPS_TX_BATCH | EFA_ALLOC_UCONTEXT_CMD_SUPP_CAPS_MIN_SQ_WR",
                3,
            )
            .assert();
        Header::new("rdma/mlx5-abi.h")
            .value("sizeof(struct mlx5_ib_alloc_ucontext_req_v2)", bytes(driver::MLX5))
            .value("offsetof(struct mlx5_ib_alloc_ucontext_req_v2, lib_caps)", 24)
            .value("MLX5_LIB_CAP_4K_UAR", 1)
            .assert();
        Header::new("rdma/irdma-abi.h")
            .value("sizeof(struct irdma_alloc_ucontext_req)", bytes(driver::IRDMA))
            .value("offsetof(struct irdma_alloc_ucontext_req, userspace_ver)", 4)
            .value("IRDMA_ABI_VER", 5)
            .assert();
        assert!(for_context(0).is_empty());
    }
}
