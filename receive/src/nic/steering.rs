//! Which queues to take, and how packets get to them or stay away from them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use devmem_provider::{Error, ErrorKind, Result};

use super::plan::{Flow, QueueChoice, Queues};
use super::snapshot::Snapshot;
use crate::ethtool::{ChannelCounts, Channels, DEFAULT_CONTEXT, FlowRuleAction, MaskedPort, TcpMatch};

/// More classes of remote ports than this make no spread fairer.
const CLASS_BITS_MAX: u32 = 8;

/// The queues that were taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chosen {
    /// In ascending order.
    pub(super) queues: Vec<u32>,
    /// The channels to have, where there are too few.
    pub(super) channels: Option<ChannelCounts>,
}

/// Chooses queues. `occupied` says who has a queue already.
pub(super) fn choose(wanted: &Queues, before: &Snapshot, occupied: &BTreeMap<u32, String>) -> Result<Chosen> {
    let refused = |kind| Error::new(kind, "choose receive queues");
    let Some(channels) = before.channels else {
        return Err(refused(ErrorKind::Unsupported)
            .because("the driver does not tell how many queues the NIC has")
            .remedy("use a NIC whose driver supports `ethtool --show-channels`"));
    };
    let present = channels.receive_queues();
    let queues: Vec<u32> = match &wanted.0 {
        QueueChoice::List(list) => {
            let queues: BTreeSet<u32> = list.iter().copied().collect();
            if queues.is_empty() {
                return Err(refused(ErrorKind::InvalidInput).because("the list of queues is empty"));
            }
            if queues.contains(&0) {
                return Err(refused(ErrorKind::InvalidInput)
                    .because("queue 0 must stay for other packets")
                    .remedy("name queues from 1 on"));
            }
            if let Some((queue, who)) = queues.iter().find_map(|queue| occupied.get_key_value(queue)) {
                return Err(refused(ErrorKind::Busy)
                    .because(format!("queue {queue} is taken by {who}"))
                    .remedy("name other queues, or end the program that has it"));
            }
            queues.into_iter().collect()
        }
        QueueChoice::Count(0) => {
            return Err(refused(ErrorKind::InvalidInput).because("0 queues were asked for"));
        }
        QueueChoice::Count(count) => idle(*count, &channels, before, occupied),
    };
    let missing = match &wanted.0 {
        QueueChoice::Count(count) => queues.len() < *count as usize,
        QueueChoice::List(_) => false,
    };
    let needed = queues.last().map_or(0, |last| last.saturating_add(1));
    if !missing && needed <= present {
        return Ok(Chosen { queues, channels: None });
    }
    match channels.with_receive_queues(needed) {
        Some(counts) if !missing => Ok(Chosen { queues, channels: Some(counts) }),
        _ => {
            let wanted = match &wanted.0 {
                QueueChoice::Count(count) => format!("{count} queues besides queue 0 are wanted"),
                QueueChoice::List(_) => format!("queue {} is wanted", needed - 1),
            };
            Err(refused(ErrorKind::InvalidInput)
                .because(format!(
                    "{wanted}, but the NIC has {present} receive queues, can have {}, and {} are taken",
                    channels.receive_queues_max(),
                    occupied.len()
                ))
                .remedy("ask for fewer queues, or end the programs that have some"))
        }
    }
}

/// At most `count` queues: free ones from the last down, then those that more channels would give, then
/// those that somebody's rule sends packets to.
fn idle(count: u32, channels: &Channels, before: &Snapshot, occupied: &BTreeMap<u32, String>) -> Vec<u32> {
    let aims = aims_of_others(before);
    let present = channels.receive_queues();
    let free = || (1..present).rev().filter(|queue| !occupied.contains_key(queue));
    let unused = free().filter(|queue| !aims.contains(queue));
    let beyond = present.max(1)..channels.receive_queues_max();
    let used = free().filter(|queue| aims.contains(queue));
    let mut queues: Vec<u32> = unused.chain(beyond).chain(used).take(count as usize).collect();
    queues.sort_unstable();
    queues
}

/// The queues that existing flow rules and further RSS contexts send packets to.
fn aims_of_others(before: &Snapshot) -> BTreeSet<u32> {
    let rules = before.flow_rules.iter().flatten().filter_map(|(_, rule)| match rule.action() {
        FlowRuleAction::Queue(queue) => Some(queue),
        FlowRuleAction::RssContext(_) | FlowRuleAction::Discard => None,
    });
    let contexts = before.rss.iter().filter(|(context, _)| **context != DEFAULT_CONTEXT);
    rules.chain(contexts.flat_map(|(_, rss)| rss.indirection.iter().copied())).collect()
}

