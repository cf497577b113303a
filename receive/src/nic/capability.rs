//! What a NIC can do for receiving into device memory, found without changing anything.

use std::fmt;

use devmem_provider::Result;
use nix::errno::Errno;

use super::apply::has_contexts;
use super::device::Nic;
use super::snapshot::Snapshot;
use crate::netdev::{Queue, QueueKind};
use crate::netlink::KernelError;

/// Whether something can be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// It can.
    Yes,
    /// It cannot.
    No,
    /// It could not be found out without changing something, or without more privilege.
    Unknown,
}

/// One thing that a NIC can or cannot do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capability {
    /// What it is.
    pub name: &'static str,
    /// Whether the NIC can do it.
    pub support: Support,
    /// Why we say so: numbers, states, the kernel's words.
    pub reason: String,
    /// What was asked to find out.
    pub found_by: &'static str,
    /// What would change a "no" or an "unknown", where something would.
    pub remedy: Option<&'static str>,
}

impl Capability {
    /// What is said of a capability that is missing: that it is not available, why, and what was tried to find out. The
    /// remedy is not in it.
    #[must_use]
    pub fn not_available(&self) -> String {
        format!("{} is not available: {}; found by {}", self.name, self.reason, self.found_by)
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let support = match self.support {
            Support::Yes => "yes",
            Support::No => "no",
            Support::Unknown => "unknown",
        };
        write!(f, "{}: {support} ({}; found by {})", self.name, self.reason, self.found_by)?;
        match self.remedy {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

/// What a NIC can do for receiving into device memory.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// The interface is up and has no XDP program.
    pub ready: Capability,
    /// There is an idle receive queue besides queue 0, or there could be.
    pub queues: Capability,
    /// Headers and payload go to separate buffers.
    pub header_split: Capability,
    /// The least payload that is split off can be set.
    pub header_split_threshold: Capability,
    /// Packets of a flow can be sent to a queue.
    pub flow_rules: Capability,
    /// Other packets can be kept off a queue.
    pub rss: Capability,
    /// A flow can be spread over some of the queues by a table of their own.
    pub rss_contexts: Capability,
    /// Queues can be bound to a DMA-buf for receiving.
    pub devmem_receive: Capability,
    /// A DMA-buf can be bound for sending.
    pub devmem_transmit: Capability,
}

impl Capabilities {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Capability> {
        [
            &self.ready,
            &self.queues,
            &self.header_split,
            &self.header_split_threshold,
            &self.flow_rules,
            &self.rss,
            &self.rss_contexts,
            &self.devmem_receive,
            &self.devmem_transmit,
        ]
        .into_iter()
    }

    /// Whether everything that receiving by devmem TCP needs is there. "Unknown" where nothing speaks
    /// against it but not everything is known.
    #[must_use]
    pub fn can_receive(&self) -> Support {
        let needed = [&self.ready, &self.queues, &self.header_split, &self.flow_rules, &self.devmem_receive];
        if needed.iter().any(|capability| capability.support == Support::No) {
            Support::No
        } else if needed.iter().all(|capability| capability.support == Support::Yes) {
            Support::Yes
        } else {
            Support::Unknown
        }
    }
}

pub(super) fn probe(nic: &Nic) -> Result<Capabilities> {
    let snapshot = nic.snapshot()?;
    let queues = nic.netdev().queues(nic.ifindex());
    let queues = queues.map_err(|error| error.during("list the queues").on(nic))?;
    let receive: Vec<_> = queues.into_iter().filter(|queue| queue.kind == QueueKind::Receive).collect();
    Ok(Capabilities {
        ready: ready(nic)?,
        queues: idle_queues(&snapshot, &receive),
        header_split: header_split(&snapshot),
        header_split_threshold: header_split_threshold(&snapshot),
        flow_rules: flow_rules(nic, &snapshot)?,
        rss: rss(&snapshot),
        rss_contexts: rss_contexts(nic)?,
        devmem_receive: devmem_receive(nic, &receive)?,
        devmem_transmit: devmem_transmit(nic)?,
    })
}

fn capability(
    name: &'static str,
    support: bool,
    reason: impl Into<String>,
    found_by: &'static str,
) -> Capability {
    let support = if support { Support::Yes } else { Support::No };
    Capability { name, support, reason: reason.into(), found_by, remedy: None }
}

fn ready(nic: &Nic) -> Result<Capability> {
    let link = nic.link()?;
    let (support, reason, remedy) = if !link.up {
        (false, "the interface is down", Some("set it up"))
    } else if link.xdp_attached {
        (false, "an XDP program is attached", Some("detach it"))
    } else {
        (true, "the interface is up and has no XDP program", None)
    };
    Ok(Capability { remedy, ..capability("ready", support, reason, "rtnetlink getlink") })
}

fn idle_queues(snapshot: &Snapshot, receive: &[Queue]) -> Capability {
    let Some(channels) = snapshot.channels else {
        return capability(
            "idle queue",
            false,
            "the driver does not tell its channels",
            "ethtool channels-get",
        );
    };
    let occupied: Vec<_> = receive
        .iter()
        .filter_map(|queue| Some(format!("queue {} by {}", queue.id, queue.occupied_by()?)))
        .collect();
    let (present, maximum) = (channels.receive_queues(), channels.receive_queues_max());
    let idle = (maximum as usize).saturating_sub(1).saturating_sub(occupied.len());
    let taken = if occupied.is_empty() { "none".to_owned() } else { occupied.join(", ") };
    let reason = format!("{present} receive queues, at most {maximum}, taken: {taken}");
    capability("idle queue", idle > 0, reason, "ethtool channels-get, netdev queue-get")
}

fn header_split(snapshot: &Snapshot) -> Capability {
    let state = snapshot.rings.as_ref().and_then(|rings| rings.data_split);
    let reason = match state {
        Some(state) => format!("the driver reports tcp-data-split, now {state:?}").to_lowercase(),
        None => "the driver does not report tcp-data-split".to_owned(),
    };
    capability("header split", state.is_some(), reason, "ethtool rings-get")
}

fn header_split_threshold(snapshot: &Snapshot) -> Capability {
    let rings = snapshot.rings.as_ref();
    let threshold = rings.and_then(|rings| rings.header_split_threshold);
    let reason = match threshold {
        Some(threshold) => format!("the driver reports hds-thresh, now {threshold}"),
        None => "the driver does not report hds-thresh".to_owned(),
    };
    capability("header split threshold", threshold.is_some(), reason, "ethtool rings-get")
}

fn flow_rules(nic: &Nic, snapshot: &Snapshot) -> Result<Capability> {
    let found_by = "ethtool rule count";
    let Some(rules) = &snapshot.flow_rules else {
        return Ok(capability("flow rules", false, "the driver has none", found_by));
    };
    let table = nic.ethtool().flow_rules(nic.ifindex());
    let table = table.map_err(|error| error.during("read the flow rules").on(nic))?;
    let ntuple = match snapshot.features.get("rx-ntuple-filter") {
        Some(feature) if feature.active => "on",
        Some(feature) if feature.changeable => "off, can be turned on",
        _ => "absent",
    };
    let support = ntuple != "absent";
    let reason = format!("{} rules of at most {}; rx-ntuple-filter is {ntuple}", rules.len(), table.capacity);
    Ok(capability("flow rules", support, reason, found_by))
}

fn rss(snapshot: &Snapshot) -> Capability {
    let length = snapshot.default_rss().map_or(0, |rss| rss.indirection.len());
    let reason = match length {
        0 => "the driver has no table".to_owned(),
        length => format!("a table of {length} entries"),
    };
    capability("RSS table", length > 0, reason, "ethtool rss-get")
}

fn rss_contexts(nic: &Nic) -> Result<Capability> {
    let support = has_contexts(nic)?;
    let reason = if support { "the driver looked for one" } else { "the driver refuses to look for one" };
    Ok(capability("RSS contexts", support, reason, "ethtool rss-get of a context that cannot exist"))
}

/// `EBADF` is the answer to a descriptor that does not exist, which comes after every check of the device.
fn by_refusal(name: &'static str, refusal: &KernelError, found_by: &'static str) -> Capability {
    let (support, remedy) = match refusal.errno {
        Errno::EBADF => (Support::Yes, None),
        Errno::EPERM | Errno::EACCES => (Support::Unknown, Some("ask again with CAP_NET_ADMIN")),
        _ => (Support::No, None),
    };
    let reason = match refusal.errno {
        Errno::EBADF => "the kernel accepts the device and misses only the memory".to_owned(),
        _ => format!("the kernel said: {refusal}"),
    };
    Capability { name, support, reason, found_by, remedy }
}

fn devmem_receive(nic: &Nic, receive: &[Queue]) -> Result<Capability> {
    let found_by = "netdev bind-rx without memory";
    // A queue that is taken would be refused for that, but only after the check for the memory.
    let queue = receive.iter().map(|queue| queue.id).max().unwrap_or(0);
    let refusal = nic.netdev().probe_bind_rx(nic.ifindex(), queue);
    let refusal = refusal.map_err(|error| error.during("probe bind-rx").on(nic))?;
    Ok(by_refusal("devmem receive", &refusal, found_by))
}

fn devmem_transmit(nic: &Nic) -> Result<Capability> {
    let refusal = nic.netdev().probe_bind_tx(nic.ifindex());
    let refusal = refusal.map_err(|error| error.during("probe bind-tx").on(nic))?;
    Ok(by_refusal("devmem transmit", &refusal, "netdev bind-tx without memory"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_cannot_receive_and_says_why() {
        let nic = Nic::open("lo").unwrap();
        let before = nic.snapshot().unwrap();
        let capabilities = nic.capabilities().unwrap();
        assert_eq!(capabilities.can_receive(), Support::No);
        assert_eq!(capabilities.header_split.support, Support::No);
        assert_ne!(capabilities.devmem_receive.support, Support::Yes);
        for capability in capabilities.iter() {
            assert!(!capability.reason.is_empty() && !capability.found_by.is_empty(), "{capability}");
        }
        assert_eq!(before.diff(&nic.snapshot().unwrap()), []);
    }

    #[test]
    fn a_missing_privilege_leaves_it_unknown() {
        let refused = by_refusal("devmem receive", &KernelError::from_errno(Errno::EPERM), "bind-rx");
        assert_eq!(refused.support, Support::Unknown);
        assert!(refused.remedy.is_some());
        let accepted = by_refusal("devmem receive", &KernelError::from_errno(Errno::EBADF), "bind-rx");
        assert_eq!(accepted.support, Support::Yes);
    }
}
