//! Requests that are incomplete, and descriptors that are no DMA-buf.

use std::os::fd::{AsFd, AsRawFd};

use devmem_provider::DmaBuf;
use devmem_receive::devmem::BindRefusal;
use devmem_receive::netdev::uapi;
use devmem_receive::netlink::{Attributes, Error, Generic};
use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::bench::Bench;
use super::{REFUSALS, check, refused_as};
use crate::check::Check;
use crate::context::Context;
use crate::ensure;
use crate::faults::Fault;
use crate::need::Need;
use crate::path::Feature;
use crate::verdict::{Finding, Outcome, Stop};

pub(super) const CHECKS: &[Check] = &[
    Check {
        needs: &[Need::Nic, Need::Path(Feature::Netlink)],
        ..check(
            "incomplete_request",
            "A request whose queue lacks its number or its type is refused; with both it binds the queue.",
            &[Fault::ExportsNoDmaBuf],
            incomplete_request,
        )
    },
    check("no_dma_buf", "The descriptor of a file that is no DMA-buf is refused.", REFUSALS, no_dma_buf),
    check(
        "probe_changes_nothing",
        "Asking over netlink for a binding of a descriptor that is not open is refused, and leaves a bound queue as it is.",
        &[Fault::BindsNothing, Fault::WrongBinding],
        probe_changes_nothing,
    ),
];

fn incomplete_request(context: &Context<'_>) -> Outcome {
    let bench = Bench::new(context, 1)?;
    let queue = bench.queues()[0];
    // The kernel ties a binding to the socket that asks for it: this one ends with the check.
    let family = Generic::open(uapi::FAMILY).map_err(|error| error.during("open the netdev family"))?;
    let request = |parts: Attributes| {
        let attributes = Attributes::new()
            .u32(uapi::dmabuf::IFINDEX, bench.nic.nic().ifindex())
            .u32(uapi::dmabuf::FD, bench.dma_buf.as_fd().as_raw_fd().cast_unsigned())
            .nest(uapi::dmabuf::QUEUES, parts);
        family.request_one(uapi::BIND_RX, &attributes, &uapi::DMABUF_NAMES)
    };
    let number = || Attributes::new().u32(uapi::queue::ID, queue);
    for (lack, parts) in [
        ("without type", number()),
        ("without number", Attributes::new().u32(uapi::queue::TYPE, uapi::QUEUE_TYPE_RX)),
        ("of type transmit", number().u32(uapi::queue::TYPE, uapi::QUEUE_TYPE_TX)),
    ] {
        let error = match request(parts) {
            Err(Error::Kernel(error)) => error,
            Err(error) => return Err(Stop::fail(error)),
            Ok(_) => return Err(Stop::fail(format!("a queue {lack} was bound"))),
        };
        ensure!(error.errno == Errno::EINVAL, "a queue {lack} is refused with {error}");
        let told = bench.holder(queue)?;
        ensure!(told.is_none(), "a queue {lack} was refused and has {told:?}");
    }
    let whole = request(number().u32(uapi::queue::TYPE, uapi::QUEUE_TYPE_RX));
    whole.map_err(|error| error.during("bind a queue with its number and type"))?;
    let told = bench.holder(queue)?;
    ensure!(told.is_some(), "the whole request was accepted, and queue {queue} has no binding");
    drop(family);
    let told = bench.holder(queue)?;
    ensure!(told.is_none(), "the socket is closed, and queue {queue} still has {told:?}");
    Ok(Finding::Pass)
}

fn no_dma_buf(context: &Context<'_>) -> Outcome {
    let bench = Bench::new(context, 1)?;
    let queue = bench.queues()[0];
    let memory = memfd_create(c"no DMA-buf", MFdFlags::MFD_CLOEXEC).map_err(std::io::Error::from)?;
    let pipe = std::io::pipe()?.0;
    for (what, file) in [("a file in memory", memory), ("a pipe", pipe.into())] {
        let file = DmaBuf::from_exporter(file, bench.dma_buf.size());
        let what = format!("binding {what}");
        refused_as(&what, bench.attach_to(&[queue], &file), &[BindRefusal::NotUsable])?;
        let told = bench.holder(queue)?;
        ensure!(told.is_none(), "{what} left queue {queue} with {told:?}");
    }
    Ok(Finding::Pass)
}

fn probe_changes_nothing(context: &Context<'_>) -> Outcome {
    let bench = Bench::new(context, 1)?;
    let nic = bench.nic.nic();
    let queue = bench.queues()[0];
    let attached = bench.attach(&[queue])?;
    let (settings, before) = (nic.snapshot()?, bench.state(queue)?);
    ensure!(
        before.holder == Some(attached.holder()),
        "queue {queue} has {before:?}, not {}",
        attached.holder()
    );
    let said = nic.netdev().probe_bind_rx(nic.ifindex(), queue);
    let said = said.map_err(|error| error.during("ask for a binding of no descriptor").on(nic))?;
    let told = BindRefusal::classify(&said, true);
    ensure!(told == BindRefusal::BadDescriptor, "it was refused for {told:?}: {said}");
    let after = bench.state(queue)?;
    ensure!(after == before, "it changed the queue from {before:?} to {after:?}");
    let differences = settings.diff(&nic.snapshot()?);
    ensure!(differences.is_empty(), "it changed the NIC: {differences:?}");
    Ok(Finding::Pass)
}
