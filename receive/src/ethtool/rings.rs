//! Rings: the descriptor rings of a device, and header split.

use serde::{Deserialize, Serialize};

use super::{Ethtool, about, uapi};
use crate::netlink::{AttributeIter, Malformed, Result};

/// Whether headers and TCP payload are put into separate buffers (`tcp-data-split`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DataSplit {
    /// As a setting: the driver decides. As a state: the driver does not say.
    #[default]
    Unknown,
    /// Off.
    Disabled,
    /// On.
    Enabled,
}

impl DataSplit {
    fn number(self) -> u8 {
        match self {
            Self::Unknown => uapi::tcp_data_split::UNKNOWN,
            Self::Disabled => uapi::tcp_data_split::DISABLED,
            Self::Enabled => uapi::tcp_data_split::ENABLED,
        }
    }

    fn decode(number: u8) -> Self {
        match number {
            uapi::tcp_data_split::DISABLED => Self::Disabled,
            uapi::tcp_data_split::ENABLED => Self::Enabled,
            _ => Self::Unknown,
        }
    }
}

/// The rings of a device. What the driver does not have is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Rings {
    /// Descriptors of each receive ring.
    pub rx: Option<u32>,
    /// The most that `rx` can be.
    pub rx_max: Option<u32>,
    /// Descriptors of each transmit ring.
    pub tx: Option<u32>,
    /// The most that `tx` can be.
    pub tx_max: Option<u32>,
    /// Bytes of each receive buffer.
    pub rx_buffer_length: Option<u32>,
    /// Header split: the state that the driver reports, which is not always the setting: a driver that
    /// decides by itself reports its decision. What a memory provider needs is the *setting*
    /// (net/core/netdev_rx_queue.c), so set it even where this says that it is on already.
    pub data_split: Option<DataSplit>,
    /// Packets with at most this much payload are not split (`hds-thresh`).
    pub header_split_threshold: Option<u32>,
    /// The most that the threshold can be.
    pub header_split_threshold_max: Option<u32>,
}

/// Changes to [`Rings`]; what is `None` stays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RingsUpdate {
    /// Descriptors of each receive ring.
    pub rx: Option<u32>,
    /// Descriptors of each transmit ring.
    pub tx: Option<u32>,
    /// Bytes of each receive buffer.
    pub rx_buffer_length: Option<u32>,
    /// Header split.
    pub data_split: Option<DataSplit>,
    /// Packets with at most this much payload are not split. Only for drivers that report one.
    pub header_split_threshold: Option<u32>,
}

impl Ethtool {
    /// The rings of an interface.
    ///
    /// # Errors
    /// `EOPNOTSUPP`: the driver has no such settings. `ENODEV`: no such interface.
    pub fn rings(&self, ifindex: u32) -> Result<Rings> {
        let reply = self.family.request_one(uapi::request::RINGS_GET, &about(ifindex), &uapi::RINGS_NAMES)?;
        Ok(decode(&reply)?)
    }

    /// Changes rings; the driver may restart every queue. Tells whether the setting was another before.
    ///
    /// That is worth knowing because the setting of header split cannot be read: the reply to a query is
    /// the driver's state. The kernel announces a change only if there was one, so we listen.
    ///
    /// # Errors
    /// `EOPNOTSUPP` and `EINVAL` with the kernel's words (net/ethtool/rings.c).
    pub fn set_rings(&self, ifindex: u32, update: &RingsUpdate) -> Result<bool> {
        let mut request = about(ifindex);
        for (kind, value) in [
            (uapi::rings::RX, update.rx),
            (uapi::rings::TX, update.tx),
            (uapi::rings::RX_BUF_LEN, update.rx_buffer_length),
            (uapi::rings::HDS_THRESH, update.header_split_threshold),
        ] {
            if let Some(value) = value {
                request = request.u32(kind, value);
            }
        }
        if let Some(split) = update.data_split {
            request = request.u8(uapi::rings::TCP_DATA_SPLIT, split.number());
        }
        let notifications = self.family.request_listening(
            uapi::MONITOR_GROUP,
            uapi::request::RINGS_SET,
            &request,
            &uapi::RINGS_NAMES,
        )?;
        Ok(notifications.iter().any(|(command, attributes)| {
            *command == uapi::RINGS_NTF && announced_interface(attributes) == Some(ifindex)
        }))
    }
}

fn announced_interface(attributes: &[u8]) -> Option<u32> {
    let header = AttributeIter::new(attributes)
        .find_map(|attribute| attribute.ok().filter(|attribute| attribute.kind() == uapi::HEADER))?;
    header
        .nested()
        .find_map(|part| part.ok().filter(|part| part.kind() == uapi::header::DEV_INDEX))?
        .u32()
        .ok()
}

fn decode(reply: &[u8]) -> Result<Rings, Malformed> {
    let mut rings = Rings::default();
    for attribute in AttributeIter::new(reply) {
        let attribute = attribute?;
        let field = match attribute.kind() {
            uapi::rings::RX => &mut rings.rx,
            uapi::rings::RX_MAX => &mut rings.rx_max,
            uapi::rings::TX => &mut rings.tx,
            uapi::rings::TX_MAX => &mut rings.tx_max,
            uapi::rings::RX_BUF_LEN => &mut rings.rx_buffer_length,
            uapi::rings::HDS_THRESH => &mut rings.header_split_threshold,
            uapi::rings::HDS_THRESH_MAX => &mut rings.header_split_threshold_max,
            uapi::rings::TCP_DATA_SPLIT => {
                rings.data_split = Some(DataSplit::decode(attribute.u8()?));
                continue;
            }
            _ => continue,
        };
        *field = Some(attribute.u32()?);
    }
    Ok(rings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::{Attributes, Route};
    use nix::errno::Errno;
    use proptest::prelude::*;

    #[test]
    fn reads_what_gve_reports() {
        let reply = about(2)
            .u32(uapi::rings::RX_MAX, 1024)
            .u32(uapi::rings::RX, 512)
            .u32(uapi::rings::RX_BUF_LEN, 2048)
            .u8(uapi::rings::TCP_DATA_SPLIT, uapi::tcp_data_split::DISABLED);
        let rings = decode(reply.as_bytes()).unwrap();
        assert_eq!((rings.rx, rings.rx_max), (Some(512), Some(1024)));
        assert_eq!(rings.data_split, Some(DataSplit::Disabled));
        assert_eq!(rings.header_split_threshold, None);
        assert_eq!(announced_interface(reply.as_bytes()), Some(2));
    }

    #[test]
    fn loopback_has_no_rings() {
        let ethtool = Ethtool::open().unwrap();
        let lo = Route::open().unwrap().link_by_name("lo").unwrap().ifindex;
        assert_eq!(ethtool.rings(lo).unwrap_err().errno(), Some(Errno::EOPNOTSUPP));
    }

    #[test]
    fn a_refused_interface_is_named_by_its_attribute() {
        let ethtool = Ethtool::open().unwrap();
        let error = ethtool.rings(0x7fff_fff0).unwrap_err();
        let kernel = error.kernel().unwrap();
        assert_eq!(kernel.errno, Errno::ENODEV);
        assert_eq!(kernel.attribute.as_deref(), Some("header.dev-index"), "{kernel}");
    }

    proptest! {
        #[test]
        fn any_reply_ends_without_panic(bytes: Vec<u8>, kind in 0u16..20, payload: Vec<u8>) {
            let _ = (decode(&bytes), announced_interface(&bytes));
            let reply = Attributes::new().bytes(kind, &payload);
            let _ = (decode(reply.as_bytes()), announced_interface(reply.as_bytes()));
        }
    }
}
