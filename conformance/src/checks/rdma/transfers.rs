//! What a peer writes, reads and sends.

use std::ops::Range;

use devmem_provider::{Capabilities, base_page_size};
use devmem_receive::rdma::verbs::{Completed, Completion, CompletionStatus, RemoteMemory};
use devmem_receive::rdma::{AccessFlags, Registration};

use super::super::path_check;
use super::ONE_REGION;
use super::content::Content;
use crate::check::{Check, Group};
use crate::context::Context;
use crate::ensure;
use crate::faults::Fault;
use crate::need::Need;
use crate::rdma_transfers::{Connected, FarRegion, Transfer, Transfers, ends_with_an_error};
use crate::verdict::{Finding, Outcome, Stop};

pub(super) const MESSAGES: &[Need] =
    &[Need::Rdma, Need::RdmaTransfers(Transfer::Message), Need::Capability(Capabilities::CPU_MAPPING)];
pub(super) const WRITES: &[Need] =
    &[Need::Rdma, Need::RdmaTransfers(Transfer::Write), Need::Capability(Capabilities::CPU_MAPPING)];
const READS: &[Need] =
    &[Need::Rdma, Need::RdmaTransfers(Transfer::Read), Need::Capability(Capabilities::CPU_MAPPING)];

pub(super) const CHECKS: &[Check] = &[
    path_check(
        Group::Rdma,
        "write_arrives",
        "What a peer writes lies where it was told to, all of it, and nothing else of the buffer changes.",
        WRITES,
        &[ONE_REGION],
        &[Fault::WrongOffset, Fault::DropsBytes, Fault::WrongLength],
        write_arrives,
    ),
    path_check(
        Group::Rdma,
        "read_returns",
        "A peer reads what the CPU has written, at any place and of any length.",
        READS,
        &[ONE_REGION],
        &[Fault::WrongOffset, Fault::DropsBytes, Fault::WrongLength],
        read_returns,
    ),
    path_check(
        Group::Rdma,
        "message_arrives",
        "A message lies at the beginning of the part that was posted for it, with its length and immediate data told.",
        MESSAGES,
        &[ONE_REGION],
        &[Fault::WrongOffset, Fault::DropsBytes, Fault::WrongLength, Fault::LosesMessages],
        message_arrives,
    ),
];

/// What may be done with a region by the device and its peers, as far as the device offers it.
pub(super) fn everything(transfers: &dyn Transfers) -> AccessFlags {
    let can = transfers.capabilities();
    let mut access = AccessFlags::LOCAL_WRITE;
    access.set(AccessFlags::REMOTE_WRITE, can.rdma_write);
    access.set(AccessFlags::REMOTE_READ, can.rdma_read);
    access
}

/// A device with a buffer that is registered whole, and queue pairs.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) pairs: Box<dyn Connected>,
    pub(super) region: Box<dyn FarRegion>,
    pub(super) transfers: Box<dyn Transfers>,
    pub(super) content: Content,
}

impl Setup {
    pub(super) fn new(context: &Context<'_>) -> Result<Self, Stop> {
        let content = Content::new(context)?;
        let transfers = context.rdma()?.transfers()?;
        let whole = Registration::whole(content.dma_buf()).access(everything(&*transfers));
        let region = transfers.register(content.dma_buf(), whole)?;
        let pairs = transfers.connect(content.size() as usize)?;
        Ok(Self { pairs, region, transfers, content })
    }

    /// After a request has failed: goes on with the same queue pairs, or with others if these ended with it.
    pub(super) fn go_on(&mut self) -> Result<(), Stop> {
        if ends_with_an_error(self.transfers.capabilities()) {
            self.pairs = self.transfers.connect(self.content.size() as usize)?;
        }
        Ok(())
    }

    /// A peer writes to a part of the buffer, which must succeed, and every byte of it is looked at.
    pub(super) fn write(&mut self, part: Range<u64>, there: RemoteMemory) -> Result<(), Stop> {
        let what = format!("a write of {} bytes to byte {}", part.end - part.start, part.start);
        let bytes = self.content.others(part.clone());
        succeeded(&what, &self.pairs.write(&bytes, there)?, Completed::Write)?;
        self.content.expect(part.start, &bytes);
        self.content.verify(&what)
    }

