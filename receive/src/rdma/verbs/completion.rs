//! What becomes of requests.

use std::fmt;

use devmem_provider::{Error, ErrorKind};

use super::abi::{WC_WITH_IMM, WorkCompletion, completed, efa_status, status};
use super::failure::VerbsFailure;

/// The end of a request or of a posted receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completion {
    /// The identifier that the program gave it.
    pub id: u64,
    /// How it ended.
    pub status: CompletionStatus,
    /// What was done; `None` where it failed, or is something that this module does not ask for. Older libraries call an RDMA
    /// read of EFA a [`Completed::Send`].
    pub operation: Option<Completed>,
    /// Bytes that were received: of a message, or of an RDMA write with immediate data.
    pub bytes: u32,
    /// Immediate data that came along.
    pub immediate: Option<u32>,
    /// The queue pair that it belongs to.
    pub queue_pair: u32,
    /// The device's own word for a failure.
    pub vendor_error: u32,
}

/// What a request, or a peer's, did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Completed {
    /// A message was sent.
    Send,
    /// A peer's memory was written.
    Write,
    /// A peer's memory was read.
    Read,
    /// A message came.
    Receive,
    /// A peer wrote to memory here, with immediate data, which took a posted receive.
    WrittenByPeer,
}

/// How a request ended (`enum ibv_wc_status` in `infiniband/verbs.h`).
///
/// Of EFA devices it is made of their own word (`enum efa_io_comp_status` in rdma-core's
/// `providers/efa/efa_io_defs.h`), for which rdma-core's versions have different words of verbs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CompletionStatus {
    /// As it should.
    Success,
    /// It is longer than what is sent at once, or than the posted receive.
    LocalLength,
    /// The request itself is wrong: what it does, or the address handle.
    LocalOperation,
    /// Its own memory: the key is not that of a region, or the range or the access is not the region's.
    LocalProtection,
    /// The queue pair failed, or was taken down, before its turn came.
    Flushed,
    /// The peer's answer makes no sense.
    BadResponse,
    /// Its own memory may not be written to.
    LocalAccess,
    /// The peer finds the request wrong: a message that is longer than the posted receive.
    RemoteInvalidRequest,
    /// The peer's memory: the key is not that of a region, or the range or the access is not the region's.
    RemoteAccess,
    /// The peer could not do it.
    RemoteOperation,
    /// The peer has no address handle of this device, and answers nobody whom it does not know (EFA).
    UnknownToPeer,
    /// The peer did not answer, however often it was asked.
    RetriesExceeded,
    /// The peer had no receive posted, however often it was asked.
    ReceiverNotReady,
    /// The peer finds a read wrong.
    RemoteInvalidRead,
    /// The peer has no such queue pair, or not any more (EFA).
    NoSuchQueuePair,
    /// There is no way to the peer (EFA).
    Unreachable,
    /// The peer broke it off.
    RemoteAbort,
    /// The device or the queue pair is beyond use.
    Fatal,
    /// The peer did not answer in time.
    Unresponsive,
    /// Another number.
    Other(u32),
}

impl CompletionStatus {
    fn of(number: u32) -> Self {
        match number {
            status::SUCCESS => Self::Success,
            status::LOC_LEN_ERR => Self::LocalLength,
            status::LOC_QP_OP_ERR => Self::LocalOperation,
            status::LOC_PROT_ERR => Self::LocalProtection,
            status::WR_FLUSH_ERR => Self::Flushed,
            status::BAD_RESP_ERR => Self::BadResponse,
            status::LOC_ACCESS_ERR => Self::LocalAccess,
            status::REM_INV_REQ_ERR => Self::RemoteInvalidRequest,
            status::REM_ACCESS_ERR => Self::RemoteAccess,
            status::REM_OP_ERR => Self::RemoteOperation,
            status::RETRY_EXC_ERR => Self::RetriesExceeded,
            status::RNR_RETRY_EXC_ERR => Self::ReceiverNotReady,
            status::REM_INV_RD_REQ_ERR => Self::RemoteInvalidRead,
            status::REM_ABORT_ERR => Self::RemoteAbort,
            status::FATAL_ERR => Self::Fatal,
            status::RESP_TIMEOUT_ERR => Self::Unresponsive,
            other => Self::Other(other),
        }
    }

