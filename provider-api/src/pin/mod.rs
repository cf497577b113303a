//! A held attachment together with the evidence of where the pages went.

mod held;
mod refusal;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::{Deref, DerefMut};

use crate::dma_buf::{Attached, DmaBuf};
use crate::error::Result;
use crate::importer::Importer;
use crate::pci::PciAddress;
use crate::provider::Buffer;
use crate::residency::{Residency, ResidencyEvidence};
use crate::topology::Machine;

pub use held::{Change, PinnedBuffer};
use refusal::Parties;

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
    exporter: Option<String>,
    importer: String,
    device: Option<PciAddress>,
    before: ResidencyEvidence,
    after: ResidencyEvidence,
}

impl<A> Pin<A> {
    /// Exports `buffer`, attaches `importer` to it, and looks where the pages are before and after.
    ///
    /// # Errors
    ///
    /// What export, attachment or the look at the residency return. If device-local memory is required, a
    /// refusal by the exporter says what the requirement has to do with it.
    ///
    /// [`ErrorKind::WrongResidency`](crate::ErrorKind::WrongResidency), with everything detached again, if
    /// `require` is not met: the error names exporter and importer, where the memory went and why. An
    /// importer that never takes peer-to-peer addresses is tried all the same, for some exporters keep memory
    /// on the device even so.
    pub fn new<I>(importer: &mut I, buffer: &dyn Buffer, require: Require) -> Result<Self>
    where
        I: Importer<Attachment = A> + ?Sized,
    {
        Self::on(&Machine::running(), importer, buffer, require)
    }

    fn on<I>(machine: &Machine, importer: &mut I, buffer: &dyn Buffer, require: Require) -> Result<Self>
    where
        I: Importer<Attachment = A> + ?Sized,
    {
        let parties = Parties::of(buffer, importer);
        let dma_buf = buffer.export()?;
        let before = buffer.residency()?;
        let attachment = importer.attach(&dma_buf).map_err(|error| match require {
            Require::DeviceLocal if importer.is_refusal_of_exporter(&error) => {
                parties.explain_refusal(error, &before, machine)
            }
            _ => error,
        })?;
        let after = buffer.residency()?;
        if require == Require::DeviceLocal && after.residency != Residency::DeviceLocal {
            drop(attachment);
            return Err(parties.wrong_residency(&before, &after, machine, &dma_buf.attached()));
        }
        let exporter = buffer.exporter().map(ToString::to_string);
        let Parties { importer, device, .. } = parties;
        Ok(Self { attachment, dma_buf, exporter, importer, device, before, after })
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

    /// The exporter of the DMA-buf, as part of a sentence, where its buffer tells.
    pub fn exporter(&self) -> Option<&str> {
        self.exporter.as_deref()
    }

    /// The importer that holds it, as part of a sentence.
    pub fn importer(&self) -> &str {
        &self.importer
    }

    /// Who else is attached to the buffer now, where that can be seen. One of them may move it for all.
    pub fn others(&self) -> Attached {
        let attached = self.dma_buf.attached();
        match self.device {
            Some(device) => attached.without(&device.to_string()),
            None => attached,
        }
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
            return write!(f, "{} ({})", self.after, self.after.evidence);
        }
        write!(f, "{} (was {}): ", self.after, self.before)?;
        match &self.exporter {
            Some(exporter) => write!(f, "{exporter} moved it when {} attached", self.importer),
            None => write!(f, "moved when {} attached", self.importer),
        }
    }
}
