//! The ioctls of xe, as `drm/xe_drm.h` defines them.

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::ioctl_readwrite;

use crate::drm::ioctl::{BASE, COMMAND};
use crate::drm::{DrmFile, repeat};

/// `DRM_XE_MEM_REGION_CLASS_SYSMEM`.
pub(super) const CLASS_SYSTEM: u16 = 0;
/// `DRM_XE_MEM_REGION_CLASS_VRAM`.
pub(super) const CLASS_VRAM: u16 = 1;

/// `DRM_XE_GEM_CREATE_FLAG_NEEDS_VISIBLE_VRAM`: in the window that the CPU and peers reach.
pub(super) const CREATE_NEEDS_VISIBLE_VRAM: u32 = 1 << 2;

/// `DRM_XE_GEM_CPU_CACHING_WB`.
pub(super) const CACHING_WRITE_BACK: u16 = 1;
/// `DRM_XE_GEM_CPU_CACHING_WC`: the only one for buffers that may lie in VRAM.
pub(super) const CACHING_WRITE_COMBINED: u16 = 2;

const QUERY_MEMORY_REGIONS: u32 = 1;
const MMAP_FLAG_PCI_BARRIER: u32 = 1;

/// `struct drm_xe_mem_region`. Sizes are in bytes.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MemoryRegion {
    pub(super) mem_class: u16,
    /// The bit that stands for it in a placement.
    pub(super) instance: u16,
    pub(super) min_page_size: u32,
    pub(super) total_size: u64,
    pub(super) used: u64,
    pub(super) cpu_visible_size: u64,
    cpu_visible_used: u64,
    reserved: [u64; 6],
}

/// `struct drm_xe_device_query`.
#[repr(C)]
struct DeviceQuery {
    extensions: u64,
    query: u32,
    size: u32,
    data: u64,
    reserved: [u64; 2],
}

/// `struct drm_xe_gem_create`.
#[repr(C)]
struct GemCreate {
    extensions: u64,
    size: u64,
    placement: u32,
    flags: u32,
    vm_id: u32,
    handle: u32,
    cpu_caching: u16,
    pad: [u16; 3],
    reserved: [u64; 2],
}

/// `struct drm_xe_gem_mmap_offset`.
#[repr(C)]
struct MmapOffset {
    extensions: u64,
    handle: u32,
    flags: u32,
    offset: u64,
    reserved: [u64; 2],
}

const _: () = {
    assert!(nix::request_code_readwrite!(BASE, COMMAND, size_of::<DeviceQuery>()) == 0xc028_6440);
    assert!(nix::request_code_readwrite!(BASE, COMMAND + 1, size_of::<GemCreate>()) == 0xc038_6441);
    assert!(nix::request_code_readwrite!(BASE, COMMAND + 2, size_of::<MmapOffset>()) == 0xc028_6442);
    assert!(size_of::<MemoryRegion>() == 88);
};

ioctl_readwrite!(ioctl_device_query, BASE, COMMAND, DeviceQuery);
ioctl_readwrite!(ioctl_gem_create, BASE, COMMAND + 1, GemCreate);
ioctl_readwrite!(ioctl_mmap_offset, BASE, COMMAND + 2, MmapOffset);

/// `DRM_XE_DEVICE_QUERY_MEM_REGIONS`: the regions that users may place buffers in.
pub(super) fn memory_regions(file: &DrmFile) -> nix::Result<Vec<MemoryRegion>> {
    let length = query(file, QUERY_MEMORY_REGIONS, &mut [])?;
    let mut reply = vec![0; usize::try_from(length).map_err(|_| Errno::E2BIG)?];
    query(file, QUERY_MEMORY_REGIONS, &mut reply)?;
    parse_regions(&reply).ok_or(Errno::EPROTO)
}

/// Asks for something; without room for it, the kernel tells the room that it needs.
fn query(file: &DrmFile, query: u32, reply: &mut [u8]) -> nix::Result<u32> {
    let size = u32::try_from(reply.len()).map_err(|_| Errno::EINVAL)?;
    // The kernel gets the address as a number.
    let data = reply.as_mut_ptr().expose_provenance() as u64;
    let mut argument = DeviceQuery { extensions: 0, query, size, data, reserved: [0; 2] };
    // SAFETY: `argument` has the layout asserted above and lives through the call; the kernel writes at most `size`
    // bytes to `reply`, any bit pattern of which is valid.
    repeat(|| unsafe { ioctl_device_query(file.as_fd().as_raw_fd(), &raw mut argument) })?;
    Ok(argument.size)
}

/// Reads `struct drm_xe_query_mem_regions`: the number of regions, a reserved word, the regions.
fn parse_regions(reply: &[u8]) -> Option<Vec<MemoryRegion>> {
    let (head, regions) = reply.split_at_checked(8)?;
    let count = u32::from_ne_bytes(*head.first_chunk()?);
    let (regions, _) = regions.as_chunks::<{ size_of::<MemoryRegion>() }>();
    let regions = regions.get(..usize::try_from(count).ok()?)?;
    Some(regions.iter().map(parse_region).collect())
}

fn parse_region(bytes: &[u8; size_of::<MemoryRegion>()]) -> MemoryRegion {
    // SAFETY: `MemoryRegion` is made of integers without padding, for which every bit pattern is valid, and is as
    // large as the array.
    unsafe { std::ptr::from_ref(bytes).cast::<MemoryRegion>().read_unaligned() }
}

/// `DRM_IOCTL_XE_GEM_CREATE`: a buffer in one of the regions of `placement`, a mask of instances; returns its handle.
/// It belongs to no address space, without which it could not be exported.
pub(super) fn gem_create(
    file: &DrmFile,
    size: u64,
    placement: u32,
    flags: u32,
    cpu_caching: u16,
) -> nix::Result<u32> {
    repeat(|| {
        let mut argument = GemCreate {
            extensions: 0,
            size,
            placement,
            flags,
            vm_id: 0,
            handle: 0,
            cpu_caching,
            pad: [0; 3],
            reserved: [0; 2],
        };
        // SAFETY: `argument` has the layout asserted above and lives through the call.
        unsafe { ioctl_gem_create(file.as_fd().as_raw_fd(), &raw mut argument) }?;
        Ok(argument.handle)
    })
}

/// `DRM_XE_MMAP_OFFSET_FLAG_PCI_BARRIER`: where in the file the page is mapped of which every store is a barrier.
/// `EINVAL` without memory of its own, or on kernels that do not have it.
pub(super) fn barrier_offset(file: &DrmFile) -> nix::Result<u64> {
    let mut argument =
        MmapOffset { extensions: 0, handle: 0, flags: MMAP_FLAG_PCI_BARRIER, offset: 0, reserved: [0; 2] };
    // SAFETY: `argument` has the layout asserted above and lives through the call.
    repeat(|| unsafe { ioctl_mmap_offset(file.as_fd().as_raw_fd(), &raw mut argument) })?;
    Ok(argument.offset)
}

#[cfg(test)]
mod tests;
