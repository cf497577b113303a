//! What other devices send: messages into posted receives, and RDMA into regions.

use super::Efa;
use super::command::permission;
use super::descriptors::{
    Buffer, Completion, CompletionKind, CompletionStatus, NO_ADDRESS_HANDLE, Operation, Received,
    RemoteMemory,
};
use super::fabric::{Answer, Content, Message};
use super::queue_pair::{NoReceive, PostedReceive, QueuePairState, Transport};
use super::region::{Use, UseError};
use super::send::local_use;
use super::state::State;
use crate::lock;

/// Bytes at the beginning of a buffer that an unreliable datagram leaves free: there InfiniBand has a routing header.
const DATAGRAM_PREFIX: u32 = 40;

impl Efa {
    /// Another device has a message for a queue pair of this one.
    pub(super) fn receive(&self, message: &Message) -> Answer {
        let mut state = lock(&self.state);
        let number = message.queue_pair;
        let pair = state.queue_pairs.get(number);
        let pair = pair.filter(|pair| pair.transport == message.transport && pair.receives());
        let Some(pair) = pair else {
            state.lasting.counters.dropped += 1;
            return Answer::Refused(CompletionStatus::RemoteBadQueuePair);
        };
        if pair.queue_key != message.queue_key {
            state.lasting.counters.queue_key_violations += 1;
            // What the sender learns of it the interface does not say.
            return Answer::Refused(CompletionStatus::RemoteAbort);
        }
        match &message.content {
            Content::Send(data) => self.receive_send(&mut state, number, message, data),
            Content::Write { to, data } => self.receive_write(&mut state, number, message, *to, data),
            Content::Read { from } => self.receive_read(&mut state, number, message, *from),
        }
    }

    fn receive_send(&self, state: &mut State, number: u16, message: &Message, data: &[u8]) -> Answer {
        let posted = match self.take_receive(state, number) {
            Ok(posted) => posted,
            Err(answer) => {
                if message.transport == Transport::UnreliableDatagram {
                    state.lasting.counters.dropped += 1;
                }
                return answer;
            }
        };
        let prefix = match message.transport {
            Transport::UnreliableDatagram => DATAGRAM_PREFIX,
            Transport::ReliableDatagram => 0,
        };
        let (status, answer) = match self.scatter(state, number, &posted, prefix, data) {
            Ok(()) => (CompletionStatus::Ok, Answer::Done),
            Err(status @ CompletionStatus::BadLength) => {
                (status, Answer::Refused(CompletionStatus::RemoteBadLength))
            }
            Err(status) => (status, Answer::Refused(CompletionStatus::RemoteAbort)),
        };
        if status == CompletionStatus::Ok {
            let counters = &mut state.lasting.counters;
            counters.receives += 1;
            counters.receive_bytes += data.len() as u64;
            counters.received(data.len(), self.config.mtu.into());
        }
        let length = prefix + data.len() as u32;
        let received = self.received(state, number, message, length);
        self.complete_receive(state, number, posted.id, status, Operation::Send, received);
        answer
    }

    /// Writes a message into the buffers of a posted receive, behind a prefix that is left as it is.
    fn scatter(
        &self,
        state: &State,
        number: u16,
        posted: &PostedReceive,
        prefix: u32,
        data: &[u8],
    ) -> Result<(), CompletionStatus> {
        let Some(pair) = state.queue_pairs.get(number) else { return Err(CompletionStatus::Flushed) };
        let room: u64 = posted.descriptors.iter().map(|one| u64::from(one.buffer.length)).sum();
        if u64::from(prefix) + data.len() as u64 > room {
            return Err(CompletionStatus::BadLength);
        }
        let (mut skip, mut left) = (prefix, data.len() as u32);
        let mut parts = Vec::with_capacity(posted.descriptors.len());
        for Buffer { length, key, address } in posted.descriptors.iter().map(|one| one.buffer) {
            let skipped = skip.min(length);
            let used = left.min(length - skipped);
            let address = address.wrapping_add(skipped.into());
            let what = local_use(&Buffer { length: used, key, address }, pair.domain, true);
            if used > 0 && !state.regions.allows(what) {
                return Err(CompletionStatus::InvalidLocalKey);
            }
            parts.push(what);
            (skip, left) = (skip - skipped, left - used);
        }
        let mut account = self.ground_truth.open_rdma(self.index);
        let mut rest = data;
        for what in parts.into_iter().filter(|what| what.length > 0) {
            let (part, after) = rest.split_at_checked(what.length as usize).unwrap_or((rest, &[]));
            let stored =
                state.regions.write(&self.memory, what, part, |page, bytes| account.wrote(page, bytes));
            stored.map_err(|error| self.region_error(error))?;
            rest = after;
        }
        self.ground_truth.close(account);
        Ok(())
    }

