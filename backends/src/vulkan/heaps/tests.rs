//! The choice of memory, over the memory properties of real devices as their drivers tell them.

use ash::vk::MemoryPropertyFlags as Flags;
use devmem_provider::{DeviceKind, Heap, Placement, Request};

use super::Memory;
use crate::drm::{Target, resolve};
use crate::vulkan::memory_properties::{HeapBudget, MemoryHeap, MemoryProperties, MemoryType};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// `VK_MEMORY_PROPERTY_*`.
const LOCAL: u32 = 0x1;
const VISIBLE: u32 = 0x2 | 0x4;
const CACHED: u32 = VISIBLE | 0x8;
const AMD_UNCACHED: u32 = 0x40 | 0x80;
const LAZY: u32 = 0x10;
const PROTECTED: u32 = 0x20;

/// A device: its heaps (size, whether device-local) and its memory types (heap, flags).
fn device(kind: DeviceKind, heaps: &[(u64, bool)], types: &[(usize, u32)]) -> Memory {
    let heaps = heaps.iter().map(|&(size, device_local)| MemoryHeap { size, device_local });
    let types = types.iter().map(|&(heap, flags)| MemoryType { heap, flags: Flags::from_raw(flags) });
    Memory {
        properties: MemoryProperties { types: types.collect(), heaps: heaps.collect() },
        kind,
        maximum_allocation: 4 * GIB,
        device_granularity: Some(4096),
        system_granularity: Some(4096),
    }
}

/// RADV on a discrete GPU whose BAR shows all of its memory.
fn amd_with_resizable_bar() -> Memory {
    device(
        DeviceKind::Discrete,
        &[(16 * GIB, false), (8 * GIB, true)],
        &[
            (1, LOCAL),
            (1, LOCAL),
            (0, VISIBLE),
            (1, LOCAL | VISIBLE),
            (1, LOCAL | VISIBLE),
            (0, CACHED),
            (0, CACHED),
            (1, LOCAL | AMD_UNCACHED),
            (0, VISIBLE | AMD_UNCACHED),
        ],
    )
}

/// RADV with a BAR of 256 MiB: the window is a heap of its own.
fn amd_without_resizable_bar() -> Memory {
    device(
        DeviceKind::Discrete,
        &[(8 * GIB - 256 * MIB, true), (16 * GIB, false), (256 * MIB, true)],
        &[
            (0, LOCAL),
            (0, LOCAL),
            (1, VISIBLE),
            (2, LOCAL | VISIBLE),
            (2, LOCAL | VISIBLE),
            (1, CACHED),
            (1, CACHED),
        ],
    )
}

/// RADV on a part of the processor.
fn amd_integrated() -> Memory {
    device(
        DeviceKind::Integrated,
        &[(5 * GIB, false), (10 * GIB, true)],
        &[(1, LOCAL), (0, VISIBLE), (1, LOCAL | VISIBLE), (0, CACHED), (1, LOCAL | AMD_UNCACHED)],
    )
}

/// ANV on a part of the processor.
fn intel_integrated() -> Memory {
    device(
        DeviceKind::Integrated,
        &[(12 * GIB, true)],
        &[(0, LOCAL | VISIBLE), (0, LOCAL | CACHED), (0, LOCAL | PROTECTED)],
    )
}

/// ANV on an Arc A770 with a small BAR.
fn intel_discrete() -> Memory {
    device(
        DeviceKind::Discrete,
        &[(15 * GIB, true), (24 * GIB, false), (256 * MIB, true)],
        &[(0, LOCAL), (1, CACHED), (2, LOCAL | VISIBLE)],
    )
}

/// NVK, and the proprietary driver's layout: memory first, then the machine's, then the window.
fn nvidia() -> Memory {
    device(
        DeviceKind::Discrete,
        &[(6 * GIB, true), (16 * GIB, false), (246 * MIB, true)],
        &[(1, 0), (0, LOCAL), (1, VISIBLE), (1, CACHED), (2, LOCAL | VISIBLE)],
    )
}

fn lavapipe() -> Memory {
    device(DeviceKind::Software, &[(8 * GIB, true)], &[(0, LOCAL | CACHED)])
}

const ANY: Target = Target::Device { visible: false, only: false, contiguous: false };
const VISIBLE_ONLY: Target = Target::Device { visible: true, only: true, contiguous: false };
const ANY_VISIBLE: Target = Target::Device { visible: true, only: false, contiguous: false };

/// The types that are tried for a MiB.
fn types(memory: &Memory, target: Target) -> Vec<u32> {
    memory.types(u32::MAX, target, MIB)
}

#[test]
fn device_memory_goes_before_system_memory_and_special_memory_is_left_alone() {
    let amd = amd_with_resizable_bar();
    assert_eq!(types(&amd, ANY), [3, 4, 0, 1, 5, 6, 2]);
    assert_eq!(types(&amd, ANY_VISIBLE), [3, 4, 5, 6, 2]);
    assert_eq!(types(&amd, VISIBLE_ONLY), [3, 4]);
    assert_eq!(types(&amd, Target::System), [5, 6, 2]);
    let nvidia = nvidia();
    assert_eq!(types(&nvidia, ANY), [1, 4, 3, 2, 0]);
    assert_eq!(types(&nvidia, VISIBLE_ONLY), [4]);
    let lazy = device(DeviceKind::Discrete, &[(GIB, true)], &[(0, LOCAL | LAZY), (0, LOCAL)]);
    assert_eq!(types(&lazy, ANY), [1]);
}

