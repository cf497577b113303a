//! One of the two functions, and the way from it to its root.

use super::access_control::AccessControl;
use super::host_bridge::HostBridge;
use super::iommu::IommuGroup;
use crate::pci::PciAddress;

/// A PCI function on the way: the device itself, or a bridge above it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Function {
    /// Where it sits.
    pub address: PciAddress,
    /// Its vendor's identifier.
    pub vendor: u16,
    /// Its identifier among its vendor's devices.
    pub device: u16,
    /// Its class, subclass and programming interface: 0x060400 for a bridge, 0x03.... for a GPU.
    pub class: u32,
    /// Whether it redirects requests between peers.
    pub access_control: AccessControl,
}

/// A memory window of a function: a base address register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Window {
    /// The number of the base address register, 0 to 5.
    pub register: usize,
    /// Its size in bytes.
    pub size: u64,
    /// Whether reads have no side effects, as is so with memory.
    pub prefetchable: bool,
    /// Whether its address may lie above 4 GiB: a register of 64 bits.
    pub wide: bool,
    /// Whether it has an address. Windows for which the firmware and the kernel found no room have none.
    pub assigned: bool,
}

/// Whether the kernel has put a device to sleep because nobody uses it (`power/runtime_status`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RuntimeStatus {
    /// It is awake, or the kernel does not put it to sleep.
    Active,
    /// It sleeps, or is about to, or wakes up.
    Suspended,
}

/// One of the two functions, with all that was seen of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The function itself.
    pub function: Function,
    /// The bridges above it, the one on the root bus last.
    pub bridges: Vec<Function>,
    /// The host bridge above them.
    pub host_bridge: HostBridge,
    /// The IOMMU group; `None` if no IOMMU is in use.
    pub iommu: Option<IommuGroup>,
    /// Whether it sleeps, where the kernel tells.
    pub runtime_status: Option<RuntimeStatus>,
    /// Its memory windows.
    pub windows: Vec<Window>,
    /// The size of its own memory in bytes, where the driver tells it in sysfs (amdgpu does).
    pub memory: Option<u64>,
    /// The NUMA node it is closest to.
    pub numa_node: Option<u32>,
}

impl Endpoint {
    /// Where it sits.
    #[must_use]
    pub fn address(&self) -> PciAddress {
        self.function.address
    }

    /// The way from it to the root bus: the function itself, then the bridges.
    pub fn path(&self) -> impl Iterator<Item = &Function> {
        std::iter::once(&self.function).chain(&self.bridges)
    }

    /// The window through which a peer sees its memory: the largest that is prefetchable and has an
    /// address.
    #[must_use]
    pub fn window(&self) -> Option<Window> {
        let usable = self.windows.iter().filter(|window| window.prefetchable && window.assigned);
        usable.max_by_key(|window| window.size).copied()
    }
}

impl RuntimeStatus {
    /// Reads the text of `power/runtime_status` (`drivers/base/power/sysfs.c`).
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "active" | "unsupported" => Some(Self::Active),
            "suspended" | "suspending" | "resuming" => Some(Self::Suspended),
            _ => None,
        }
    }
}

/// Flags of a resource (`linux/ioport.h`).
const MEMORY: u64 = 0x200;
const PREFETCH: u64 = 0x2000;
const MEMORY_64: u64 = 0x10_0000;
const UNSET: u64 = 0x2000_0000;
/// How many base address registers a function has at most.
const REGISTERS: usize = 6;

impl Window {
    /// Reads the lines of `resource`: first address, last address and flags of each register.
    pub(super) fn parse(resources: &str) -> Vec<Self> {
        let number = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok();
        let window = |(register, line): (usize, &str)| {
            let mut numbers = line.split_whitespace().map(number);
            let (first, last, flags) = (numbers.next()??, numbers.next()??, numbers.next()??);
            if flags & MEMORY == 0 {
                return None;
            }
            Some(Self {
                register,
                size: last.checked_sub(first)?.checked_add(1)?,
                prefetchable: flags & PREFETCH != 0,
                wide: flags & MEMORY_64 != 0,
                assigned: flags & UNSET == 0,
            })
        };
        resources.lines().take(REGISTERS).enumerate().filter_map(window).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_the_memory_registers() {
        let resources = "0x0000007c00000000 0x0000007fffffffff 0x000000000014220c\n\
             0x0000000000000000 0x0000000000000000 0x0000000000000000\n\
             0x0000000000000000 0x000000000fffffff 0x000000002014220c\n\
             0x0000000000000000 0x0000000000000000 0x0000000000000000\n\
             0x000000000000e000 0x000000000000e0ff 0x0000000000040101\n\
             0x00000000fce00000 0x00000000fcefffff 0x0000000000040200\n\
             0x00000000fcf00000 0x00000000fcf1ffff 0x0000000000046200\n";
        let windows = Window::parse(resources);
        let seen: Vec<_> = windows.iter().map(|w| (w.register, w.size, w.prefetchable, w.assigned)).collect();
        assert_eq!(seen, [(0, 16 << 30, true, true), (2, 256 << 20, true, false), (5, 1 << 20, false, true)]);
        assert_eq!(windows.iter().map(|w| w.wide).collect::<Vec<_>>(), [true, true, false]);
        assert!(Window::parse("nonsense\n0x1 0x0 0x200\n0x0 0xffffffffffffffff 0x200\n").is_empty());
    }
}
