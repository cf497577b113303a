//! Payload of every size.

use super::check;
use crate::check::Check;
use crate::context::Context;
use crate::ensure;
use crate::faults::Fault;
use crate::nic_under_test::Family;
use crate::peer::{Script, Step};
use crate::setup::{Setup, options, script};
use crate::verdict::{Finding, Outcome, Stop};

/// What goes wrong with bytes.
const OF_BYTES: &[Fault] = &[Fault::DropsBytes, Fault::WrongLength];

pub(super) const CHECKS: &[Check] = &[
    check("single_bytes", "Bytes that are sent one by one arrive.", OF_BYTES, |context| {
        each_leaves_at_once(context, 100, 1)
    }),
    check(
        "odd_writes",
        "Writes of 7 bytes, which fill no packet, no page and no word, arrive.",
        OF_BYTES,
        |context| each_leaves_at_once(context, 7 * 100, 7),
    ),
    check("one_kibibyte_writes", "Writes of 1024 bytes arrive.", OF_BYTES, |context| {
        each_leaves_at_once(context, 1024 * 64, 1024)
    }),
    check("page_writes", "Writes of exactly a page arrive.", OF_BYTES, |context| {
        each_leaves_at_once(context, 4096 * 32, 4096)
    }),
    check("more_than_a_page", "Writes of a byte more than a page arrive.", OF_BYTES, |context| {
        each_leaves_at_once(context, 4097 * 32, 4097)
    }),
    check(
        "large_writes",
        "Writes of 64 KiB, which the sender's NIC cuts into packets, arrive.",
        OF_BYTES,
        |context| each_leaves_at_once(context, 8 * (64 << 10), 64 << 10),
    ),
    check(
        "small_segments",
        "A stream in segments of 536 bytes, the smallest that any host takes, arrives.",
        OF_BYTES,
        |context| {
            transfer(context, 128 << 10, |to| Script {
                maximum_segment: Some(536),
                ..script(to, writes(128 << 10, 64 << 10))
            })
        },
    ),
    check(
        "payload_is_in_the_buffer",
        "Payload of 1, 2, 4 … 8192 bytes, each alone on its way, lies in the buffer and nowhere else; degraded if \
         some of it comes to host memory, failed if most does.",
        &[Fault::LinearInstead],
        payload_is_in_the_buffer,
    ),
];

fn writes(bytes: u64, chunk: u32) -> Vec<Step> {
    vec![Step::Write { bytes, chunk }, Step::FinishWriting, Step::AwaitEnd]
}

/// Every write is a packet of its own, if it fits into one.
fn each_leaves_at_once(context: &Context<'_>, bytes: u64, chunk: u32) -> Outcome {
    transfer(context, bytes, |to| Script { no_delay: true, ..script(to, writes(bytes, chunk)) })
}

fn transfer(
    context: &Context<'_>,
    bytes: u64,
    script: impl FnOnce(std::net::SocketAddr) -> Script,
) -> Outcome {
    let setup = Setup::new(context)?;
    let mut session = context.peer()?;
    let listener = setup.listen(context, Family::V4)?;
    let script = script(listener.local_addr()?);
    let mut connection = setup.accept(&listener, &mut session, script, options())?;
    connection.drain(&setup.mapping, bytes)?;
    connection.finish()?;
    Ok(Finding::Pass)
}

fn payload_is_in_the_buffer(context: &Context<'_>) -> Outcome {
    let sizes: Vec<u64> = (0..=13).map(|power| 1 << power).collect();
    let setup = Setup::new(context)?;
    let mut session = context.peer()?;
    let alone = |&bytes: &u64| [Step::Write { bytes, chunk: 1 << 14 }, Step::Barrier];
    let mut steps: Vec<Step> = sizes.iter().flat_map(alone).collect();
    steps.push(Step::FinishWriting);
    let mut connection = setup.connect(context, &mut session, steps)?;
    let (mut in_buffer, mut elsewhere) = (0, Vec::new());
    for bytes in sizes {
        let (begin, before) = (connection.position, in_buffer);
        while connection.position < begin + bytes {
            let places = connection.read(&setup.mapping)?;
            let places = places.ok_or_else(|| Stop::fail("the stream ended before its end"))?;
            in_buffer += places.iter().map(|place| u64::from(place.length)).sum::<u64>();
            connection.incoming.release(&places)?;
        }
        let linear = bytes - (in_buffer - before).min(bytes);
        if linear > 0 {
            elsewhere.push(format!("{linear} of {bytes}"));
        }
        connection.proceed()?;
    }
    ensure!(connection.read(&setup.mapping)?.is_none(), "more arrived than was sent");
    if elsewhere.is_empty() {
        return Ok(Finding::Pass);
    }
    let found = format!("these bytes came to host memory: {}", elsewhere.join(", "));
    ensure!(2 * in_buffer >= connection.position, "{found}");
    Ok(Finding::Degraded(found))
}
