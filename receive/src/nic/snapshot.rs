//! The settings of a NIC at one moment.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use devmem_provider::Result;
use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ethtool::{Channels, DEFAULT_CONTEXT, Ethtool, Features, FlowRule, Rings, Rss};
use crate::netlink::{self, LocalAddress, Route};

/// Every setting that preparing a NIC may change, and those beside them that a driver may change by the way.
///
/// What the driver does not have is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Snapshot {
    /// The offloads by name.
    pub features: Features,
    /// How many queues there are.
    pub channels: Option<Channels>,
    /// Descriptor rings and header split.
    pub rings: Option<Rings>,
    /// RSS contexts by number; 0 is the default one. Empty where the driver has no RSS.
    pub rss: BTreeMap<u32, Rss>,
    /// Flow rules by location.
    pub flow_rules: Option<BTreeMap<u32, FlowRule>>,
    /// The greatest packet, in bytes. `None` in journals of earlier versions, as the next two.
    #[serde(default)]
    pub mtu: Option<u32>,
    /// Whether the interface is set up.
    #[serde(default)]
    pub up: Option<bool>,
    /// The IPv6 addresses that somebody gave it, which are lost when it is set down.
    #[serde(default)]
    pub ipv6_addresses: Option<BTreeSet<Ipv6Address>>,
}

/// An IPv6 address that was given for good, beyond the link alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Ipv6Address {
    /// The address.
    pub address: Ipv6Addr,
    /// How many of its bits are those of the network.
    pub prefix_length: u8,
    /// The `IFA_F_*` that it was given with.
    pub flags: u32,
}

/// What `RTM_NEWADDR` takes (`inet6_rtm_newaddr()`, net/ipv6/addrconf.c).
const ADDRESS_FLAGS: u32 = libc::IFA_F_NODAD
    | libc::IFA_F_HOMEADDRESS
    | libc::IFA_F_MANAGETEMPADDR
    | libc::IFA_F_NOPREFIXROUTE
    | libc::IFA_F_MCAUTOJOIN;

impl Ipv6Address {
    /// `None` for addresses that the kernel makes or drops by itself.
    fn given(address: &LocalAddress) -> Option<Self> {
        let IpAddr::V6(ip) = address.address else { return None };
        let given = address.flags & libc::IFA_F_PERMANENT != 0 && address.scope == libc::RT_SCOPE_UNIVERSE;
        given.then_some(Self {
            address: ip,
            prefix_length: address.prefix_length,
            flags: address.flags & ADDRESS_FLAGS,
        })
    }

    pub(super) fn of(self, ifindex: u32) -> LocalAddress {
        LocalAddress {
            ifindex,
            address: self.address.into(),
            prefix_length: self.prefix_length,
            scope: libc::RT_SCOPE_UNIVERSE,
            flags: self.flags,
        }
    }
}

/// One setting that differs between two snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FieldDifference {
    /// The setting, as a path such as `rings.data_split`.
    pub field: String,
    /// Its value in the first snapshot; `None` if it has no such setting.
    pub first: Option<String>,
    /// Its value in the second snapshot.
    pub second: Option<String>,
}

impl fmt::Display for FieldDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let absent = "absent";
        let (first, second) = (self.first.as_deref(), self.second.as_deref());
        write!(f, "{}: {} -> {}", self.field, first.unwrap_or(absent), second.unwrap_or(absent))
    }
}

impl Snapshot {
    /// Reads the settings of an interface.
    pub(super) fn take(route: &mut Route, ethtool: &Ethtool, ifindex: u32) -> netlink::Result<Self> {
        let link = route.link(ifindex)?;
        let flow_rules = optional(ethtool.flow_rules(ifindex))?;
        Ok(Self {
            features: ethtool.features(ifindex)?,
            channels: optional(ethtool.channels(ifindex))?,
            rings: optional(ethtool.rings(ifindex))?,
            rss: rss_contexts(ethtool, ifindex)?,
            flow_rules: flow_rules
                .map(|table| table.rules.into_iter().map(|rule| (rule.location, rule)).collect()),
            mtu: Some(link.mtu),
            up: Some(link.up),
            ipv6_addresses: Some(ipv6_addresses(route, ifindex)?),
        })
    }

    /// Every setting in which the two differ; empty if and only if they are equal.
    #[must_use]
    pub fn diff(&self, other: &Self) -> Vec<FieldDifference> {
        let mut differences = Vec::new();
        if let (Ok(first), Ok(second)) = (serde_json::to_value(self), serde_json::to_value(other)) {
            compare(String::new(), Some(&first), Some(&second), &mut differences);
        }
        differences
    }

    /// As [`diff`](Self::diff), without what a journal of an earlier version does not know.
    pub(super) fn diff_known(&self, mut other: Self) -> Vec<FieldDifference> {
        other.mtu = other.mtu.filter(|_| self.mtu.is_some());
        other.up = other.up.filter(|_| self.up.is_some());
        other.ipv6_addresses = other.ipv6_addresses.filter(|_| self.ipv6_addresses.is_some());
        self.diff(&other)
    }

    /// The number of receive queues; 0 where the driver does not tell.
    #[must_use]
    pub fn receive_queues(&self) -> u32 {
        self.channels.map_or(0, |channels| channels.receive_queues())
    }

    pub(super) fn default_rss(&self) -> Option<&Rss> {
        self.rss.get(&DEFAULT_CONTEXT)
    }
}

