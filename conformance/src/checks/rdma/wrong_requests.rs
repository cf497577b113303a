//! Requests that fail: with the reason, and without a trace.

use std::collections::BTreeSet;

use devmem_provider::base_page_size;
use devmem_receive::rdma::Registration;
use devmem_receive::rdma::verbs::{Completion, CompletionStatus, RemoteMemory};

use super::super::path_check;
use super::ONE_REGION;
use super::transfers::{MESSAGES, Setup, WRITES};
use crate::check::{Check, Group};
use crate::context::Context;
use crate::ensure;
use crate::faults::Fault;
use crate::verdict::{Finding, Outcome, Stop};

const WRITE_ARRIVES: &str = "rdma::write_arrives";
const MESSAGE_ARRIVES: &str = "rdma::message_arrives";

pub(super) const CHECKS: &[Check] = &[
    path_check(
        Group::Rdma,
        "wrong_requests",
        "What a peer wants with a wrong key, beyond the end or without access fails as such and changes nothing; a right \
         request works afterwards.",
        WRITES,
        &[ONE_REGION, WRITE_ARRIVES],
        &[Fault::SwallowsErrors, Fault::WrongRefusal, Fault::DoneInPart],
        wrong_requests,
    ),
    path_check(
        Group::Rdma,
        "ended_key",
        "The key of a region that was deregistered lets nobody at the buffer any more.",
        WRITES,
        &[ONE_REGION, WRITE_ARRIVES],
        &[Fault::LeaksBinding, Fault::SwallowsErrors],
        ended_key,
    ),
    path_check(
        Group::Rdma,
        "message_too_long",
        "A message that is longer than what was posted for it fails on both sides, and changes nothing outside of that.",
        MESSAGES,
        &[ONE_REGION, MESSAGE_ARRIVES],
        &[Fault::IgnoresLength, Fault::SwallowsErrors, Fault::WrongRefusal],
        message_too_long,
    ),
    path_check(
        Group::Rdma,
        "failed_queue",
        "What is posted to a queue pair that fails comes back as not done, each once, and others are none the worse.",
        MESSAGES,
        &[ONE_REGION, MESSAGE_ARRIVES],
        &[Fault::SwallowsErrors, Fault::WrongRefusal, Fault::ReportsTwice],
        failed_queue,
    ),
];

/// How many bytes the requests are about.
const BYTES: u64 = 64;

/// Where requests that are right write to.
const PLACE: u64 = 129;

/// Stops unless a request failed for one of these reasons.
fn failed(what: &str, completion: &Completion, expected: &[CompletionStatus]) -> Result<(), Stop> {
    let (status, vendor) = (completion.status, completion.vendor_error);
    ensure!(status != CompletionStatus::Success, "{what}: it succeeded");
    ensure!(expected.contains(&status), "{what}: it failed because {status} (the device says {vendor})");
    Ok(())
}

/// A peer wants to write and to read there, and is refused; then it writes to the region.
fn denied(setup: &mut Setup, what: &str, there: RemoteMemory) -> Result<(), Stop> {
    let bytes = vec![0x5a; BYTES as usize];
    let completion = setup.pairs.write(&bytes, there)?;
    failed(&format!("a write {what}"), &completion, &[CompletionStatus::RemoteAccess])?;
    setup.content.verify(&format!("a write {what}, which failed"))?;
    setup.go_on()?;
    if setup.transfers.capabilities().rdma_read {
        let (completion, _) = setup.pairs.read(there, BYTES as usize)?;
        failed(&format!("a read {what}"), &completion, &[CompletionStatus::RemoteAccess])?;
        setup.go_on()?;
    }
    Ok(())
}

/// A peer writes to the region, as it may.
fn still_works(setup: &mut Setup) -> Result<(), Stop> {
    let there = setup.region.remote().at(PLACE);
    setup.write(PLACE..PLACE + BYTES, there)
}

