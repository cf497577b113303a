//! Copies and comparisons that a device makes, so that the CPU need not touch the bytes.
//!
//! What a NIC receives lies scattered over a buffer, in pieces of a page or less. A [`Gather`] makes them
//! contiguous in another buffer. The bytes move on the device, in batches, while the caller goes on receiving:
//!
//! ```text
//! stream.next() ─fragments→ gather.submit() ─Ticket→ … gather.completed() ≥ ticket → stream.release(fragments)
//! ```
//!
//! A fragment must not be given back to the NIC before the copy has read it: the NIC would overwrite it. So keep
//! fragments beside the [`Ticket`] of their batch, and release them when [`Gather::completed`] has reached it.

use std::fmt;
use std::time::Duration;

use crate::dma_buf::{DmaBuf, SyncFile};
use crate::error::{Error, ErrorKind, Result};
use crate::extent::Extent;

/// Who moves and reads the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Worker {
    /// A device, through its driver; this process only tells it what to do. A device that the CPU executes counts as
    /// what it stands for: its [`DeviceKind`](crate::DeviceKind) is `Software`.
    Device,
    /// This process, on the CPU.
    Cpu,
}

impl fmt::Display for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Device => "device",
            Self::Cpu => "CPU",
        })
    }
}

/// What becomes of the fences of the DMA-bufs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Fences {
    /// None is looked at or added: the caller knows that nobody else works on the buffers, or orders the work
    /// with [`Gather::submit_after`] and [`Gather::sync_file`]. A NIC adds no fence: what it has written is known
    /// from its completion alone.
    #[default]
    Explicit,
    /// Every batch waits for the fences of others (writers of the source; readers and writers of the destination),
    /// and adds its own to both buffers, so that other devices' drivers wait for it. Costs some system calls a
    /// batch, and needs a kernel with sync_files. A driver that has no fences of the kernel (one that executes on the
    /// CPU) makes one only of work that is over, so that [`Gather::submit`] returns when the batch is completed.
    Reservation,
}

/// A batch of a [`Gather`]. Later batches have greater tickets; tickets of different gathers mean nothing to each
/// other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ticket(u64);

impl Ticket {
    /// The ticket before the first batch: always completed.
    pub const NONE: Self = Self(0);

    /// The `number`-th batch, from 1. For those who implement [`Gather`].
    #[must_use]
    #[inline]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Which batch it is, from 1; 0 for [`NONE`](Self::NONE).
    #[must_use]
    #[inline]
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// A SHA-256 (FIPS 180-4).
pub type Sha256 = [u8; 32];

/// What a device can do with the bytes of DMA-bufs: its own buffers and those of other exporters, which it imports.
///
/// # For those who implement it
///
/// The conformance suite checks that
///
/// - bytes outside of the destination range stay as they are, whatever the alignment of offsets and lengths;
/// - ranges outside of a buffer, and sources that overlap their destination, are refused with
///   [`ErrorKind::InvalidInput`] before anything is copied ([`check_gather`] does it);
/// - a DMA-buf that the device does not accept is refused with the reason, and no descriptor is kept;
/// - completed means that the bytes are there for every other user of the destination, the CPU included, and that
///   the source may be overwritten.
pub trait DeviceCopy: fmt::Debug + Send + Sync {
    /// Who moves and reads the bytes.
    fn worker(&self) -> Worker;

    /// Makes ready to gather from one buffer into another, or within one.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] if the device cannot import one of them, or if the kernel has no
    /// sync_files for [`Fences::Reservation`].
    fn gather(&self, source: &DmaBuf, destination: &DmaBuf, fences: Fences) -> Result<Box<dyn Gather>>;

    /// Computes the SHA-256 of each piece of a buffer, and waits for the result. Pieces are hashed side by side:
    /// many small ones are faster than a large one.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if a piece is not inside the buffer, [`ErrorKind::Gone`] if the device is lost.
    fn sha256(&self, buffer: &DmaBuf, pieces: &[Extent]) -> Result<Vec<Sha256>>;

    /// Compares a piece of one buffer with as many bytes of another from `right_offset` on, and waits for the
    /// result: where the first difference is, counted from the beginning of the pieces; `None` if they are equal.
    ///
    /// # Errors
    ///
    /// As [`sha256`](Self::sha256).
    fn first_difference(
        &self,
        left: &DmaBuf,
        piece: Extent,
        right: &DmaBuf,
        right_offset: u64,
    ) -> Result<Option<u64>>;
}

/// Gathers fragments of one buffer into contiguous ranges of another.
///
/// Belongs to one thread at a time. Dropping it waits for what was submitted, unless the device is lost. After the
/// first batches of a size nothing is allocated on the heap, and nothing of the device.
pub trait Gather: fmt::Debug + Send {
    /// Copies `fragments`, one behind the other, to the destination from `offset` on, and returns before it is done.
    /// Fragments that follow each other in the source too cost no more than one. While the device is busy, a batch may be
    /// held back and handed to it with later ones: ask for [`completed`](Self::completed) now and then, or
    /// [`wait`](Self::wait).
    ///
    /// Batches are executed in the order of their submission where they touch the same bytes. No fragment is an
    /// empty batch, which completes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`], with nothing copied, if a fragment or the destination is not inside its buffer,
    /// or if they overlap within one buffer; [`ErrorKind::Gone`] if the device is lost.
    fn submit(&mut self, fragments: &[Extent], offset: u64) -> Result<Ticket> {
        self.submit_after(None, fragments, offset)
    }

