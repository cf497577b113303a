//! Queue pairs, and posting to them.

use std::ffi::c_int;
use std::ptr::NonNull;
use std::sync::Arc;

use nix::errno::Errno;

use super::super::abi::{self, attribute, initial, queue_pair_kind, request, send_operations};
use super::super::library::Efa;
use super::{AddressHandle, Domain, Queue, done, object};

/// A piece of memory that a request is about: key, address and length.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Local {
    pub(crate) key: u32,
    pub(crate) address: u64,
    pub(crate) length: u32,
}

/// What a request does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Request {
    Send,
    /// Key and address of the peer's memory.
    Write(u32, u64),
    Read(u32, u64),
}

/// A request to post.
pub(crate) struct Post<'handle> {
    pub(crate) id: u64,
    pub(crate) request: Request,
    pub(crate) immediate: Option<u32>,
    pub(crate) local: Local,
    /// Whom a datagram is for: the way, the queue pair, and its key.
    pub(crate) to: Option<(&'handle AddressHandle, u32, u32)>,
}

/// A queue pair.
pub(crate) struct QueuePair {
    domain: Arc<Domain>,
    pointer: NonNull<abi::QueuePair>,
    /// There if requests are built by function calls.
    extended: Option<NonNull<abi::ExtendedQueuePair>>,
    // It is destroyed before the queues in which it is completed.
    _send_completions: Arc<Queue>,
    _receive_completions: Arc<Queue>,
}

// SAFETY: as a context.
unsafe impl Send for QueuePair {}
// SAFETY: as above.
unsafe impl Sync for QueuePair {}

impl QueuePair {
    /// One of those that all devices may have.
    pub(crate) fn create(
        domain: &Arc<Domain>,
        kind: u32,
        (send, receive): (&Arc<Queue>, &Arc<Queue>),
        capacity: abi::QueuePairCapacity,
    ) -> Result<Self, Errno> {
        let (sent, received) = (send.pointer.as_ptr(), receive.pointer.as_ptr());
        let mut attributes = abi::QueuePairInitialAttributes::new(kind, sent, received, capacity);
        // SAFETY: a protection domain and completion queues of one device; of the structure the function reads the
        // part that `struct ibv_qp_init_attr` is.
        let pointer =
            unsafe { (domain.context.verbs.create_qp)(domain.pointer.as_ptr(), &raw mut attributes) };
        Ok(Self {
            domain: Arc::clone(domain),
            pointer: object(pointer)?,
            extended: None,
            _send_completions: Arc::clone(send),
            _receive_completions: Arc::clone(receive),
        })
    }

    /// A queue pair for scalable reliable datagrams, which EFA devices have; its requests will be of these sorts.
    pub(crate) fn create_scalable_reliable(
        efa: &Efa,
        domain: &Arc<Domain>,
        operations: u64,
        (send, receive): (&Arc<Queue>, &Arc<Queue>),
        capacity: abi::QueuePairCapacity,
    ) -> Result<Self, Errno> {
        let (sent, received) = (send.pointer.as_ptr(), receive.pointer.as_ptr());
        let mut attributes =
            abi::QueuePairInitialAttributes::new(queue_pair_kind::DRIVER, sent, received, capacity);
        attributes.comp_mask = initial::PD | initial::SEND_OPS_FLAGS;
        attributes.pd = domain.pointer.as_ptr();
        attributes.send_ops_flags = operations | send_operations::SEND | send_operations::SEND_WITH_IMM;
        let mut of_efa = abi::EfaQueuePairAttributes::default();
        let size = size_of::<abi::EfaQueuePairAttributes>() as u32;
        // SAFETY: an open device, with a protection domain and completion queues of it, and structures of the sizes that
        // the function reads.
        let pointer = object(unsafe {
            (efa.create_qp_ex)(domain.context.pointer.as_ptr(), &raw mut attributes, &raw mut of_efa, size)
        })?;
        let mut pair = Self {
            domain: Arc::clone(domain),
            pointer,
            extended: None,
            _send_completions: Arc::clone(send),
            _receive_completions: Arc::clone(receive),
        };
        // SAFETY: a queue pair that was made with flags of operations, which is what has this form.
        pair.extended = Some(object(unsafe { (domain.context.verbs.qp_to_qp_ex)(pointer.as_ptr()) })?);
        Ok(pair)
    }

    /// Its number.
    pub(crate) fn number(&self) -> u32 {
        // SAFETY: a queue pair, whose number never changes.
        unsafe { (*self.pointer.as_ptr()).qp_num }
    }

    /// Changes its state and what else the mask names.
    pub(crate) fn modify(&self, mut attributes: abi::QueuePairAttributes, mask: u32) -> Result<(), Errno> {
        let modify = self.domain.context.verbs.modify_qp;
        let mask = (mask | attribute::STATE).cast_signed() as c_int;
        // SAFETY: a queue pair, and a structure that is read.
        done(unsafe { modify(self.pointer.as_ptr(), &raw mut attributes, mask) })
    }

    /// Posts memory for a message that will come.
    pub(crate) fn post_receive(&self, id: u64, memory: Local) -> Result<(), Errno> {
        let post = self.domain.context.operations().post_recv.ok_or(Errno::EOPNOTSUPP)?;
        let mut element = element(memory);
        let mut request = abi::ReceiveWorkRequest {
            wr_id: id,
            next: std::ptr::null_mut(),
            sg_list: &raw mut element,
            num_sge: 1,
        };
        let mut bad = std::ptr::null_mut();
        // SAFETY: a queue pair of this provider and a list of one request, all of which are read during the call. Which
        // memory the device may write to, its regions say.
        done(unsafe { post(self.pointer.as_ptr(), &raw mut request, &raw mut bad) })
    }

