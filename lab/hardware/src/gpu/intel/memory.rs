//! What the engines reach: the part's own memory, and by DMA what is on the bus.

use std::sync::Arc;

use crate::bus::{AddressSpace, DeviceMemory, DmaError};

/// Where something lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In the part's own memory.
    Local(u64),
    /// On the bus.
    System(u64),
    /// Nowhere: reads as 0, and writes are lost.
    Null,
}

impl Place {
    fn plus(self, offset: u64) -> Place {
        match self {
            Place::Local(at) => Place::Local(at.wrapping_add(offset)),
            Place::System(at) => Place::System(at.wrapping_add(offset)),
            Place::Null => Place::Null,
        }
    }
}

/// A stretch of an address space that lies in one piece: from the address asked for to the end of its page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) place: Place,
    pub(super) length: u64,
}

impl Stretch {
    /// The rest of a page of `size` bytes at `page`, from `address` on.
    pub(super) fn in_page(page: Place, size: u64, address: u64) -> Stretch {
        let offset = address & (size - 1);
        Stretch { place: page.plus(offset), length: size - offset }
    }
}

/// Why an engine cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("no page is mapped at {0:#x} of the global address space")]
    GlobalUnmapped(u64),
    #[error("no page is mapped at {address:#x}: level {level} of the page tables says {entry:#x}")]
    Unmapped { address: u64, level: u32, entry: u64 },
    #[error("{0:#x} is beyond the memory of the GPU")]
    BeyondMemory(u64),
    #[error("{0}")]
    Dma(#[from] DmaError),
    #[error("unknown command {0:#010x}")]
    UnknownCommand(u32),
    #[error("command {0:#010x} is shorter than it must be")]
    ShortCommand(u32),
    #[error("command {0:#010x} asks for a tiled surface, or more than can be")]
    UnfitCommand(u32),
    #[error("batches are nested too deep")]
    Nesting,
    #[error("too many contexts wait for the engine")]
    TooManyContexts,
}

/// The memories.
pub(super) struct Memories {
    local: Option<Arc<DeviceMemory>>,
    system: Arc<AddressSpace>,
}

impl Memories {
    pub(super) fn new(local: Option<Arc<DeviceMemory>>, system: Arc<AddressSpace>) -> Memories {
        Memories { local, system }
    }

    /// Where the page tables are: those of a part with memory of its own lie there.
    pub(super) fn table(&self, address: u64) -> Place {
        if self.local.is_some() { Place::Local(address) } else { Place::System(address) }
    }

    pub(super) fn read(&self, place: Place, into: &mut [u8]) -> Result<(), Fault> {
        match place {
            Place::Null => into.fill(0),
            Place::System(address) => self.system.read(address, into)?,
            Place::Local(offset) => {
                let local = self.local.as_ref().and_then(|local| local.memory().read(offset, into));
                local.ok_or(Fault::BeyondMemory(offset))?;
            }
        }
        Ok(())
    }

    pub(super) fn write(&self, place: Place, from: &[u8]) -> Result<(), Fault> {
        match place {
            Place::Null => {}
            Place::System(address) => self.system.write(address, from)?,
            Place::Local(offset) => {
                let local = self.local.as_ref().and_then(|local| local.memory().write(offset, from));
                local.ok_or(Fault::BeyondMemory(offset))?;
            }
        }
        Ok(())
    }

    /// An entry of a page table.
    pub(super) fn entry(&self, place: Place) -> Result<u64, Fault> {
        let mut bytes = [0; 8];
        self.read(place, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
}
