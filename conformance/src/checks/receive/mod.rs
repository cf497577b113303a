//! Receiving: every byte, in order, where it is said to be.

mod connections;
mod fragments;
mod impaired;
mod order_of_events;
mod rings;
mod settings;
mod sizes;
mod socket;
mod steering;
mod streams;

use devmem_provider::Capabilities;

use super::pin::ONE_BUFFER;
use super::{all, count, path_check};
use crate::check::{Check, Group};
use crate::context::Context;
use crate::faults::Fault;
use crate::need::Need;
use crate::path::Feature;
use crate::setup::{Setup, sends};
use crate::verdict::{Finding, Outcome};

/// What every check with a connection needs.
pub(super) const NEEDS: &[Need] = &[Need::Nic, Need::Peer, Need::Capability(Capabilities::CPU_MAPPING)];

/// What a check needs that calls the kernel below a connection.
pub(super) const NEEDS_A_SOCKET: &[Need] =
    &[Need::Nic, Need::Path(Feature::Socket), Need::Peer, Need::Capability(Capabilities::CPU_MAPPING)];

/// What a check needs where not all payload comes into the buffer.
pub(super) const NEEDS_HOST_MEMORY: &[Need] =
    &[Need::Nic, Need::Path(Feature::HostMemory), Need::Peer, Need::Capability(Capabilities::CPU_MAPPING)];

/// What a check needs whose stream goes on when its binding is gone.
pub(super) const NEEDS_OUTLIVING_STREAMS: &[Need] = &[
    Need::Nic,
    Need::Path(Feature::StreamsOutlive),
    Need::Peer,
    Need::Capability(Capabilities::CPU_MAPPING),
];

/// What a check needs with one buffer for several queues.
pub(super) const NEEDS_SEVERAL_QUEUES: &[Need] =
    &[Need::Nic, Need::Path(Feature::SeveralQueues), Need::Peer, Need::Capability(Capabilities::CPU_MAPPING)];

/// What a check needs of what streams of io_uring do otherwise.
pub(super) const NEEDS_RINGS: &[Need] =
    &[Need::Nic, Need::Path(Feature::Rings), Need::Peer, Need::Capability(Capabilities::CPU_MAPPING)];

/// What they build on.
pub(super) const ONE_MEBIBYTE: &str = "receive::one_mebibyte";

const PARTS: &[&[Check]] = &[
    &[FIRST],
    sizes::CHECKS,
    fragments::CHECKS,
    streams::CHECKS,
    connections::CHECKS,
    steering::CHECKS,
    order_of_events::CHECKS,
    settings::CHECKS,
    socket::CHECKS,
    rings::CHECKS,
    impaired::CHECKS,
];

pub(super) const CHECKS: &[Check] = &all::<{ count(PARTS) }>(PARTS);

const FIRST: Check = path_check(
    Group::Receive,
    "one_mebibyte",
    "A mebibyte arrives: every byte once, in order, and where it is said to be.",
    NEEDS,
    &[ONE_BUFFER],
    &[
        Fault::WrongOffset,
        Fault::WrongLength,
        Fault::OutsideBuffer,
        Fault::SwapsFragments,
        Fault::DropsBytes,
        Fault::ReportsTwice,
        Fault::BindsNothing,
        Fault::HidesEnd,
        Fault::ReceiveHangs,
        Fault::ReceiveCrashes,
    ],
    one_mebibyte,
);

const fn check(
    name: &'static str,
    proves: &'static str,
    catches: &'static [Fault],
    run: fn(&Context<'_>) -> Outcome,
) -> Check {
    path_check(Group::Receive, name, proves, NEEDS, &[ONE_MEBIBYTE], catches, run)
}

fn one_mebibyte(context: &Context<'_>) -> Outcome {
    let setup = Setup::new(context)?;
    let mut session = context.peer()?;
    let bytes = 1 << 20;
    let mut connection = setup.connect(context, &mut session, sends(bytes))?;
    connection.drain(&setup.mapping, bytes)?;
    connection.finish()?;
    Ok(Finding::Pass)
}
