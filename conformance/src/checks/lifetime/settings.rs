//! Settings of the NIC that change while memory is bound.

use devmem_receive::ethtool::{DataSplit, RingsUpdate};
use devmem_receive::nic::{Adjustment, Prepared};
use nix::errno::Errno;

use super::check;
use super::processes::is_bound;
use crate::check::Check;
use crate::context::Context;
use crate::ensure;
use crate::faults::Fault;
use crate::nic_reset::reset;
use crate::pci_function::PciFunction;
use crate::peer::Step;
use crate::setup::{Setup, sends};
use crate::verdict::{Finding, Outcome, Skip, Stop};

pub(super) const CHECKS: &[Check] = &[
    check(
        "greatest_packet_changes",
        "The greatest packet (MTU) may change while a buffer is bound: the queue keeps it, and no byte is lost.",
        OF_A_KEPT_BINDING,
        greatest_packet_changes,
    ),
    check(
        "rings_change",
        "The length of the receive rings may change while a buffer is bound: the queue keeps it, and no byte is lost.",
        OF_A_KEPT_BINDING,
        rings_change,
    ),
    check(
        "bound_queue_is_not_removed",
        "A queue that is bound cannot be taken away, and its stream goes on.",
        OF_A_KEPT_BINDING,
        bound_queue_is_not_removed,
    ),
    check(
        "header_split_stays_on",
        "Header split cannot be turned off while a buffer is bound, and its stream goes on.",
        OF_A_KEPT_BINDING,
        header_split_stays_on,
    ),
    check(
        "header_split_threshold_stays_zero",
        "The threshold of header split cannot be raised while a buffer is bound, and its stream goes on.",
        OF_A_KEPT_BINDING,
        header_split_threshold_stays_zero,
    ),
    check(
        "nic_reset",
        "The NIC may be reset in the middle of a stream: the queue keeps its buffer, and no byte is lost once the NIC steers again.",
        OF_A_KEPT_BINDING,
        nic_reset,
    ),
];

/// What a path gets wrong that loses a binding, or bytes.
const OF_A_KEPT_BINDING: &[Fault] = &[Fault::LinearInstead, Fault::DropsBytes];

/// Changes the NIC in the middle of a stream, which must come into the buffer to its end.
fn receives_through(
    context: &Context<'_>,
    setup: &Setup,
    change: impl FnOnce(&Prepared) -> Result<(), Stop>,
) -> Outcome {
    let mut session = context.peer()?;
    let (first, whole) = (256 << 10, 1 << 20);
    let mut steps = vec![Step::Write { bytes: first, chunk: 64 << 10 }, Step::Barrier];
    steps.extend(sends(whole - first));
    let mut connection = setup.connect(context, &mut session, steps)?;
    let mut in_buffer = 0;
    let mut change = Some(change);
    while let Some(places) = connection.read(&setup.mapping)? {
        in_buffer += places.iter().map(|place| u64::from(place.length)).sum::<u64>();
        connection.incoming.release(&places)?;
        if connection.position >= first
            && let Some(change) = change.take()
        {
            connection.incoming.flush()?;
            change(&setup.nic)?;
            connection.proceed()?;
        }
    }
    ensure!(connection.position == whole, "{} of {whole} bytes arrived", connection.position);
    ensure!(in_buffer == whole, "of {whole} bytes {in_buffer} lie in the buffer: the queue lost its binding");
    Ok(Finding::Pass)
}

fn missing(reason: &str) -> Stop {
    Stop::Skip(Skip { reason: reason.to_owned(), found_by: "the NIC's settings".to_owned(), remedy: None })
}

/// What a driver cannot do at all is no fault of its receive path.
fn adjusted(nic: &Prepared, adjustment: Adjustment) -> Result<(), Stop> {
    use devmem_provider::ErrorKind::{InvalidInput, Unsupported};
    nic.adjust(adjustment).map_err(|error| match error.kind() {
        Unsupported | InvalidInput => Stop::skip(&error),
        _ => error.into(),
    })
}

fn greatest_packet_changes(context: &Context<'_>) -> Outcome {
    let setup = Setup::new(context)?;
    let mtu = setup.nic.before().mtu.ok_or_else(|| missing("the greatest packet cannot be read"))?;
    // Lower and back: the peer sends as large packets as before.
    receives_through(context, &setup, |nic| {
        adjusted(nic, Adjustment::Mtu(mtu.saturating_sub(100).max(1280)))?;
        adjusted(nic, Adjustment::Mtu(mtu))
    })
}

