//! A split virtqueue (Virtual I/O Device 1.2, 2.7), as the device reads and writes it.
//!
//! Everything in it belongs to the driver, which may change it at any time: it is read once, and no chain and no
//! queue makes the device do more than a bounded amount of work.

use std::sync::atomic::{Ordering, fence};

use super::transport::QueueSetup;
use crate::bus::{AddressSpace, DmaError};

const DESCRIPTOR_SIZE: u64 = 16;
/// Where in the driver's and the device's area the entries begin, behind flags and index.
const ENTRIES: u64 = 4;
/// In the driver's area: no interrupts, please.
const NO_INTERRUPT: u16 = 1;

/// Flags of a descriptor.
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// Descriptors of a chain at most, those of an indirect table counted.
const CHAIN_LENGTH: usize = 4096;
/// Bytes that the device reads from a chain at most: a command with some half a million memory entries.
const CHAIN_BYTES: u64 = 8 << 20;

/// Bytes that the device reads at one notification at most, from all chains.
pub(super) const NOTIFICATION_BYTES: u64 = 32 << 20;

/// Why a queue cannot be gone on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum QueueError {
    /// A part of the queue or of a buffer cannot be reached.
    #[error(transparent)]
    Dma(#[from] DmaError),
    /// The index ran away by more than there are entries.
    #[error("{0} entries are available at once, more than the queue has")]
    TooMany(u16),
    /// A descriptor has a number that does not exist.
    #[error("there is no descriptor {0}")]
    NoDescriptor(u16),
    /// The chain is longer than any that is needed, or a loop.
    #[error("a chain of descriptors does not end")]
    Endless,
    /// More bytes than any command has.
    #[error("a chain of descriptors has {0} bytes to read")]
    TooLarge(u64),
    /// More bytes than any driver has to tell at a time.
    #[error("more than {NOTIFICATION_BYTES} bytes are to be read at one notification")]
    TooMuch,
    /// A table of descriptors within one, or with another flag, or of a size that is none.
    #[error("an indirect descriptor is malformed")]
    Indirect,
    /// Something to read after something to write.
    #[error("a chain of descriptors has something to read after what is to be written")]
    Order,
}

/// A virtqueue that is in use.
pub(super) struct Queue {
    setup: QueueSetup,
    next_available: u16,
    next_used: u16,
}

/// A request of the driver.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Chain {
    head: u16,
    /// What the driver says.
    pub(super) request: Vec<u8>,
    /// Where the answer shall go: address and bytes.
    writable: Vec<(u64, u32)>,
}

#[derive(Clone, Copy)]
struct Descriptor {
    address: u64,
    length: u32,
    flags: u16,
    next: u16,
}

impl Queue {
    pub(super) fn new(setup: QueueSetup) -> Queue {
        Queue { setup, next_available: 0, next_used: 0 }
    }

    /// How many requests wait now.
    pub(super) fn waiting(&self, memory: &AddressSpace) -> Result<u16, QueueError> {
        let index = read_u16(memory, self.setup.driver.wrapping_add(2))?;
        let waiting = index.wrapping_sub(self.next_available);
        if waiting > self.setup.size { Err(QueueError::TooMany(waiting)) } else { Ok(waiting) }
    }

    /// Takes the next request.
    pub(super) fn take(&mut self, memory: &AddressSpace) -> Result<Chain, QueueError> {
        let slot = u64::from(self.next_available % self.setup.size);
        let head = read_u16(memory, self.setup.driver.wrapping_add(ENTRIES + slot * 2))?;
        self.next_available = self.next_available.wrapping_add(1);
        self.read_chain(memory, head)
    }

    fn read_chain(&self, memory: &AddressSpace, head: u16) -> Result<Chain, QueueError> {
        let mut chain = Chain { head, ..Chain::default() };
        let mut table = (self.setup.descriptors, u32::from(self.setup.size));
        let mut number = head;
        for _ in 0..CHAIN_LENGTH {
            let descriptor = read_descriptor(memory, table, number)?;
            if descriptor.flags & INDIRECT != 0 {
                let within = table.0 != self.setup.descriptors;
                let whole = u64::from(descriptor.length).is_multiple_of(DESCRIPTOR_SIZE);
                if within || !whole || descriptor.flags & NEXT != 0 {
                    return Err(QueueError::Indirect);
                }
                table = (descriptor.address, descriptor.length / DESCRIPTOR_SIZE as u32);
                number = 0;
                continue;
            }
            if descriptor.flags & WRITE != 0 {
                chain.writable.push((descriptor.address, descriptor.length));
            } else if chain.writable.is_empty() {
                let start = chain.request.len();
                let end = start as u64 + u64::from(descriptor.length);
                if end > CHAIN_BYTES {
                    return Err(QueueError::TooLarge(end));
                }
                chain.request.resize(end as usize, 0);
                memory.read(descriptor.address, &mut chain.request[start..])?;
            } else {
                return Err(QueueError::Order);
            }
            if descriptor.flags & NEXT == 0 {
                return Ok(chain);
            }
            number = descriptor.next;
        }
        Err(QueueError::Endless)
    }

    /// Answers a request. What does not fit is cut off, as the driver will notice by the count of bytes.
    pub(super) fn answer(
        &mut self,
        memory: &AddressSpace,
        chain: &Chain,
        answer: &[u8],
    ) -> Result<(), QueueError> {
        let mut rest = answer;
        for &(address, length) in &chain.writable {
            let (part, following) = rest.split_at(rest.len().min(length as usize));
            memory.write(address, part)?;
            rest = following;
        }
        let written = (answer.len() - rest.len()) as u32;
        let slot = u64::from(self.next_used % self.setup.size);
        let entry = [u32::from(chain.head).to_le_bytes(), written.to_le_bytes()].concat();
        memory.write(self.setup.device.wrapping_add(ENTRIES + slot * 8), &entry)?;
        self.next_used = self.next_used.wrapping_add(1);
        memory.publish_u16(self.setup.device.wrapping_add(2), self.next_used.to_le())?;
        Ok(())
    }

    /// The vector to signal after answers, if the driver wants to be told.
    pub(super) fn vector_to_signal(&self, memory: &AddressSpace) -> Result<Option<u16>, QueueError> {
        // The driver enables interrupts, then looks at the index that was published: one of both sides must see
        // what the other one did.
        fence(Ordering::SeqCst);
        let flags = read_u16(memory, self.setup.driver)?;
        Ok((flags & NO_INTERRUPT == 0).then_some(self.setup.vector))
    }
}

fn read_u16(memory: &AddressSpace, address: u64) -> Result<u16, QueueError> {
    Ok(u16::from_le_bytes(memory.read_array(address)?))
}

fn read_descriptor(
    memory: &AddressSpace,
    (table, count): (u64, u32),
    number: u16,
) -> Result<Descriptor, QueueError> {
    if u32::from(number) >= count {
        return Err(QueueError::NoDescriptor(number));
    }
    let bytes: [u8; 16] = memory.read_array(table.wrapping_add(u64::from(number) * DESCRIPTOR_SIZE))?;
    let [a0, a1, a2, a3, a4, a5, a6, a7, l0, l1, l2, l3, f0, f1, n0, n1] = bytes;
    Ok(Descriptor {
        address: u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
        length: u32::from_le_bytes([l0, l1, l2, l3]),
        flags: u16::from_le_bytes([f0, f1]),
        next: u16::from_le_bytes([n0, n1]),
    })
}