    /// As [`submit`](Self::submit), but begins when `fence` has signalled. What is submitted behind it, also by other
    /// gathers of the device, may wait as long.
    ///
    /// # Errors
    ///
    /// As [`submit`](Self::submit); [`ErrorKind::Unsupported`] if the device cannot wait for a sync_file.
    fn submit_after(&mut self, fence: Option<&SyncFile>, fragments: &[Extent], offset: u64)
    -> Result<Ticket>;

    /// The last batch that is completed with all before it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Gone`] if the device is lost: what was not completed then never will be.
    fn completed(&mut self) -> Result<Ticket>;

    /// Waits until a batch and all before it are completed, at most `limit`. Returns whether they are.
    ///
    /// # Errors
    ///
    /// As [`completed`](Self::completed); [`ErrorKind::InvalidInput`] for a ticket that was never handed out.
    fn wait(&mut self, ticket: Ticket, limit: Duration) -> Result<bool>;

    /// A fence that signals when a batch and all before it are completed; perhaps only when all are that are submitted
    /// by now. To make it a driver may wait until it has signalled (see [`Fences::Reservation`]).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] if the device or the kernel has no sync_files; else as [`wait`](Self::wait).
    fn sync_file(&mut self, ticket: Ticket) -> Result<SyncFile>;
}

/// Judges a batch before anything is copied; returns how many bytes it has.
///
/// `same_buffer` tells that source and destination are one buffer, where fragments must not overlap the range that
/// they are copied to: the device may copy them in any order.
///
/// # Errors
///
/// [`ErrorKind::InvalidInput`], naming the fragment.
pub fn check_gather(
    fragments: &[Extent],
    source_bytes: u64,
    offset: u64,
    destination_bytes: u64,
    same_buffer: bool,
) -> Result<u64> {
    let refused = |reason: String| {
        Error::new(ErrorKind::InvalidInput, format!("gather {} fragments", fragments.len())).because(reason)
    };
    let mut bytes: u64 = 0;
    for (index, fragment) in fragments.iter().enumerate() {
        if fragment.length == 0 || !fragment.is_within(source_bytes) {
            return Err(refused(format!(
                "fragment {index}, {fragment}, is empty or not inside the source of {source_bytes} bytes"
            )));
        }
        // Each length is at most the source's size, so that only an absurd list overflows.
        bytes = bytes
            .checked_add(fragment.length)
            .ok_or_else(|| refused("their lengths add up to more than any buffer has".to_owned()))?;
    }
    let target = Extent::new(offset, bytes);
    if !target.is_within(destination_bytes) {
        return Err(refused(format!("{target} are not inside the destination of {destination_bytes} bytes"))
            .remedy("gather into a larger buffer"));
    }
    if same_buffer && let Some(fragment) = fragments.iter().find(|fragment| fragment.overlaps(target)) {
        return Err(refused(format!("{fragment} overlap the {target} that they are copied to"))
            .remedy("gather into another buffer"));
    }
    Ok(bytes)
}

/// Judges a ticket of a gather to which so many `batches` were submitted.
///
/// # Errors
///
/// [`ErrorKind::InvalidInput`] if there is no such batch.
pub fn check_ticket(ticket: Ticket, batches: u64) -> Result<()> {
    if ticket.number() <= batches {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidInput, format!("wait for batch {}", ticket.number()))
        .because(format!("only {batches} were submitted to this gather")))
}

/// Judges a piece of a buffer before it is looked at.
///
/// # Errors
///
/// [`ErrorKind::InvalidInput`] if it is not inside the buffer.
pub fn check_piece(piece: Extent, buffer: &DmaBuf) -> Result<()> {
    if piece.is_within(buffer.size()) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidInput, format!("look at {piece}"))
        .on(buffer)
        .because("they are not inside the buffer"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(fragments: &[(u64, u64)], offset: u64, same_buffer: bool) -> Result<u64, String> {
        let fragments: Vec<Extent> =
            fragments.iter().map(|&(offset, length)| Extent::new(offset, length)).collect();
        check_gather(&fragments, 8192, offset, 4096, same_buffer).map_err(|error| error.to_string())
    }

    #[test]
    fn what_fits_is_counted() {
        assert_eq!(check(&[(0, 1000), (8000, 192), (0, 1000)], 1904, false), Ok(2192));
        assert_eq!(check(&[], 4096, true), Ok(0));
    }

    #[test]
    fn the_fragment_that_is_wrong_is_named() {
        for bad in [(8192, 1), (8191, 2), (0, 0), (u64::MAX, 2)] {
            let error = check(&[(0, 1), bad], 0, false).unwrap_err();
            assert!(error.contains("fragment 1"), "{error}");
        }
    }

    #[test]
    fn the_destination_is_not_overrun() {
        assert!(check(&[(0, 4096)], 0, false).is_ok());
        assert!(check(&[(0, 4096)], 1, false).is_err());
        assert!(check(&[(0, 1)], u64::MAX, false).is_err());
        assert!(check(&[(0, 2049); 2], 0, false).is_err());
    }

    #[test]
    fn within_one_buffer_nothing_overlaps() {
        assert!(check(&[(4096, 100), (4196, 100)], 0, true).is_ok());
        let error = check(&[(4096, 100), (150, 100)], 0, true).unwrap_err();
        assert!(error.contains("overlap"), "{error}");
        // What two buffers have at the same offsets is different memory.
        assert!(check(&[(150, 100), (0, 100)], 0, false).is_ok());
    }
}