    /// Of an EFA device's own word.
    fn of_efa(number: u32) -> Self {
        match number {
            efa_status::OK => Self::Success,
            efa_status::FLUSHED => Self::Flushed,
            efa_status::LOCAL_QP_INTERNAL
            | efa_status::LOCAL_UNSUPPORTED_OP
            | efa_status::LOCAL_INVALID_AH => Self::LocalOperation,
            efa_status::LOCAL_INVALID_LKEY => Self::LocalProtection,
            efa_status::LOCAL_BAD_LENGTH => Self::LocalLength,
            efa_status::REMOTE_BAD_ADDRESS => Self::RemoteAccess,
            efa_status::REMOTE_ABORT => Self::RemoteAbort,
            efa_status::REMOTE_BAD_DEST_QPN => Self::NoSuchQueuePair,
            efa_status::REMOTE_RNR => Self::ReceiverNotReady,
            efa_status::REMOTE_BAD_LENGTH => Self::RemoteInvalidRequest,
            efa_status::REMOTE_BAD_STATUS => Self::BadResponse,
            efa_status::LOCAL_UNRESP_REMOTE => Self::Unresponsive,
            efa_status::REMOTE_UNKNOWN_PEER => Self::UnknownToPeer,
            efa_status::LOCAL_UNREACH_REMOTE => Self::Unreachable,
            other => Self::Other(other),
        }
    }

    /// The kind of error that it is.
    #[must_use]
    pub fn kind(self) -> ErrorKind {
        match self {
            Self::LocalLength
            | Self::LocalOperation
            | Self::LocalProtection
            | Self::LocalAccess
            | Self::RemoteInvalidRequest
            | Self::RemoteInvalidRead
            | Self::RemoteAccess => ErrorKind::InvalidInput,
            Self::RetriesExceeded
            | Self::NoSuchQueuePair
            | Self::Unreachable
            | Self::RemoteAbort
            | Self::Unresponsive
            | Self::Flushed => ErrorKind::Gone,
            Self::RemoteOperation | Self::UnknownToPeer | Self::ReceiverNotReady => ErrorKind::WrongState,
            Self::BadResponse => ErrorKind::Protocol,
            Self::Success | Self::Fatal | Self::Other(_) => ErrorKind::Io,
        }
    }

    /// What to do about it.
    fn remedy(self) -> Option<&'static str> {
        Some(match self {
            Self::LocalLength => "divide it, or post larger receives",
            Self::LocalProtection | Self::LocalAccess => {
                "name memory within a region of the queue pair's protection domain that has the access"
            }
            Self::RemoteInvalidRequest => "let the peer post larger receives",
            Self::RemoteAccess => {
                "use the key, and an address within the region, that the peer told, and let it register the region with \
                 the access"
            }
            Self::UnknownToPeer => "let the peer make this side known to it before (`QueuePair::connect`)",
            Self::ReceiverNotReady => "let the peer post receives before",
            Self::RetriesExceeded
            | Self::NoSuchQueuePair
            | Self::Unreachable
            | Self::RemoteAbort
            | Self::Unresponsive => "look whether the peer is still there",
            _ => return None,
        })
    }
}

impl fmt::Display for CompletionStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Success => "success",
            Self::LocalLength => "it is too long",
            Self::LocalOperation => "the device finds the request wrong",
            Self::LocalProtection => "its own memory is not within a region of that key",
            Self::Flushed => "the queue pair was taken down before its turn came",
            Self::BadResponse => "the peer's answer makes no sense",
            Self::LocalAccess => "its own memory does not have the access",
            Self::RemoteInvalidRequest => "the peer finds the request wrong",
            Self::RemoteAccess => {
                "remote access error: the peer's memory is not within a region of that key, or does not have the access"
            }
            Self::RemoteOperation => "the peer cannot do it",
            Self::UnknownToPeer => "the peer does not know this device",
            Self::RetriesExceeded => "the peer did not answer, however often it was asked",
            Self::ReceiverNotReady => "the peer had no receive posted, however often it was asked",
            Self::RemoteInvalidRead => "the peer finds the read wrong",
            Self::NoSuchQueuePair => "the peer has no such queue pair",
            Self::Unreachable => "there is no way to the peer",
            Self::RemoteAbort => "the peer broke it off",
            Self::Fatal => "the device or the queue pair is beyond use",
            Self::Unresponsive => "the peer did not answer in time",
            Self::Other(number) => return write!(f, "the device says status {number}"),
        })
    }
}

