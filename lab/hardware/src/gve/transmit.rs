//! A transmit queue: descriptors that the driver posted, packets made of them, completions.

use std::sync::Arc;

use serde::Serialize;

use super::command::CreateTransmitQueue;
use super::descriptors::{
    PacketPiece, TRANSMIT_COMPLETION_SIZE, TRANSMIT_SIZE, Transmit, TransmitCompletion,
};
use crate::bus::{AddressSpace, DmaError};
use crate::ethernet::{Frame, Offload};

/// Bytes of a packet that is not segmented, at most and at least.
const PACKET_BYTES: std::ops::RangeInclusive<usize> = 17..=9728;

/// Bytes of a packet that is to be segmented, at most.
const MAXIMUM_SEGMENTED_BYTES: usize = (1 << 18) - 1;

/// The smallest payload of segments.
const MINIMUM_SEGMENT_SIZE: u16 = 88;

/// Packets and bytes that are taken from the ring before others get their turn.
const BATCH_PACKETS: usize = 64;
const BATCH_BYTES: usize = 1 << 20;

/// Counters of a transmit queue.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct TransmitCounters {
    /// Packets sent, each counted once however many segments it makes.
    pub(super) packets: u64,
    /// Their bytes.
    pub(super) bytes: u64,
    /// Packets given for segmentation.
    pub(super) segmented: u64,
    /// Packets that were not sent because something was wrong with them.
    pub(super) errors: u64,
}

/// Why a packet was not sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TransmitError {
    #[error("descriptor {index} has the unknown type {kind:#x}")]
    DescriptorType { index: u16, kind: u8 },
    #[error(transparent)]
    Memory(#[from] DmaError),
    #[error("a packet of {0} bytes")]
    Size(usize),
    #[error(
        "segmentation into {segment_size} bytes behind {header_length} bytes of headers, which end at {found}"
    )]
    Segmentation { segment_size: u16, header_length: u8, found: usize },
}

/// A transmit queue.
pub(super) struct TransmitQueue {
    number: u16,
    pub(super) interrupt: usize,
    ring: u64,
    completion_ring: u64,
    /// Entries of the ring less one.
    mask: u16,
    completion_mask: u16,
    head: u16,
    tail: u16,
    completion: u16,
    generation: bool,
    packet: Assembly,
    pub(super) counters: TransmitCounters,
}

/// A packet that was fetched in part.
#[derive(Default)]
struct Assembly {
    bytes: Vec<u8>,
    segmentation: Option<(u16, u8)>,
    checksum: bool,
    /// What was wrong with it first; then its bytes are not fetched any more.
    error: Option<TransmitError>,
}

/// What [`TransmitQueue::fetch`] brought.
#[derive(Default)]
pub(super) struct Fetched {
    pub(super) frames: Vec<Arc<Frame>>,
    /// Completions were written.
    pub(super) completions: bool,
    /// There is more in the ring.
    pub(super) more: bool,
    pub(super) errors: Vec<TransmitError>,
}

impl TransmitQueue {
    /// A queue as the driver described it; its ring sizes are powers of two.
    pub(super) fn new(create: &CreateTransmitQueue) -> TransmitQueue {
        TransmitQueue {
            number: create.queue as u16,
            interrupt: create.interrupt as usize,
            ring: create.ring,
            completion_ring: create.completion_ring,
            mask: create.ring_size - 1,
            completion_mask: create.completion_ring_size - 1,
            head: 0,
            tail: 0,
            completion: 0,
            generation: true,
            packet: Assembly::default(),
            counters: TransmitCounters::default(),
        }
    }

    /// The driver posted descriptors up to `tail`. False when the ring has no such index.
    pub(super) fn post(&mut self, tail: u32) -> bool {
        match u16::try_from(tail) {
            Ok(tail) if tail <= self.mask => self.tail = tail,
            _ => return false,
        }
        true
    }

