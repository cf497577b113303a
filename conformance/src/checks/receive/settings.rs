//! Receiving with other settings of the NIC.

use devmem_provider::Request;
use devmem_receive::nic::{Adjustment, Prepared};
use nix::sys::socket::{getsockopt, sockopt};

use super::check;
use crate::check::Check;
use crate::context::Context;
use crate::ensure;
use crate::faults::Fault;
use crate::setup::{BUFFER_BYTES, Connection, Setup, prepare, sends};
use crate::verdict::{Finding, Outcome, Skip, Stop};

/// What goes wrong with bytes, and with where they lie.
const OF_BYTES: &[Fault] = &[Fault::DropsBytes, Fault::LinearInstead];

pub(super) const CHECKS: &[Check] = &[
    check(
        "packets_joined_by_the_kernel",
        "A stream comes into the buffer with packets that the kernel joins (rx-gro), and with those that it does not.",
        OF_BYTES,
        |context| off_and_on(context, "rx-gro"),
    ),
    check(
        "packets_joined_by_the_nic",
        "A stream comes into the buffer with packets that the NIC joins (rx-gro-hw), and with those that it does not.",
        OF_BYTES,
        |context| off_and_on(context, "rx-gro-hw"),
    ),
    check(
        "ethernet_packets",
        "A stream in packets of 1500 bytes at most, which leave most of each page free, comes into the buffer.",
        OF_BYTES,
        |context| in_packets(context, 1500, 0),
    ),
    check(
        "jumbo_packets",
        "A stream in packets of 9000 bytes, which take several pages each, comes into the buffer.",
        OF_BYTES,
        |context| in_packets(context, 9000, 8000),
    ),
    check(
        "link_down_and_up",
        "The link goes down and up again in the middle of a stream; the queue keeps its buffer, and all arrives there.",
        OF_BYTES,
        link_down_and_up,
    ),
];

const BYTES: u64 = 256 << 10;

/// A NIC with a buffer and one changed setting.
fn adjusted(context: &Context<'_>, adjustment: Adjustment) -> Result<Setup, Stop> {
    let nic = prepare(context, 1, BUFFER_BYTES)?;
    adjust(&nic, adjustment)?;
    let size = BUFFER_BYTES.next_multiple_of(context.granularity()?.max(1));
    Setup::with(context, nic, context.provider().allocate(&Request::bytes(size))?)
}

/// Changes a setting. What the driver refuses says nothing of the receive path.
fn adjust(nic: &Prepared, adjustment: Adjustment) -> Result<(), Stop> {
    nic.adjust(adjustment).map_err(|error| Stop::skip(&error))
}

/// Reads to the end. All `bytes` bytes must lie in the buffer.
fn drain_in_buffer(setup: &Setup, connection: &mut Connection, bytes: u64) -> Result<(), Stop> {
    let begin = connection.position;
    let mut in_buffer = 0;
    while let Some(places) = connection.read(&setup.mapping)? {
        in_buffer += places.iter().map(|place| u64::from(place.length)).sum::<u64>();
        connection.incoming.release(&places)?;
    }
    connection.incoming.flush()?;
    let arrived = connection.position - begin;
    ensure!(arrived == bytes, "{arrived} of {bytes} bytes arrived");
    ensure!(in_buffer == bytes, "of {bytes} bytes {in_buffer} lie in the buffer");
    Ok(())
}

fn off_and_on(context: &Context<'_>, name: &str) -> Outcome {
    let features = context.nic()?.open()?.snapshot()?.features;
    if !features.get(name).is_some_and(|feature| feature.changeable) {
        return Err(Stop::Skip(Skip {
            reason: format!("{name} cannot be changed"),
            found_by: "the features of the NIC".to_owned(),
            remedy: None,
        }));
    }
    let mut session = context.peer()?;
    for on in [false, true] {
        let setup = adjusted(context, Adjustment::Feature { name: name.to_owned(), on })?;
        let mut connection = setup.connect(context, &mut session, sends(BYTES))?;
        let with = |stop| match stop {
            Stop::Fail(reason) => Stop::Fail(format!("{name} {}: {reason}", if on { "on" } else { "off" })),
            skip @ Stop::Skip(_) => skip,
        };
        drain_in_buffer(&setup, &mut connection, BYTES).map_err(with)?;
        connection.finish()?;
    }
    Ok(Finding::Pass)
}

/// Packets of `mtu` bytes at most. A peer with which segments cannot have `least_segment` bytes shows nothing.
fn in_packets(context: &Context<'_>, mtu: u32, least_segment: u32) -> Outcome {
    let (setup, mut session) = (adjusted(context, Adjustment::Mtu(mtu))?, context.peer()?);
    let mut connection = setup.connect(context, &mut session, sends(BYTES))?;
    let segment = getsockopt(&connection.socket, sockopt::TcpMaxSeg).map_err(std::io::Error::from)?;
    if segment < least_segment {
        return Err(Stop::Skip(Skip {
            reason: format!("segments have {segment} bytes at most"),
            found_by: "the maximum segment of a connection (TCP_MAXSEG)".to_owned(),
            remedy: Some(format!("give the peer's NIC an MTU of {mtu} bytes")),
        }));
    }
    ensure!(segment < mtu, "segments of {segment} bytes, and packets of {mtu}");
    drain_in_buffer(&setup, &mut connection, BYTES)?;
    connection.finish()?;
    Ok(Finding::Pass)
}

fn link_down_and_up(context: &Context<'_>) -> Outcome {
    let (setup, mut session) = (Setup::new(context)?, context.peer()?);
    let bytes = 2 * BUFFER_BYTES;
    let mut connection = setup.connect(context, &mut session, sends(bytes))?;
    let first = connection.read(&setup.mapping)?;
    let first = first.ok_or_else(|| Stop::fail("the stream ended before its end"))?;
    connection.incoming.release(&first)?;
    for up in [false, true] {
        adjust(&setup.nic, Adjustment::Link { up })?;
    }
    let rest = bytes - connection.position;
    drain_in_buffer(&setup, &mut connection, rest)?;
    connection.finish()?;
    Ok(Finding::Pass)
}