#[test]
fn a_part_of_the_processor_and_software_have_system_memory() {
    for (memory, expected) in [
        // The carve-out, which Vulkan calls device-local, only if all else fails.
        (amd_integrated(), vec![3, 1, 2, 0]),
        (intel_integrated(), vec![1, 0]),
        (lavapipe(), vec![0]),
    ] {
        assert_eq!(types(&memory, Target::System), expected);
        assert_eq!(types(&memory, VISIBLE_ONLY), [0; 0]);
        assert!(memory.summary().iter().all(|heap| heap.placement == Placement::System), "{memory:?}");
    }
}

#[test]
fn only_the_types_that_a_buffer_may_have_and_that_are_large_enough_are_tried() {
    let amd = amd_without_resizable_bar();
    assert_eq!(amd.types(0b0_1001, ANY, MIB), [0, 3]);
    assert_eq!(amd.types(0b1_0000, ANY, MIB), [4]);
    assert_eq!(amd.types(0, ANY, MIB), [0; 0]);
    // Bits beyond the types that there are.
    assert_eq!(amd.types(1 << 31, ANY, MIB), [0; 0]);
    assert_eq!(amd.types(u32::MAX, VISIBLE_ONLY, 512 * MIB), [0; 0]);
    assert_eq!(amd.types(u32::MAX, ANY, 512 * MIB), [0, 1, 5, 6, 2]);
}

fn told(memory: &Memory) -> Vec<(String, Placement, Option<u64>)> {
    let heaps = memory.heaps(&[]).into_iter();
    heaps.map(|heap| (heap.name, heap.placement, heap.cpu_visible)).collect()
}

#[test]
fn a_window_is_told_as_what_it_is() {
    let heap = |index, placement, visible| {
        let suffix = if placement == Placement::System { "" } else { " (device-local)" };
        (format!("heap {index}{suffix}"), placement, Some(visible))
    };
    let (device, window) = (Placement::DeviceLocal, Placement::DeviceLocalVisible);
    assert_eq!(
        told(&amd_without_resizable_bar()),
        [heap(0, device, 0), heap(2, window, 256 * MIB), heap(1, Placement::System, 16 * GIB)]
    );
    assert_eq!(
        told(&amd_with_resizable_bar()),
        [heap(1, device, 8 * GIB), heap(0, Placement::System, 16 * GIB)]
    );
    assert_eq!(told(&intel_discrete())[1], heap(2, window, 256 * MIB));
    assert_eq!(told(&nvidia())[1], heap(2, window, 246 * MIB));
}

#[test]
fn requests_are_resolved_against_the_largest_heaps() {
    let resolved = |memory: &Memory, request: Request| {
        resolve(&request, &memory.summary(), false, "test").map_err(|error| error.kind())
    };
    let small = amd_without_resizable_bar();
    assert_eq!(resolved(&small, Request::bytes(MIB)), Ok(ANY_VISIBLE));
    // More than the window shows.
    assert_eq!(resolved(&small, Request::bytes(GIB)), Ok(Target::System));
    assert_eq!(resolved(&small, Request::bytes(GIB).prefer(Placement::DeviceLocal)), Ok(ANY));
    assert!(resolved(&small, Request::bytes(GIB).require(Placement::DeviceLocalVisible)).is_err());
    assert_eq!(resolved(&amd_with_resizable_bar(), Request::bytes(GIB)), Ok(ANY_VISIBLE));
    assert_eq!(resolved(&lavapipe(), Request::bytes(MIB)), Ok(Target::System));
    assert!(resolved(&lavapipe(), Request::bytes(MIB).require(Placement::DeviceLocal)).is_err());
    // The largest allocation.
    assert!(resolved(&amd_with_resizable_bar(), Request::bytes(5 * GIB)).is_err());
}

#[test]
fn memory_that_is_not_exported_is_no_heap() {
    let memory = Memory { system_granularity: None, ..amd_with_resizable_bar() };
    assert!(memory.heaps(&[]).iter().all(|heap| heap.placement == Placement::DeviceLocal));
    assert_eq!(memory.summary().len(), 1);
}

#[test]
fn what_others_use_is_counted() {
    let budget = HeapBudget { budget: 6 * GIB, usage: GIB };
    let heaps: Vec<Heap> = intel_integrated().heaps(&[budget]);
    // Of 12 GiB, 5 are left to this process.
    assert_eq!(heaps[0].used, Some(7 * GIB));
    assert_eq!(intel_integrated().heaps(&[])[0].used, None);
    let over = HeapBudget { budget: GIB, usage: 2 * GIB };
    assert_eq!(intel_integrated().heaps(&[over])[0].used, Some(12 * GIB));
}
