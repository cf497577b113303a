//! What the device says of itself: the features that a driver can ask for.

use super::completion_queue::{
    MAXIMUM_COMPLETION_QUEUES, MAXIMUM_DEPTH, MAXIMUM_EVENT_QUEUES, MAXIMUM_EVENTS,
};
use super::descriptors::{INLINE_BYTES, RDMA_BUFFERS, SEND_BUFFERS};
use super::fields::Structure;
use super::queue_pair::{
    MAXIMUM_QUEUE_PAIRS, MAXIMUM_RECEIVES, MAXIMUM_SENDS, RECEIVE_BUFFERS, SEND_RING_SIZE,
};
use super::region::{MAXIMUM_PAGES, MAXIMUM_REGIONS, PAGE_SIZES};
use crate::config::RdmaConfig;

/// Protection domains that there may be.
pub(super) const MAXIMUM_DOMAINS: usize = 256;
/// Address handles that there may be.
pub(super) const MAXIMUM_ADDRESS_HANDLES: usize = 1024;
/// Bytes of one RDMA read or write. Hardware allows more; here a doorbell is served while the processor that rang
/// it stands still.
pub(super) const MAXIMUM_RDMA: u32 = 4 << 20;

/// Features by number.
pub(super) mod feature {
    pub(crate) const DEVICE: u8 = 1;
    pub(crate) const ASYNC_EVENTS: u8 = 2;
    pub(crate) const NETWORK: u8 = 3;
    pub(crate) const QUEUES: u8 = 4;
    pub(crate) const HINTS: u8 = 5;
    pub(crate) const HOST: u8 = 6;
    pub(crate) const EVENT_QUEUES: u8 = 7;
    pub(crate) const MORE_QUEUES: u8 = 9;
    /// All that there are.
    pub(crate) const ALL: [u8; 8] =
        [DEVICE, ASYNC_EVENTS, NETWORK, QUEUES, HINTS, HOST, EVENT_QUEUES, MORE_QUEUES];
}

/// Capabilities of the device.
mod capability {
    pub(super) const RDMA_READ: u32 = 1 << 0;
    /// A driver may say how often a receiver that is not ready is tried.
    pub(super) const RECEIVER_RETRIES: u32 = 1 << 1;
    pub(super) const RDMA_WRITE: u32 = 1 << 3;
    pub(super) const UNSOLICITED_WRITE_RECEIVE: u32 = 1 << 4;
}

/// Groups of asynchronous events.
pub(super) mod event_group {
    /// The device is alive.
    pub(crate) const KEEP_ALIVE: u16 = 4;
    /// Fatal errors, warnings, notifications and signs of life.
    pub(crate) const SUPPORTED: u32 = 0x1e;
}

/// The BAR with the doorbells.
const DOORBELL_BAR: u16 = 0;
/// Gbit/s.
const LINK_SPEED: u16 = 100;

/// The value of a feature that is the same at all times. `None` for others.
pub(super) fn value(number: u8, config: &RdmaConfig, gid: [u8; 16]) -> Option<Vec<u8>> {
    let value = match number {
        feature::DEVICE => device(config, gid),
        feature::NETWORK => Structure::new(20).put(0, &gid).u32(16, config.mtu.into()),
        feature::QUEUES => queues(),
        // Times in ms, of reading a register, without signs of life, of a command, between polls: as the driver likes.
        feature::HINTS => Structure::new(8),
        feature::EVENT_QUEUES => {
            // The event is that of a completion.
            Structure::new(12).u32(0, MAXIMUM_EVENT_QUEUES as u32).u32(4, MAXIMUM_EVENTS.into()).u32(8, 1)
        }
        feature::MORE_QUEUES => Structure::new(24).u16(0, INLINE_BYTES),
        _ => return None,
    };
    Some(value.bytes())
}

fn device(config: &RdmaConfig, gid: [u8; 16]) -> Structure {
    let supported = feature::ALL.iter().fold(0u64, |bits, number| bits | 1 << number);
    let mut capabilities = capability::RECEIVER_RETRIES | capability::UNSOLICITED_WRITE_RECEIVE;
    if config.rdma_read {
        capabilities |= capability::RDMA_READ;
    }
    if config.rdma_write {
        capabilities |= capability::RDMA_WRITE;
    }
    let [.., a, b, c, d, e, f, g, h] = gid;
    Structure::new(56)
        .u64(0, supported)
        .u64(8, PAGE_SIZES)
        // Versions of the firmware, the interface and the device.
        .u32(16, 1)
        .u32(20, 1)
        .u32(24, 1)
        .u16(28, DOORBELL_BAR)
        // Bits of physical and of virtual addresses.
        .u8(30, 48)
        .u8(31, 64)
        .u32(32, capabilities)
        .u32(36, MAXIMUM_RDMA)
        .put(40, &[a, b, c, d, e, f, g, h])
        .u16(48, LINK_SPEED)
}

fn queues() -> Structure {
    Structure::new(56)
        .u32(0, MAXIMUM_QUEUE_PAIRS as u32)
        .u32(4, MAXIMUM_SENDS)
        .u32(8, INLINE_BYTES.into())
        .u32(12, MAXIMUM_RECEIVES)
        .u32(16, MAXIMUM_COMPLETION_QUEUES as u32)
        .u32(20, MAXIMUM_DEPTH.into())
        // Sub-queues of a completion queue.
        .u16(24, 1)
        // The smallest send queue: any. A program that is told of one must say that it understands.
        .u16(26, 0)
        .u16(28, SEND_BUFFERS)
        .u16(30, RECEIVE_BUFFERS)
        .u32(32, MAXIMUM_REGIONS as u32)
        .u32(36, MAXIMUM_PAGES as u32)
        .u32(40, MAXIMUM_DOMAINS as u32)
        .u32(44, MAXIMUM_ADDRESS_HANDLES as u32)
        .u32(48, SEND_RING_SIZE)
        .u16(52, RDMA_BUFFERS)
        // Bytes between two doorbells of a send queue: any.
        .u16(54, 0)
}

#[cfg(test)]
mod tests {
    use super::super::fields::Fields;
    use super::*;

    #[test]
    fn every_feature_with_a_constant_value_fits_into_a_completion() {
        let config = RdmaConfig::default();
        for number in feature::ALL {
            let value = value(number, &config, [7; 16]);
            assert_eq!(value.is_none(), matches!(number, feature::ASYNC_EVENTS | feature::HOST), "{number}");
            assert!(value.is_none_or(|value| value.len() <= 56));
        }
        assert_eq!(value(8, &config, [0; 16]), None);
    }

    #[test]
    fn what_is_switched_off_is_not_told_of() {
        let capabilities = |text: &str| {
            let config: RdmaConfig = text.parse().unwrap();
            Fields(&value(feature::DEVICE, &config, [0; 16]).unwrap()).u32(32)
        };
        assert_eq!(capabilities("efa"), 0x1b);
        assert_eq!(capabilities("efa:rdma-read=off,rdma-write=off"), 0x12);
    }
}
