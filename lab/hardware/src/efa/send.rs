//! Send queues: executing what programs posted.
//!
//! A request is read from the queue, its data is fetched, the other device is asked, and what it says becomes the
//! completion. No lock of a state is held while the other device is asked: it may be the same one, or one that
//! sends here at this moment.

use std::time::{Duration, Instant};

use super::Efa;
use super::command::permission;
use super::description::MAXIMUM_RDMA;
use super::descriptors::{
    Buffer, Completion, CompletionKind, CompletionStatus, Data, Operation, SendRequest,
};
use super::fabric::{Answer, Content, Gid, Message};
use super::queue_pair::{QueuePair, QueuePairState, Transport};
use super::region::{Use, UseError};
use super::state::State;
use crate::lock;

/// From one try of a receiver that is not ready to the next.
const RETRY_INTERVAL: Duration = Duration::from_millis(1);

/// A request at the front of a send queue.
enum Front {
    Ready(Box<Outgoing>),
    /// It fails without the other device being asked.
    Failed {
        id: u16,
        operation: u8,
        status: CompletionStatus,
    },
}

/// A request that the other device is to be asked.
struct Outgoing {
    request: SendRequest,
    destination: Gid,
    message: Message,
}

impl Efa {
    /// A program rang the doorbell of a send queue.
    pub(super) fn send_doorbell(&self, number: u16, posted: u32) {
        let _in_order = lock(&self.sending);
        let incarnation = {
            let mut state = lock(&self.state);
            let Some(pair) = state.queue_pairs.get_mut(number) else { return };
            let incarnation = pair.incarnation;
            if !pair.post_sends(posted) {
                state.lasting.counters.bad_doorbells += 1;
                return self.trace(format_args!("queue pair {number}: no room for {posted} sends"));
            }
            incarnation
        };
        self.work(number, incarnation);
    }

    /// A receiver that was not ready may be by now.
    fn retry(&self, number: u16, incarnation: u64) {
        let _in_order = lock(&self.sending);
        self.work(number, incarnation);
    }

    /// Executes what is in a send queue, as far as that goes. The caller holds the lock of sending, which keeps
    /// requests of one queue in order.
    fn work(&self, number: u16, incarnation: u64) {
        loop {
            let mut state = lock(&self.state);
            let pair = state.queue_pairs.get(number).filter(|pair| pair.incarnation == incarnation);
            let Some(front) = pair.and_then(|pair| self.front(&state, pair, number)) else { return };
            let outgoing = match front {
                Front::Ready(outgoing) => outgoing,
                Front::Failed { id, operation, status } => {
                    self.finish(&mut state, number, id, operation, status, true);
                    continue;
                }
            };
            drop(state);
            let answer = match self.fabric.find(outgoing.destination) {
                Some(device) => device.receive(&outgoing.message),
                None => Answer::Refused(CompletionStatus::Unreachable),
            };
            let mut state = lock(&self.state);
            let state = &mut *state;
            let Some(pair) = state.queue_pairs.get_mut(number).filter(|pair| pair.incarnation == incarnation)
            else {
                return;
            };
            let is_reliable = pair.transport == Transport::ReliableDatagram;
            if answer == Answer::NotReady && is_reliable && pair.tries_again() {
                return self.retry_later(number, incarnation);
            }
            let domain = pair.domain;
            let status = match answer {
                // What becomes of an unreliable datagram is not known.
                _ if !is_reliable => CompletionStatus::Ok,
                Answer::Done => CompletionStatus::Ok,
                Answer::Data(data) => self.store(state, domain, &outgoing.request, &data),
                Answer::NotReady => CompletionStatus::RemoteNotReady,
                Answer::Refused(status) => status,
            };
            self.count(state, &outgoing, status);
            let SendRequest { id, operation, wants_completion, .. } = outgoing.request;
            let completes = wants_completion || status != CompletionStatus::Ok;
            self.finish(state, number, id, operation as u8, status, completes);
        }
    }

