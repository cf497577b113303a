//! The ioctls of i915, as `drm/i915_drm.h` defines them.

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::{ioctl_none, ioctl_readwrite};

use crate::drm::ioctl::{BASE, COMMAND};
use crate::drm::{DrmFile, repeat};

/// `I915_MEMORY_CLASS_SYSTEM`.
pub(super) const CLASS_SYSTEM: u16 = 0;
/// `I915_MEMORY_CLASS_DEVICE`.
pub(super) const CLASS_DEVICE: u16 = 1;

/// `I915_GEM_CREATE_EXT_FLAG_NEEDS_CPU_ACCESS`: in the window that the CPU reaches, or in system memory, which must be
/// one of the placements.
pub(super) const CREATE_NEEDS_CPU_ACCESS: u32 = 1;

const QUERY_MEMORY_REGIONS: u64 = 4;
const CREATE_EXT_MEMORY_REGIONS: u32 = 0;

/// `struct drm_i915_gem_memory_class_instance`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Region {
    pub(super) memory_class: u16,
    pub(super) memory_instance: u16,
}

/// `struct drm_i915_memory_region_info`. Sizes are in bytes.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RegionInfo {
    pub(super) region: Region,
    rsvd0: u32,
    pub(super) probed_size: u64,
    /// What nobody has; as large as the region for who lacks `CAP_PERFMON`.
    pub(super) unallocated_size: u64,
    /// 0 on kernels that know no small BAR.
    pub(super) probed_cpu_visible_size: u64,
    unallocated_cpu_visible_size: u64,
    rsvd1: [u64; 6],
}

/// `struct drm_i915_query`.
#[repr(C)]
struct Query {
    num_items: u32,
    flags: u32,
    items_ptr: u64,
}

/// `struct drm_i915_query_item`.
#[repr(C)]
struct QueryItem {
    query_id: u64,
    length: i32,
    flags: u32,
    data_ptr: u64,
}

/// `struct drm_i915_gem_create_ext`.
#[repr(C)]
struct GemCreateExt {
    size: u64,
    handle: u32,
    flags: u32,
    extensions: u64,
}

/// `struct i915_user_extension`.
#[repr(C)]
struct UserExtension {
    next_extension: u64,
    name: u32,
    flags: u32,
    rsvd: [u32; 4],
}

/// `struct drm_i915_gem_create_ext_memory_regions`.
#[repr(C)]
struct MemoryRegions {
    base: UserExtension,
    pad: u32,
    num_regions: u32,
    regions: u64,
}

const _: () = {
    assert!(nix::request_code_none!(BASE, COMMAND + 0x18) == 0x6458);
    assert!(nix::request_code_readwrite!(BASE, COMMAND + 0x39, size_of::<Query>()) == 0xc010_6479);
    assert!(nix::request_code_readwrite!(BASE, COMMAND + 0x3c, size_of::<GemCreateExt>()) == 0xc018_647c);
    assert!(size_of::<RegionInfo>() == 88);
    assert!(size_of::<MemoryRegions>() == 48);
};

ioctl_none!(ioctl_throttle, BASE, COMMAND + 0x18);
ioctl_readwrite!(ioctl_query, BASE, COMMAND + 0x39, Query);
ioctl_readwrite!(ioctl_gem_create_ext, BASE, COMMAND + 0x3c, GemCreateExt);

/// `DRM_IOCTL_I915_GEM_THROTTLE`: `EIO` if the GPU is wedged; nothing to wait for on a file that submits nothing.
pub(super) fn throttle(file: &DrmFile) -> nix::Result<()> {
    // SAFETY: the ioctl has no argument.
    repeat(|| unsafe { ioctl_throttle(file.as_fd().as_raw_fd()) }).map(drop)
}

/// `DRM_I915_QUERY_MEMORY_REGIONS`: the regions that users may place buffers in.
pub(super) fn memory_regions(file: &DrmFile) -> nix::Result<Vec<RegionInfo>> {
    let length = query(file, QUERY_MEMORY_REGIONS, &mut [])?;
    let mut reply = vec![0; length];
    query(file, QUERY_MEMORY_REGIONS, &mut reply)?;
    parse_regions(&reply).ok_or(Errno::EPROTO)
}

/// Asks for an item; without room for it, the kernel tells the room that it needs.
fn query(file: &DrmFile, query_id: u64, reply: &mut [u8]) -> nix::Result<usize> {
    let length = i32::try_from(reply.len()).map_err(|_| Errno::EINVAL)?;
    // The kernel gets the addresses as numbers.
    let data_ptr = reply.as_mut_ptr().expose_provenance() as u64;
    let mut item = QueryItem { query_id, length, flags: 0, data_ptr };
    let items_ptr = (&raw mut item).expose_provenance() as u64;
    let mut argument = Query { num_items: 1, flags: 0, items_ptr };
    // SAFETY: both structures have the layouts asserted above and live through the call; the kernel writes at most
    // `length` bytes to `reply`, any bit pattern of which is valid.
    repeat(|| unsafe { ioctl_query(file.as_fd().as_raw_fd(), &raw mut argument) })?;
    // The kernel writes the item behind the compiler's back. SAFETY: a valid reference of our own.
    let length = unsafe { (&raw const item.length).read_volatile() };
    // An error of the item is a negative number in its length.
    usize::try_from(length).map_err(|_| Errno::from_raw(length.saturating_neg()))
}

/// Reads `struct drm_i915_query_memory_regions`: the number of regions, three reserved words, the regions.
fn parse_regions(reply: &[u8]) -> Option<Vec<RegionInfo>> {
    let (head, regions) = reply.split_at_checked(16)?;
    let count = u32::from_ne_bytes(*head.first_chunk()?);
    let (regions, _) = regions.as_chunks::<{ size_of::<RegionInfo>() }>();
    let regions = regions.get(..usize::try_from(count).ok()?)?;
    Some(regions.iter().map(parse_region).collect())
}

fn parse_region(bytes: &[u8; size_of::<RegionInfo>()]) -> RegionInfo {
    // SAFETY: `RegionInfo` is made of integers without padding, for which every bit pattern is valid, and is as large
    // as the array.
    unsafe { std::ptr::from_ref(bytes).cast::<RegionInfo>().read_unaligned() }
}

/// `DRM_IOCTL_I915_GEM_CREATE_EXT`: a buffer in one of `regions`; returns its handle and its size, which the kernel
/// rounds up to what the regions demand.
pub(super) fn gem_create(
    file: &DrmFile,
    size: u64,
    regions: &[Region],
    flags: u32,
) -> nix::Result<(u32, u64)> {
    let extension = MemoryRegions {
        base: UserExtension { next_extension: 0, name: CREATE_EXT_MEMORY_REGIONS, flags: 0, rsvd: [0; 4] },
        pad: 0,
        num_regions: u32::try_from(regions.len()).map_err(|_| Errno::EINVAL)?,
        // The kernel gets the addresses as numbers.
        regions: regions.as_ptr().expose_provenance() as u64,
    };
    let extensions = (&raw const extension).expose_provenance() as u64;
    repeat(|| {
        let mut argument = GemCreateExt { size, handle: 0, flags, extensions };
        // SAFETY: all structures have the layouts asserted above and live through the call; the kernel only reads
        // those that the addresses lead to.
        unsafe { ioctl_gem_create_ext(file.as_fd().as_raw_fd(), &raw mut argument) }?;
        Ok((argument.handle, argument.size))
    })
}

#[cfg(test)]
mod tests;
