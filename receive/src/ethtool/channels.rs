//! Channels: how many queues a device has.

use serde::{Deserialize, Serialize};

use super::{Ethtool, about, uapi};
use crate::netlink::{AttributeIter, Malformed, Result};

/// Numbers of queues by kind. A combined channel is a receive and a transmit queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelCounts {
    /// Receive only.
    pub rx: u32,
    /// Transmit only.
    pub tx: u32,
    /// Neither, such as an interrupt for link state.
    pub other: u32,
    /// Receive and transmit.
    pub combined: u32,
}

/// The channels of a device: how many there are and could be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channels {
    /// How many there are.
    pub current: ChannelCounts,
    /// How many there could be.
    pub maximum: ChannelCounts,
}

impl Channels {
    /// The number of receive queues.
    #[must_use]
    pub fn receive_queues(&self) -> u32 {
        self.current.rx.saturating_add(self.current.combined)
    }

    /// The most receive queues that [`with_receive_queues`](Self::with_receive_queues) can give.
    #[must_use]
    pub fn receive_queues_max(&self) -> u32 {
        if self.maximum.combined > 0 {
            self.current.rx.saturating_add(self.maximum.combined)
        } else {
            self.current.combined.saturating_add(self.maximum.rx)
        }
    }

    /// The counts that give `receive_queues` receive queues, changing as little as possible. `None` if
    /// the device cannot have as many.
    #[must_use]
    pub fn with_receive_queues(&self, receive_queues: u32) -> Option<ChannelCounts> {
        let missing = receive_queues.saturating_sub(self.receive_queues());
        let mut counts = self.current;
        if missing == 0 {
            return Some(counts);
        }
        // A device with combined channels is extended by those; few can have both kinds at once.
        let (count, maximum) = if self.maximum.combined > 0 {
            (&mut counts.combined, self.maximum.combined)
        } else {
            (&mut counts.rx, self.maximum.rx)
        };
        *count = count.checked_add(missing).filter(|&count| count <= maximum)?;
        Some(counts)
    }
}

impl Ethtool {
    /// The channels of an interface.
    ///
    /// # Errors
    /// `EOPNOTSUPP`: the driver has no such settings. `ENODEV`: no such interface.
    pub fn channels(&self, ifindex: u32) -> Result<Channels> {
        let command = uapi::request::CHANNELS_GET;
        let reply = self.family.request_one(command, &about(ifindex), &uapi::CHANNELS_NAMES)?;
        Ok(decode(&reply)?)
    }

    /// Changes how many channels there are. Kinds that the driver does not have must be 0.
    ///
    /// # Errors
    /// `EINVAL` with the kernel's words: beyond the maximum, or a queue that would go is in use.
    pub fn set_channels(&self, ifindex: u32, counts: &ChannelCounts) -> Result<()> {
        let request = about(ifindex)
            .u32(uapi::channels::RX_COUNT, counts.rx)
            .u32(uapi::channels::TX_COUNT, counts.tx)
            .u32(uapi::channels::OTHER_COUNT, counts.other)
            .u32(uapi::channels::COMBINED_COUNT, counts.combined);
        self.family.request(uapi::request::CHANNELS_SET, &request, &uapi::CHANNELS_NAMES).map(drop)
    }
}

fn decode(reply: &[u8]) -> Result<Channels, Malformed> {
    let mut channels = Channels::default();
    for attribute in AttributeIter::new(reply) {
        let attribute = attribute?;
        let field = match attribute.kind() {
            uapi::channels::RX_MAX => &mut channels.maximum.rx,
            uapi::channels::TX_MAX => &mut channels.maximum.tx,
            uapi::channels::OTHER_MAX => &mut channels.maximum.other,
            uapi::channels::COMBINED_MAX => &mut channels.maximum.combined,
            uapi::channels::RX_COUNT => &mut channels.current.rx,
            uapi::channels::TX_COUNT => &mut channels.current.tx,
            uapi::channels::OTHER_COUNT => &mut channels.current.other,
            uapi::channels::COMBINED_COUNT => &mut channels.current.combined,
            _ => continue,
        };
        *field = attribute.u32()?;
    }
    Ok(channels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn separate_channels_are_extended_on_the_receive_side_alone() {
        let maximum = ChannelCounts { rx: 4, tx: 4, ..ChannelCounts::default() };
        let current = ChannelCounts { rx: 1, tx: 1, ..ChannelCounts::default() };
        let channels = Channels { current, maximum };
        assert_eq!(channels.with_receive_queues(1), Some(current));
        assert_eq!(channels.with_receive_queues(4), Some(ChannelCounts { rx: 4, ..current }));
        assert_eq!(channels.with_receive_queues(5), None);
    }

    #[test]
    fn combined_channels_are_extended_as_such() {
        let maximum = ChannelCounts { combined: 8, other: 1, ..ChannelCounts::default() };
        let current = ChannelCounts { combined: 2, other: 1, ..ChannelCounts::default() };
        let channels = Channels { current, maximum };
        assert_eq!(channels.with_receive_queues(3), Some(ChannelCounts { combined: 3, ..current }));
        assert_eq!(channels.with_receive_queues(9), None);
        assert_eq!(channels.with_receive_queues(u32::MAX), None);
    }

    proptest! {
        #[test]
        fn any_reply_ends_without_panic(bytes: Vec<u8>, wanted: u32) {
            if let Ok(channels) = decode(&bytes) {
                let _ = channels.with_receive_queues(wanted);
            }
        }
    }
}