    /// The request at the front of a queue pair's send queue. `None` when there is none, or it is not its time.
    fn front(&self, state: &State, pair: &QueuePair, number: u16) -> Option<Front> {
        if !matches!(
            pair.state,
            QueuePairState::ReadyToSend | QueuePairState::SendQueueError | QueuePairState::Error
        ) {
            return None;
        }
        let entry = pair.next_send(&self.queues)?;
        let parsed = SendRequest::parse(&entry);
        let (id, operation) = match &parsed {
            Ok(request) => (request.id, request.operation as u8),
            Err(bad) => (bad.id, bad.operation),
        };
        let ready = match parsed {
            _ if pair.state != QueuePairState::ReadyToSend => Err(CompletionStatus::Flushed),
            Ok(request) => self.outgoing(state, pair, number, request),
            Err(bad) => Err(bad.status),
        };
        Some(match ready {
            Ok(outgoing) => Front::Ready(Box::new(outgoing)),
            Err(status) => {
                self.trace(format_args!("queue pair {number}: request {id} failed: {status:?}"));
                Front::Failed { id, operation, status }
            }
        })
    }

    fn outgoing(
        &self,
        state: &State,
        pair: &QueuePair,
        number: u16,
        request: SendRequest,
    ) -> Result<Outgoing, CompletionStatus> {
        let is_offered = match request.operation {
            Operation::Send => true,
            Operation::RdmaRead => self.config.rdma_read,
            Operation::RdmaWrite => self.config.rdma_write,
        };
        let is_reliable = pair.transport == Transport::ReliableDatagram;
        if !is_offered || (request.operation != Operation::Send && !is_reliable) {
            return Err(CompletionStatus::UnsupportedOperation);
        }
        let handle = state.address_handles.get(request.address_handle);
        let handle = handle.filter(|handle| handle.domain == pair.domain);
        let destination = handle.ok_or(CompletionStatus::InvalidAddressHandle)?.gid;
        let content = match &request.data {
            Data::Inline(bytes) => Content::Send(bytes.clone()),
            Data::Buffers(buffers) => {
                check_length(total(buffers), self.config.mtu.into())?;
                Content::Send(self.gather(state, pair.domain, buffers)?)
            }
            Data::Rdma { remote, local } => {
                check_length(remote.length.into(), MAXIMUM_RDMA)?;
                if total(local) != u64::from(remote.length) {
                    return Err(CompletionStatus::BadLength);
                }
                if request.operation == Operation::RdmaWrite {
                    Content::Write { to: *remote, data: self.gather(state, pair.domain, local)? }
                } else {
                    let allows = |buffer: &Buffer| state.regions.allows(local_use(buffer, pair.domain, true));
                    if !local.iter().all(allows) {
                        return Err(CompletionStatus::InvalidLocalKey);
                    }
                    Content::Read { from: *remote }
                }
            }
        };
        let message = Message {
            source: self.gid,
            source_queue_pair: number,
            queue_pair: request.queue_pair,
            transport: pair.transport,
            queue_key: request.queue_key,
            immediate: request.immediate,
            content,
        };
        Ok(Outgoing { request, destination, message })
    }

    /// Fetches the data of a request.
    fn gather(&self, state: &State, domain: u16, buffers: &[Buffer]) -> Result<Vec<u8>, CompletionStatus> {
        let mut data = Vec::new();
        for buffer in buffers {
            let fetched = state.regions.read(&self.memory, local_use(buffer, domain, false), &mut data);
            fetched.map_err(|error| self.local_status(error))?;
        }
        Ok(data)
    }

    /// Stores what was read from the other device.
    fn store(&self, state: &State, domain: u16, request: &SendRequest, data: &[u8]) -> CompletionStatus {
        let Data::Rdma { local, .. } = &request.data else { return CompletionStatus::QueuePairInternalError };
        let mut account = self.ground_truth.open_rdma(self.index);
        let mut rest = data;
        for buffer in local {
            let (part, after) = rest.split_at_checked(buffer.length as usize).unwrap_or((rest, &[]));
            let what = local_use(buffer, domain, true);
            let stored =
                state.regions.write(&self.memory, what, part, |page, bytes| account.wrote(page, bytes));
            if let Err(error) = stored {
                return self.local_status(error);
            }
            rest = after;
        }
        self.ground_truth.close(account);
        CompletionStatus::Ok
    }