fn wrong_requests(context: &Context<'_>) -> Outcome {
    let mut setup = Setup::new(context)?;
    let closed =
        setup.transfers.register(setup.content.dma_buf(), Registration::whole(setup.content.dma_buf()))?;
    let (there, size) = (setup.region.remote(), setup.content.size());
    // Neither of the two that there are.
    let wrong_key =
        [1 << 7, 1 << 9].map(|bit| there.key ^ bit).into_iter().find(|&key| key != closed.remote().key);
    for (what, wrong) in [
        ("with a wrong key", RemoteMemory { key: wrong_key.unwrap_or(0), ..there }),
        ("over the end of the region", there.at(size - BYTES / 2)),
        ("behind the end of the region", there.at(size)),
        ("before the beginning of the region", there.at(0u64.wrapping_sub(base_page_size()))),
        ("to a region without remote access", closed.remote()),
    ] {
        denied(&mut setup, what, wrong)?;
        still_works(&mut setup)?;
    }
    Ok(Finding::Pass)
}

fn ended_key(context: &Context<'_>) -> Outcome {
    let mut setup = Setup::new(context)?;
    still_works(&mut setup)?;
    let ended = setup.region.remote();
    let whole =
        Registration::whole(setup.content.dma_buf()).access(super::transfers::everything(&*setup.transfers));
    // The buffer is registered a second time, so that its memory is still the device's to reach.
    let second = setup.transfers.register(setup.content.dma_buf(), whole)?;
    ensure!(second.remote().key != ended.key, "two regions have the key {:#x}", ended.key);
    // Dropping the first deregisters it.
    setup.region = second;
    denied(&mut setup, "with the key of a region that was deregistered", ended)?;
    still_works(&mut setup)?;
    Ok(Finding::Pass)
}

fn message_too_long(context: &Context<'_>) -> Outcome {
    use CompletionStatus::{LocalLength, RemoteInvalidRequest, RemoteOperation};
    let mut setup = Setup::new(context)?;
    let what = format!("a message of {} bytes for {BYTES}", BYTES + 1);
    setup.pairs.post(1, setup.region.part(PLACE, BYTES as u32)?)?;
    let bytes = setup.content.others(PLACE..PLACE + BYTES + 1);
    let sent = setup.pairs.send(&bytes, None)?;
    let received = setup.pairs.received()?;
    failed(&format!("{what}, at its receiver"), &received, &[LocalLength])?;
    failed(&format!("{what}, at its sender"), &sent, &[RemoteInvalidRequest, RemoteOperation])?;
    // What is in the part is nobody's promise: some devices write what fits.
    let part = PLACE..PLACE + BYTES;
    let found = setup.content.found(part)?;
    setup.content.expect(PLACE, &found);
    setup.content.verify(&what)?;
    setup.go_on()?;
    setup.message(PLACE..PLACE + BYTES, BYTES, None)?;
    Ok(Finding::Pass)
}

fn failed_queue(context: &Context<'_>) -> Outcome {
    let mut setup = Setup::new(context)?;
    let posted: BTreeSet<u64> = (1..=5).collect();
    for &id in &posted {
        setup.pairs.post(id, setup.region.part(id * BYTES, BYTES as u32)?)?;
    }
    setup.pairs.fail()?;
    let mut came_back = BTreeSet::new();
    for _ in &posted {
        let completion = setup.pairs.received()?;
        failed("a receive of a queue pair that failed", &completion, &[CompletionStatus::Flushed])?;
        ensure!(came_back.insert(completion.id), "receive {} came back twice", completion.id);
    }
    ensure!(came_back == posted, "{posted:?} were posted, {came_back:?} came back");
    let sent = setup.pairs.send(&setup.content.others(BYTES..2 * BYTES), None)?;
    ensure!(sent.status != CompletionStatus::Success, "a message to a queue pair that failed arrived");
    setup.content.verify("a queue pair that failed")?;
    setup.pairs = setup.transfers.connect(setup.content.size() as usize)?;
    setup.message(PLACE..PLACE + BYTES, BYTES, None)?;
    Ok(Finding::Pass)
}
