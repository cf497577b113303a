//! What differs between the parts.

use super::engine::{Class, EngineIdentity};
use super::registers::offsets;
use crate::gpu::Part;

/// A part, as the drivers tell it from others.
pub(super) struct PartFacts {
    /// PCI device identifier.
    pub(super) device: u16,
    /// PCI revision: that of production silicon.
    pub(super) revision: u8,
    /// Whether it has memory of its own, which BAR 2 shows and in which its page tables lie.
    pub(super) discrete: bool,
    /// Levels of a process's page tables.
    pub(super) page_table_levels: u32,
    /// Whether a register above the graphics master tells which tile interrupts.
    pub(super) tile_interrupts: bool,
    /// How a context status entry is laid out.
    pub(super) context_status: ContextStatus,
    /// Whether the size of the memory is told in units of 1 GiB.
    pub(super) memory_in_gibibytes: bool,
    /// Whether what drivers may use of the memory ends where compression metadata begins.
    pub(super) flat_ccs: bool,
    /// Command streamers.
    pub(super) engines: &'static [EngineIdentity],
    /// Registers that tell what the part is: offset and value.
    pub(super) fuses: &'static [(u64, u32)],
}

/// How a context status entry is laid out, and where a context's identifier is in its descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ContextStatus {
    /// Graphics version 12.0 to 12.10.
    Xe,
    /// From version 12.50 on.
    XeHp,
}

const RENDER: EngineIdentity = EngineIdentity { class: Class::Render, instance: 0, base: 0x2000 };
const COPY: EngineIdentity = EngineIdentity { class: Class::Copy, instance: 0, base: 0x2_2000 };
const COPY_8: EngineIdentity = EngineIdentity { class: Class::Copy, instance: 8, base: 0x3e_e000 };
const VIDEO: EngineIdentity = EngineIdentity { class: Class::Video, instance: 0, base: 0x1c_0000 };
const ENHANCE: EngineIdentity = EngineIdentity { class: Class::VideoEnhance, instance: 0, base: 0x1c_8000 };
const COMPUTE: EngineIdentity = EngineIdentity { class: Class::Compute, instance: 0, base: 0x1_a000 };

/// One slice with one dual sub-slice, and production silicon.
const SMALLEST: [(u64, u32); 4] = [
    (offsets::SLICE_ENABLE, 1),
    (offsets::GEOMETRY_DSS_ENABLE, 1),
    (offsets::MIRROR_FUSE_3, 1),
    (offsets::FUSE_2, offsets::PRODUCTION_HARDWARE),
];
/// As bits of engines that are missing: all video engines but the first of each class.
const ONE_MEDIA_ENGINE_OLD: (u64, u32) = (offsets::MEDIA_ENGINES, 0x000e_00fe);
/// As bits of engines that are there.
const ONE_MEDIA_ENGINE: (u64, u32) = (offsets::MEDIA_ENGINES, 0x0001_0001);

const TIGER_LAKE: PartFacts = PartFacts {
    device: 0x9a49,
    revision: 3,
    discrete: false,
    page_table_levels: 4,
    tile_interrupts: false,
    context_status: ContextStatus::Xe,
    memory_in_gibibytes: false,
    flat_ccs: false,
    engines: &[RENDER, COPY, VIDEO, ENHANCE],
    fuses: &[
        SMALLEST[0],
        SMALLEST[1],
        SMALLEST[2],
        SMALLEST[3],
        ONE_MEDIA_ENGINE_OLD,
        (offsets::DISPLAY_FUSES, offsets::DISPLAY_PIPES_DISABLED),
    ],
};

const DG1: PartFacts = PartFacts {
    device: 0x4905,
    revision: 1,
    discrete: true,
    tile_interrupts: true,
    fuses: &[SMALLEST[0], SMALLEST[1], SMALLEST[2], SMALLEST[3], ONE_MEDIA_ENGINE_OLD],
    ..TIGER_LAKE
};

const DG2: PartFacts = PartFacts {
    device: 0x56a0,
    revision: 8,
    context_status: ContextStatus::XeHp,
    memory_in_gibibytes: true,
    flat_ccs: true,
    engines: &[RENDER, COPY, VIDEO, ENHANCE, COMPUTE],
    fuses: &[
        SMALLEST[0],
        SMALLEST[1],
        SMALLEST[2],
        SMALLEST[3],
        (offsets::COMPUTE_DSS_ENABLE, 1),
        (offsets::EU_ENABLE, 0xff),
        ONE_MEDIA_ENGINE,
    ],
    ..DG1
};

const BATTLEMAGE: PartFacts = PartFacts {
    device: 0xe20b,
    revision: 0,
    page_table_levels: 5,
    flat_ccs: false,
    engines: &[RENDER, COPY, COPY_8, COMPUTE],
    fuses: &[
        SMALLEST[0],
        SMALLEST[1],
        (offsets::MIRROR_FUSE_3, 1 << 16),
        SMALLEST[3],
        (offsets::COMPUTE_DSS_ENABLE, 1),
        (offsets::EU_ENABLE, 0xff),
        (offsets::FUSE_4, 1 << 16),
        (offsets::IP_VERSION, 20 << 22 | 1 << 14 | 4),
        (offsets::STEERING_SEMAPHORE, 1),
        // A media unit of no version is none: it would have a microcontroller of its own.
        (offsets::MEDIA + offsets::IP_VERSION, 0),
    ],
    ..DG2
};

/// The facts of a part; of parts of other vendors there are none.
pub(super) fn facts(part: Part) -> &'static PartFacts {
    match part {
        Part::Dg1 => &DG1,
        Part::Dg2 => &DG2,
        Part::Battlemage => &BATTLEMAGE,
        _ => &TIGER_LAKE,
    }
}
