//! Flow rules: which packets go to which queue, ahead of RSS.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::Ethtool;
use super::ioctl_uapi as uapi;
use crate::netlink::{Error, Result};

/// How often a list that changes while it is read is taken again.
const LIST_ATTEMPTS: usize = 16;

/// The places of the fields in the 52 bytes of a TCP match (`struct ethtool_tcpip4_spec` and
/// `struct ethtool_tcpip6_spec`); all are in network byte order.
mod field {
    use std::ops::Range;

    pub(super) const V4_DESTINATION: Range<usize> = 4..8;
    pub(super) const V4_SOURCE_PORT: Range<usize> = 8..10;
    pub(super) const V4_DESTINATION_PORT: Range<usize> = 10..12;
    pub(super) const V6_DESTINATION: Range<usize> = 16..32;
    pub(super) const V6_SOURCE_PORT: Range<usize> = 32..34;
    pub(super) const V6_DESTINATION_PORT: Range<usize> = 34..36;
}

/// A flow rule as the driver keeps it: two rules are equal when every byte of them is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowRule {
    /// Its place in the device's table: a lower one is looked at first.
    pub location: u32,
    /// The protocol that it matches, with [`FLOW_RSS`](super::FLOW_RSS) added where it spreads over an RSS
    /// context.
    pub flow_type: u32,
    /// The header fields that it matches.
    #[serde(with = "hexadecimal")]
    key: [u8; 52],
    /// Further fields (VLAN, destination MAC address).
    #[serde(with = "hexadecimal")]
    key_extension: [u8; 20],
    /// The bits of the header fields that count.
    #[serde(with = "hexadecimal")]
    mask: [u8; 52],
    /// The bits of the further fields that count.
    #[serde(with = "hexadecimal")]
    mask_extension: [u8; 20],
    /// The queue, or [`DISCARD`](super::DISCARD).
    ring_cookie: u64,
    /// The RSS context, where it spreads over one.
    rss_context: u32,
}

/// Where the packets of a rule go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowRuleAction {
    /// To one queue.
    Queue(u32),
    /// Through the table of an RSS context.
    RssContext(u32),
    /// Nowhere.
    Discard,
}

/// The TCP packets that a rule matches: any local address of one family, or a certain one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpMatch {
    /// The local address; an unspecified one (`0.0.0.0`, `::`) stands for all of its family.
    pub local_address: IpAddr,
    /// The local port.
    pub local_port: u16,
    /// The bits of the remote port that count, and their value.
    pub remote_port: Option<MaskedPort>,
}

/// Some bits of a port and what they must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaskedPort {
    /// What the bits must be; 0 outside of the mask.
    pub value: u16,
    /// The bits that count.
    pub mask: u16,
}

/// The flow rules of a device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RuleTable {
    /// Its rules.
    pub rules: Vec<FlowRule>,
    /// How many rules it has room for; 0 where the driver does not tell.
    pub capacity: u32,
    /// Whether the driver chooses locations by itself.
    pub driver_chooses_location: bool,
}

impl RuleTable {
    /// A location for one more rule; `None` when the table is full.
    #[must_use]
    pub fn free_location(&self) -> Option<u32> {
        if self.driver_chooses_location {
            return Some(uapi::LOCATION_ANY);
        }
        // A driver that tells no size gets the first location that is free.
        let end = if self.capacity == 0 { uapi::LOCATION_SPECIAL } else { self.capacity };
        let used: BTreeSet<_> = self.rules.iter().map(|rule| rule.location).collect();
        (0..end).find(|location| !used.contains(location))
    }
}

