//! What all emulated PCI functions have in common: configuration space, BARs and interrupts.

mod configuration;
mod identity;
mod plain_registers;
mod vectors;

pub(crate) use identity::{BAR_COUNT, Bar, Capability, Identity, Interrupts, Link, MsixCapability};
pub(crate) use plain_registers::PlainRegisters;
pub(crate) use vectors::Vectors;

use std::ops::Range;
use std::sync::{Arc, Mutex};

use crate::bus::{AddressSpace, Bus, DeviceMemory};
use crate::lock;
use configuration::ConfigurationSpace;

/// What a device model has to say behind the BARs of its function.
///
/// All methods are called from the thread that serves the function, and must not wait: the guest's
/// processor may stand still meanwhile.
pub(crate) trait Device: Send + Sync {
    /// The driver reads from a BAR; `into` is within it, not empty, and not within memory of [`Device::memory`].
    fn read(&self, bar: usize, offset: u64, into: &mut [u8]);

    /// The driver writes to a BAR; `from` is within it, not empty, and not within memory of [`Device::memory`].
    fn write(&self, bar: usize, offset: u64, from: &[u8]);

    /// Parts of BARs that are plain memory: the client maps them, and peers reach them by DMA. Asked once.
    fn memory(&self) -> Vec<BarMemory> {
        Vec::new()
    }

    /// Interrupt vectors became usable: what was signalled in vain may be signalled again.
    fn vectors_changed(&self) {}

    /// Back to the state after power-on. Memory keeps what is in it.
    fn reset(&self);
}

/// A part of a BAR that is memory of the device.
#[derive(Clone)]
pub(crate) struct BarMemory {
    /// Which BAR; at most one part of each.
    pub(crate) bar: usize,
    /// Which part of it, in whole pages.
    pub(crate) range: Range<u64>,
    /// The memory; what is at offset n of the BAR is at offset n of the memory.
    pub(crate) memory: Arc<DeviceMemory>,
}

/// A PCI function.
pub(crate) struct Function {
    device: Arc<dyn Device>,
    identity: Identity,
    configuration: Mutex<ConfigurationSpace>,
    vectors: Arc<Vectors>,
    address_space: Arc<AddressSpace>,
    memory: Vec<BarMemory>,
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
        let memory = device.memory();
        Function { device, identity, configuration, vectors, address_space, memory }
    }

    /// Bytes of a BAR; 0 where there is none.
    pub(crate) fn bar_size(&self, bar: usize) -> u64 {
        self.identity.bars.get(bar).map_or(0, |bar| bar.size())
    }

    /// The part of a BAR that is memory.
    pub(crate) fn bar_memory(&self, bar: usize) -> Option<&BarMemory> {
        self.memory.iter().find(|memory| memory.bar == bar)
    }

    pub(crate) fn configuration_size(&self) -> u64 {
        if self.identity.is_express() {
            configuration::EXPRESS_SIZE as u64
        } else {
            configuration::CONVENTIONAL_SIZE as u64
        }
    }

    pub(crate) fn interrupts(&self) -> Interrupts {
        self.identity.interrupts()
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
        let mut configuration = lock(&self.configuration);
        configuration.write(offset, from)?;
        self.place_windows(&configuration);
        Ok(())
    }

    /// Puts the memory of BARs on the bus where the driver (or the firmware) wants it.
    fn place_windows(&self, configuration: &ConfigurationSpace) {
        for BarMemory { bar, range, memory } in &self.memory {
            let address = configuration.bar_address(*bar).and_then(|bar| bar.checked_add(range.start));
            self.bus().place_window(memory, address, range.clone());
        }
    }

    fn bus(&self) -> &Bus {
        self.address_space.bus()
    }

    pub(crate) fn read_bar(&self, bar: usize, offset: u64, into: &mut [u8]) -> Result<(), OutOfRange> {
        self.check(bar, offset, into.len())?;
        match self.memory_at(bar, offset, into.len()) {
            Some(memory) => memory.memory().read(offset, into).ok_or(OutOfRange),
            None => {
                self.device.read(bar, offset, into);
                Ok(())
            }
        }
    }

    pub(crate) fn write_bar(&self, bar: usize, offset: u64, from: &[u8]) -> Result<(), OutOfRange> {
        self.check(bar, offset, from.len())?;
        match self.memory_at(bar, offset, from.len()) {
            Some(memory) => memory.memory().write(offset, from).ok_or(OutOfRange),
            None => {
                self.device.write(bar, offset, from);
                Ok(())
            }
        }
    }

    fn check(&self, bar: usize, offset: u64, length: usize) -> Result<(), OutOfRange> {
        let end = offset.checked_add(length as u64).ok_or(OutOfRange)?;
        if length > 0 && end <= self.bar_size(bar) { Ok(()) } else { Err(OutOfRange) }
    }

    /// The memory that an access goes to. The client maps it, but may also ask.
    fn memory_at(&self, bar: usize, offset: u64, length: usize) -> Option<&DeviceMemory> {
        let part = self.bar_memory(bar)?;
        let within = offset >= part.range.start && offset + length as u64 <= part.range.end;
        within.then_some(&*part.memory)
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
        let mut configuration = lock(&self.configuration);
        *configuration = ConfigurationSpace::new(&self.identity);
        self.place_windows(&configuration);
        drop(configuration);
        self.device.reset();
    }

    /// The client went away: nothing of its memory and its descriptors may be used any more.
    pub(crate) fn disconnected(&self) {
        self.vectors.clear();
        self.reset();
        self.address_space.unmap_all();
    }
}