pub(super) fn ipv6_addresses(route: &mut Route, ifindex: u32) -> netlink::Result<BTreeSet<Ipv6Address>> {
    let addresses = route.addresses()?.into_iter().filter(|address| address.ifindex == ifindex);
    Ok(addresses.filter_map(|address| Ipv6Address::given(&address)).collect())
}

/// `None` for what the driver does not have.
pub(super) fn optional<T>(result: netlink::Result<T>) -> netlink::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.errno() == Some(Errno::EOPNOTSUPP) => Ok(None),
        Err(error) => Err(error),
    }
}

fn rss_contexts(ethtool: &Ethtool, ifindex: u32) -> netlink::Result<BTreeMap<u32, Rss>> {
    if let Some(contexts) = optional(ethtool.rss_contexts(ifindex))? {
        return Ok(contexts);
    }
    let default = optional(ethtool.rss(ifindex, DEFAULT_CONTEXT))?;
    Ok(default.into_iter().map(|rss| (DEFAULT_CONTEXT, rss)).collect())
}

/// Objects are compared by member, everything else as a whole.
fn compare(
    path: String,
    first: Option<&Value>,
    second: Option<&Value>,
    differences: &mut Vec<FieldDifference>,
) {
    if first == second {
        return;
    }
    if let (Some(Value::Object(first)), Some(Value::Object(second))) = (first, second) {
        let mut names: Vec<_> = first.keys().chain(second.keys()).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            compare(path, first.get(name), second.get(name), differences);
        }
        return;
    }
    let text = |value: Option<&Value>| value.filter(|value| !value.is_null()).map(Value::to_string);
    differences.push(FieldDifference { field: path, first: text(first), second: text(second) });
}

pub(super) fn take(route: &mut Route, ethtool: &Ethtool, ifindex: u32, name: &str) -> Result<Snapshot> {
    Snapshot::take(route, ethtool, ifindex).map_err(|error| error.during("read the NIC's settings").on(name))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ethtool::{ChannelCounts, DataSplit, Feature, FlowRuleAction, TcpMatch};
    use std::net::Ipv4Addr;

    pub(in crate::nic) fn example() -> Snapshot {
        let counts = ChannelCounts { rx: 4, tx: 4, ..ChannelCounts::default() };
        let rings = Rings { data_split: Some(DataSplit::Disabled), rx: Some(1024), ..Rings::default() };
        let indirection = (0..4).cycle().take(128).collect();
        let rss = Rss { indirection, key: vec![7; 40], ..Rss::default() };
        let matched =
            TcpMatch { local_address: Ipv4Addr::UNSPECIFIED.into(), local_port: 80, remote_port: None };
        let rule = FlowRule::tcp(matched, FlowRuleAction::Queue(2), 5);
        let feature = Feature { changeable: true, wanted: false, active: false };
        Snapshot {
            features: [("rx-ntuple-filter".to_owned(), feature)].into(),
            channels: Some(Channels { current: counts, maximum: counts }),
            rings: Some(rings),
            rss: [(0, rss)].into(),
            flow_rules: Some([(5, rule)].into()),
            mtu: Some(1500),
            up: Some(true),
            ipv6_addresses: Some(
                [Ipv6Address { address: Ipv6Addr::LOCALHOST, prefix_length: 64, flags: 0 }].into(),
            ),
        }
    }

    #[test]
    fn a_difference_is_found_in_its_field() {
        let before = example();
        let mut after = before.clone();
        assert_eq!(before.diff(&after), []);
        after.features.get_mut("rx-ntuple-filter").unwrap().active = true;
        after.rings.as_mut().unwrap().data_split = Some(DataSplit::Enabled);
        after.flow_rules.as_mut().unwrap().clear();
        after.rss.get_mut(&0).unwrap().indirection[7] = 0;
        let fields: Vec<_> = before.diff(&after).into_iter().map(|difference| difference.field).collect();
        assert_eq!(
            fields,
            ["features.rx-ntuple-filter.active", "flow_rules.5", "rings.data_split", "rss.0.indirection"]
        );
        assert_eq!(before.diff(&after)[2].to_string(), "rings.data_split: \"disabled\" -> \"enabled\"");
        assert_ne!(before, after);
    }

    #[test]
    fn survives_the_journal() {
        let snapshot = example();
        let text = serde_json::to_string(&snapshot).unwrap();
        assert_eq!(serde_json::from_str::<Snapshot>(&text).unwrap(), snapshot);
    }

    #[test]
    fn a_snapshot_of_an_earlier_version_is_read_and_compared_in_what_it_knows() {
        let mut value = serde_json::to_value(example()).unwrap();
        for name in ["mtu", "up", "ipv6_addresses"] {
            value.as_object_mut().unwrap().remove(name).unwrap();
        }
        let earlier: Snapshot = serde_json::from_value(value).unwrap();
        assert_eq!(earlier.diff_known(example()), []);
        assert_eq!(earlier.diff_known(Snapshot { channels: None, ..example() }).len(), 1);
        assert_eq!(example().diff_known(Snapshot { mtu: Some(9000), ..example() }).len(), 1);
    }

    #[test]
    fn every_interface_of_this_machine_can_be_read() {
        let (mut route, ethtool) = (Route::open().unwrap(), Ethtool::open().unwrap());
        for link in route.links().unwrap() {
            let snapshot = take(&mut route, &ethtool, link.ifindex, &link.name).unwrap();
            assert_eq!((snapshot.mtu, snapshot.up), (Some(link.mtu), Some(link.up)), "{}", link.name);
            let again = take(&mut route, &ethtool, link.ifindex, &link.name).unwrap();
            assert_eq!(snapshot, again, "{}", link.name);
        }
    }
}
