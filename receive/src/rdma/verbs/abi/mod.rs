//! Layouts and numbers of rdma-core's user libraries, as its headers `infiniband/verbs.h` and `infiniband/efadv.h` define
//! them.
//!
//! They are part of the libraries' binary interface, which only grows: structures that the libraries allocate are
//! declared here as far as they are read, and those that a program hands over as far as every version knows them. A
//! structure's name in C is `struct ibv_` and the name that its description tells.

mod attributes;
mod numbers;
mod requests;

pub use attributes::{
    AddressHandleAttributes, DeviceAttributes, EfaDeviceAttributes, EfaQueuePairAttributes, GlobalRoute,
    PortAttributes, QueuePairAttributes, QueuePairCapacity, QueuePairInitialAttributes,
};
pub use numbers::{
    PORT_ACTIVE, WC_WITH_IMM, attribute, completed, efa_capabilities, efa_status, initial, queue_pair_kind,
    queue_pair_state, request, send_flags, send_operations, status,
};
pub use requests::{
    Datagram, Rdma, ReceiveWorkRequest, ScatterGatherElement, SendWorkRequest, Target, WorkCompletion,
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
