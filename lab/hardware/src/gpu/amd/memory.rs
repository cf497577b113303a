//! Memory that the GPU reaches: its own, and what is on the bus.

use std::sync::Arc;

use super::address::Place;
use crate::bus::{AddressSpace, DeviceMemory, DmaError};

/// VRAM and bus.
pub(super) struct Memory {
    pub(super) vram: Arc<DeviceMemory>,
    pub(super) bus: Arc<AddressSpace>,
}

/// Why an access did not happen.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum MemoryError {
    /// There is less VRAM.
    #[error("VRAM has no offset {0:#x}")]
    BeyondVram(u64),
    /// The bus refused.
    #[error(transparent)]
    Bus(#[from] DmaError),
}

impl Memory {
    pub(super) fn read(&self, place: Place, into: &mut [u8]) -> Result<(), MemoryError> {
        match place {
            Place::Vram(offset) => {
                self.vram.memory().read(offset, into).ok_or(MemoryError::BeyondVram(offset))
            }
            Place::Bus(address) => Ok(self.bus.read(address, into)?),
        }
    }

    pub(super) fn write(&self, place: Place, from: &[u8]) -> Result<(), MemoryError> {
        match place {
            Place::Vram(offset) => {
                self.vram.memory().write(offset, from).ok_or(MemoryError::BeyondVram(offset))
            }
            Place::Bus(address) => Ok(self.bus.write(address, from)?),
        }
    }

    /// Stores a word at once, after all writes before it: fences and pointers that the driver polls.
    pub(super) fn publish(&self, place: Place, value: u32) -> Result<(), MemoryError> {
        match place {
            Place::Vram(offset) => {
                self.vram.memory().publish_u32(offset, value).ok_or(MemoryError::BeyondVram(offset))
            }
            Place::Bus(address) => Ok(self.bus.publish_u32(address, value)?),
        }
    }
}
