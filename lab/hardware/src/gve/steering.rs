//! Flow steering: rules that send packets to a queue of the driver's choice.

use std::collections::BTreeMap;

use super::command::Status;
use crate::ethernet::{Headers, Network, Transport};

/// Bytes of a rule as drivers write and read it: type, queue, key and mask.
pub(super) const FLOW_RULE_SIZE: usize = 84;

/// Bytes of a key or a mask.
const SPECIFICATION_SIZE: usize = 40;

/// The kind of packets a rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
enum FlowType {
    Tcp4 = 0,
    Udp4 = 1,
    Tcp6 = 5,
    Udp6 = 6,
}

/// The fields of a packet that rules look at, in the layout of the wire: source address, destination
/// address, source port, destination port, traffic class and three bytes of nothing.
type Specification = [u8; SPECIFICATION_SIZE];

/// A flow rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FlowRule {
    flow_type: FlowType,
    queue: u16,
    key: Specification,
    mask: Specification,
}

impl FlowRule {
    /// Reads a rule.
    ///
    /// # Errors
    /// The status to complete the command with.
    pub(super) fn parse(bytes: &[u8]) -> Result<FlowRule, Status> {
        let part = |range: std::ops::Range<usize>| bytes.get(range).ok_or(Status::InvalidArgument);
        let u16_at = |at: usize| part(at..at + 2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
        let specification = |at: usize| -> Result<Specification, Status> {
            part(at..at + SPECIFICATION_SIZE)?.try_into().map_err(|_| Status::InvalidArgument)
        };
        let flow_type = match u16_at(0)? {
            0 => FlowType::Tcp4,
            1 => FlowType::Udp4,
            5 => FlowType::Tcp6,
            6 => FlowType::Udp6,
            2..=9 => return Err(Status::Unimplemented), // SCTP, AH and ESP
            _ => return Err(Status::InvalidArgument),
        };
        Ok(FlowRule { flow_type, queue: u16_at(2)?, key: specification(4)?, mask: specification(44)? })
    }

    /// The rule as drivers read it.
    pub(super) fn encode(&self) -> [u8; FLOW_RULE_SIZE] {
        let mut bytes = [0; FLOW_RULE_SIZE];
        bytes[0..2].copy_from_slice(&(self.flow_type as u16).to_be_bytes());
        bytes[2..4].copy_from_slice(&self.queue.to_be_bytes());
        bytes[4..44].copy_from_slice(&self.key);
        bytes[44..84].copy_from_slice(&self.mask);
        bytes
    }

    fn matches(&self, flow_type: FlowType, packet: &Specification) -> bool {
        let mut fields = packet.iter().zip(&self.mask).zip(&self.key);
        self.flow_type == flow_type && fields.all(|((packet, mask), key)| packet & mask == key & mask)
    }
}

/// The rules of a NIC. Of those that match a packet the one with the lowest location counts.
pub(super) struct FlowRules {
    rules: BTreeMap<u32, FlowRule>,
    maximum: u32,
}

impl FlowRules {
    pub(super) fn new(maximum: u32) -> FlowRules {
        FlowRules { rules: BTreeMap::new(), maximum }
    }

    /// How many rules there may be.
    pub(super) fn maximum(&self) -> u32 {
        self.maximum
    }

    /// How many rules there are.
    pub(super) fn count(&self) -> u32 {
        self.rules.len() as u32
    }

    /// Adds a rule; replaces the one at its location.
    ///
    /// # Errors
    /// The status to complete the command with.
    pub(super) fn add(&mut self, location: u32, rule: FlowRule, queues: u16) -> Result<(), Status> {
        if rule.queue >= queues {
            return Err(Status::InvalidArgument);
        }
        if self.count() >= self.maximum && !self.rules.contains_key(&location) {
            return Err(Status::ResourceExhausted);
        }
        self.rules.insert(location, rule);
        Ok(())
    }

    /// Deletes the rule at a location.
    ///
    /// # Errors
    /// The status to complete the command with.
    pub(super) fn delete(&mut self, location: u32) -> Result<(), Status> {
        self.rules.remove(&location).map(|_| ()).ok_or(Status::NotFound)
    }

    pub(super) fn delete_all(&mut self) {
        self.rules.clear();
    }