impl Completion {
    /// `is_efa` is whether the device is one of EFA.
    pub(super) fn of(entry: &WorkCompletion, is_efa: bool) -> Self {
        let status = match is_efa {
            true if entry.status != status::SUCCESS => CompletionStatus::of_efa(entry.vendor_err),
            _ => CompletionStatus::of(entry.status),
        };
        let is_success = status == CompletionStatus::Success;
        let operation = match entry.opcode {
            _ if !is_success => None,
            completed::SEND => Some(Completed::Send),
            completed::RDMA_WRITE => Some(Completed::Write),
            completed::RDMA_READ => Some(Completed::Read),
            completed::RECV => Some(Completed::Receive),
            completed::RECV_RDMA_WITH_IMM => Some(Completed::WrittenByPeer),
            _ => None,
        };
        let has_immediate = is_success && entry.wc_flags & WC_WITH_IMM != 0;
        Self {
            id: entry.wr_id,
            status,
            operation,
            bytes: if is_success { entry.byte_len } else { 0 },
            immediate: has_immediate.then(|| u32::from_be(entry.imm_data)),
            queue_pair: entry.qp_num,
            vendor_error: entry.vendor_err,
        }
    }

    /// The completion, if it succeeded.
    ///
    /// # Errors
    ///
    /// One of the status's [kind](CompletionStatus::kind) that carries [`VerbsFailure::Request`]. `operation` is what was
    /// tried, such as "write to the peer's memory".
    pub fn ok(self, operation: &'static str) -> devmem_provider::Result<Self> {
        if self.status == CompletionStatus::Success {
            return Ok(self);
        }
        let error: Error = VerbsFailure::Request(self.status)
            .error(operation)
            .on(format!("queue pair {} (the device says {})", self.queue_pair, self.vendor_error));
        Err(match self.status.remedy() {
            Some(remedy) => error.remedy(remedy),
            None => error,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(status: u32, opcode: u32, flags: u32) -> WorkCompletion {
        WorkCompletion {
            wr_id: 7,
            status,
            opcode,
            wc_flags: flags,
            imm_data: 5u32.to_be(),
            byte_len: 9,
            qp_num: 3,
            vendor_err: 13,
            ..WorkCompletion::default()
        }
    }

    #[test]
    fn immediate_data_is_there_only_where_it_came() {
        let written =
            Completion::of(&entry(status::SUCCESS, completed::RECV_RDMA_WITH_IMM, WC_WITH_IMM), false);
        assert_eq!(written.operation, Some(Completed::WrittenByPeer));
        assert_eq!((written.immediate, written.bytes, written.id), (Some(5), 9, 7));
        let received = Completion::of(&entry(status::SUCCESS, completed::RECV, 0), true);
        assert_eq!((received.operation, received.immediate), (Some(Completed::Receive), None));
        // What a failed one says besides is not meant.
        let failed = Completion::of(&entry(status::WR_FLUSH_ERR, completed::SEND, WC_WITH_IMM), false);
        assert_eq!((failed.operation, failed.immediate, failed.bytes), (None, None, 0));
    }

    #[test]
    fn a_failure_is_told_with_its_reason_and_can_be_matched() {
        let failed = Completion::of(&entry(status::REM_ACCESS_ERR, 0, 0), false);
        let error = failed.ok("write to the peer's memory").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_eq!(VerbsFailure::of(&error), Some(VerbsFailure::Request(CompletionStatus::RemoteAccess)));
        let said = error.to_string();
        assert!(
            said.contains("cannot write to the peer's memory on queue pair 3")
                && said.contains("remote access error"),
            "{said}"
        );
        assert!(error.remedy_text().is_some());
        assert!(Completion::of(&entry(status::SUCCESS, 0, 0), false).ok("send").is_ok());
        // An EFA device's own word, which is 13 here, goes before that of the library.
        let failed = Completion::of(&entry(status::REM_ACCESS_ERR, 0, 0), true);
        assert_eq!(failed.status, CompletionStatus::Unresponsive);
        assert_eq!(Completion::of(&entry(23, 0, 0), false).status, CompletionStatus::Other(23));
    }
}
