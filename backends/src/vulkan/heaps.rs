//! From what a caller asks to a memory type of Vulkan.
//!
//! Vulkan calls memory *device-local* that is fastest for the device, which on a part of the processor is system memory.
//! Only a discrete GPU's device-local heaps are [`Placement::DeviceLocal`] here.

use ash::vk::MemoryPropertyFlags as Flags;
use devmem_provider::{DeviceKind, Heap, Placement};

use super::memory_properties::{HeapBudget, MemoryProperties};
use crate::drm::Target;

/// What is not for a buffer that others reach: needs a feature that is not enabled, or has no pages of its own.
const SPECIAL: Flags = Flags::from_raw(
    Flags::LAZILY_ALLOCATED.as_raw()
        | Flags::PROTECTED.as_raw()
        | Flags::DEVICE_COHERENT_AMD.as_raw()
        | Flags::DEVICE_UNCACHED_AMD.as_raw()
        | Flags::RDMA_CAPABLE_NV.as_raw(),
);

/// The memory of a device, with what is needed to choose from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) properties: MemoryProperties,
    pub(crate) kind: DeviceKind,
    /// The size of the largest allocation, in bytes.
    pub(crate) maximum_allocation: u64,
    /// What sizes in the device's memory are multiples of, in bytes; `None` if it exports none of it.
    pub(crate) device_granularity: Option<u64>,
    /// The same of system memory.
    pub(crate) system_granularity: Option<u64>,
}

impl Memory {
    /// Where the memory of a heap lies.
    fn placement(&self, heap: usize) -> Placement {
        let is_device = |index: usize| {
            self.kind == DeviceKind::Discrete
                && self.properties.heaps.get(index).is_some_and(|heap| heap.device_local)
        };
        let others = 0..self.properties.heaps.len();
        if !is_device(heap) {
            Placement::System
        } else if self.is_visible(heap)
            && others.into_iter().any(|other| is_device(other) && !self.is_visible(other))
        {
            // The window onto the memory of the other heap, which Vulkan tells as a heap of its own.
            Placement::DeviceLocalVisible
        } else {
            Placement::DeviceLocal
        }
    }

    /// Whether the CPU reaches a heap.
    fn is_visible(&self, heap: usize) -> bool {
        self.properties.types.iter().any(|kind| kind.heap == heap && kind.flags.contains(Flags::HOST_VISIBLE))
    }

    fn granularity(&self, placement: Placement) -> Option<u64> {
        if placement == Placement::System { self.system_granularity } else { self.device_granularity }
    }

    /// The heaps of which memory can be exported, device memory first, with what is in use of each.
    pub(crate) fn heaps(&self, budget: &[HeapBudget]) -> Vec<Heap> {
        let mut heaps: Vec<Heap> = Vec::new();
        for (index, told) in self.properties.heaps.iter().enumerate() {
            let placement = self.placement(index);
            let Some(granularity) = self.granularity(placement) else { continue };
            let of_heap = |budget: &HeapBudget| {
                let left = budget.budget.saturating_sub(budget.usage);
                told.size.saturating_sub(left)
            };
            heaps.push(Heap {
                name: format!("heap {index}{}", if told.device_local { " (device-local)" } else { "" }),
                placement,
                size: Some(told.size),
                used: budget.get(index).map(of_heap),
                cpu_visible: Some(if self.is_visible(index) { told.size } else { 0 }),
                maximum_allocation: Some(self.maximum_allocation),
                granularity,
            });
        }
        heaps.sort_by_key(|heap| match heap.placement {
            Placement::DeviceLocal => 0,
            Placement::DeviceLocalVisible => 1,
            _ => 2,
        });
        heaps
    }

    /// One heap of device memory and one of system memory, as large as the largest of their kind: what a request is
    /// resolved against.
    pub(crate) fn summary(&self) -> Vec<Heap> {
        let heaps = self.heaps(&[]);
        let largest = |placements: &[Placement]| {
            let of_kind = heaps.iter().filter(|heap| placements.contains(&heap.placement));
            let visible = of_kind.clone().filter_map(|heap| heap.cpu_visible).max();
            let largest = of_kind.max_by_key(|heap| heap.size)?;
            Some(Heap { cpu_visible: visible, ..largest.clone() })
        };
        let device = largest(&[Placement::DeviceLocal, Placement::DeviceLocalVisible]);
        let system = largest(&[Placement::System]);
        let device = device.map(|heap| Heap { placement: Placement::DeviceLocal, ..heap });
        device.into_iter().chain(system).collect()
    }

    /// The memory types to try for `bytes` bytes, the best first, of those that `allowed` has the bits of.
    pub(crate) fn types(&self, allowed: u32, target: Target, bytes: u64) -> Vec<u32> {
        let fits = |heap: usize| self.properties.heaps.get(heap).is_some_and(|heap| heap.size >= bytes);
        let mut suitable: Vec<(u8, u32)> = self
            .properties
            .allowed(allowed)
            .filter(|(_, kind)| !kind.flags.intersects(SPECIAL) && fits(kind.heap))
            .filter_map(|(index, kind)| Some((rank(kind.flags, self.placement(kind.heap), target)?, index)))
            .collect();
        suitable.sort_unstable();
        suitable.into_iter().map(|(_, index)| index).collect()
    }
}

/// How well memory serves, 0 best; `None` if it does not.
fn rank(flags: Flags, placement: Placement, target: Target) -> Option<u8> {
    let visible = flags.contains(Flags::HOST_VISIBLE);
    // The CPU reads what was received: from memory that it caches, if there is a choice.
    let system = || {
        let slow = u8::from(!visible) * 4
            + u8::from(!flags.contains(Flags::HOST_CACHED)) * 2
            + u8::from(flags.contains(Flags::DEVICE_LOCAL));
        8 + slow
    };
    match (target, placement) {
        (Target::System, Placement::System) => Some(system()),
        (Target::System, _) => None,
        (Target::Device { only, .. }, Placement::System) => (!only).then(system),
        (Target::Device { visible: true, .. }, _) => visible.then_some(0),
        // Some drivers forbid the CPU a buffer of a type that is not visible, wherever it lies. The window is spared.
        (Target::Device { visible: false, .. }, Placement::DeviceLocal) => Some(u8::from(!visible)),
        (Target::Device { visible: false, .. }, _) => Some(2),
    }
}

#[cfg(test)]
mod tests;
