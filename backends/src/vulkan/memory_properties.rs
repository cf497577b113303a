//! The memory types and heaps of a device, as Vulkan describes them (Vulkan specification, "Device Memory").

use ash::vk::MemoryPropertyFlags;

/// A way to allocate from a heap.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct MemoryType {
    /// The index of its heap.
    pub(crate) heap: usize,
    pub(crate) flags: MemoryPropertyFlags,
}

impl std::fmt::Debug for MemoryType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "heap {}, flags {:#x}", self.heap, self.flags.as_raw())
    }
}

/// A heap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MemoryHeap {
    /// In bytes.
    pub(crate) size: u64,
    pub(crate) device_local: bool,
}

/// What is left of a heap (`VK_EXT_memory_budget`), in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeapBudget {
    /// What this process may use of it, with what it uses already.
    pub(crate) budget: u64,
    /// What this process uses of it.
    pub(crate) usage: u64,
}

/// All memory of a device. A memory type is named by its index.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct MemoryProperties {
    pub(crate) types: Vec<MemoryType>,
    pub(crate) heaps: Vec<MemoryHeap>,
}

impl MemoryProperties {
    /// The memory type of an index.
    pub(crate) fn memory_type(&self, index: u32) -> Option<MemoryType> {
        self.types.get(usize::try_from(index).ok()?).copied()
    }

    /// The types whose bit is set in `allowed`, with their indices, in Vulkan's order.
    pub(crate) fn allowed(&self, allowed: u32) -> impl Iterator<Item = (u32, MemoryType)> {
        (0..u32::BITS).zip(self.types.iter().copied()).filter(move |(index, _)| allowed >> index & 1 != 0)
    }
}
