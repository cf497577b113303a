//! Counters of a NIC, and the report of them that the driver keeps.

use serde::Serialize;

use super::receive::ReceiveCounters;
use super::transmit::TransmitCounters;
use crate::bus::{AddressSpace, DmaError};

/// Counters of a NIC that belong to no queue.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Counters {
    /// Resets that the driver asked for.
    pub(super) resets: u64,
    /// Packets that a flow rule sent to its queue.
    pub(super) steered: u64,
    /// Packets that a fault sent to queue 0 instead.
    pub(super) missteered: u64,
    /// Packets that arrived for a queue that there was not.
    pub(super) no_queue: u64,
    /// Packets that came or went while the link was down.
    pub(super) link_down: u64,
    /// Packets longer than the largest MTU allows.
    pub(super) over_mru: u64,
}

/// What the request `statistics` tells about a NIC.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct NicStatistics {
    pub(super) link_up: bool,
    #[serde(flatten)]
    pub(super) counters: Counters,
    pub(super) interrupts: u64,
    pub(super) flow_rules: u32,
    /// Sums over all queues, those that were destroyed included.
    pub(super) received: ReceiveCounters,
    pub(super) transmitted: TransmitCounters,
    /// Queues that exist now, since they were created.
    pub(super) receive_queues: Vec<ReceiveQueueStatistics>,
    pub(super) transmit_queues: Vec<TransmitQueueStatistics>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct ReceiveQueueStatistics {
    pub(super) queue: usize,
    /// Packets that wait for buffers now.
    pub(super) waiting: usize,
    #[serde(flatten)]
    pub(super) counters: ReceiveCounters,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct TransmitQueueStatistics {
    pub(super) queue: usize,
    #[serde(flatten)]
    pub(super) counters: TransmitCounters,
}

impl ReceiveCounters {
    pub(super) fn add(&mut self, other: &ReceiveCounters) {
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.header_split += other.header_split;
        self.coalesced += other.coalesced;
        self.no_buffer += other.no_buffer;
        self.backlog_drops += other.backlog_drops;
        self.too_large += other.too_large;
        self.dma_errors += other.dma_errors;
    }
}

impl TransmitCounters {
    pub(super) fn add(&mut self, other: &TransmitCounters) {
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.segmented += other.segmented;
        self.errors += other.errors;
    }
}

/// Bytes before the entries: how often the driver wrote its part.
const HEADER_SIZE: u64 = 8;
/// Bytes of an entry: name, queue and value.
const ENTRY_SIZE: u64 = 16;
/// Entries of the device for each receive queue. They are the last of the report, behind the driver's.
const RECEIVE_ENTRIES: u64 = 4;

const RX_QUEUE_DROP_CNT: u32 = 65;
const RX_NO_BUFFERS_POSTED: u32 = 66;
const RX_DROPS_PACKET_OVER_MRU: u32 = 67;
const RX_DROPS_INVALID_CHECKSUM: u32 = 68;

/// The statistics report: memory of the driver in which the device keeps its counters up to date.
///
/// Hardware writes it from time to time; this device does when a counter in it changed.
#[derive(Debug)]
pub(super) struct StatisticsReport {
    address: u64,
    length: u64,
    written: Vec<ReportedCounters>,
}

/// What the report tells of a receive queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReportedCounters {
    pub(super) queue: u32,
    pub(super) drops: u64,
    pub(super) no_buffer: u64,
    pub(super) over_mru: u64,
}

impl StatisticsReport {
    /// The report at an address; with no length there is none.
    pub(super) fn new(address: u64, length: u64) -> Option<StatisticsReport> {
        (length > 0).then_some(StatisticsReport { address, length, written: Vec::new() })
    }

    /// Writes the counters of the receive queues that there are, if any of them changed.
    pub(super) fn update(
        &mut self,
        memory: &AddressSpace,
        receive_queues: Vec<ReportedCounters>,
    ) -> Result<(), DmaError> {
        if self.written == receive_queues {
            return Ok(());
        }
        let entries = self.length.saturating_sub(HEADER_SIZE) / ENTRY_SIZE;
        let Some(first) = entries.checked_sub(receive_queues.len() as u64 * RECEIVE_ENTRIES) else {
            return Ok(()); // the driver has no room for so many
        };
        let mut bytes = Vec::new();
        for counters in &receive_queues {
            for (name, value) in [
                (RX_QUEUE_DROP_CNT, counters.drops),
                (RX_NO_BUFFERS_POSTED, counters.no_buffer),
                (RX_DROPS_PACKET_OVER_MRU, counters.over_mru),
                (RX_DROPS_INVALID_CHECKSUM, 0), // such packets are marked, not dropped
            ] {
                bytes.extend(name.to_be_bytes());
                bytes.extend(counters.queue.to_be_bytes());
                bytes.extend(value.to_be_bytes());
            }
        }
        self.written = receive_queues;
        memory.write(self.address.wrapping_add(HEADER_SIZE + first * ENTRY_SIZE), &bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::{Bus, PAGE_SIZE};

    #[test]
    fn the_device_writes_the_end_of_the_report() {
        let bus = Bus::new();
        let report = bus.device_memory("report", PAGE_SIZE).unwrap();
        bus.place_window(&report, Some(0), 0..PAGE_SIZE);
        let memory = bus.address_space();
        // Room for two queues of each kind: six entries of the driver each, then the device's eight.
        let mut report = StatisticsReport::new(0x100, HEADER_SIZE + 24 * ENTRY_SIZE).unwrap();
        let counters = |queue, drops| ReportedCounters { queue, drops, no_buffer: 7, over_mru: 0 };
        let entry = |index: u64| memory.read_array::<16>(0x108 + index * 16).unwrap();
        let expected =
            |name: u8, queue: u8, value: u8| [0, 0, 0, name, 0, 0, 0, queue, 0, 0, 0, 0, 0, 0, 0, value];
        report.update(&memory, vec![counters(1, 5)]).unwrap();
        assert_eq!(entry(19), [0; 16]);
        assert_eq!(entry(20), expected(65, 1, 5));
        assert_eq!(entry(21), expected(66, 1, 7));
        report.update(&memory, vec![counters(0, 0), counters(1, 6)]).unwrap();
        assert_eq!(entry(16), expected(65, 0, 0));
        assert_eq!(entry(20), expected(65, 1, 6));
        let too_many = (0..9).map(|queue| counters(queue, 0)).collect();
        assert_eq!(report.update(&memory, too_many), Ok(()));
    }
}
