//! Settings of the NIC that a binding takes.

use devmem_receive::devmem::BindRefusal;
use devmem_receive::ethtool::{DataSplit, RingsUpdate};
use devmem_receive::nic::{Adjustment, Plan, Queues};

use super::bench::Bench;
use super::{REFUSALS, check, refused_as};
use crate::check::Check;
use crate::context::Context;
use crate::ensure;
use crate::faults::Fault;
use crate::setup::BUFFER_BYTES;
use crate::verdict::{Finding, Outcome, Skip, Stop};

pub(super) const CHECKS: &[Check] = &[
    check(
        "header_split_off",
        "While header split is off a bind is refused for that reason, and the queue stays as it is.",
        REFUSALS,
        header_split_off,
    ),
    check(
        "header_split_threshold",
        "While header split leaves small packets whole a bind is refused for that reason.",
        REFUSALS,
        header_split_threshold,
    ),
    check(
        "interface_down",
        "While the interface is down a bind is refused for that reason, or takes effect when it is up again.",
        REFUSALS,
        interface_down,
    ),
    check(
        "smallest_buffer",
        "The smallest buffer that the provider has can be bound, or is refused with a reason.",
        &[Fault::BindsNothing, Fault::WrongBinding],
        smallest_buffer,
    ),
];

fn header_split_off(context: &Context<'_>) -> Outcome {
    let plan = Plan::without_flow(Queues::one()).header_split(false).buffer_bytes(BUFFER_BYTES);
    let bench = Bench::planned(context, &plan)?;
    let queue = bench.queues()[0];
    let rings = bench.nic.before().rings.clone().unwrap_or_default();
    if rings.data_split == Some(DataSplit::Enabled) {
        return Err(Stop::Skip(Skip {
            reason: "header split is on".to_owned(),
            found_by: "the settings of the NIC's rings".to_owned(),
            remedy: Some("turn it off for the run: `ethtool -G <interface> tcp-data-split off`".to_owned()),
        }));
    }
    let what = "binding while header split is off";
    refused_as(what, bench.attach(&[queue]), &[BindRefusal::HeaderSplitDisabled])?;
    let told = bench.holder(queue)?;
    ensure!(told.is_none(), "{what} left queue {queue} with {told:?}");
    Ok(Finding::Pass)
}

fn header_split_threshold(context: &Context<'_>) -> Outcome {
    let bench = Bench::new(context, 1)?;
    let rings = bench.nic.before().rings.clone().unwrap_or_default();
    if rings.header_split_threshold_max.unwrap_or_default() == 0 {
        return Err(Stop::Skip(Skip {
            reason: match rings.header_split_threshold {
                Some(_) => "the driver takes no other threshold than 0".to_owned(),
                None => "the driver has no such threshold (hds-thresh)".to_owned(),
            },
            found_by: "the settings of the NIC's rings".to_owned(),
            remedy: None,
        }));
    }
    // That the rings are to be put back is in the journal already: header split is on.
    let nic = bench.nic.nic();
    let update = RingsUpdate { header_split_threshold: Some(1), ..RingsUpdate::default() };
    let set = nic.ethtool().set_rings(nic.ifindex(), &update);
    set.map_err(|error| error.during("set the threshold of header split to 1").on(nic))?;
    let what = "binding while packets of one byte are left whole";
    refused_as(what, bench.attach(bench.queues()), &[BindRefusal::HeaderSplitThreshold])?;
    Ok(Finding::Pass)
}

fn interface_down(context: &Context<'_>) -> Outcome {
    let bench = Bench::new(context, 1)?;
    let queue = bench.queues()[0];
    let set_up = |up| bench.nic.adjust(Adjustment::Link { up });
    set_up(false)?;
    // The kernel leaves it to the driver (`netif_mp_open_rxq()`).
    match bench.attach(&[queue]) {
        Ok(attached) => {
            set_up(true)?;
            let told = bench.holder(queue)?;
            ensure!(told == Some(attached.holder()), "queue {queue} has {told:?}, not {}", attached.holder());
        }
        result => {
            let what = "binding while the interface is down";
            refused_as(what, result, &[BindRefusal::InterfaceDown])?;
            set_up(true)?;
            let told = bench.holder(queue)?;
            ensure!(told.is_none(), "{what} was refused, and queue {queue} has {told:?} when it is up");
        }
    }
    drop(bench.attach(&[queue])?);
    Ok(Finding::Pass)
}

fn smallest_buffer(context: &Context<'_>) -> Outcome {
    let bench = Bench::new(context, 1)?;
    let queue = bench.queues()[0];
    let bytes = context.granularity()?.max(1);
    let dma_buf = context.provider().allocate(&devmem_provider::Request::bytes(bytes))?.export()?;
    match bench.attach_to(&[queue], &dma_buf) {
        Ok(attached) => {
            let told = bench.holder(queue)?;
            ensure!(told == Some(attached.holder()), "queue {queue} has {told:?}, not {}", attached.holder());
        }
        result => {
            let what = format!("binding {bytes} bytes");
            refused_as(&what, result, &[BindRefusal::OutOfMemory, BindRefusal::NotUsable])?;
        }
    }
    // The queue is as good as before.
    let attached = bench.attach(&[queue])?;
    let told = bench.holder(queue)?;
    ensure!(
        told == Some(attached.holder()),
        "afterwards queue {queue} has {told:?}, not {}",
        attached.holder()
    );
    Ok(Finding::Pass)
}