    /// Posts a request. `EOPNOTSUPP` if the queue pair does not do such ones.
    pub(crate) fn post(&self, post: &Post<'_>) -> Result<(), Errno> {
        match self.extended {
            Some(pair) => Self::post_by_calls(pair, post),
            None => self.post_by_list(post),
        }
    }

    fn post_by_list(&self, post: &Post<'_>) -> Result<(), Errno> {
        let function = self.domain.context.operations().post_send.ok_or(Errno::EOPNOTSUPP)?;
        let mut element = element(post.local);
        let opcode = match (post.request, post.immediate) {
            (Request::Send, None) => request::SEND,
            (Request::Send, Some(_)) => request::SEND_WITH_IMM,
            (Request::Write(..), None) => request::RDMA_WRITE,
            (Request::Write(..), Some(_)) => request::RDMA_WRITE_WITH_IMM,
            (Request::Read(..), _) => request::RDMA_READ,
        };
        let mut request = abi::SendWorkRequest::new(post.id, opcode, &raw mut element);
        request.imm_data = post.immediate.unwrap_or(0).to_be();
        match (post.request, post.to) {
            (Request::Write(rkey, remote_addr) | Request::Read(rkey, remote_addr), None) => {
                request.wr.rdma = abi::Rdma { remote_addr, rkey };
            }
            (Request::Send, Some((handle, remote_qpn, remote_qkey))) => {
                request.wr.ud = abi::Datagram { ah: handle.pointer.as_ptr(), remote_qpn, remote_qkey };
            }
            (Request::Send, None) => {}
            // Datagrams do no RDMA in this form.
            (Request::Write(..) | Request::Read(..), Some(_)) => return Err(Errno::EOPNOTSUPP),
        }
        let mut bad = std::ptr::null_mut();
        // SAFETY: as posting a receive; the address handle outlives the call.
        done(unsafe { function(self.pointer.as_ptr(), &raw mut request, &raw mut bad) })
    }

    fn post_by_calls(pair: NonNull<abi::ExtendedQueuePair>, post: &Post<'_>) -> Result<(), Errno> {
        let Some((handle, number, key)) = post.to else { return Err(Errno::EINVAL) };
        // SAFETY: a queue pair that has this form, whose functions never change. The reference ends before any is called.
        let found = unsafe {
            let pair = pair.as_ref();
            Calls::of(pair, post)
        };
        let Calls { start, begin, set_memory, set_address, complete } = found.ok_or(Errno::EOPNOTSUPP)?;
        let Local { key: local_key, address, length } = post.local;
        let pair = pair.as_ptr();
        // SAFETY: the queue pair's functions in the order that the header describes, from taking the queue's lock to letting
        // it go. Which memory the device may access, its regions say; the address handle outlives the call.
        done(unsafe {
            start(pair);
            (*pair).wr_id = post.id;
            (*pair).wr_flags = abi::send_flags::SIGNALED;
            match begin {
                Begin::Plain(begin) => begin(pair),
                Begin::Immediate(begin, data) => begin(pair, data),
                Begin::Remote(begin, key, address) => begin(pair, key, address),
                Begin::RemoteImmediate(begin, key, address, data) => begin(pair, key, address, data),
            }
            set_memory(pair, local_key, address, length);
            set_address(pair, handle.pointer.as_ptr(), number, key);
            complete(pair)
        })
    }
}

type Pair = *mut abi::ExtendedQueuePair;

/// The function that begins a request, with what it takes.
enum Begin {
    Plain(unsafe extern "C" fn(Pair)),
    Immediate(unsafe extern "C" fn(Pair, u32), u32),
    Remote(unsafe extern "C" fn(Pair, u32, u64), u32, u64),
    RemoteImmediate(unsafe extern "C" fn(Pair, u32, u64, u32), u32, u64, u32),
}

/// The functions that build one request.
struct Calls {
    start: unsafe extern "C" fn(Pair),
    begin: Begin,
    set_memory: unsafe extern "C" fn(Pair, u32, u64, u32),
    set_address: unsafe extern "C" fn(Pair, *mut abi::AddressHandle, u32, u32),
    complete: unsafe extern "C" fn(Pair) -> c_int,
}

impl Calls {
    /// `None` if the queue pair does no such requests.
    fn of(pair: &abi::ExtendedQueuePair, post: &Post<'_>) -> Option<Self> {
        let begin = match (post.request, post.immediate.map(u32::to_be)) {
            (Request::Send, None) => Begin::Plain(pair.wr_send?),
            (Request::Send, Some(data)) => Begin::Immediate(pair.wr_send_imm?, data),
            (Request::Write(key, address), None) => Begin::Remote(pair.wr_rdma_write?, key, address),
            (Request::Write(key, address), Some(data)) => {
                Begin::RemoteImmediate(pair.wr_rdma_write_imm?, key, address, data)
            }
            (Request::Read(key, address), _) => Begin::Remote(pair.wr_rdma_read?, key, address),
        };
        Some(Self {
            start: pair.wr_start?,
            begin,
            set_memory: pair.wr_set_sge?,
            set_address: pair.wr_set_ud_addr?,
            complete: pair.wr_complete?,
        })
    }
}

fn element(Local { key, address, length }: Local) -> abi::ScatterGatherElement {
    abi::ScatterGatherElement { addr: address, length, lkey: key }
}

impl Drop for QueuePair {
    fn drop(&mut self) {
        // SAFETY: a queue pair that nothing uses any more. What is outstanding ends without a completion.
        let _ = unsafe { (self.domain.context.verbs.destroy_qp)(self.pointer.as_ptr()) };
    }
}