fn rings_change(context: &Context<'_>) -> Outcome {
    let setup = Setup::new(context)?;
    let rings = setup.nic.nic().snapshot()?.rings;
    let entries = rings.and_then(|rings| rings.rx).ok_or_else(|| missing("the rings cannot be read"))?;
    receives_through(context, &setup, |nic| {
        let less = adjusted(nic, Adjustment::ReceiveRings(entries / 2));
        less.or_else(|_| adjusted(nic, Adjustment::ReceiveRings(entries * 2)))
    })
}

fn bound_queue_is_not_removed(context: &Context<'_>) -> Outcome {
    let setup = Setup::new(context)?;
    let channels = setup.nic.nic().snapshot()?.channels;
    let mut fewer = channels.ok_or_else(|| missing("the queues cannot be counted"))?.current;
    // So few that the bound queue is not among them.
    let kept = setup.nic.queues().iter().copied().min().unwrap_or_default();
    let counts = if fewer.combined > 0 { &mut fewer.combined } else { &mut fewer.rx };
    *counts = kept;
    if kept == 0 {
        return Err(missing("the first queue is bound, and one must stay"));
    }
    receives_through(context, &setup, |nic| {
        ensure!(nic.adjust(Adjustment::Channels(fewer)).is_err(), "a bound queue was taken away");
        Ok(())
    })
}

/// Asks for a change of the rings that must be refused, and leave them as they are.
fn refused(nic: &Prepared, what: &str, update: &RingsUpdate) -> Result<(), Stop> {
    let nic = nic.nic();
    let rings = || nic.ethtool().rings(nic.ifindex()).map_err(|error| error.during("read the rings").on(nic));
    let before = rings()?;
    match nic.ethtool().set_rings(nic.ifindex(), update) {
        Err(error) if error.errno() == Some(Errno::EINVAL) => {}
        Err(error) => return Err(Stop::fail(format!("{what}: refused with {error}, not EINVAL"))),
        Ok(_) => return Err(Stop::fail(format!("{what}: not refused"))),
    }
    let after = rings()?;
    ensure!(after == before, "{what}: refused, and changed the rings from {before:?} to {after:?}");
    Ok(())
}

fn header_split_stays_on(context: &Context<'_>) -> Outcome {
    let setup = Setup::new(context)?;
    receives_through(context, &setup, |nic| {
        let update = RingsUpdate { data_split: Some(DataSplit::Disabled), ..RingsUpdate::default() };
        refused(nic, "turning header split off", &update)
    })
}

fn header_split_threshold_stays_zero(context: &Context<'_>) -> Outcome {
    let setup = Setup::new(context)?;
    let most = setup.nic.before().rings.as_ref().and_then(|rings| rings.header_split_threshold_max);
    if most.unwrap_or_default() == 0 {
        return Err(missing("header split has no other threshold (hds-thresh) than 0"));
    }
    receives_through(context, &setup, |nic| {
        let update = RingsUpdate { header_split_threshold: Some(1), ..RingsUpdate::default() };
        refused(nic, "raising the threshold of header split", &update)
    })
}

fn nic_reset(context: &Context<'_>) -> Outcome {
    let setup = Setup::new(context)?;
    let nic = setup.nic.nic();
    // Other functions of the same card are disturbed by a reset of all only if the caller allows it.
    let shared = context.environment().disruptive
        || nic.identity().pci.is_some_and(|address| PciFunction::at(address).is_alone());
    let rules = nic.snapshot()?.flow_rules.unwrap_or_default();
    receives_through(context, &setup, |_| {
        reset(nic, shared).map_err(Stop::unless_supported)?;
        ensure!(is_bound(nic, setup.pin.holder())?, "the queue lost its binding");
        // A driver may forget what it steers by, as gve does; packets would come by another queue.
        let known = nic.snapshot()?.flow_rules.unwrap_or_default();
        for rule in rules.values().filter(|rule| !known.contains_key(&rule.location)) {
            let given = nic.ethtool().insert_flow_rule(nic.ifindex(), rule);
            given.map_err(|error| error.during("give the NIC a flow rule again").on(nic))?;
        }
        Ok(())
    })
}