impl FlowRule {
    /// A rule for TCP packets.
    #[must_use]
    pub fn tcp(matched: TcpMatch, action: FlowRuleAction, location: u32) -> Self {
        let (flow_type, destination, source_port, destination_port) = match matched.local_address {
            IpAddr::V4(_) => {
                (uapi::TCP_V4_FLOW, field::V4_DESTINATION, field::V4_SOURCE_PORT, field::V4_DESTINATION_PORT)
            }
            IpAddr::V6(_) => {
                (uapi::TCP_V6_FLOW, field::V6_DESTINATION, field::V6_SOURCE_PORT, field::V6_DESTINATION_PORT)
            }
        };
        let (mut key, mut mask) = ([0; 52], [0; 52]);
        if !matched.local_address.is_unspecified() {
            mask[destination.clone()].fill(0xff);
            match matched.local_address {
                IpAddr::V4(address) => key[destination].copy_from_slice(&address.octets()),
                IpAddr::V6(address) => key[destination].copy_from_slice(&address.octets()),
            }
        }
        key[destination_port.clone()].copy_from_slice(&matched.local_port.to_be_bytes());
        mask[destination_port].fill(0xff);
        if let Some(port) = matched.remote_port {
            key[source_port.clone()].copy_from_slice(&(port.value & port.mask).to_be_bytes());
            mask[source_port].copy_from_slice(&port.mask.to_be_bytes());
        }
        let rule = Self {
            location,
            flow_type,
            key,
            key_extension: [0; 20],
            mask,
            mask_extension: [0; 20],
            ring_cookie: 0,
            rss_context: 0,
        };
        rule.with_action(action)
    }

    fn with_action(mut self, action: FlowRuleAction) -> Self {
        match action {
            FlowRuleAction::Queue(queue) => self.ring_cookie = queue.into(),
            FlowRuleAction::Discard => self.ring_cookie = uapi::DISCARD,
            FlowRuleAction::RssContext(context) => {
                self.flow_type |= uapi::FLOW_RSS;
                self.rss_context = context;
            }
        }
        self
    }

    /// Where its packets go.
    #[must_use]
    pub fn action(&self) -> FlowRuleAction {
        if self.ring_cookie == uapi::DISCARD {
            FlowRuleAction::Discard
        } else if self.flow_type & uapi::FLOW_RSS != 0 {
            FlowRuleAction::RssContext(self.rss_context)
        } else {
            // The upper bits name a virtual function.
            FlowRuleAction::Queue(u32::try_from(self.ring_cookie & 0xffff_ffff).unwrap_or(u32::MAX))
        }
    }

    /// Whether the two match the same packets and do the same with them, wherever they are in the table.
    #[must_use]
    pub fn same_but_location(&self, other: &Self) -> bool {
        Self { location: other.location, ..self.clone() } == *other
    }

    fn from_spec(spec: &uapi::RxFlowSpec, rss_context: u32) -> Self {
        let spreads = spec.flow_type & uapi::FLOW_RSS != 0;
        Self {
            location: spec.location,
            flow_type: spec.flow_type,
            key: spec.h_u,
            key_extension: spec.h_ext,
            mask: spec.m_u,
            mask_extension: spec.m_ext,
            ring_cookie: spec.ring_cookie,
            rss_context: if spreads { rss_context } else { 0 },
        }
    }

    fn to_request(&self, command: u32) -> uapi::RxNfc {
        let mut request = uapi::RxNfc::new(command);
        request.fs.flow_type = self.flow_type;
        request.fs.h_u = self.key;
        request.fs.h_ext = self.key_extension;
        request.fs.m_u = self.mask;
        request.fs.m_ext = self.mask_extension;
        request.fs.ring_cookie = self.ring_cookie;
        request.fs.location = self.location;
        request.rule_cnt = self.rss_context;
        request
    }
}

impl fmt::Display for FlowRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.location {
            uapi::LOCATION_ANY => write!(f, "rule")?,
            location => write!(f, "rule {location}")?,
        }
        let port = |range: std::ops::Range<usize>| {
            u16::from_be_bytes([self.key[range.start], self.key[range.start + 1]])
        };
        match self.flow_type & !uapi::FLOW_RSS {
            uapi::TCP_V4_FLOW => {
                write!(f, " for TCP over IPv4 to port {}", port(field::V4_DESTINATION_PORT))?
            }
            uapi::TCP_V6_FLOW => {
                write!(f, " for TCP over IPv6 to port {}", port(field::V6_DESTINATION_PORT))?
            }
            other => write!(f, " of flow type {other:#x}")?,
        }
        match self.action() {
            FlowRuleAction::Queue(queue) => write!(f, " -> queue {queue}"),
            FlowRuleAction::RssContext(context) => write!(f, " -> RSS context {context}"),
            FlowRuleAction::Discard => write!(f, " -> drop"),
        }
    }
}