    fn local_status(&self, error: UseError) -> CompletionStatus {
        match error {
            UseError::Refused => CompletionStatus::InvalidLocalKey,
            UseError::Memory(error) => {
                self.misuse(format_args!("memory region: {error}"));
                CompletionStatus::QueuePairInternalError
            }
        }
    }

    fn count(&self, state: &mut State, outgoing: &Outgoing, status: CompletionStatus) {
        let mtu = self.config.mtu.into();
        let counters = &mut state.lasting.counters;
        let failed = u64::from(status != CompletionStatus::Ok);
        match &outgoing.message.content {
            Content::Send(data) => {
                counters.sends += 1;
                counters.send_bytes += data.len() as u64;
                counters.sent(data.len(), mtu);
            }
            Content::Write { data, .. } => {
                counters.writes += 1;
                counters.write_errors += failed;
                counters.write_bytes += data.len() as u64;
                counters.sent(data.len(), mtu);
            }
            Content::Read { from } => {
                counters.reads += 1;
                counters.read_errors += failed;
                if failed == 0 {
                    counters.read_bytes += u64::from(from.length);
                    counters.received(from.length as usize, mtu);
                }
            }
        }
    }

    /// Takes the request at the front out of the queue, with a completion if there is to be one.
    fn finish(
        &self,
        state: &mut State,
        number: u16,
        id: u16,
        operation: u8,
        status: CompletionStatus,
        completes: bool,
    ) {
        let Some(pair) = state.queue_pairs.get_mut(number) else { return };
        pair.send_done();
        let queue = pair.send_completions;
        if completes {
            let completion =
                Completion { id, status, operation, queue_pair: number, kind: CompletionKind::Send };
            self.complete(state, queue, &completion);
        }
    }

    fn retry_later(&self, number: u16, incarnation: u64) {
        let this = self.this.clone();
        self.clock.at(Instant::now() + RETRY_INTERVAL, move || {
            if let Some(this) = this.upgrade() {
                this.retry(number, incarnation);
            }
        });
    }

    /// Completes everything that is posted to a queue pair that went into the error state.
    pub(super) fn flush(&self, state: &mut State, number: u16) {
        while let Some(pair) = state.queue_pairs.get(number) {
            let Some(Front::Failed { id, operation, status }) = self.front(state, pair, number) else {
                break;
            };
            self.finish(state, number, id, operation, status, true);
        }
        self.flush_receives(state, number);
    }

    /// Puts a completion into its queue, and tells whoever waits for it.
    pub(super) fn complete(&self, state: &mut State, queue: u16, completion: &Completion) {
        let Some(existing) = state.completion_queues.get_mut(queue) else { return };
        let event_queue = existing.event_queue;
        match existing.post(completion, &self.memory) {
            Ok(true) => self.event(state, event_queue, queue),
            Ok(false) => {}
            Err(error) => self.misuse(format_args!("completion queue {queue}: {error}")),
        }
    }

    /// Tells the driver that a completion queue has something new.
    pub(super) fn event(&self, state: &mut State, event_queue: Option<u16>, queue: u16) {
        let Some(number) = event_queue else { return };
        let Some(existing) = state.event_queues.get_mut(number) else { return };
        let vector = existing.vector;
        match existing.post(queue, &self.memory) {
            Ok(true) => state.interrupts.raise(vector, &self.vectors),
            Ok(false) => {}
            Err(error) => self.misuse(format_args!("event queue {number}: {error}")),
        }
    }
}

/// How a program uses a buffer of its own.
pub(super) fn local_use(buffer: &Buffer, domain: u16, write: bool) -> Use {
    let Buffer { length, key, address } = *buffer;
    let permissions = if write { permission::LOCAL_WRITE } else { 0 };
    Use { key, domain, address, length: length.into(), permissions, remote: false }
}

fn total(buffers: &[Buffer]) -> u64 {
    buffers.iter().map(|buffer| u64::from(buffer.length)).sum()
}

fn check_length(length: u64, maximum: u32) -> Result<(), CompletionStatus> {
    if length <= maximum.into() { Ok(()) } else { Err(CompletionStatus::BadLength) }
}