    /// A message of `length` bytes comes to `part`, which must succeed, and every byte of the buffer is looked at.
    pub(super) fn message(
        &mut self,
        part: Range<u64>,
        length: u64,
        immediate: Option<u32>,
    ) -> Result<(), Stop> {
        let room = part.end - part.start;
        let what = format!("a message of {length} bytes for {room} bytes from byte {} on", part.start);
        let id = part.start + 1;
        self.pairs.post(id, self.region.part(part.start, room as u32)?)?;
        let bytes = self.content.others(part.start..part.start + length);
        succeeded(&what, &self.pairs.send(&bytes, immediate)?, Completed::Send)?;
        let received = self.pairs.received()?;
        succeeded(&what, &received, Completed::Receive)?;
        ensure!(received.id == id, "{what}: receive {} was completed, not {id}", received.id);
        ensure!(u64::from(received.bytes) == length, "{what}: told are {} bytes", received.bytes);
        ensure!(received.immediate == immediate, "{what}: {immediate:?} came as {:?}", received.immediate);
        self.content.expect(part.start, &bytes);
        self.content.verify(&what)
    }
}

/// Stops unless a request or a receive has succeeded.
fn succeeded(what: &str, completion: &Completion, operation: Completed) -> Result<(), Stop> {
    let status = completion.status;
    ensure!(
        status == CompletionStatus::Success,
        "{what}: {status} (the device says {})",
        completion.vendor_error
    );
    ensure!(
        completion.operation == Some(operation),
        "{what}: it was completed as {:?}",
        completion.operation
    );
    Ok(())
}

/// Parts of a region of `size` bytes that are transferred, none longer than `longest`: one byte at an odd place, some over
/// the bound of a page, several pages, the last byte, all.
fn parts(size: u64, longest: u32) -> Vec<Range<u64>> {
    let page = base_page_size();
    let parts = [13..14, page - 3..page + 4, 5..3 * page + 6, size - 1..size, 0..size];
    let shortened = parts.map(|part| part.start..part.end.min(part.start + u64::from(longest)));
    shortened.into_iter().filter(|part| part.end <= size).collect()
}

/// The ways to register a buffer of `size` bytes: all of it, with offsets as addresses, and, of one that has more pages, all
/// but the first and the last, at another address.
fn registrations(size: u64) -> Vec<Registration> {
    let page = base_page_size();
    let within = size.checked_sub(2 * page).filter(|length| *length > 0);
    let within = within.map(|length| Registration::of(page, length).at(1 << 40));
    std::iter::once(Registration::of(0, size)).chain(within).collect()
}

fn write_arrives(context: &Context<'_>) -> Outcome {
    let mut setup = Setup::new(context)?;
    let (access, longest) =
        (everything(&*setup.transfers), setup.transfers.capabilities().maximum_rdma_bytes);
    for registration in registrations(setup.content.size()) {
        let (offset, length) = (registration.offset(), registration.length());
        setup.region = setup.transfers.register(setup.content.dma_buf(), registration.access(access))?;
        let there = setup.region.remote();
        for part in parts(length, longest) {
            setup.write(offset + part.start..offset + part.end, there.at(part.start))?;
        }
    }
    Ok(Finding::Pass)
}

fn read_returns(context: &Context<'_>) -> Outcome {
    let mut setup = Setup::new(context)?;
    let (access, longest) =
        (everything(&*setup.transfers), setup.transfers.capabilities().maximum_rdma_bytes);
    // Each time the CPU writes something else, to a buffer that is registered.
    for (position, registration) in (1..).zip(registrations(setup.content.size())) {
        let (offset, length) = (registration.offset(), registration.length());
        setup.region = setup.transfers.register(setup.content.dma_buf(), registration.access(access))?;
        setup.content.fill(position * 1_000_003)?;
        let there = setup.region.remote();
        for part in parts(length, longest) {
            let (start, bytes) = (offset + part.start, part.end - part.start);
            let what = format!("a read of {bytes} bytes from byte {start} on");
            let (completion, found) = setup.pairs.read(there.at(part.start), bytes as usize)?;
            let status = completion.status;
            // Older libraries say another operation.
            ensure!(status == CompletionStatus::Success, "{what}: {status}");
            let expected = setup.content.expected(start..start + bytes);
            ensure!(found.len() == expected.len(), "{what}: {} bytes came", found.len());
            let wrong = found.iter().zip(&expected).position(|(found, expected)| found != expected);
            ensure!(wrong.is_none(), "{what}: byte {} of it is another", wrong.unwrap_or_default());
        }
        setup.content.verify("reads")?;
    }
    Ok(Finding::Pass)
}

fn message_arrives(context: &Context<'_>) -> Outcome {
    let mut setup = Setup::new(context)?;
    let (size, page) = (setup.content.size(), base_page_size());
    let longest = u64::from(setup.transfers.capabilities().maximum_message_bytes);
    for (part, length, immediate) in [
        (13..14, 1, None),
        (page - 3..page + 4, 7, Some(0)),
        (5..page, 1000, None),
        (page + 1..3 * page, 5000, Some(0x0102_0304)),
        (size - 100..size, 100, Some(u32::MAX)),
        (0..size, size, None),
    ] {
        if part.end <= size {
            setup.message(part, length.min(longest), immediate)?;
        }
    }
    Ok(Finding::Pass)
}
