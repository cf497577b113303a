//! The interrupt handler: a ring of entries for the driver, and a message that there are some.
//!
//! The driver gives the ring by an address of VMID 0, reads how far it is filled from memory, and tells in
//! `IH_RB_RPTR` how far it has come. An entry is of four words: source, data, ring and VMID, nothing.

use super::address::Vmid;
use super::chip::Chip;
use super::register_map::word;

/// The MSI vector of everything.
const VECTOR: usize = 0;

/// Bytes of an entry.
const ENTRY: u32 = 16;

/// Bits of `IH_RB_CNTL`.
mod control {
    pub(super) const ENABLE: u32 = 1 << 0;
    /// Binary logarithm of the ring's words.
    pub(super) const SIZE_SHIFT: u32 = 1;
    pub(super) const SIZE_MASK: u32 = 0x1f;
    pub(super) const WRITEBACK: u32 = 1 << 8;
    pub(super) const OVERFLOW_CLEAR: u32 = 1 << 31;
}

/// In `IH_RB_WPTR`: entries were lost.
const OVERFLOW: u32 = 1 << 0;
/// In `IH_CNTL`: messages are sent.
const ENABLE_MESSAGES: u32 = 1 << 0;

/// What interrupts. The values are the driver's identifiers of sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The page tables of a process refused an address.
    Fault = 146,
    /// The command processor came to the end of what was before a packet.
    EndOfPipe = 181,
    /// A trap packet of the first DMA engine.
    DmaTrap0 = 224,
    /// A trap packet of the second DMA engine.
    DmaTrap1 = 244,
}

impl Chip {
    /// Puts an entry into the ring and sends a message.
    pub(super) fn interrupt(&mut self, source: Source, ring: u8, vmid: Vmid) {
        let control = self.registers.get(word::IH_RB_CNTL);
        if control & control::ENABLE == 0 {
            return;
        }
        let Some(mask) = mask(control) else {
            return self.misuse(format_args!("the interrupt ring has no room for two entries"));
        };
        let write = self.registers.get(word::IH_RB_WPTR);
        let (overflow, at) = (write & OVERFLOW, write & mask);
        let next = (at + ENTRY) & mask;
        let write = if next == self.registers.get(word::IH_RB_RPTR) & mask {
            at | OVERFLOW
        } else {
            let entry = [source as u32, 0, u32::from(ring) | u32::from(vmid) << 8, 0];
            let base = u64::from(self.registers.get(word::IH_RB_BASE)) << 8;
            if self.write_words(0, base + u64::from(at), &entry).is_err() {
                return;
            }
            next | overflow
        };
        self.registers.set(word::IH_RB_WPTR, write);
        if control & control::WRITEBACK != 0 {
            let address = self.registers.address(word::IH_RB_WPTR_ADDR_LO, word::IH_RB_WPTR_ADDR_HI);
            // A failure has been told of; the driver still gets the message.
            let _ = self.publish(0, address, write);
        }
        self.send_message();
    }

    /// The driver wrote `IH_RB_CNTL`.
    pub(super) fn interrupt_ring_set_up(&mut self) {
        if self.registers.get(word::IH_RB_CNTL) & control::OVERFLOW_CLEAR != 0 {
            let write = self.registers.get(word::IH_RB_WPTR);
            self.registers.set(word::IH_RB_WPTR, write & !OVERFLOW);
        }
    }

    /// Sends the message again while there are entries: the driver took some, or did not hear of any because
    /// the vector was not in use.
    pub(super) fn remind(&mut self) {
        let Some(mask) = mask(self.registers.get(word::IH_RB_CNTL)) else { return };
        let (read, write) = (self.registers.get(word::IH_RB_RPTR), self.registers.get(word::IH_RB_WPTR));
        if (read ^ write) & mask != 0 {
            self.send_message();
        }
    }

    fn send_message(&self) {
        let enabled = self.registers.get(word::IH_RB_CNTL) & control::ENABLE != 0;
        if enabled && self.registers.get(word::IH_CNTL) & ENABLE_MESSAGES != 0 {
            self.vectors.signal(VECTOR);
        }
    }
}

/// The bits of a position in the ring; `None` for a ring that is too small for two entries.
fn mask(control: u32) -> Option<u32> {
    let size = 4u64 << (control >> control::SIZE_SHIFT & control::SIZE_MASK);
    let bytes = u32::try_from(size).unwrap_or(1 << 31);
    (bytes >= 2 * ENTRY).then_some((bytes - 1) & !(ENTRY - 1))
}
