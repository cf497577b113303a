//! A receive queue: buffers that the driver posted, packets that arrive, completions that tell of them.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use serde::Serialize;

use super::command::CreateReceiveQueue;
use super::description::packet_type;
use super::descriptors::{
    BUFFER_SIZE, Buffer, RECEIVE_COMPLETION_SIZE, RECEIVE_COMPLETION_VALID, ReceiveCompletion,
};
use crate::bus::{AddressSpace, DmaError};
use crate::ethernet::{Frame, Transport, segments};
use crate::ground_truth::{Account, GroundTruth};

/// Bytes that a held-back packet counts beside its own, so that small ones are bounded in number too.
const BACKLOG_OVERHEAD: usize = 256;

/// A packet on its way into a queue.
#[derive(Clone)]
pub(super) struct Arrival {
    pub(super) frame: Arc<Frame>,
    pub(super) hash: u32,
    /// Bytes of payload that go to the header buffer by mistake.
    pub(super) linear_bytes: u16,
}

/// Counters of a receive queue.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct ReceiveCounters {
    /// Packets given to the driver.
    pub(super) packets: u64,
    /// Their bytes.
    pub(super) bytes: u64,
    /// Packets whose headers went to a header buffer.
    pub(super) header_split: u64,
    /// Packets put together from segments.
    pub(super) coalesced: u64,
    /// Packets that had to wait for buffers.
    pub(super) no_buffer: u64,
    /// Packets lost because too many waited already.
    pub(super) backlog_drops: u64,
    /// Packets lost because they need more buffers than the ring has.
    pub(super) too_large: u64,
    /// Packets lost because a buffer was not in memory.
    pub(super) dma_errors: u64,
}

/// A receive queue.
pub(super) struct ReceiveQueue {
    pub(super) interrupt: usize,
    buffer_ring: u64,
    completion_ring: u64,
    /// Entries of each ring less one.
    mask: u16,
    buffer_size: usize,
    header_size: usize,
    coalescing: bool,
    /// The next buffer to fill; its completion has the same index.
    head: u16,
    /// The first buffer that is not posted yet.
    tail: u16,
    /// The generation of the completion at `head`.
    generation: bool,
    waiting: VecDeque<Arrival>,
    waiting_bytes: usize,
    backlog: usize,
    /// The packet at the front was counted as waiting.
    front_counted: bool,
    pub(super) counters: ReceiveCounters,
}

/// What a queue needs from its NIC to deliver.
pub(super) struct Delivery<'a> {
    pub(super) memory: &'a AddressSpace,
    pub(super) ground_truth: &'a GroundTruth,
    pub(super) nic: usize,
}

/// What [`ReceiveQueue::deliver`] did.
#[derive(Debug, Default)]
pub(super) struct Delivered {
    /// Completions were written.
    pub(super) completions: bool,
    /// Why the driver's memory could not be used, at most once a call.
    pub(super) failure: Option<DmaError>,
}

impl ReceiveQueue {
    /// A queue as the driver described it; its ring sizes are equal powers of two.
    pub(super) fn new(create: &CreateReceiveQueue, backlog: usize) -> ReceiveQueue {
        ReceiveQueue {
            interrupt: create.interrupt as usize,
            buffer_ring: create.buffer_ring,
            completion_ring: create.completion_ring,
            mask: create.buffer_ring_size - 1,
            buffer_size: create.packet_buffer_size.into(),
            header_size: create.header_buffer_size.into(),
            coalescing: create.receive_coalescing,
            head: 0,
            tail: 0,
            generation: true,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            backlog,
            front_counted: false,
            counters: ReceiveCounters::default(),
        }
    }

    /// The driver posted buffers up to `tail`. False when the ring has no such index.
    pub(super) fn post(&mut self, tail: u32) -> bool {
        match u16::try_from(tail) {
            Ok(tail) if tail <= self.mask => self.tail = tail,
            _ => return false,
        }
        true
    }

    /// Packets that wait for buffers.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Takes a packet, whole when the driver wants large packets of TCP, else in segments.
    pub(super) fn enqueue(&mut self, arrival: Arrival) {
        let whole = self.coalescing && arrival.frame.headers.transport == Transport::Tcp;
        if arrival.frame.segment_size.is_none() || whole {
            self.hold(arrival);
        } else {
            for frame in segments(&arrival.frame) {
                self.hold(Arrival { frame, ..arrival });
            }
        }
    }

