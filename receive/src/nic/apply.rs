//! The changes that a plan needs, in the order that the kernel wants.

use devmem_provider::{Error, ErrorKind, Result};
use nix::errno::Errno;

use super::adjustment::set_feature;
use super::change::{Change, is_refusal};
use super::device::Nic;
use super::plan::Plan;
use super::receive_rings::Buffer;
use super::snapshot::optional;
use super::steering::{self, Chosen};
use super::transaction::Transaction;
use crate::ethtool::{DEFAULT_CONTEXT, FlowRule, FlowRuleAction, TcpMatch};
use crate::netlink;

/// The feature without which a NIC takes no flow rules.
const FLOW_RULES: &str = "rx-ntuple-filter";
/// The feature that mlx5 needs for header split.
const HARDWARE_GRO: &str = "rx-gro-hw";

/// Makes the changes in the order that the kernel wants: features, channels, receive rings, header split,
/// RSS, flow rules.
pub(super) fn apply(nic: &Nic, transaction: &mut Transaction, plan: &Plan, chosen: Chosen) -> Result<()> {
    if !plan.flows.is_empty() {
        turn_on(nic, transaction, FLOW_RULES)?;
    }
    if let Some(counts) = chosen.channels {
        transaction.must_make(Change::Channels { counts })?;
    }
    if let Some(bytes) = plan.buffer_bytes {
        fit_receive_rings(nic, transaction, bytes, &chosen.queues)?;
    }
    if plan.header_split {
        split_headers(nic, transaction)?;
    }
    let rss = steer_others_away(nic, transaction, &chosen.queues)?;
    steer_flows(nic, transaction, plan, &chosen.queues, rss)
}

/// Turns a feature on, if the NIC has it and it is off.
fn turn_on(nic: &Nic, transaction: &mut Transaction, name: &str) -> Result<()> {
    let off = transaction.before().features.get(name).filter(|feature| feature.changeable && !feature.active);
    if off.is_none() {
        return Ok(());
    }
    set_feature(nic, transaction, name, true)
}

/// Makes the receive rings so small that those of the bound queues leave some of the buffer.
fn fit_receive_rings(nic: &Nic, transaction: &mut Transaction, bytes: u64, bound: &[u32]) -> Result<()> {
    let buffer = Buffer::new(bytes, bound.len());
    buffer.check().map_err(|error| error.on(nic))?;
    // A driver that does not tell its rings cannot be told either; whether they fit is anyone's guess.
    let rings = transaction.before().rings.as_ref();
    let Some(mut entries) = rings.and_then(|rings| rings.rx) else { return Ok(()) };
    let wanted = buffer.wanted_entries();
    if entries > wanted {
        transaction.must_make(Change::ReceiveRings { wanted, entries: None })?;
        entries = transaction.receive_ring_entries().unwrap_or(entries);
    }
    buffer.check_rings(entries).map_err(|error| error.on(nic))
}

fn split_headers(nic: &Nic, transaction: &mut Transaction) -> Result<()> {
    let rings = transaction.before().rings.as_ref();
    let threshold = rings.is_some_and(|rings| rings.header_split_threshold.is_some());
    let change = Change::HeaderSplit { threshold, setting_was_other: None };
    let gro = transaction.before().features.get(HARDWARE_GRO);
    let gro_is_off = gro.is_some_and(|feature| feature.changeable && !feature.active);
    match transaction.make(change.clone())? {
        Err(error) if is_refusal(&error) && gro_is_off => {
            turn_on(nic, transaction, HARDWARE_GRO)?;
            transaction.must_make(change)
        }
        result => result.map_err(|error| {
            let supported = !is_refusal(&error);
            let error = error.during(change.to_string()).on(nic);
            if supported {
                error
            } else {
                error
                    .with_kind(ErrorKind::Unsupported)
                    .remedy("use a NIC whose driver can split headers; `ethtool -g` shows \"TCP data split\"")
            }
        }),
    }
}

/// Keeps every packet without a flow rule off the bound queues. Returns the length of the RSS table, if any.
fn steer_others_away(nic: &Nic, transaction: &mut Transaction, bound: &[u32]) -> Result<Option<usize>> {
    let failed = |error: netlink::Error| error.during("read the RSS table").on(nic);
    // More channels may have changed the table.
    let rss = optional(nic.ethtool().rss(nic.ifindex(), DEFAULT_CONTEXT)).map_err(failed)?;
    let Some(rss) = rss.filter(|rss| !rss.indirection.is_empty()) else { return Ok(None) };
    let channels = nic.ethtool().channels(nic.ifindex()).map_err(failed)?;
    if let Some(table) = steering::steer_away(&rss.indirection, bound, channels.receive_queues()) {
        transaction.must_make(Change::RssTable { table })?;
    }
    Ok(Some(rss.indirection.len()))
}

