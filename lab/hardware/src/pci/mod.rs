//! What all emulated PCI functions have in common: configuration space, BARs and MSI-X.

mod configuration;
mod vectors;

pub(crate) use configuration::{ConfigurationSpace, Identity, MsixCapability};
pub(crate) use vectors::Vectors;

use std::sync::{Arc, Mutex};

use crate::bus::AddressSpace;
use crate::lock;

/// BARs of a function.
pub(crate) const BAR_COUNT: usize = 6;

/// What a device model has to say behind the BARs of its function.
///
/// All methods are called from the thread that serves the function, and must not wait: the guest's
/// processor may stand still meanwhile.
pub(crate) trait Device: Send + Sync {
    /// The driver reads from a BAR; `into` is within it.
    fn read(&self, bar: usize, offset: u64, into: &mut [u8]);

    /// The driver writes to a BAR; `from` is within it.
    fn write(&self, bar: usize, offset: u64, from: &[u8]);

    /// MSI-X vectors became usable: what was signalled in vain may be signalled again.
    fn vectors_changed(&self);

    /// Back to the state after power-on.
    fn reset(&self);
}

/// A PCI function.
pub(crate) struct Function {
    device: Arc<dyn Device>,
    identity: Identity,
    configuration: Mutex<ConfigurationSpace>,
    vectors: Arc<Vectors>,
    address_space: Arc<AddressSpace>,
}

/// An access to what the function does not have.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct OutOfRange;

impl Function {
    pub(crate) fn new(
        device: Arc<dyn Device>,
        identity: Identity,
        vectors: Arc<Vectors>,
        address_space: Arc<AddressSpace>,
    ) -> Function {
        let configuration = Mutex::new(ConfigurationSpace::new(&identity));
        Function { device, identity, configuration, vectors, address_space }
    }

    pub(crate) fn bar_sizes(&self) -> [u32; BAR_COUNT] {
        self.identity.bar_sizes
    }

    pub(crate) fn vectors(&self) -> &Vectors {
        &self.vectors
    }

    pub(crate) fn address_space(&self) -> &AddressSpace {
        &self.address_space
    }

    pub(crate) fn read_configuration(&self, offset: u64, into: &mut [u8]) -> Result<(), OutOfRange> {
        lock(&self.configuration).read(offset, into)
    }

    pub(crate) fn write_configuration(&self, offset: u64, from: &[u8]) -> Result<(), OutOfRange> {
        lock(&self.configuration).write(offset, from)
    }

    pub(crate) fn read_bar(&self, bar: usize, offset: u64, into: &mut [u8]) -> Result<(), OutOfRange> {
        self.check(bar, offset, into.len())?;
        self.device.read(bar, offset, into);
        Ok(())
    }

    pub(crate) fn write_bar(&self, bar: usize, offset: u64, from: &[u8]) -> Result<(), OutOfRange> {
        self.check(bar, offset, from.len())?;
        self.device.write(bar, offset, from);
        Ok(())
    }

    fn check(&self, bar: usize, offset: u64, length: usize) -> Result<(), OutOfRange> {
        let size = self.identity.bar_sizes.get(bar).copied().unwrap_or(0);
        let end = offset.checked_add(length as u64).ok_or(OutOfRange)?;
        if end <= u64::from(size) { Ok(()) } else { Err(OutOfRange) }
    }

    /// Connects vectors from `start` on to event descriptors, or disconnects them.
    pub(crate) fn set_vectors(
        &self,
        start: usize,
        events: Vec<Option<std::fs::File>>,
    ) -> Result<(), OutOfRange> {
        self.vectors.set(start, events).ok_or(OutOfRange)?;
        self.device.vectors_changed();
        Ok(())
    }

    /// Function-level reset.
    pub(crate) fn reset(&self) {
        *lock(&self.configuration) = ConfigurationSpace::new(&self.identity);
        self.device.reset();
    }

    /// The client went away: nothing of its memory and its descriptors may be used any more.
    pub(crate) fn disconnected(&self) {
        self.vectors.clear();
        self.reset();
        self.address_space.unmap_all();
    }
}