    fn hold(&mut self, arrival: Arrival) {
        let size = arrival.frame.bytes.len() + BACKLOG_OVERHEAD;
        if !self.waiting.is_empty() && self.waiting_bytes + size > self.backlog {
            self.counters.backlog_drops += 1;
            return;
        }
        self.waiting_bytes += size;
        self.waiting.push_back(arrival);
    }

    /// Gives packets to the driver as long as there are buffers.
    pub(super) fn deliver(&mut self, delivery: &Delivery<'_>) -> Delivered {
        let mut delivered = Delivered::default();
        while let Some(arrival) = self.waiting.front() {
            let layout = Layout::of(arrival, self.header_size);
            let needed = layout.data.len().div_ceil(self.buffer_size).max(1);
            if needed > usize::from(self.mask) {
                self.counters.too_large += 1;
            } else if needed > usize::from(self.tail.wrapping_sub(self.head) & self.mask) {
                if !std::mem::replace(&mut self.front_counted, true) {
                    self.counters.no_buffer += 1;
                }
                break;
            } else {
                let arrival = arrival.clone();
                match self.store(&arrival, &layout, delivery) {
                    Ok(()) => self.count(&arrival, &layout),
                    Err(error) => {
                        self.counters.dma_errors += 1;
                        delivered.failure.get_or_insert(error);
                    }
                }
                delivered.completions = true;
            }
            self.front_counted = false;
            if let Some(done) = self.waiting.pop_front() {
                self.waiting_bytes -= done.frame.bytes.len() + BACKLOG_OVERHEAD;
            }
        }
        delivered
    }

    fn count(&mut self, arrival: &Arrival, layout: &Layout) {
        self.counters.packets += 1;
        self.counters.bytes += arrival.frame.bytes.len() as u64;
        self.counters.header_split += u64::from(layout.header.is_some());
        self.counters.coalesced += u64::from(arrival.frame.segment_size.is_some());
    }

    /// Writes a packet into buffers and completes them, whether their memory exists or not.
    fn store(&mut self, arrival: &Arrival, layout: &Layout, delivery: &Delivery<'_>) -> Result<(), DmaError> {
        let Arrival { frame, hash, .. } = arrival;
        let headers = &frame.headers;
        let mut account = delivery.ground_truth.open(delivery.nic, headers, &frame.bytes);
        let mut result = Ok(());
        let mut start = layout.data.start;
        let mut first = true;
        loop {
            let end = (start + self.buffer_size).min(layout.data.end);
            let last = end == layout.data.end;
            let header = layout.header.clone().filter(|_| first);
            let (id, stored) = self.fill(frame, header.clone(), start..end, delivery.memory, &mut account);
            result = result.and(stored);
            let completion = ReceiveCompletion {
                buffer_id: id,
                length: (end - start) as u16,
                header_length: header.map(|header| header.len() as u16),
                header_overflow: first && layout.overflow,
                end: last,
                packet_type: packet_type(headers.network, headers.transport),
                segment_size: frame.segment_size.map(|size| size as u16),
                hash: *hash,
                checked: headers.has_ports(),
                checksum_wrong: headers.has_ports() && !frame.checksum_good,
                ipv6_extension: headers.ipv6_extension,
                error: stored.is_err(),
            };
            result = result.and(self.complete(&completion, delivery.memory));
            if last {
                break;
            }
            (start, first) = (end, false);
        }
        delivery.ground_truth.close(account);
        result
    }

