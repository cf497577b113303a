//! An RDMA device with one fault.

use std::process::Child;
use std::sync::{Arc, Mutex, PoisonError};

use devmem_provider::{DmaBuf, Error, ErrorKind, PciAddress, Result};
use devmem_receive::rdma::{AccessFlags, Events, Registration};

use super::Fault;
use super::path::heir;
use super::rdma_transfers::FaultyTransfers;
use super::sys::call_after_fork;
use crate::rdma_device::{RdmaDevice, Region, Regions};
use crate::rdma_transfers::Transfers;

/// Another RDMA device, with one fault put in.
#[derive(Debug)]
pub struct FaultyRdmaDevice {
    inner: Arc<dyn RdmaDevice>,
    fault: Fault,
}

impl FaultyRdmaDevice {
    /// `inner` with `fault`.
    #[must_use]
    pub fn new(inner: Arc<dyn RdmaDevice>, fault: Fault) -> Self {
        Self { inner, fault }
    }
}

impl RdmaDevice for FaultyRdmaDevice {
    fn open(&self) -> Result<Box<dyn Regions>> {
        Ok(Box::new(FaultyRegions { inner: self.inner.open()?, fault: self.fault, made: Mutex::default() }))
    }

    fn transfers(&self) -> Result<Box<dyn Transfers>> {
        Ok(Box::new(FaultyTransfers::new(self.inner.transfers()?, self.fault)))
    }

    fn name(&self) -> &str {
        self.inner.name()
    }

    fn found_again(&self) -> Result<Arc<dyn RdmaDevice>> {
        Ok(Arc::new(Self::new(self.inner.found_again()?, self.fault)))
    }
}

/// A region, as long as it is registered; shared with the domain that made it.
type Held = Arc<Mutex<Option<Box<dyn Region>>>>;

#[derive(Debug)]
struct FaultyRegions {
    inner: Box<dyn Regions>,
    fault: Fault,
    /// The regions that end with the domain.
    made: Mutex<Vec<Held>>,
}

/// The regions that end when this process forks.
static UNTIL_A_FORK: Mutex<Vec<Held>> = Mutex::new(Vec::new());

/// Ends them.
extern "C" fn forked() {
    let held = std::mem::take(&mut *UNTIL_A_FORK.lock().unwrap_or_else(PoisonError::into_inner));
    held.iter().for_each(|held| drop(take(held)));
}

fn take(held: &Held) -> Option<Box<dyn Region>> {
    held.lock().unwrap_or_else(PoisonError::into_inner).take()
}

impl Regions for FaultyRegions {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn device(&self) -> Option<PciAddress> {
        self.inner.device()
    }

    fn is_refusal_of_exporter(&self, error: &Error) -> bool {
        self.inner.is_refusal_of_exporter(error)
    }

    fn probe(&self, access: AccessFlags) -> Result<()> {
        self.inner.probe(access)
    }

    fn register(&self, dma_buf: &DmaBuf, registration: Registration) -> Result<Box<dyn Region>> {
        if self.fault == Fault::BindsNothing {
            return Ok(Box::new(Nothing));
        }
        let region = match self.inner.register(dma_buf, registration) {
            Ok(region) => region,
            Err(_) if self.fault == Fault::BindsAnything => return Ok(Box::new(Nothing)),
            Err(_) if self.fault == Fault::WrongRefusal => {
                return Err(Error::new(ErrorKind::Io, "register a DMA-buf"));
            }
            Err(error) => {
                if self.fault == Fault::KeepsRefused {
                    std::mem::forget(dma_buf.try_clone()?);
                }
                return Err(error);
            }
        };
        if self.fault == Fault::RefusesBind {
            return Err(Error::new(ErrorKind::Io, "register a DMA-buf").because("it does not like to"));
        }
        let heir = (self.fault == Fault::Inherited).then(|| heir(&["/dev/infiniband"])).transpose()?;
        let keys = (region.local_key(), region.remote_key());
        let held = Arc::new(Mutex::new(Some(region)));
        if self.fault == Fault::EndsWithDomain {
            self.made.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&held));
        }
        if self.fault == Fault::EndsWithFork {
            let mut ends = UNTIL_A_FORK.lock().unwrap_or_else(PoisonError::into_inner);
            ends.push(Arc::clone(&held));
            call_after_fork(forked).map_err(|error| Error::from_io(error, "have a function called"))?;
        }
        Ok(Box::new(FaultyRegion { held, keys, fault: self.fault, _heir: heir }))
    }

    fn events(&self) -> Result<Events> {
        self.inner.events()
    }
}

impl Drop for FaultyRegions {
    fn drop(&mut self) {
        let made = self.made.get_mut().unwrap_or_else(PoisonError::into_inner);
        made.iter().for_each(|held| drop(take(held)));
    }
}

/// What pretends to be registered.
#[derive(Debug)]
struct Nothing;

impl Region for Nothing {
    fn local_key(&self) -> u32 {
        0
    }

    fn remote_key(&self) -> u32 {
        0
    }

    fn deregister(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
struct FaultyRegion {
    held: Held,
    keys: (u32, u32),
    fault: Fault,
    /// Ends with the processes of the check.
    _heir: Option<Child>,
}

impl FaultyRegion {
    fn end(&self) -> Result<()> {
        match take(&self.held) {
            Some(region) if self.fault == Fault::LeaksBinding => {
                std::mem::forget(region);
                Ok(())
            }
            Some(region) => region.deregister(),
            None => Ok(()),
        }
    }
}

impl Region for FaultyRegion {
    fn local_key(&self) -> u32 {
        if self.fault == Fault::SameKeys { 1 } else { self.keys.0 }
    }

    fn remote_key(&self) -> u32 {
        if self.fault == Fault::SameKeys { 1 } else { self.keys.1 }
    }

    fn deregister(self: Box<Self>) -> Result<()> {
        self.end()
    }
}

impl Drop for FaultyRegion {
    fn drop(&mut self) {
        let _ = self.end();
    }
}
