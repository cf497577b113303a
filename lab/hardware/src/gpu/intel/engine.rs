//! The engines and the registers that each of them has, at a distance from its base.

use std::fmt;

use super::registers::Kind;

/// What kind of engine it is, in the numbers of `intel_engine_types.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Class {
    /// RCS
    Render = 0,
    /// VCS
    Video = 1,
    /// VECS
    VideoEnhance = 2,
    /// BCS
    Copy = 3,
    /// No engine: the microcontroller.
    Other = 4,
    /// CCS
    Compute = 5,
}

/// Which engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EngineIdentity {
    pub(super) class: Class,
    pub(super) instance: u8,
    /// Where its registers begin.
    pub(super) base: u64,
}

impl fmt::Display for EngineIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let class = match self.class {
            Class::Render => "rcs",
            Class::Video => "vcs",
            Class::VideoEnhance => "vecs",
            Class::Copy => "bcs",
            Class::Other => "guc",
            Class::Compute => "ccs",
        };
        write!(f, "{class}{}", self.instance)
    }
}

/// Registers of an engine, at this distance from its base.
pub(super) mod offsets {
    pub(crate) const RING_TAIL: u64 = 0x30;
    pub(crate) const RING_HEAD: u64 = 0x34;
    /// RING_PWRCTX_MAXCNT: how long the engine waits before it sleeps.
    pub(crate) const IDLE_WAIT: u64 = 0x54;
    /// RING_HWS_PGA: the engine's own status page, in the global address space.
    pub(crate) const STATUS_PAGE: u64 = 0x80;
    pub(crate) const MI_MODE: u64 = 0x9c;
    pub(crate) const MI_MODE_IDLE: u32 = 1 << 9;
    /// RING_IMR: interrupts that the engine does not raise.
    pub(crate) const INTERRUPT_MASK: u64 = 0xa8;
    pub(crate) const RESET_CONTROL: u64 = 0xd0;
    pub(crate) const RESET_REQUEST: u32 = 1 << 0;
    pub(crate) const RESET_READY: u32 = 1 << 1;
    pub(crate) const EXECLIST_STATUS: u64 = 0x234;
    pub(crate) const TIMESTAMP: u64 = 0x358;
    /// RING_CONTEXT_STATUS_PTR: where the engine wrote last and the driver read last.
    pub(crate) const CONTEXT_STATUS_POINTER: u64 = 0x3a0;
    /// RING_EXECLIST_SQ_CONTENTS: descriptors of contexts, 64 bits each.
    pub(crate) const SUBMIT_QUEUE: u64 = 0x510;
    /// RING_EXECLIST_CONTROL.
    pub(crate) const CONTROL: u64 = 0x550;
    pub(crate) const CONTROL_LOAD: u32 = 1 << 0;
}

use offsets::*;

/// How many bytes of registers an engine has.
const SIZE: u64 = 0x1000;

/// The register of which engine an offset is: the engine's index, and the distance from its base.
pub(super) fn register_of(engines: &[EngineIdentity], offset: u64) -> Option<(usize, u64)> {
    let index = engines.iter().position(|engine| (engine.base..engine.base + SIZE).contains(&offset))?;
    Some((index, offset - engines[index].base))
}

/// Registers of every engine: distance, how many words, what they do.
const TABLE: [(u64, u64, Kind); 20] = [
    // Tail, head, start and size of the ring.
    (RING_TAIL, 4, Kind::Kept),
    // RING_PSMI_CTL
    (0x50, 1, Kind::Masked),
    (IDLE_WAIT, 1, Kind::Fixed(100)),
    // Addresses and instruction that the engine is at, for error reports.
    (0x5c, 8, Kind::Kept),
    (STATUS_PAGE, 1, Kind::Kept),
    // RING_HWSTAM
    (0x98, 1, Kind::Kept),
    (MI_MODE, 1, Kind::Masked),
    (INTERRUPT_MASK, 1, Kind::Kept),
    // Error identity, mask and status.
    (0xb0, 3, Kind::Kept),
    // INSTPM, RING_CMD_CCTL
    (0xc0, 1, Kind::Masked),
    (0xc4, 1, Kind::Masked),
    (RESET_CONTROL, 1, Kind::Masked),
    (EXECLIST_STATUS, 2, Kind::Kept),
    (0x244, 1, Kind::Masked),
    // GFX_MODE
    (0x29c, 1, Kind::Masked),
    (CONTEXT_STATUS_POINTER, 1, Kind::Kept),
    // RING_CTX_TIMESTAMP: the time that the context ran; none, for it runs at once.
    (0x3a8, 2, Kind::Kept),
    // RING_FORCE_TO_NONPRIV: registers that batches may write.
    (0x4d0, 12, Kind::Kept),
    // General purpose registers.
    (0x600, 32, Kind::Kept),
    (SUBMIT_QUEUE, 17, Kind::Kept),
];

/// What an engine's register does.
pub(super) fn kind(register: u64) -> Option<Kind> {
    let has = |(at, count, _): &&(u64, u64, Kind)| (*at..at + count * 4).contains(&register);
    TABLE.iter().find(has).map(|(.., kind)| *kind)
}

/// Which half of the clock a register shows, if any.
pub(super) fn timestamp_half(register: u64) -> Option<u32> {
    match register.checked_sub(TIMESTAMP) {
        Some(0) => Some(0),
        Some(4) => Some(1),
        _ => None,
    }
}
