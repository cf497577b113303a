//! Several connections, queues and buffers.

use devmem_provider::Request;

use super::{NEEDS_SEVERAL_QUEUES, check};
use crate::check::Check;
use crate::context::Context;
use crate::ensure;
use crate::faults::Fault;
use crate::nic_under_test::Family;
use crate::setup::{BUFFER_BYTES, Setup, options, pin, script, sends};
use crate::verdict::{Finding, Outcome, Stop};

pub(super) const CHECKS: &[Check] = &[
    check("ipv6", "A stream over IPv6 arrives.", &[Fault::DropsBytes, Fault::LinearInstead], ipv6),
    check(
        "one_after_the_other",
        "Sixteen connections, one after the other, are each received from the first byte on.",
        &[Fault::DropsBytes, Fault::HidesEnd],
        one_after_the_other,
    ),
    check(
        "at_the_same_time",
        "Eight connections at the same time are each received into the one buffer.",
        &[Fault::DropsBytes, Fault::LinearInstead],
        |context| at_the_same_time(context, 1),
    ),
    Check {
        needs: NEEDS_SEVERAL_QUEUES,
        ..check(
            "over_two_queues",
            "Eight connections at the same time, over two queues, are each received into the one buffer.",
            &[Fault::ForgetsQueues, Fault::DropsBytes],
            |context| at_the_same_time(context, 2),
        )
    },
    check(
        "another_buffer",
        "Queues that are bound to another buffer receive into that.",
        &[Fault::LeaksBinding, Fault::DropsBytes],
        another_buffer,
    ),
];

fn ipv6(context: &Context<'_>) -> Outcome {
    let (setup, mut session) = (Setup::new(context)?, context.peer()?);
    let listener = setup.listen(context, Family::V6)?;
    let bytes = 256 << 10;
    let script = script(listener.local_addr()?, sends(bytes));
    let mut connection = setup.accept(&listener, &mut session, script, options())?;
    let mut in_buffer = 0;
    while let Some(places) = connection.read(&setup.mapping)? {
        in_buffer += places.iter().map(|place| u64::from(place.length)).sum::<u64>();
        connection.incoming.release(&places)?;
    }
    ensure!(connection.position == bytes, "{} of {bytes} bytes arrived", connection.position);
    ensure!(in_buffer == bytes, "of {bytes} bytes {in_buffer} lie in the buffer");
    connection.finish()?;
    Ok(Finding::Pass)
}

fn one_after_the_other(context: &Context<'_>) -> Outcome {
    let (setup, mut session) = (Setup::new(context)?, context.peer()?);
    for number in 1..=16 {
        setup.transfer(context, &mut session, number * 1000)?;
    }
    Ok(Finding::Pass)
}

fn at_the_same_time(context: &Context<'_>, queues: u32) -> Outcome {
    let (setup, mut session) = (Setup::of(context, queues, 2 * BUFFER_BYTES)?, context.peer()?);
    let bytes = 256 << 10;
    let mut connections = Vec::new();
    for _ in 0..8 {
        connections.push(setup.connect_beside(context, &mut session, sends(bytes))?);
    }
    let mut in_buffer = 0;
    for connection in &mut connections {
        while let Some(places) = connection.read(&setup.mapping)? {
            in_buffer += places.iter().map(|place| u64::from(place.length)).sum::<u64>();
            connection.incoming.release(&places)?;
        }
        ensure!(connection.position == bytes, "{} of {bytes} bytes arrived", connection.position);
        connection.incoming.flush()?;
    }
    let all = bytes * connections.len() as u64;
    ensure!(in_buffer == all, "of {all} bytes {in_buffer} lie in the buffer");
    Ok(Finding::Pass)
}

fn another_buffer(context: &Context<'_>) -> Outcome {
    let (setup, mut session) = (Setup::new(context)?, context.peer()?);
    setup.transfer(context, &mut session, 64 << 10)?;
    let Setup { mapping, pin: first, nic, buffer, .. } = setup;
    drop((mapping, first));
    let another = context.provider().allocate(&Request::bytes(buffer.size()))?;
    let attached = pin(context, &nic, nic.queues(), &*another).map_err(|stop| match stop {
        Stop::Fail(reason) => Stop::Fail(format!("the queue cannot be bound again: {reason}")),
        skip => skip,
    })?;
    drop(attached);
    let setup = Setup::with(context, nic, another)?;
    setup.transfer(context, &mut session, 64 << 10)?;
    Ok(Finding::Pass)
}
