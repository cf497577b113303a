//! Settings of the NIC that change while memory is bound.

use devmem_receive::nic::{Adjustment, Prepared};

use super::check;
use crate::check::Check;
use crate::context::Context;
use crate::ensure;
use crate::faults::Fault;
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
