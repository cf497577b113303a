//! The context status buffer of an engine, in its status page: a ring of entries that tell of every switch
//! from one context to another.

use super::addressing::{Address, Addressing};
use super::contexts::DESCRIPTOR_ADDRESS;
use super::engine::{EngineIdentity, offsets};
use super::memory::Fault;
use super::parts::ContextStatus;
use super::registers::Registers;

/// Where the entries are in the status page, and how many.
const ENTRIES: u64 = 0x40;
const COUNT: u32 = 12;
/// Where the index of the entry written last is.
const WRITE_POINTER: u64 = 0xbc;

/// A switch from one context to another, or from or to none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Switch {
    pub(super) to: Option<u64>,
    pub(super) from: Option<u64>,
    /// Because the driver loaded the submit queue.
    pub(super) new_queue: bool,
}

impl Switch {
    /// The entry: in each half a context's identifier.
    fn entry(self, layout: ContextStatus) -> u64 {
        let new_queue = u64::from(self.new_queue);
        match layout {
            ContextStatus::Xe => {
                let of = |context: Option<u64>| context.map_or(0x7ff, |it| it >> 37 & 0x7ff) << 15;
                of(self.to) | new_queue | of(self.from) << 32
            }
            ContextStatus::XeHp => {
                let of = |context: Option<u64>| context.map_or(0xffff, |it| it >> 39 & 0xffff) << 10;
                of(self.to) | (of(self.from) | new_queue << 1) << 32
            }
        }
    }

    /// Writes the next entry.
    pub(super) fn tell(
        self,
        engine: EngineIdentity,
        layout: ContextStatus,
        addressing: &Addressing,
        registers: &mut Registers,
    ) -> Result<(), Fault> {
        let page = u64::from(registers.get(engine.base + offsets::STATUS_PAGE)) & DESCRIPTOR_ADDRESS;
        let pointer = engine.base + offsets::CONTEXT_STATUS_POINTER;
        let index = ((registers.get(pointer) & 0xff) + 1) % COUNT;
        let place = page + ENTRIES + u64::from(index) * 8;
        addressing.write(Address::global(place), &self.entry(layout).to_le_bytes())?;
        registers.set(pointer, index);
        addressing.write_word(Address::global(page + WRITE_POINTER), index)
    }
}