    /// Writes a part of a packet into the buffer at `head`; tells the buffer's id.
    fn fill(
        &self,
        frame: &Frame,
        header: Option<Range<usize>>,
        data: Range<usize>,
        memory: &AddressSpace,
        account: &mut Account,
    ) -> (u16, Result<(), DmaError>) {
        let entry = self.buffer_ring.wrapping_add(u64::from(self.head) * BUFFER_SIZE as u64);
        let buffer = match memory.read_array::<BUFFER_SIZE>(entry) {
            Ok(bytes) => Buffer::parse(&bytes),
            Err(error) => return (0, Err(error)),
        };
        let store = || {
            if let Some(header) = header {
                let payload = overlap(&header, &frame.headers.payload).len() as u64;
                memory.write(buffer.header_address, &frame.bytes[header])?;
                account.wrote_to_header_buffer(payload);
            }
            // What is payload is counted, the rest (headers that were not split off, padding) is not.
            let payload = overlap(&data, &frame.headers.payload);
            let place = |offset: usize| buffer.address.wrapping_add((offset - data.start) as u64);
            memory.write(place(data.start), &frame.bytes[data.start..payload.start])?;
            memory.write_telling(place(payload.start), &frame.bytes[payload.clone()], |page, bytes| {
                account.wrote(page, bytes);
            })?;
            memory.write(place(payload.end), &frame.bytes[payload.end..data.end])
        };
        (buffer.id, store())
    }

    fn complete(&mut self, completion: &ReceiveCompletion, memory: &AddressSpace) -> Result<(), DmaError> {
        let address =
            self.completion_ring.wrapping_add(u64::from(self.head) * RECEIVE_COMPLETION_SIZE as u64);
        let bytes = completion.encode(self.generation);
        self.head = (self.head + 1) & self.mask;
        self.generation ^= self.head == 0;
        const VALID: usize = RECEIVE_COMPLETION_VALID;
        memory.write(address, &bytes[..VALID])?;
        memory.write(address.wrapping_add(VALID as u64 + 2), &bytes[VALID + 2..])?;
        let valid = u16::from_le_bytes([bytes[VALID], bytes[VALID + 1]]);
        memory.publish_u16(address.wrapping_add(VALID as u64), valid.to_le())
    }
}

/// The part of `range` that is also in `other`; when there is none, an empty range within `range`.
fn overlap(range: &Range<usize>, other: &Range<usize>) -> Range<usize> {
    let start = other.start.clamp(range.start, range.end);
    start..other.end.clamp(start, range.end)
}

/// Which bytes of a packet go where.
struct Layout {
    /// To the header buffer, if headers are split off.
    header: Option<Range<usize>>,
    /// To the packet buffers.
    data: Range<usize>,
    /// The headers are longer than the header buffer, so all goes to the packet buffers.
    overflow: bool,
}

impl Layout {
    fn of(arrival: &Arrival, header_size: usize) -> Layout {
        let frame = &arrival.frame;
        let whole = 0..frame.bytes.len();
        if header_size == 0 || !frame.headers.has_ports() {
            return Layout { header: None, data: whole, overflow: false };
        }
        let payload = frame.headers.payload.clone();
        if payload.start > header_size {
            return Layout { header: None, data: whole, overflow: true };
        }
        let split = (payload.start + usize::from(arrival.linear_bytes)).min(payload.end).min(header_size);
        Layout { header: Some(0..split), data: split..payload.end, overflow: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ethernet::{Offload, samples};

    fn arrival(payload: usize, linear_bytes: u16) -> Arrival {
        let frame = Frame::new(samples::tcp4(1, 2, &vec![7; payload]), &Offload::default()).unwrap();
        Arrival { frame, hash: 0, linear_bytes }
    }

    #[test]
    fn layouts() {
        let of = |payload, linear, size| {
            let layout = Layout::of(&arrival(payload, linear), size);
            (layout.header, layout.data, layout.overflow)
        };
        assert_eq!(of(100, 0, 0), (None, 0..166, false), "no split");
        assert_eq!(of(100, 0, 128), (Some(0..66), 66..166, false));
        assert_eq!(of(0, 0, 128), (Some(0..66), 66..66, false), "an acknowledgement");
        assert_eq!(of(100, 16, 128), (Some(0..82), 82..166, false), "linear");
        assert_eq!(of(10, 16, 128), (Some(0..76), 76..76, false), "less payload than linear bytes");
        assert_eq!(of(100, 500, 128), (Some(0..128), 128..166, false), "no more than fits");
        assert_eq!(of(100, 0, 64), (None, 0..166, true), "headers too long");
    }

    #[test]
    fn overlaps_stay_within() {
        assert_eq!(overlap(&(10..20), &(15..30)), 15..20);
        assert_eq!(overlap(&(10..20), &(0..5)), 10..10);
        assert_eq!(overlap(&(10..20), &(25..30)), 20..20);
    }
}
