//! Which bytes of TCP streams have been seen: what a sender sends again must not count twice.

use std::collections::{BTreeMap, HashMap};

use crate::ethernet::{Headers, Transport};

/// Streams that are told apart; of further ones every byte counts as new. Bounds what a guest can make us
/// remember.
const MAXIMUM_STREAMS: usize = 1 << 16;

/// Gaps that are remembered in a stream; beyond, the oldest bytes count as seen.
const MAXIMUM_GAPS: usize = 1 << 12;

const SYN: u8 = 2;

/// One direction of a TCP connection, as a NIC receives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Stream {
    nic: usize,
    source: [u8; 16],
    destination: [u8; 16],
    source_port: u16,
    destination_port: u16,
}

/// Where in a stream the payload of a packet begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    stream: Stream,
    sequence: u32,
    /// The packet begins a connection: what was seen before belongs to an older one.
    begins: bool,
}

impl Place {
    /// The place of a packet with the headers `headers`. `None` if it is not TCP.
    pub(super) fn of(nic: usize, headers: &Headers, bytes: &[u8]) -> Option<Self> {
        if headers.transport != Transport::Tcp {
            return None;
        }
        let header = bytes.get(headers.transport_offset..)?.first_chunk::<14>()?;
        let begins = header[13] & SYN != 0;
        let sequence = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        Some(Self {
            stream: Stream {
                nic,
                source: headers.source,
                destination: headers.destination,
                source_port: headers.source_port,
                destination_port: headers.destination_port,
            },
            // A SYN takes a sequence number of its own, before any payload.
            sequence: sequence.wrapping_add(begins.into()),
            begins,
        })
    }
}

/// What was seen of every stream.
#[derive(Debug, Default)]
pub(super) struct Streams(HashMap<Stream, Seen>);

impl Streams {
    /// Of pieces of payload that follow each other from `place` on, how many bytes each brings for the first
    /// time.
    pub(super) fn first_seen(&mut self, place: Option<Place>, pieces: impl Iterator<Item = u64>) -> Vec<u64> {
        let Some(place) = place else { return pieces.collect() };
        if place.begins {
            self.0.remove(&place.stream);
        }
        if self.0.len() >= MAXIMUM_STREAMS && !self.0.contains_key(&place.stream) {
            return pieces.collect();
        }
        let seen = self.0.entry(place.stream).or_insert_with(|| Seen::from(place.sequence));
        let mut position = seen.position(place.sequence);
        pieces
            .map(|length| {
                let start = position;
                position += length;
                seen.add(start, position)
            })
            .collect()
    }
}

/// The bytes of one stream that were seen, as ranges that do not touch.
#[derive(Debug)]
struct Seen {
    /// A recent position, next to which sequence numbers are placed.
    recent: u64,
    /// End by start.
    ranges: BTreeMap<u64, u64>,
}

impl Seen {
    fn from(sequence: u32) -> Self {
        // Not at the very beginning, so that a packet from before it has a place as well.
        Self { recent: u64::from(sequence) + (1 << 32), ranges: BTreeMap::new() }
    }

    /// The position of a sequence number: of all with these 32 low bits the one next to what was seen last.
    fn position(&self, sequence: u32) -> u64 {
        let distance = sequence.wrapping_sub(self.recent as u32).cast_signed();
        self.recent.saturating_add_signed(distance.into())
    }

    /// Adds a range; tells how many of its bytes are new.
    fn add(&mut self, start: u64, end: u64) -> u64 {
        self.recent = self.recent.max(end);
        let (mut start_of_all, mut end_of_all) = (start, end);
        let mut known = 0;
        // Every range that overlaps or touches; they do not touch each other, so ends are ordered as starts.
        while let Some((&other_start, &other_end)) = self.ranges.range(..=end_of_all).next_back()
            && other_end >= start_of_all
        {
            self.ranges.remove(&other_start);
            known += other_end.min(end).saturating_sub(other_start.max(start));
            start_of_all = start_of_all.min(other_start);
            end_of_all = end_of_all.max(other_end);
        }
        self.ranges.insert(start_of_all, end_of_all);
        if self.ranges.len() > MAXIMUM_GAPS
            && let Some((first_start, _)) = self.ranges.pop_first()
            && let Some((second_start, second_end)) = self.ranges.pop_first()
        {
            self.ranges.insert(first_start.min(second_start), second_end);
        }
        (end - start).saturating_sub(known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ethernet::samples;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn place(sequence: u32, begins: bool) -> Place {
        let bytes = samples::tcp4(1, 2, &[0; 8]);
        let headers = Headers::parse(&bytes).unwrap();
        Place { sequence, begins, ..Place::of(0, &headers, &bytes).unwrap() }
    }

    #[test]
    fn what_is_sent_again_is_not_new() {
        let mut streams = Streams::default();
        let mut new = |sequence, pieces: &[u64]| {
            streams.first_seen(Some(place(sequence, false)), pieces.iter().copied())
        };
        assert_eq!(new(u32::MAX - 9, &[10, 10]), [10, 10], "around the end of sequence numbers");
        assert_eq!(new(u32::MAX - 9, &[10, 10]), [0, 0]);
        assert_eq!(new(20, &[10]), [10], "after a gap");
        assert_eq!(new(0, &[30]), [10], "the gap alone is new");
        assert_eq!(new(25, &[10]), [5]);
    }

    #[test]
    fn a_new_connection_begins_anew() {
        let mut streams = Streams::default();
        assert_eq!(streams.first_seen(Some(place(100, true)), [5].into_iter()), [5]);
        assert_eq!(streams.first_seen(Some(place(100, false)), [5].into_iter()), [0]);
        assert_eq!(streams.first_seen(Some(place(100, true)), [5].into_iter()), [5]);
        assert_eq!(streams.first_seen(None, [5, 6].into_iter()), [5, 6], "not TCP");
    }

    proptest! {
        #[test]
        fn counts_as_a_set_of_bytes_does(
            packets in prop::collection::vec((0u64..300, 0u64..60), 0..40), base: u32,
        ) {
            let mut seen = Seen::from(base);
            let origin = seen.position(base);
            let mut bytes = HashSet::new();
            for (offset, length) in packets {
                let new = (offset..offset + length).filter(|&byte| bytes.insert(byte)).count() as u64;
                let start = seen.position(base.wrapping_add(offset as u32));
                prop_assert_eq!(start, origin + offset);
                prop_assert_eq!(seen.add(start, start + length), new);
            }
        }
    }
}