/// The RSS table with every entry that leads to a bound queue led elsewhere. `None` if there is none.
///
/// The other entries stay, so that a spread that somebody chose stays as far as it can. Entries that lead to
/// no queue go elsewhere too: some drivers keep them when channels are lowered, but nobody may set them.
pub(super) fn steer_away(table: &[u32], bound: &[u32], queues: u32) -> Option<Vec<u32>> {
    if !table.iter().any(|entry| bound.contains(entry)) {
        return None;
    }
    let stays = |entry: &u32| *entry < queues && !bound.contains(entry);
    let in_use: BTreeSet<u32> = table.iter().copied().filter(stays).collect();
    let others: Vec<u32> =
        if in_use.is_empty() { (0..queues).filter(stays).collect() } else { in_use.into_iter().collect() };
    let mut next = others.iter().cycle();
    table.iter().map(|entry| if stays(entry) { Some(*entry) } else { next.next().copied() }).collect()
}

/// An RSS table that spreads evenly over `queues`.
pub(super) fn spread_over(queues: &[u32], length: usize) -> Vec<u32> {
    queues.iter().copied().cycle().take(length).collect()
}

/// What the rules of the flows match, without their aim.
pub(super) fn matches(flows: &[Flow]) -> Vec<TcpMatch> {
    let every = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    let mut matches: Vec<TcpMatch> = Vec::new();
    for flow in flows {
        let addresses = if flow.addresses.is_empty() { &every[..] } else { &flow.addresses };
        for &local_address in addresses {
            let matched = TcpMatch { local_address, local_port: flow.port, remote_port: None };
            if !matches.contains(&matched) {
                matches.push(matched);
            }
        }
    }
    matches
}