/// Inserts the flow rules: to the one queue; or through an RSS context over the queues; or, where the driver
/// has no contexts, one rule for each class of remote ports.
fn steer_flows(
    nic: &Nic,
    transaction: &mut Transaction,
    plan: &Plan,
    queues: &[u32],
    rss: Option<usize>,
) -> Result<()> {
    let matches = steering::matches(&plan.flows);
    if matches.is_empty() {
        return Ok(());
    }
    if queues.len() > 1
        && let Some(length) = rss
        && let Some(context) = make_context(nic, transaction, &steering::spread_over(queues, length))?
    {
        let action = FlowRuleAction::RssContext(context);
        return matches.into_iter().try_for_each(|matched| insert(nic, transaction, matched, action));
    }
    let table = nic.ethtool().flow_rules(nic.ifindex()).map_err(|error| no_flow_rules(nic, error))?;
    let room = match table.capacity {
        0 => usize::MAX,
        capacity => (capacity as usize).saturating_sub(table.rules.len()),
    };
    let Some(classes) = steering::port_classes(queues, room / matches.len().max(1)) else {
        return Err(Error::new(ErrorKind::Unsupported, "spread the flow over the queues")
            .on(nic)
            .because(format!(
                "the driver has no RSS contexts, and its rule table has room for {room} more rules"
            ))
            .remedy("ask for fewer queues, or remove rules that nobody needs"));
    };
    for matched in matches {
        for (remote_port, queue) in &classes {
            insert(
                nic,
                transaction,
                TcpMatch { remote_port: *remote_port, ..matched },
                FlowRuleAction::Queue(*queue),
            )?;
        }
    }
    Ok(())
}

/// `None` if the driver has no RSS contexts.
fn make_context(nic: &Nic, transaction: &mut Transaction, table: &[u32]) -> Result<Option<u32>> {
    if !has_contexts(nic)? {
        return Ok(None);
    }
    transaction.must_make(Change::RssContext { table: table.to_vec(), context: None })?;
    Ok(transaction.last_context())
}

/// Whether the driver has RSS contexts. Asks for one that cannot exist: a driver without contexts refuses in
/// another way (net/ethtool/rss.c).
pub(super) fn has_contexts(nic: &Nic) -> Result<bool> {
    match nic.ethtool().rss(nic.ifindex(), u32::MAX - 1) {
        Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(true),
        Err(error) if is_refusal(&error) => Ok(false),
        Err(error) => Err(error.during("look for RSS contexts").on(nic)),
        Ok(_) => Ok(true),
    }
}

fn insert(nic: &Nic, transaction: &mut Transaction, matched: TcpMatch, action: FlowRuleAction) -> Result<()> {
    let table = nic.ethtool().flow_rules(nic.ifindex()).map_err(|error| no_flow_rules(nic, error))?;
    let Some(location) = table.free_location() else {
        return Err(Error::new(ErrorKind::OutOfMemory, "insert a flow rule")
            .on(nic)
            .because(format!("its table of {} rules is full", table.capacity))
            .remedy("remove rules that nobody needs (`ethtool -N ... delete`)"));
    };
    let rule = FlowRule::tcp(matched, action, location);
    let operation = format!("insert {rule}");
    match transaction.make(Change::FlowRule { rule })? {
        Err(error) if matched.remote_port.is_some() && is_refusal(&error) => Err(error
            .during(operation)
            .on(nic)
            .with_kind(ErrorKind::Unsupported)
            .because("the driver has no RSS contexts and cannot match a part of the remote port")
            .remedy("use one queue")),
        Err(error) if is_refusal(&error) => {
            Err(error.during(operation).on(nic).with_kind(ErrorKind::Unsupported).remedy(
                "see the kernel log for what the driver cannot match; name a local address of one family",
            ))
        }
        result => result.map_err(|error| error.during(operation).on(nic)),
    }
}

fn no_flow_rules(nic: &Nic, error: netlink::Error) -> Error {
    let unsupported = error.errno() == Some(Errno::EOPNOTSUPP);
    let error = error.during("read the flow rules").on(nic);
    if unsupported {
        error.because("the driver has no flow rules").remedy("use a NIC with flow steering")
    } else {
        error
    }
}