    /// Takes some packets from the ring and completes them.
    pub(super) fn fetch(&mut self, memory: &AddressSpace) -> Fetched {
        let mut fetched = Fetched::default();
        let mut bytes = 0;
        let mut packets = 0;
        while self.head != self.tail {
            if packets == BATCH_PACKETS || bytes >= BATCH_BYTES {
                fetched.more = true;
                break;
            }
            let index = self.head;
            self.head = (self.head + 1) & self.mask;
            let address = self.ring.wrapping_add(u64::from(index) * TRANSMIT_SIZE as u64);
            let descriptor = memory.read_array(address).map_err(TransmitError::from);
            let piece = match descriptor.and_then(|bytes| {
                Transmit::parse(&bytes).map_err(|kind| TransmitError::DescriptorType { index, kind })
            }) {
                Ok(Transmit::Packet(piece)) => piece,
                Ok(Transmit::GeneralContext) => continue,
                Ok(Transmit::SegmentationContext { segment_size, header_length }) => {
                    self.packet.segmentation = Some((segment_size, header_length));
                    continue;
                }
                Err(error) => {
                    self.packet.fail(error);
                    continue;
                }
            };
            self.packet.append(&piece, memory);
            let mut completions = Vec::with_capacity(2);
            if piece.report {
                completions.push(TransmitCompletion::Descriptors { head: self.head });
            }
            if piece.end {
                completions.push(TransmitCompletion::Packet { tag: piece.tag });
                packets += 1;
                bytes += self.packet.bytes.len();
                self.finish_packet(&mut fetched);
            }
            for completion in completions {
                fetched.completions = true;
                if let Err(error) = self.complete(completion, memory) {
                    fetched.errors.push(error.into());
                }
            }
        }
        fetched
    }

    fn finish_packet(&mut self, fetched: &mut Fetched) {
        let packet = std::mem::take(&mut self.packet);
        let segmented = packet.segmentation.is_some();
        match packet.finish() {
            Ok(frame) => {
                self.counters.packets += 1;
                self.counters.bytes += frame.bytes.len() as u64;
                self.counters.segmented += u64::from(segmented);
                fetched.frames.push(frame);
            }
            Err(error) => {
                self.counters.errors += 1;
                fetched.errors.push(error);
            }
        }
    }

    fn complete(&mut self, completion: TransmitCompletion, memory: &AddressSpace) -> Result<(), DmaError> {
        let address =
            self.completion_ring.wrapping_add(u64::from(self.completion) * TRANSMIT_COMPLETION_SIZE as u64);
        let (first, rest) = completion.encode(self.number, self.generation);
        self.completion = (self.completion + 1) & self.completion_mask;
        self.generation ^= self.completion == 0;
        memory.write(address.wrapping_add(2), &rest)?;
        memory.publish_u16(address, first.to_le())
    }
}

impl Assembly {
    fn fail(&mut self, error: TransmitError) {
        self.error.get_or_insert(error);
    }

    fn append(&mut self, piece: &PacketPiece, memory: &AddressSpace) {
        self.checksum |= piece.checksum;
        if self.error.is_some() {
            return;
        }
        let limit = if self.segmentation.is_some() { MAXIMUM_SEGMENTED_BYTES } else { *PACKET_BYTES.end() };
        let start = self.bytes.len();
        let end = start + usize::from(piece.size);
        if end > limit {
            self.fail(TransmitError::Size(end));
            return;
        }
        self.bytes.resize(end, 0);
        if let Err(error) = memory.read(piece.address, &mut self.bytes[start..]) {
            self.fail(error.into());
        }
    }

    fn finish(self) -> Result<Arc<Frame>, TransmitError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let size = self.bytes.len();
        if size < *PACKET_BYTES.start() {
            return Err(TransmitError::Size(size));
        }
        let segment_size = self.segmentation.map(|(segment_size, _)| usize::from(segment_size));
        let offload = Offload { checksum: self.checksum, segment_size };
        let frame = Frame::new(self.bytes, &offload).ok_or(TransmitError::Size(size))?;
        if let Some((segment_size, header_length)) = self.segmentation {
            let found = frame.headers.payload.start;
            let fits = frame.headers.has_ports() && found == usize::from(header_length);
            if segment_size < MINIMUM_SEGMENT_SIZE || !fits {
                return Err(TransmitError::Segmentation { segment_size, header_length, found });
            }
        }
        Ok(frame)
    }
}
