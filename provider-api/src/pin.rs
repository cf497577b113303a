//! A held attachment together with the evidence of where the pages went.

use std::fmt;
use std::ops::{Deref, DerefMut};

use crate::dma_buf::DmaBuf;
use crate::error::{Error, ErrorKind, Result};
use crate::importer::{Importer, PeerToPeer};
use crate::provider::Buffer;
use crate::residency::{Residency, ResidencyEvidence};

/// What a caller demands of a [`Pin`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Require {
    /// The memory may lie anywhere; the pin tells where.
    #[default]
    Anywhere,
    /// The memory must lie on the device while it is pinned. That it lies in system memory, or that
    /// nobody can tell, is an error.
    DeviceLocal,
}

/// A DMA-buf attached to an importer, with what was seen of its residency before and after.
///
/// An attachment that succeeds proves nothing: exporters move a buffer to system memory, without a word,
/// when an importer does not take peer-to-peer addresses. Dropping the pin detaches, then closes the
/// DMA-buf.
#[derive(Debug)]
#[must_use = "a pin that is dropped detaches at once"]
pub struct Pin<A> {
    // The order of the fields is the order of release.
    attachment: A,
    dma_buf: DmaBuf,
    importer: String,
    peer_to_peer: PeerToPeer,
    before: ResidencyEvidence,
    after: ResidencyEvidence,
}

impl<A> Pin<A> {
    /// Exports `buffer`, attaches `importer` to it, and looks where the pages are before and after.
    ///
    /// # Errors
    ///
    /// What export, attachment or the look at the residency return;
    /// [`ErrorKind::WrongResidency`], with everything detached again, if `require` is not met.
    pub fn new<I>(importer: &mut I, buffer: &dyn Buffer, require: Require) -> Result<Self>
    where
        I: Importer<Attachment = A> + ?Sized,
    {
        let dma_buf = buffer.export()?;
        let before = buffer.residency()?;
        let attachment = importer.attach(&dma_buf)?;
        let after = buffer.residency()?;
        let pin = Self {
            attachment,
            dma_buf,
            importer: importer.describe(),
            peer_to_peer: importer.peer_to_peer(),
            before,
            after,
        };
        match require {
            Require::DeviceLocal if pin.after.residency != Residency::DeviceLocal => {
                Err(pin.refuse_residency())
            }
            _ => Ok(pin),
        }
    }

    fn refuse_residency(self) -> Error {
        let path = match self.peer_to_peer {
            PeerToPeer::Never => "this importer attaches without peer-to-peer in today's kernels",
            PeerToPeer::WhereReachable => {
                "the importer takes peer-to-peer addresses, so the kernel found no path, or the exporter \
                 offers none"
            }
        };
        Error::new(ErrorKind::WrongResidency, "keep the buffer in device-local memory")
            .on(&self.importer)
            .because(format!(
                "it was {} before the attachment and is {} after it ({}); {path}",
                self.before, self.after, self.after.evidence
            ))
            .remedy("drop the requirement to receive into whatever memory the exporter chooses")
    }

    /// Gives up the evidence and keeps the attachment alone.
    #[must_use]
    pub fn into_attachment(self) -> A {
        self.attachment
    }

    /// The DMA-buf that is attached.
    pub fn dma_buf(&self) -> &DmaBuf {
        &self.dma_buf
    }

    /// The importer that holds it, as part of a sentence.
    pub fn importer(&self) -> &str {
        &self.importer
    }

    /// What was seen before the attachment.
    pub fn residency_before(&self) -> &ResidencyEvidence {
        &self.before
    }

    /// What was seen after the attachment.
    pub fn residency(&self) -> &ResidencyEvidence {
        &self.after
    }
}

/// A pin is used as the attachment that it holds.
impl<A> Deref for Pin<A> {
    type Target = A;

    fn deref(&self) -> &A {
        &self.attachment
    }
}

impl<A> DerefMut for Pin<A> {
    fn deref_mut(&mut self) -> &mut A {
        &mut self.attachment
    }
}

impl<A> fmt::Display for Pin<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.before.residency == self.after.residency && self.before.region == self.after.region {
            write!(f, "{} ({})", self.after, self.after.evidence)
        } else {
            write!(f, "{} (was {}): moved when {} attached", self.after, self.before, self.importer)
        }
    }
}
