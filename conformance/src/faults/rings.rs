//! Rings of io_uring with one fault.

use std::time::Duration;

use devmem_provider::{DmaBuf, Result};
use devmem_receive::nic::Nic;
use devmem_receive::zcrx::{Event, RawRegistration, RefillEntry};
use nix::errno::Errno;

use super::Fault;
use super::path::FaultyAttached;
use crate::path::{Attached, Registered, Rings};

/// Rings with one fault.
#[derive(Debug)]
pub(super) struct FaultyRings<'path> {
    inner: Box<dyn Rings + 'path>,
    fault: Fault,
}

impl<'path> FaultyRings<'path> {
    pub(super) fn new(inner: Box<dyn Rings + 'path>, fault: Fault) -> Self {
        Self { inner, fault }
    }
}

impl Rings for FaultyRings<'_> {
    fn attempt(&self, registration: &RawRegistration) -> Result<std::result::Result<(), Errno>> {
        let answer = self.inner.attempt(registration)?;
        Ok(match self.fault {
            Fault::BindsAnything => Ok(()),
            Fault::WrongRefusal => answer.map_err(|_| Errno::EIO),
            _ => answer,
        })
    }

    fn attach_with_refill_ring(
        &self,
        nic: &Nic,
        queue: u32,
        dma_buf: &DmaBuf,
        entries: u32,
    ) -> Result<Box<dyn Attached>> {
        let inner = self.inner.attach_with_refill_ring(nic, queue, dma_buf, entries)?;
        Ok(Box::new(FaultyAttached::new(inner, self.fault)))
    }
}

/// What the kernel tells of a queue, with one fault.
#[derive(Debug)]
pub(super) struct FaultyRegistered<'attached> {
    inner: Box<dyn Registered + 'attached>,
    fault: Fault,
}

impl<'attached> FaultyRegistered<'attached> {
    pub(super) fn new(inner: Box<dyn Registered + 'attached>, fault: Fault) -> Self {
        Self { inner, fault }
    }
}

impl Registered for FaultyRegistered<'_> {
    fn next_event(&self, limit: Duration) -> Result<Option<Event>> {
        let event = self.inner.next_event(limit)?;
        Ok(event.filter(|_| self.fault != Fault::LosesMessages))
    }

    fn copied_bytes(&self) -> Option<u64> {
        let bytes = self.inner.copied_bytes()?;
        Some(if self.fault == Fault::TellsCopies { bytes + 1 } else { bytes })
    }

    fn put_refill_entry(&self, entry: RefillEntry) {
        self.inner.put_refill_entry(entry);
    }

    fn given_back(&self) -> u64 {
        self.inner.given_back()
    }
}
