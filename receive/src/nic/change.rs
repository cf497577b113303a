//! The changes that preparing a NIC makes: how each is made, and how it is undone.

use std::fmt;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::device::Nic;
use super::journal::Journal;
use super::link;
use super::snapshot::{Snapshot, optional};
use crate::ethtool::{ChannelCounts, DEFAULT_CONTEXT, DataSplit, FlowRule, LOCATION_ANY, RingsUpdate};
use crate::netdev::QueueKind;
use crate::netlink::{Error, Result};

/// How long the kernel may take to unbind the queues of a process that ends: its descriptors are closed one
/// after the other, and the lock's may be closed before the binding's.
const UNBIND_TIMEOUT: Duration = Duration::from_secs(5);
const UNBIND_POLL: Duration = Duration::from_millis(5);

/// One change, with what is needed to find it again. `None` stands for what is known only once it is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub(super) enum Change {
    Feature {
        name: String,
        on: bool,
    },
    Channels {
        counts: ChannelCounts,
    },
    ReceiveRings {
        /// The entries of each ring that are tried first; what the driver refuses is doubled, as long as that
        /// is fewer than there are.
        wanted: u32,
        /// The entries that the driver made of it.
        entries: Option<u32>,
    },
    HeaderSplit {
        /// Also set the threshold to 0.
        threshold: bool,
        /// Whether the setting was another one than "enabled".
        setting_was_other: Option<bool>,
    },
    RssTable {
        table: Vec<u32>,
    },
    RssContext {
        table: Vec<u32>,
        context: Option<u32>,
    },
    FlowRule {
        rule: FlowRule,
    },
    Mtu {
        bytes: u32,
    },
    Link {
        up: bool,
    },
    ReceiveRingEntries {
        entries: u32,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Feature { name, on } => write!(f, "turn {name} {}", if *on { "on" } else { "off" }),
            Self::Channels { counts } => {
                write!(f, "set {} receive queues", counts.rx.saturating_add(counts.combined))
            }
            Self::ReceiveRings { entries: None, .. } => write!(f, "make the receive rings smaller"),
            Self::ReceiveRings { entries: Some(entries), .. } => {
                write!(f, "make receive rings of {entries} entries")
            }
            Self::HeaderSplit { threshold: false, .. } => write!(f, "turn header split on"),
            Self::HeaderSplit { threshold: true, .. } => write!(f, "turn header split on for every packet"),
            Self::RssTable { .. } => write!(f, "keep other packets off the bound queues"),
            Self::RssContext { .. } => write!(f, "make an RSS context of the bound queues"),
            Self::FlowRule { rule } => write!(f, "insert {rule}"),
            Self::Mtu { bytes } => write!(f, "set an MTU of {bytes} bytes"),
            Self::Link { up } => write!(f, "set the interface {}", if *up { "up" } else { "down" }),
            Self::ReceiveRingEntries { entries } => write!(f, "set receive rings of {entries} entries"),
        }
    }
}

impl Change {
    /// Makes the change and fills in what is now known of it.
    pub(super) fn make(&mut self, nic: &Nic) -> Result<()> {
        let (ethtool, ifindex) = (nic.ethtool(), nic.ifindex());
        match self {
            Self::Feature { name, on } => ethtool.set_feature(ifindex, name, *on)?,
            Self::Channels { counts } => ethtool.set_channels(ifindex, counts)?,
            Self::ReceiveRings { wanted, entries } => *entries = shrink_receive_rings(nic, *wanted)?,
            Self::HeaderSplit { threshold, setting_was_other } => {
                let update = RingsUpdate {
                    data_split: Some(DataSplit::Enabled),
                    header_split_threshold: threshold.then_some(0),
                    ..RingsUpdate::default()
                };
                *setting_was_other = Some(ethtool.set_rings(ifindex, &update)?);
            }
            Self::RssTable { table } => ethtool.set_rss_indirection(ifindex, DEFAULT_CONTEXT, table)?,
            Self::RssContext { table, context } => {
                *context = Some(ethtool.create_rss_context(ifindex, table)?);
            }
            Self::FlowRule { rule } => rule.location = ethtool.insert_flow_rule(ifindex, rule)?,
            Self::Mtu { bytes } => nic.route().set_mtu(ifindex, *bytes)?,
            Self::Link { up } => nic.route().set_up(ifindex, *up)?,
            Self::ReceiveRingEntries { entries } => {
                let update = RingsUpdate { rx: Some(*entries), ..RingsUpdate::default() };
                ethtool.set_rings(ifindex, &update)?;
            }
        }
        Ok(())
    }