    /// Rules from a location on, in order.
    pub(super) fn from(&self, location: u32) -> impl Iterator<Item = (u32, &FlowRule)> {
        self.rules.range(location..).map(|(location, rule)| (*location, rule))
    }

    /// The queue that the rules choose for a packet.
    pub(super) fn queue(&self, headers: &Headers) -> Option<u16> {
        if self.rules.is_empty() {
            return None;
        }
        let flow_type = match (headers.network, headers.transport) {
            (Network::Ipv4, Transport::Tcp) => FlowType::Tcp4,
            (Network::Ipv4, Transport::Udp) => FlowType::Udp4,
            (Network::Ipv6, Transport::Tcp) => FlowType::Tcp6,
            (Network::Ipv6, Transport::Udp) => FlowType::Udp6,
            _ => return None,
        };
        let mut packet: Specification = [0; SPECIFICATION_SIZE];
        packet[0..16].copy_from_slice(&headers.source);
        packet[16..32].copy_from_slice(&headers.destination);
        packet[32..34].copy_from_slice(&headers.source_port.to_be_bytes());
        packet[34..36].copy_from_slice(&headers.destination_port.to_be_bytes());
        packet[36] = headers.traffic_class;
        let mut rules = self.rules.values();
        rules.find(|rule| rule.matches(flow_type, &packet)).map(|rule| rule.queue)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ethernet::samples;

    fn rule(flow_type: FlowType, queue: u16, at: usize, key: &[u8], mask: &[u8]) -> FlowRule {
        let mut rule = FlowRule { flow_type, queue, key: [0; 40], mask: [0; 40] };
        rule.key[at..at + key.len()].copy_from_slice(key);
        rule.mask[at..at + mask.len()].copy_from_slice(mask);
        rule
    }

    fn tcp4(source: u16, destination: u16) -> Headers {
        Headers::parse(&samples::tcp4(source, destination, b"x")).unwrap()
    }

    #[test]
    fn partial_masks_on_the_source_port() {
        let mut rules = FlowRules::new(4);
        for queue in 0..4u16 {
            let key = [0, queue as u8];
            rules.add(queue.into(), rule(FlowType::Tcp4, queue, 32, &key, &[0, 3]), 4).unwrap();
        }
        for port in 40000..40032 {
            assert_eq!(rules.queue(&tcp4(port, 5201)), Some(port % 4));
        }
        let six = Headers::parse(&samples::tcp6(40001, 5201, b"x")).unwrap();
        assert_eq!(rules.queue(&six), None);
    }

    #[test]
    fn the_lowest_location_wins() {
        let mut rules = FlowRules::new(2);
        rules.add(7, rule(FlowType::Tcp4, 1, 0, &[], &[]), 4).unwrap();
        let address = rule(FlowType::Tcp4, 2, 16, &[10, 0, 0, 2], &[0xff; 4]);
        rules.add(3, address.clone(), 4).unwrap();
        assert_eq!(rules.queue(&tcp4(1, 2)), Some(2));
        assert_eq!(rules.add(9, address.clone(), 4), Err(Status::ResourceExhausted));
        assert_eq!(rules.add(3, FlowRule { queue: 4, ..address }, 4), Err(Status::InvalidArgument));
        rules.delete(3).unwrap();
        assert_eq!(rules.queue(&tcp4(1, 2)), Some(1));
        assert_eq!(rules.delete(3), Err(Status::NotFound));
        rules.delete_all();
        assert_eq!(rules.queue(&tcp4(1, 2)), None);
    }

    #[test]
    fn unknown_types_are_told_apart_from_wrong_ones() {
        let mut bytes = [0; FLOW_RULE_SIZE];
        bytes[1] = 2;
        assert_eq!(FlowRule::parse(&bytes), Err(Status::Unimplemented));
        bytes[1] = 77;
        assert_eq!(FlowRule::parse(&bytes), Err(Status::InvalidArgument));
        assert_eq!(FlowRule::parse(&bytes[..10]), Err(Status::InvalidArgument));
    }

    proptest! {
        #[test]
        fn rules_survive_encoding(bytes in proptest::collection::vec(any::<u8>(), FLOW_RULE_SIZE)) {
            if let Ok(rule) = FlowRule::parse(&bytes) {
                prop_assert_eq!(&rule.encode()[..], &bytes[..]);
            }
        }
    }
}