    fn receive_write(
        &self,
        state: &mut State,
        number: u16,
        message: &Message,
        to: RemoteMemory,
        data: &[u8],
    ) -> Answer {
        let what = match self.remote_use(state, number, message, to, permission::REMOTE_WRITE) {
            Ok(what) => what,
            Err(answer) => return answer,
        };
        let unsolicited = state.queue_pairs.get(number).is_some_and(|pair| pair.unsolicited_writes);
        let posted = match message.immediate {
            Some(_) if !unsolicited => match self.take_receive(state, number) {
                Ok(posted) => Some(posted.id),
                Err(answer) => return answer,
            },
            _ => None,
        };
        let mut account = self.ground_truth.open_rdma(self.index);
        let stored = state.regions.write(&self.memory, what, data, |page, bytes| account.wrote(page, bytes));
        if let Err(error) = stored {
            self.region_error(error);
            return Answer::Refused(CompletionStatus::RemoteAbort);
        }
        self.ground_truth.close(account);
        state.lasting.counters.written_by_others_bytes += data.len() as u64;
        state.lasting.counters.received(data.len(), self.config.mtu.into());
        if message.immediate.is_some() {
            let received = self.received(state, number, message, to.length);
            let received = Received { unsolicited, ..received };
            let (id, status) = (posted.unwrap_or(0), CompletionStatus::Ok);
            self.complete_receive(state, number, id, status, Operation::RdmaWrite, received);
        }
        Answer::Done
    }

    fn receive_read(&self, state: &mut State, number: u16, message: &Message, from: RemoteMemory) -> Answer {
        let what = match self.remote_use(state, number, message, from, permission::REMOTE_READ) {
            Ok(what) => what,
            Err(answer) => return answer,
        };
        let mut data = Vec::new();
        if let Err(error) = state.regions.read(&self.memory, what, &mut data) {
            self.region_error(error);
            return Answer::Refused(CompletionStatus::RemoteAbort);
        }
        state.lasting.counters.read_by_others_bytes += data.len() as u64;
        state.lasting.counters.sent(data.len(), self.config.mtu.into());
        Answer::Data(data)
    }

    /// What a message does with memory here, if it may.
    fn remote_use(
        &self,
        state: &State,
        number: u16,
        message: &Message,
        memory: RemoteMemory,
        permissions: u8,
    ) -> Result<Use, Answer> {
        let refused = Answer::Refused;
        let pair = state.queue_pairs.get(number);
        let domain = pair.ok_or(refused(CompletionStatus::RemoteBadQueuePair))?.domain;
        if state.address_handle(message.source, domain).is_none() {
            return Err(refused(CompletionStatus::RemoteUnknownPeer));
        }
        let RemoteMemory { length, key, address } = memory;
        let what = Use { key, domain, address, length: length.into(), permissions, remote: true };
        if length > 0 && !state.regions.allows(what) {
            return Err(refused(CompletionStatus::RemoteBadAddress));
        }
        Ok(what)
    }

    /// Takes a posted receive, or tells what the sender is answered.
    fn take_receive(&self, state: &mut State, number: u16) -> Result<PostedReceive, Answer> {
        let pair = state.queue_pairs.get_mut(number);
        let pair = pair.ok_or(Answer::Refused(CompletionStatus::RemoteBadQueuePair))?;
        pair.take_receive(&self.memory).map_err(|error| match error {
            NoReceive::Empty => Answer::NotReady,
            NoReceive::Malformed => {
                pair.state = QueuePairState::Error;
                self.trace(format_args!("queue pair {number}: a posted receive without begin or end"));
                Answer::Refused(CompletionStatus::RemoteAbort)
            }
            NoReceive::Memory(error) => {
                self.misuse(format_args!("receive queue of queue pair {number}: {error}"));
                Answer::Refused(CompletionStatus::RemoteAbort)
            }
        })
    }

    /// Completes the receives that are posted to a queue pair in the error state.
    pub(super) fn flush_receives(&self, state: &mut State, number: u16) {
        while let Ok(posted) = self.take_receive(state, number) {
            let (status, received) = (CompletionStatus::Flushed, Received::default());
            self.complete_receive(state, number, posted.id, status, Operation::Send, received);
        }
    }

    fn received(&self, state: &State, number: u16, message: &Message, length: u32) -> Received {
        let pair = state.queue_pairs.get(number);
        let handle = pair.and_then(|pair| state.address_handle(message.source, pair.domain));
        let queue = pair.and_then(|pair| state.completion_queues.get(pair.receive_completions));
        let tells_address = queue.is_some_and(|queue| queue.with_source_address);
        Received {
            length,
            address_handle: handle.unwrap_or(NO_ADDRESS_HANDLE),
            source_queue_pair: message.source_queue_pair,
            immediate: message.immediate,
            source_address: (handle.is_none() && tells_address).then_some(message.source),
            unsolicited: false,
        }
    }

    fn complete_receive(
        &self,
        state: &mut State,
        number: u16,
        id: u16,
        status: CompletionStatus,
        operation: Operation,
        received: Received,
    ) {
        let Some(pair) = state.queue_pairs.get(number) else { return };
        let queue = pair.receive_completions;
        let kind = CompletionKind::Receive(received);
        let completion = Completion { id, status, operation: operation as u8, queue_pair: number, kind };
        self.complete(state, queue, &completion);
    }

    fn region_error(&self, error: UseError) -> CompletionStatus {
        match error {
            UseError::Refused => CompletionStatus::InvalidLocalKey,
            UseError::Memory(error) => {
                self.misuse(format_args!("memory region: {error}"));
                CompletionStatus::QueuePairInternalError
            }
        }
    }
}