    /// Undoes the change, whether it was made or not, once or again.
    pub(super) fn undo(&self, nic: &Nic, journal: &Journal) -> Result<()> {
        let before = &journal.before;
        match self {
            Self::Feature { name, .. } => undo_feature(nic, before, name),
            Self::Channels { .. } => undo_channels(nic, before),
            Self::ReceiveRings { .. } | Self::ReceiveRingEntries { .. } => {
                wait_until_unbound(nic, &journal.queues);
                undo_receive_rings(nic, before)
            }
            Self::HeaderSplit { threshold, setting_was_other } => {
                wait_until_unbound(nic, &journal.queues);
                undo_header_split(nic, before, *threshold, *setting_was_other)
            }
            Self::RssTable { .. } => undo_rss_table(nic, before),
            Self::RssContext { table, context } => undo_rss_context(nic, before, table, *context),
            Self::FlowRule { rule } => undo_flow_rule(nic, before, rule),
            Self::Mtu { .. } | Self::Link { .. } => link::undo(nic, before, self),
        }
    }
}

/// Returns the entries that the rings have now: a driver may round. Drivers tell no smallest size, so it is
/// found by trying.
fn shrink_receive_rings(nic: &Nic, wanted: u32) -> Result<Option<u32>> {
    let (ethtool, ifindex) = (nic.ethtool(), nic.ifindex());
    let present = ethtool.rings(ifindex)?.rx.unwrap_or_default();
    let sizes = std::iter::successors(Some(wanted.max(1)), |entries| entries.checked_mul(2));
    for entries in sizes.take_while(|&entries| entries < present) {
        let update = RingsUpdate { rx: Some(entries), ..RingsUpdate::default() };
        match ethtool.set_rings(ifindex, &update) {
            Err(error) if is_refusal(&error) => {}
            result => {
                result?;
                break;
            }
        }
    }
    Ok(ethtool.rings(ifindex)?.rx)
}

fn undo_receive_rings(nic: &Nic, before: &Snapshot) -> Result<()> {
    let Some(rx) = before.rings.as_ref().and_then(|rings| rings.rx) else { return Ok(()) };
    let (ethtool, ifindex) = (nic.ethtool(), nic.ifindex());
    if ethtool.rings(ifindex)?.rx != Some(rx) {
        ethtool.set_rings(ifindex, &RingsUpdate { rx: Some(rx), ..RingsUpdate::default() })?;
    }
    Ok(())
}

fn undo_feature(nic: &Nic, before: &Snapshot, name: &str) -> Result<()> {
    let Some(feature) = before.features.get(name) else { return Ok(()) };
    nic.ethtool().set_feature(nic.ifindex(), name, feature.wanted)
}

fn undo_channels(nic: &Nic, before: &Snapshot) -> Result<()> {
    let Some(channels) = before.channels else { return Ok(()) };
    let (ethtool, ifindex) = (nic.ethtool(), nic.ifindex());
    if ethtool.channels(ifindex)?.current != channels.current {
        ethtool.set_channels(ifindex, &channels.current)?;
    }
    // The table that the kernel makes by itself follows the number of queues in some drivers only.
    let now = optional(ethtool.rss(ifindex, DEFAULT_CONTEXT))?;
    match (now, before.default_rss()) {
        (Some(now), Some(then)) if now.indirection != then.indirection => undo_rss_table(nic, before),
        _ => Ok(()),
    }
}

