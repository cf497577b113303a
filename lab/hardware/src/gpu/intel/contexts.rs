//! Contexts: what an engine needs to run commands of one client, kept in memory while it does not run.
//!
//! A context is two pages and more of the global address space, told by a descriptor. The first is its status
//! page. The second holds commands that load the engine's registers; only the values that matter here are
//! read.

use super::addressing::{Address, Addressing, Space};
use super::commands::{Context, Position, Ring};
use super::memory::Fault;

/// Bits of a descriptor.
pub(super) const DESCRIPTOR_VALID: u64 = 1 << 0;
pub(super) const DESCRIPTOR_ADDRESS: u64 = 0xffff_f000;

const PAGE: u64 = 4096;

/// Words of the second page that hold values (`intel_lrc_reg.h`).
mod image {
    pub(super) const RING_HEAD: u64 = 0x05;
    pub(super) const RING_TAIL: u64 = 0x07;
    pub(super) const RING_START: u64 = 0x09;
    pub(super) const RING_CONTROL: u64 = 0x0b;
    /// Where the context was in a batch, when it was switched away from there.
    pub(super) const BATCH_HIGH: u64 = 0x0d;
    pub(super) const BATCH_LOW: u64 = 0x0f;
    pub(super) const BATCH_STATE: u64 = 0x11;
    pub(super) const ROOT_HIGH: u64 = 0x31;
    pub(super) const ROOT_LOW: u64 = 0x33;
}

const BATCH_VALID: u32 = 1 << 0;
const BATCH_PROCESS: u32 = 1 << 5;

/// Bits of the ring registers.
const RING_OFFSET: u32 = 0x001f_fffc;
const RING_PAGES: u32 = 0x001f_f000;

/// A context that an engine runs.
#[derive(Clone, Debug)]
pub(super) struct Running {
    pub(super) descriptor: u64,
    pub(super) context: Context,
    pub(super) position: Position,
    /// It cannot go on; only another context or a reset gets the engine out of that.
    pub(super) faulted: bool,
}

fn word(descriptor: u64, index: u64) -> Address {
    Address::global((descriptor & DESCRIPTOR_ADDRESS) + PAGE + index * 4)
}

/// Reads a context from its image.
pub(super) fn restore(addressing: &Addressing, descriptor: u64) -> Result<Running, Fault> {
    let get = |index: u64| addressing.read_word(word(descriptor, index));
    let long = |high: u64, low: u64| Ok::<u64, Fault>(u64::from(get(high)?) << 32 | u64::from(get(low)?));
    let root = long(image::ROOT_HIGH, image::ROOT_LOW)?;
    let size = (get(image::RING_CONTROL)? & RING_PAGES) + PAGE as u32;
    let offset = |index: u64| Ok::<u32, Fault>((get(index)? & RING_OFFSET) % size);
    let ring = Ring {
        start: u64::from(get(image::RING_START)?) & DESCRIPTOR_ADDRESS,
        size,
        head: offset(image::RING_HEAD)?,
        tail: offset(image::RING_TAIL)?,
    };
    let batch = long(image::BATCH_HIGH, image::BATCH_LOW)?;
    let mut batches = Vec::new();
    if batch as u32 & BATCH_VALID != 0 {
        let process = get(image::BATCH_STATE)? & BATCH_PROCESS != 0;
        let space = if process { Space::Process(root) } else { Space::Global };
        batches.push(Address { space, at: batch & !3 });
    }
    let context = Context { status_page: descriptor & DESCRIPTOR_ADDRESS, root };
    Ok(Running { descriptor, context, position: Position { ring, batches }, faulted: false })
}

/// Writes where a context is into its image. Of batches within a batch the innermost is kept.
pub(super) fn save(addressing: &Addressing, running: &Running) -> Result<(), Fault> {
    let put = |index: u64, value: u32| addressing.write_word(word(running.descriptor, index), value);
    put(image::RING_HEAD, running.position.ring.head)?;
    let (batch, process) = match running.position.batches.last() {
        Some(Address { space, at }) => (at | u64::from(BATCH_VALID), *space != Space::Global),
        None => (0, false),
    };
    put(image::BATCH_LOW, batch as u32)?;
    put(image::BATCH_HIGH, (batch >> 32) as u32)?;
    put(image::BATCH_STATE, if process { BATCH_PROCESS } else { 0 })
}
