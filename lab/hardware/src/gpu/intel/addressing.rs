//! Access to memory by an engine, through one of the address spaces.

use super::graphics_translation::GraphicsTranslation;
use super::memory::{Fault, Memories, Stretch};
use super::page_tables;

/// An address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Space {
    /// The one of all engines and the driver.
    Global,
    /// That of a process, by its uppermost page table.
    Process(u64),
}

/// An address, in an address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) space: Space,
    pub(super) at: u64,
}

impl Address {
    pub(super) fn global(at: u64) -> Address {
        Address { space: Space::Global, at }
    }

    pub(super) fn plus(self, offset: u64) -> Address {
        Address { at: self.at.wrapping_add(offset), ..self }
    }
}

/// Memories and the two ways to them.
pub(super) struct Addressing {
    pub(super) memories: Memories,
    pub(super) global: GraphicsTranslation,
    /// Levels of a process's page tables.
    pub(super) levels: u32,
}

impl Addressing {
    pub(super) fn translate(&self, address: Address) -> Result<Stretch, Fault> {
        match address.space {
            Space::Global => self.global.translate(address.at),
            Space::Process(root) => page_tables::translate(&self.memories, root, self.levels, address.at),
        }
    }

    /// Reads; may cross pages.
    pub(super) fn read(&self, address: Address, into: &mut [u8]) -> Result<(), Fault> {
        let mut done = 0;
        while done < into.len() {
            let stretch = self.translate(address.plus(done as u64))?;
            let length = stretch.length.min((into.len() - done) as u64) as usize;
            self.memories.read(stretch.place, &mut into[done..done + length])?;
            done += length;
        }
        Ok(())
    }

    /// Writes; may cross pages.
    pub(super) fn write(&self, address: Address, from: &[u8]) -> Result<(), Fault> {
        let mut done = 0;
        while done < from.len() {
            let stretch = self.translate(address.plus(done as u64))?;
            let length = stretch.length.min((from.len() - done) as u64) as usize;
            self.memories.write(stretch.place, &from[done..done + length])?;
            done += length;
        }
        Ok(())
    }

    pub(super) fn read_word(&self, address: Address) -> Result<u32, Fault> {
        let mut bytes = [0; 4];
        self.read(address, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    pub(super) fn write_word(&self, address: Address, value: u32) -> Result<(), Fault> {
        self.write(address, &value.to_le_bytes())
    }
}