impl Ethtool {
    /// The flow rules of an interface.
    ///
    /// # Errors
    /// `EOPNOTSUPP`: the device has no flow rules.
    pub fn flow_rules(&self, ifindex: u32) -> Result<RuleTable> {
        let (locations, sizes) = self.flow_rule_locations(ifindex)?;
        let mut rules = Vec::with_capacity(locations.len());
        for location in locations {
            let mut request = uapi::RxNfc::new(uapi::GRXCLSRULE);
            request.fs.location = location;
            match self.control.flow_rule(ifindex, &mut request) {
                Ok(()) => rules.push(FlowRule::from_spec(&request.fs, request.rule_cnt)),
                // Somebody removed it since it was listed; drivers differ in how they say so.
                Err(error) if vanished(&error) => {}
                Err(error) => return Err(error),
            }
        }
        rules.sort_by_key(|rule| rule.location);
        Ok(RuleTable {
            rules,
            capacity: sizes & !uapi::LOCATION_SPECIAL,
            driver_chooses_location: sizes & uapi::LOCATION_SPECIAL != 0,
        })
    }

    /// The locations of all rules, and the size of the table with its flag.
    ///
    /// gve does not say how many locations it wrote: the rest of the list is zero. And asking it for a rule
    /// that does not exist can crash it (Linux 7.2: `gve_get_flow_rule_entry` reads before an empty cache).
    /// So the list is asked for in its exact length, and taken again if that has changed.
    fn flow_rule_locations(&self, ifindex: u32) -> Result<(BTreeSet<u32>, u32)> {
        let mut count = self.count_flow_rules(ifindex)?;
        for _ in 0..LIST_ATTEMPTS {
            let listed = self.control.flow_rule_locations(ifindex, count.rule_cnt);
            let now = self.count_flow_rules(ifindex)?;
            match listed {
                Ok((locations, size)) if now.rule_cnt == count.rule_cnt => {
                    // Drivers tell the size in one of the two replies, in its lower half.
                    return Ok((locations.into_iter().collect(), (now.data | size) as u32));
                }
                Err(error) if error.errno() != Some(Errno::EMSGSIZE) => return Err(error),
                _ => count = now,
            }
        }
        Err(Error::System { operation: "list flow rules that keep changing", errno: Errno::EAGAIN })
    }

    fn count_flow_rules(&self, ifindex: u32) -> Result<uapi::RxNfc> {
        let mut count = uapi::RxNfc::new(uapi::GRXCLSRLCNT);
        self.control.flow_rule(ifindex, &mut count)?;
        Ok(count)
    }

    /// Inserts a rule and returns its location. A rule that is there already is replaced.
    ///
    /// # Errors
    /// `EOPNOTSUPP`: no flow rules, or the feature `rx-ntuple-filter` is off. `EINVAL`: the device cannot
    /// match this. `ENOSPC`: the table is full.
    pub fn insert_flow_rule(&self, ifindex: u32, rule: &FlowRule) -> Result<u32> {
        let mut request = rule.to_request(uapi::SRXCLSRLINS);
        self.control.flow_rule(ifindex, &mut request)?;
        Ok(request.fs.location)
    }

    /// Removes the rule at a location.
    ///
    /// # Errors
    /// `ENOENT` or `EINVAL`: there is none.
    pub fn remove_flow_rule(&self, ifindex: u32, location: u32) -> Result<()> {
        let mut request = uapi::RxNfc::new(uapi::SRXCLSRLDEL);
        request.fs.location = location;
        self.control.flow_rule(ifindex, &mut request)
    }
}

fn vanished(error: &Error) -> bool {
    matches!(error.errno(), Some(Errno::ENOENT | Errno::EINVAL))
}

