//! Receiving into what another process has bound, without its privilege.

use std::os::fd::AsFd;

use devmem_provider::DmaBuf;
use devmem_provider::dma_buf::Access;
use devmem_receive::devmem::{RELEASE_RANGES, TokenRange};

use super::super::bind::in_a_user_namespace;
use super::super::receive::NEEDS_A_SOCKET;
use super::super::tokens::holding::no_tokens;
use super::check;
use crate::check::Check;
use crate::context::Context;
use crate::ensure;
use crate::faults::Fault;
use crate::isolation::{Link, Role};
use crate::nic_under_test::Family;
use crate::path::RawReceive;
use crate::setup::{PATIENCE, Setup, accepted, compared, places, script, sends};
use crate::verdict::{Finding, Outcome, Stop};

pub(super) const CHECKS: &[Check] = &[Check {
    needs: NEEDS_A_SOCKET,
    ..check(
        "received_without_privilege",
        "A process without any capability, to which buffer and connection are passed, receives what another has bound.",
        &[Fault::DropsBytes, Fault::MiscountsTokens],
        received_without_privilege,
    )
}];

/// What a companion does here.
pub(in crate::checks) const UNPRIVILEGED: (&str, Role) = ("unprivileged receiver", unprivileged);

const BYTES: u64 = 512 << 10;

fn received_without_privilege(context: &Context<'_>) -> Outcome {
    let (setup, mut session) = (Setup::new(context)?, context.peer()?);
    let companion = in_a_user_namespace(context, UNPRIVILEGED)?;
    let listener = setup.listen(context, Family::V4)?;
    let running = session.start(&script(listener.local_addr()?, sends(BYTES)))?;
    let socket = accepted(&listener)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    companion.link().send_descriptor(setup.pin.dma_buf().as_fd())?;
    companion.link().send_descriptor(socket.as_fd())?;
    companion.link().receive_outcome()?;
    drop((companion, socket));
    let told = running.finish(PATIENCE)?;
    ensure!(told.failure.is_none(), "the peer: {:?}", told.failure);
    Ok(Finding::Pass)
}

fn unprivileged(context: &Context<'_>, link: &Link) -> Result<(), Stop> {
    Ok(link.send_outcome(received(context, link))?)
}

/// Receives a connection to its end, and gives everything back.
fn received(context: &Context<'_>, link: &Link) -> Result<(), Stop> {
    let dma_buf = DmaBuf::from_fd(link.receive_descriptor()?)?;
    let mapping = dma_buf.map(Access::Read)?;
    let socket = link.receive_descriptor()?;
    let raw = context.path()?.raw(socket.as_fd()).ok_or_else(|| Stop::Skip(no_tokens()))?;
    let (mut position, mut in_buffer) = (0, 0);
    loop {
        let received = raw.receive(RawReceive::bytes(256 << 10)).map_err(Stop::fail)?;
        if received.bytes == 0 {
            break;
        }
        position = compared(&received.pieces, position, &mapping)?;
        let places = places(&received.pieces);
        in_buffer += places.iter().map(|place| u64::from(place.length)).sum::<u64>();
        let ranges: Vec<TokenRange> =
            places.iter().map(|place| TokenRange { start: place.fragment.token(), count: 1 }).collect();
        for ranges in ranges.chunks(RELEASE_RANGES) {
            let count = raw.release(ranges).map_err(Stop::fail)?;
            ensure!(count == ranges.len(), "the kernel took {count} of {} fragments", ranges.len());
        }
    }
    ensure!(position == BYTES, "{position} of {BYTES} bytes arrived");
    ensure!(in_buffer == BYTES, "of {BYTES} bytes {in_buffer} lie in the buffer");
    Ok(())
}
