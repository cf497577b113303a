//! Counters, and the reports of them.

use serde::Serialize;

use super::fields::Structure;

/// Counters of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Counters {
    /// Payload that was sent, of all operations.
    pub(super) sent_bytes: u64,
    /// Packets of the MTU's size that this takes.
    pub(super) sent_packets: u64,
    /// Payload that arrived, of all operations.
    pub(super) received_bytes: u64,
    pub(super) received_packets: u64,
    /// Datagrams that were lost because nobody had posted a receive, or the queue pair was not ready.
    pub(super) dropped: u64,
    /// Messages with a wrong queue key.
    pub(super) queue_key_violations: u64,
    pub(super) sends: u64,
    pub(super) send_bytes: u64,
    pub(super) receives: u64,
    pub(super) receive_bytes: u64,
    pub(super) reads: u64,
    pub(super) read_bytes: u64,
    pub(super) read_errors: u64,
    /// Read from here by others.
    pub(super) read_by_others_bytes: u64,
    pub(super) writes: u64,
    pub(super) write_bytes: u64,
    pub(super) write_errors: u64,
    /// Written here by others.
    pub(super) written_by_others_bytes: u64,
    /// Doorbells that programs rang without having a queue there, or with impossible values.
    pub(super) bad_doorbells: u64,
    /// Resets that the driver asked for.
    pub(super) resets: u64,
}

/// The counters of a device, and what it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct RdmaStatistics {
    #[serde(flatten)]
    pub(super) counters: Counters,
    pub(super) interrupts: u64,
    pub(super) regions: usize,
    pub(super) queue_pairs: usize,
    pub(super) completion_queues: usize,
}

impl Counters {
    /// Counts payload that leaves for another device.
    pub(super) fn sent(&mut self, bytes: usize, mtu: u32) {
        self.sent_bytes += bytes as u64;
        self.sent_packets += packets(bytes, mtu);
    }

    /// Counts payload that arrives.
    pub(super) fn received(&mut self, bytes: usize, mtu: u32) {
        self.received_bytes += bytes as u64;
        self.received_packets += packets(bytes, mtu);
    }

    /// What GET_STATS tells of a kind: basic, messages, RDMA reads, RDMA writes, network. `None` for others.
    pub(super) fn report(&self, kind: u8) -> Option<Vec<u8>> {
        let values: &[u64] = match kind {
            0 => &[
                self.sent_bytes,
                self.sent_packets,
                self.received_bytes,
                self.received_packets,
                self.dropped,
                self.queue_key_violations,
            ],
            1 => &[self.send_bytes, self.sends, self.receive_bytes, self.receives],
            2 => &[self.reads, self.read_bytes, self.read_errors, self.read_by_others_bytes],
            3 => &[self.writes, self.write_bytes, self.write_errors, self.written_by_others_bytes],
            // Nothing is ever sent again here.
            4 => &[0; 5],
            _ => return None,
        };
        let empty = Structure::new(values.len() * 8);
        let whole =
            values.iter().enumerate().fold(empty, |bytes, (index, value)| bytes.u64(index * 8, *value));
        Some(whole.bytes())
    }
}

fn packets(bytes: usize, mtu: u32) -> u64 {
    (bytes as u64).div_ceil(mtu.into()).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_as_many_packets_as_they_need() {
        let mut counters = Counters::default();
        for bytes in [0, 1, 100, 101] {
            counters.sent(bytes, 100);
        }
        assert_eq!((counters.sent_bytes, counters.sent_packets), (202, 5));
        let report = counters.report(0).unwrap();
        assert_eq!((report.len(), report[..8].to_vec()), (48, 202u64.to_le_bytes().to_vec()));
        assert_eq!(counters.report(5), None);
    }
}
