//! What memory a provider has.

use std::fmt;

/// Where a buffer shall lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Placement {
    /// In the device's own memory.
    DeviceLocal,
    /// In the device's own memory, within the window that the CPU and a peer on PCI can reach.
    DeviceLocalVisible,
    /// In system memory.
    System,
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DeviceLocal => "device-local memory",
            Self::DeviceLocalVisible => "CPU-visible device-local memory",
            Self::System => "system memory",
        })
    }
}

/// One kind of memory that a provider allocates from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heap {
    /// The driver's name for it, for example `vram`, `gtt` or `system`.
    pub name: String,
    /// Where its memory lies.
    pub placement: Placement,
    /// Its size in bytes, where the driver or the kernel tells it.
    pub size: Option<u64>,
    /// How much of it is in use by everybody, in bytes.
    pub used: Option<u64>,
    /// How much of it the CPU, and with it a peer on PCI, can reach, in bytes.
    pub cpu_visible: Option<u64>,
    /// The size of the largest single buffer, in bytes, where there is a limit.
    pub maximum_allocation: Option<u64>,
    /// Every buffer's size is a multiple of this, in bytes: the page size, or more.
    pub granularity: u64,
}