/// The classes of remote ports that spread a flow over `queues`, each with its queue.
///
/// `room` is how many rules one flow may have. `None` if that is fewer than there are queues. The classes
/// are told apart by the bits above the lowest: Linux hands out ports of one parity to those who connect
/// (`__inet_hash_connect`, net/ipv4/inet_hashtables.c), so the lowest bit would leave half the queues idle.
pub(super) fn port_classes(queues: &[u32], room: usize) -> Option<Vec<(Option<MaskedPort>, u32)>> {
    if let [queue] = queues {
        return Some(vec![(None, *queue)]);
    }
    let least = queues.len().next_power_of_two().trailing_zeros();
    // Where the queues are no power of two, some get one class more; with more classes that weighs less.
    let wished = if queues.len().is_power_of_two() { least } else { least + 2 };
    let bits = (least..=wished.min(CLASS_BITS_MAX).max(least)).rev().find(|&bits| 1usize << bits <= room)?;
    if bits > 15 {
        return None;
    }
    let mask = ((1u32 << bits) - 1) << 1;
    let port = |class: u32| u16::try_from(class << 1).ok();
    (0..1u32 << bits)
        .zip(queues.iter().cycle())
        .map(|(class, &queue)| {
            let masked = MaskedPort { value: port(class)?, mask: u16::try_from(mask).ok()? };
            Some((Some(masked), queue))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::snapshot::tests::example;
    use super::*;
    use proptest::prelude::*;

    fn one() -> Queues {
        Queues::one()
    }

    fn with_channels(current: u32, maximum: u32) -> Snapshot {
        let mut snapshot = example();
        let channels = snapshot.channels.as_mut().unwrap();
        channels.current.rx = current;
        channels.maximum.rx = maximum;
        snapshot
    }

    #[test]
    fn the_last_idle_queue_is_taken() {
        let free = BTreeMap::new();
        assert_eq!(choose(&one(), &example(), &free).unwrap().queues, [3]);
        let taken = BTreeMap::from([(3, "somebody".to_owned())]);
        // Queue 2 is the aim of a rule, so queue 1 is better.
        assert_eq!(choose(&one(), &example(), &taken).unwrap().queues, [1]);
        assert_eq!(choose(&Queues::count(2), &example(), &taken).unwrap().queues, [1, 2]);
        assert_eq!(choose(&Queues::count(3), &example(), &free).unwrap().queues, [1, 2, 3]);
    }

    #[test]
    fn too_few_channels_are_raised_when_they_can_be() {
        let free = BTreeMap::new();
        let chosen = choose(&one(), &with_channels(1, 4), &free).unwrap();
        assert_eq!((chosen.queues, chosen.channels.map(|counts| counts.rx)), (vec![1], Some(2)));
        let error = choose(&one(), &with_channels(1, 1), &free).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("can have 1"), "{error}");
        let error = choose(&Queues::count(4), &example(), &free).unwrap_err();
        assert!(error.to_string().contains("4 queues besides queue 0 are wanted"), "{error}");
        let chosen = choose(&Queues::list([6]), &with_channels(4, 8), &free).unwrap();
        assert_eq!(chosen.channels.map(|counts| counts.rx), Some(7));
    }

    #[test]
    fn what_can_never_be_bound_is_refused() {
        let free = BTreeMap::new();
        for (queues, kind) in [
            (Queues::count(0), ErrorKind::InvalidInput),
            (Queues::list([]), ErrorKind::InvalidInput),
            (Queues::list([0, 1]), ErrorKind::InvalidInput),
            (Queues::list([u32::MAX]), ErrorKind::InvalidInput),
            (Queues::count(u32::MAX), ErrorKind::InvalidInput),
        ] {
            assert_eq!(choose(&queues, &example(), &free).unwrap_err().kind(), kind, "{queues:?}");
        }
        let taken = BTreeMap::from([(3, "an AF_XDP socket".to_owned())]);
        let error = choose(&Queues::list([3]), &example(), &taken).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert!(error.to_string().contains("queue 3 is taken by an AF_XDP socket"), "{error}");
    }

    #[test]
    fn stray_packets_never_reach_a_bound_queue() {
        assert_eq!(steer_away(&[0, 1, 2, 3, 0, 1, 2, 3], &[3, 2], 4), Some(vec![0, 1, 0, 1, 0, 1, 0, 1]));
        assert_eq!(steer_away(&[0, 1, 0, 1], &[2], 4), None);
        assert_eq!(steer_away(&[2, 2], &[2], 4), Some(vec![0, 1]));
        assert_eq!(steer_away(&[0, 1, 2, 3], &[1], 2), Some(vec![0, 0, 0, 0]));
    }

    #[test]
    fn a_flow_without_address_has_both_families() {
        let flow = Flow::tcp_port(80);
        assert_eq!(matches(&[flow.clone(), flow.clone()]).len(), 2);
        let mapped: IpAddr = "::ffff:10.0.0.1".parse().unwrap();
        assert_eq!(matches(&[flow.to(mapped)])[0].local_address, IpAddr::from([10, 0, 0, 1]));
    }

    #[test]
    fn four_queues_are_told_apart_above_the_lowest_bit() {
        let classes = port_classes(&[1, 2, 3, 4], 32).unwrap();
        let masked = |value| Some(MaskedPort { value, mask: 6 });
        assert_eq!(classes, [(masked(0), 1), (masked(2), 2), (masked(4), 3), (masked(6), 4)]);
        assert_eq!(port_classes(&[9], 1), Some(vec![(None, 9)]));
        assert_eq!(port_classes(&[1, 2], 1), None);
        assert_eq!(port_classes(&[1, 2, 3], 32).unwrap().len(), 16);
        assert_eq!(port_classes(&[1, 2, 3], 8).unwrap().len(), 8);
    }

    proptest! {
        #[test]
        fn every_port_belongs_to_one_class_and_the_queues_share_evenly(count in 1u32..40, room in 1usize..300) {
            let queues: Vec<u32> = (1..=count).collect();
            let Some(classes) = port_classes(&queues, room) else {
                prop_assert!(room < queues.len().next_power_of_two());
                return Ok(());
            };
            prop_assert!(classes.len() <= room.max(1));
            for port in [0u16, 1, 2, 77, 32768, 40001, 65535] {
                let hits = classes.iter().filter(|(masked, _)| {
                    masked.is_none_or(|masked| port & masked.mask == masked.value)
                });
                prop_assert_eq!(hits.count(), 1);
            }
            let share = |queue| classes.iter().filter(|(_, aim)| *aim == queue).count();
            let shares: Vec<_> = queues.iter().map(|&queue| share(queue)).collect();
            prop_assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
            prop_assert!(shares.iter().all(|&share| share > 0));
        }

        #[test]
        fn no_entry_of_a_table_leads_to_a_bound_queue(
            table in proptest::collection::vec(0u32..8, 1..64),
            bound in proptest::collection::btree_set(1u32..8, 1..7),
        ) {
            let bound: Vec<u32> = bound.into_iter().collect();
            let steered = steer_away(&table, &bound, 8).unwrap_or_else(|| table.clone());
            prop_assert_eq!(steered.len(), table.len());
            for (&before, &after) in table.iter().zip(&steered) {
                prop_assert!(!bound.contains(&after));
                prop_assert!(bound.contains(&before) || before == after);
            }
        }
    }
}
