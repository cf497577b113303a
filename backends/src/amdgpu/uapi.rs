//! The ioctls of amdgpu, as `drm/amdgpu_drm.h` defines them.

use std::os::fd::{AsFd, AsRawFd};

use nix::{ioctl_readwrite, ioctl_write_ptr};

use crate::drm::ioctl::{BASE, COMMAND};
use crate::drm::{DrmFile, repeat};

/// `AMDGPU_GEM_DOMAIN_GTT`: system memory that the GPU reaches through its page tables.
pub(super) const DOMAIN_GTT: u64 = 2;
/// `AMDGPU_GEM_DOMAIN_VRAM`.
pub(super) const DOMAIN_VRAM: u64 = 4;

/// `AMDGPU_GEM_CREATE_CPU_ACCESS_REQUIRED`: in the window that the CPU reaches. A hint only: the kernel drops it when
/// it finds no room there.
pub(super) const CREATE_CPU_ACCESS_REQUIRED: u64 = 1;

/// `AMDGPU_IDS_FLAGS_FUSION`: the GPU is a part of the processor.
pub(super) const IDS_FLAGS_FUSION: u64 = 1;

const INFO_DEVICE: u32 = 0x16;
const INFO_MEMORY: u32 = 0x19;

/// `union drm_amdgpu_gem_create`, whose answer overlays the first word of the question.
#[repr(C)]
union GemCreate {
    question: GemCreateQuestion,
    handle: u32,
}

/// `struct drm_amdgpu_gem_create_in`.
#[repr(C)]
#[derive(Clone, Copy)]
struct GemCreateQuestion {
    bo_size: u64,
    alignment: u64,
    domains: u64,
    domain_flags: u64,
}

/// `struct drm_amdgpu_info`, with the union that no query of ours uses.
#[repr(C)]
struct Info {
    return_pointer: u64,
    return_size: u32,
    query: u32,
    union: [u32; 4],
}

/// `struct drm_amdgpu_heap_info`, in bytes.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct HeapInfo {
    pub(super) total_heap_size: u64,
    pub(super) usable_heap_size: u64,
    pub(super) heap_usage: u64,
    pub(super) max_allocation: u64,
}

/// `struct drm_amdgpu_memory_info`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct MemoryInfo {
    pub(super) vram: HeapInfo,
    pub(super) cpu_accessible_vram: HeapInfo,
    pub(super) gtt: HeapInfo,
}

/// The beginning of `struct drm_amdgpu_info_device`: the kernel writes as much as is asked for.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct DeviceInfo {
    before: [u32; 34],
    ids_flags: u64,
}

const _: () = {
    assert!(nix::request_code_readwrite!(BASE, COMMAND, size_of::<GemCreate>()) == 0xc020_6440);
    assert!(nix::request_code_write!(BASE, COMMAND + 5, size_of::<Info>()) == 0x4020_6445);
    assert!(size_of::<MemoryInfo>() == 96);
    assert!(std::mem::offset_of!(DeviceInfo, ids_flags) == 136);
};

ioctl_readwrite!(ioctl_gem_create, BASE, COMMAND, GemCreate);
ioctl_write_ptr!(ioctl_info, BASE, COMMAND + 5, Info);

/// `DRM_IOCTL_AMDGPU_GEM_CREATE`: a buffer in one of `domains`; returns its handle.
pub(super) fn gem_create(file: &DrmFile, size: u64, domains: u64, domain_flags: u64) -> nix::Result<u32> {
    let question = GemCreateQuestion { bo_size: size, alignment: 0, domains, domain_flags };
    repeat(|| {
        let mut argument = GemCreate { question };
        // SAFETY: `argument` has the layout asserted above and lives through the call.
        unsafe { ioctl_gem_create(file.as_fd().as_raw_fd(), &raw mut argument) }?;
        // SAFETY: the kernel has written the answer; any bits are a valid u32.
        Ok(unsafe { argument.handle })
    })
}

/// `AMDGPU_INFO_MEMORY`: the heaps and what is in use.
pub(super) fn memory(file: &DrmFile) -> nix::Result<MemoryInfo> {
    let mut answer = MemoryInfo::default();
    // SAFETY: all of `MemoryInfo` are integers, for which every bit pattern is valid.
    unsafe { info(file, INFO_MEMORY, &mut answer) }?;
    Ok(answer)
}

/// `AMDGPU_INFO_DEV_INFO`: the flags of the chip.
pub(super) fn device_flags(file: &DrmFile) -> nix::Result<u64> {
    let mut answer = DeviceInfo { before: [0; 34], ids_flags: 0 };
    // SAFETY: all of `DeviceInfo` are integers, for which every bit pattern is valid.
    unsafe { info(file, INFO_DEVICE, &mut answer) }?;
    Ok(answer.ids_flags)
}

/// `DRM_IOCTL_AMDGPU_INFO`.
///
/// # Safety
///
/// Every bit pattern must be a valid `T`.
unsafe fn info<T>(file: &DrmFile, query: u32, answer: &mut T) -> nix::Result<()> {
    let return_size = u32::try_from(size_of::<T>()).map_err(|_| nix::errno::Errno::EINVAL)?;
    // The kernel gets the address as a number.
    let return_pointer = std::ptr::from_mut(answer).expose_provenance() as u64;
    let argument = Info { return_pointer, return_size, query, union: [0; 4] };
    // SAFETY: the kernel writes at most `return_size` bytes to `answer`, which lives through the call and takes any
    // bit pattern by the caller's promise; `argument` has the layout asserted above and is only read.
    repeat(|| unsafe { ioctl_info(file.as_fd().as_raw_fd(), &raw const argument) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drm::headers;
    use devmem_uapi_check::layouts;

    #[test]
    fn the_kernel_headers_agree() {
        headers::drm("amdgpu_drm.h")
            .value("AMDGPU_GEM_DOMAIN_GTT", DOMAIN_GTT)
            .value("AMDGPU_GEM_DOMAIN_VRAM", DOMAIN_VRAM)
            .value("AMDGPU_GEM_CREATE_CPU_ACCESS_REQUIRED", CREATE_CPU_ACCESS_REQUIRED)
            .value("AMDGPU_IDS_FLAGS_FUSION", IDS_FLAGS_FUSION)
            .value("AMDGPU_INFO_DEV_INFO", INFO_DEVICE)
            .value("AMDGPU_INFO_MEMORY", INFO_MEMORY)
            .value(
                "DRM_IOCTL_AMDGPU_GEM_CREATE",
                nix::request_code_readwrite!(BASE, COMMAND, size_of::<GemCreate>()),
            )
            .value("DRM_IOCTL_AMDGPU_INFO", nix::request_code_write!(BASE, COMMAND + 5, size_of::<Info>()))
            .value("sizeof(union drm_amdgpu_gem_create)", size_of::<GemCreate>() as u64)
            .value(
                "offsetof(struct drm_amdgpu_info_device, ids_flags)",
                std::mem::offset_of!(DeviceInfo, ids_flags) as u64,
            )
            .values(layouts! {
                GemCreateQuestion as "drm_amdgpu_gem_create_in" { bo_size, alignment, domains, domain_flags }
                Info as "drm_amdgpu_info" { return_pointer, return_size, query }
                HeapInfo as "drm_amdgpu_heap_info" {
                    total_heap_size, usable_heap_size, heap_usage, max_allocation
                }
                MemoryInfo as "drm_amdgpu_memory_info" { vram, cpu_accessible_vram, gtt }
            })
            .assert();
    }
}