/// Byte arrays as text in the journal.
mod hexadecimal {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer, const N: usize>(
        bytes: &[u8; N],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_str(&bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>, const N: usize>(
        from: D,
    ) -> Result<[u8; N], D::Error> {
        let text = String::deserialize(from)?;
        decode(&text).ok_or_else(|| D::Error::custom(format!("expected {N} bytes in hexadecimal digits")))
    }

    fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if pairs.len() != N || !rest.is_empty() {
            return None;
        }
        for (byte, &[high, low]) in bytes.iter_mut().zip(pairs) {
            let digit = |digit: u8| char::from(digit).to_digit(16);
            *byte = u8::try_from(digit(high)? << 4 | digit(low)?).ok()?;
        }
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn any(address: IpAddr) -> TcpMatch {
        TcpMatch { local_address: address, local_port: 5201, remote_port: None }
    }

    #[test]
    fn an_ipv4_rule_matches_address_and_port() {
        let matched = TcpMatch {
            remote_port: Some(MaskedPort { value: 2, mask: 6 }),
            ..any(Ipv4Addr::new(10, 0, 0, 1).into())
        };
        let rule = FlowRule::tcp(matched, FlowRuleAction::Queue(3), 9);
        let request = rule.to_request(uapi::SRXCLSRLINS);
        assert_eq!(request.fs.h_u[..13], [0, 0, 0, 0, 10, 0, 0, 1, 0, 2, 0x14, 0x51, 0]);
        assert_eq!(request.fs.m_u[..13], [0, 0, 0, 0, 255, 255, 255, 255, 0, 6, 255, 255, 0]);
        assert_eq!((request.fs.flow_type, request.fs.ring_cookie, request.fs.location), (1, 3, 9));
        assert_eq!(rule.to_string(), "rule 9 for TCP over IPv4 to port 5201 -> queue 3");
    }

    #[test]
    fn an_ipv6_rule_for_every_address_matches_the_port_alone() {
        let rule = FlowRule::tcp(
            any(Ipv6Addr::UNSPECIFIED.into()),
            FlowRuleAction::RssContext(4),
            uapi::LOCATION_ANY,
        );
        let request = rule.to_request(uapi::SRXCLSRLINS);
        assert_eq!(request.fs.flow_type, 5 | uapi::FLOW_RSS);
        assert_eq!((request.rule_cnt, request.fs.ring_cookie), (4, 0));
        assert_eq!(request.fs.m_u[..34], [0; 34]);
        assert_eq!(request.fs.m_u[34..36], [255, 255]);
        assert_eq!(request.fs.h_u[34..36], [0x14, 0x51]);
        assert_eq!(rule.action(), FlowRuleAction::RssContext(4));
    }

    #[test]
    fn a_rule_survives_the_kernel_and_the_journal() {
        let rule = FlowRule::tcp(any(Ipv4Addr::LOCALHOST.into()), FlowRuleAction::RssContext(2), 7);
        let request = rule.to_request(uapi::GRXCLSRULE);
        assert_eq!(FlowRule::from_spec(&request.fs, request.rule_cnt), rule);
        let text = serde_json::to_string(&rule).unwrap();
        assert_eq!(serde_json::from_str::<FlowRule>(&text).unwrap(), rule);
        assert!(serde_json::from_str::<FlowRule>(&text.replacen("00", "0x", 1)).is_err());
        assert!(serde_json::from_str::<FlowRule>(&text.replacen("00", "0", 1)).is_err());
    }

    #[test]
    fn the_place_of_a_rule_is_free_and_within_the_table() {
        let rule =
            |location| FlowRule::tcp(any(Ipv4Addr::UNSPECIFIED.into()), FlowRuleAction::Queue(1), location);
        let mut table =
            RuleTable { rules: vec![rule(0), rule(2)], capacity: 4, driver_chooses_location: false };
        assert_eq!(table.free_location(), Some(1));
        table.rules.extend([rule(1), rule(3)]);
        assert_eq!(table.free_location(), None);
        table.capacity = 0;
        assert_eq!(table.free_location(), Some(4));
        table.driver_chooses_location = true;
        assert_eq!(table.free_location(), Some(uapi::LOCATION_ANY));
    }

    proptest! {
        #[test]
        fn any_journal_text_ends_without_panic(text in ".*") {
            let _ = serde_json::from_str::<FlowRule>(&text);
            let quoted = serde_json::to_string(&text).unwrap();
            let rule = format!("{{\"location\":0,\"flow_type\":1,\"key\":{quoted}}}");
            let _ = serde_json::from_str::<FlowRule>(&rule);
        }
    }
}