/// The setting before is not to be read, only the state that the driver made of it. The default setting is
/// right if it leads to the same state; otherwise the state was asked for.
fn undo_header_split(nic: &Nic, before: &Snapshot, threshold: bool, was_other: Option<bool>) -> Result<()> {
    let (ethtool, ifindex) = (nic.ethtool(), nic.ifindex());
    let Some(rings) = &before.rings else { return Ok(()) };
    let state = rings.data_split.unwrap_or_default();
    let threshold = if threshold { rings.header_split_threshold } else { None };
    let set = |data_split| {
        ethtool.set_rings(
            ifindex,
            &RingsUpdate { data_split, header_split_threshold: threshold, ..RingsUpdate::default() },
        )
    };
    let was_enabled = was_other == Some(false)
        // Killed before the answer came: "enabled" is the setting that hurts nobody.
        || (was_other.is_none() && state == DataSplit::Enabled);
    if was_enabled {
        if threshold.is_some() {
            set(None)?;
        }
        return Ok(());
    }
    set(Some(DataSplit::Unknown))?;
    if ethtool.rings(ifindex)?.data_split.unwrap_or_default() != state && state != DataSplit::Unknown {
        set(Some(state))?;
    }
    Ok(())
}

fn undo_rss_table(nic: &Nic, before: &Snapshot) -> Result<()> {
    let Some(rss) = before.default_rss() else { return Ok(()) };
    let (ethtool, ifindex) = (nic.ethtool(), nic.ifindex());
    let queues = before.receive_queues();
    // A table that was set by hand keeps the number of queues from being lowered later, so the kernel's own
    // one is given back as such. With more queues than before it is another one until those are gone, when
    // this is done again. Some drivers keep entries of queues that are gone: nobody can set those.
    if rss.is_default_for(queues) || rss.indirection.iter().any(|&entry| entry >= queues) {
        return ethtool.reset_rss_indirection(ifindex);
    }
    ethtool.set_rss_indirection(ifindex, DEFAULT_CONTEXT, &rss.indirection)
}

fn undo_rss_context(nic: &Nic, before: &Snapshot, table: &[u32], context: Option<u32>) -> Result<()> {
    let (ethtool, ifindex) = (nic.ethtool(), nic.ifindex());
    let ours = match context {
        Some(context) => Some(context),
        // Killed before the number was written down: it is new and has our table.
        None => optional(ethtool.rss_contexts(ifindex))?.into_iter().flatten().find_map(|(number, rss)| {
            let new = number != DEFAULT_CONTEXT && !before.rss.contains_key(&number);
            (new && rss.indirection == table).then_some(number)
        }),
    };
    let Some(context) = ours else { return Ok(()) };
    ignoring(&[Errno::ENOENT], ethtool.delete_rss_context(ifindex, context))
}

fn undo_flow_rule(nic: &Nic, before: &Snapshot, rule: &FlowRule) -> Result<()> {
    let (ethtool, ifindex) = (nic.ethtool(), nic.ifindex());
    let Some(table) = optional(ethtool.flow_rules(ifindex))? else { return Ok(()) };
    let known = |location| before.flow_rules.as_ref().is_some_and(|rules| rules.contains_key(&location));
    let ours = table.rules.iter().find(|found| {
        let same_place = rule.location == LOCATION_ANY || found.location == rule.location;
        // A driver may tell a rule in other words than it was given, but not with another aim.
        let same_rule = found.same_but_location(rule)
            || (rule.location != LOCATION_ANY && found.action() == rule.action());
        same_place && same_rule && !known(found.location)
    });
    let Some(ours) = ours else { return Ok(()) };
    ignoring(&[Errno::ENOENT], ethtool.remove_flow_rule(ifindex, ours.location))
}

/// Waits for queues that a dying process had bound. If they stay bound, the kernel's refusal will say so.
fn wait_until_unbound(nic: &Nic, queues: &[u32]) {
    let deadline = Instant::now() + UNBIND_TIMEOUT;
    let bound = |&queue: &u32| match nic.netdev().queue(nic.ifindex(), QueueKind::Receive, queue) {
        Ok(queue) => queue.dmabuf.is_some() || queue.io_uring,
        // Down or gone: nothing to wait for.
        Err(_) => false,
    };
    while queues.iter().any(bound) && Instant::now() < deadline {
        sleep(UNBIND_POLL);
    }
}

pub(super) fn ignoring(errnos: &[Errno], result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.errno().is_some_and(|errno| errnos.contains(&errno)) => Ok(()),
        result => result,
    }
}

/// Whether an error means that the driver cannot do something, rather than that it failed.
pub(super) fn is_refusal(error: &Error) -> bool {
    matches!(error.errno(), Some(Errno::EOPNOTSUPP | Errno::EINVAL | Errno::ERANGE))
}
