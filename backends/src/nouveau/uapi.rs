//! The ioctls of nouveau, as `drm/nouveau_drm.h` defines them.

use std::os::fd::{AsFd, AsRawFd};

use nix::ioctl_readwrite;

use crate::drm::ioctl::{BASE, COMMAND};
use crate::drm::{DrmFile, repeat};

/// `NOUVEAU_GETPARAM_BUS_TYPE`.
pub(super) const PARAMETER_BUS_TYPE: u64 = 5;
/// `NOUVEAU_GETPARAM_FB_SIZE`: the VRAM that users may have, in bytes.
pub(super) const PARAMETER_FB_SIZE: u64 = 8;
/// `NOUVEAU_GETPARAM_AGP_SIZE`: what the GPU can reach of system memory, by whatever bus, in bytes.
pub(super) const PARAMETER_AGP_SIZE: u64 = 9;
/// `NOUVEAU_GETPARAM_CHIPSET_ID`.
pub(super) const PARAMETER_CHIPSET_ID: u64 = 11;
/// `NOUVEAU_GETPARAM_VRAM_BAR_SIZE`, since version 1.3.1 of the interface.
pub(super) const PARAMETER_VRAM_BAR_SIZE: u64 = 18;
/// `NOUVEAU_GETPARAM_VRAM_USED`, since version 1.3.1 of the interface.
pub(super) const PARAMETER_VRAM_USED: u64 = 19;

/// The bus of a GPU that is a part of the processor (`nouveau_abi16_ioctl_getparam()`).
pub(super) const BUS_SOC: u64 = 3;

/// `NOUVEAU_GEM_DOMAIN_VRAM`.
pub(super) const DOMAIN_VRAM: u32 = 1 << 1;
/// `NOUVEAU_GEM_DOMAIN_GART`: system memory that the GPU reaches through its page tables.
pub(super) const DOMAIN_GART: u32 = 1 << 2;
/// `NOUVEAU_GEM_TILE_NONCONTIG`: the buffer may lie in several pieces.
pub(super) const TILE_NONCONTIG: u32 = 8;

/// `struct drm_nouveau_getparam`.
#[repr(C)]
struct GetParameter {
    param: u64,
    value: u64,
}

/// `struct drm_nouveau_gem_info`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct GemInfo {
    pub(super) handle: u32,
    pub(super) domain: u32,
    pub(super) size: u64,
    offset: u64,
    map_handle: u64,
    tile_mode: u32,
    tile_flags: u32,
}

/// `struct drm_nouveau_gem_new`.
#[repr(C)]
struct GemNew {
    info: GemInfo,
    channel_hint: u32,
    align: u32,
}

const _: () = {
    assert!(nix::request_code_readwrite!(BASE, COMMAND, size_of::<GetParameter>()) == 0xc010_6440);
    assert!(nix::request_code_readwrite!(BASE, COMMAND + 0x40, size_of::<GemNew>()) == 0xc030_6480);
    assert!(nix::request_code_readwrite!(BASE, COMMAND + 0x44, size_of::<GemInfo>()) == 0xc028_6484);
};

ioctl_readwrite!(ioctl_getparam, BASE, COMMAND, GetParameter);
ioctl_readwrite!(ioctl_gem_new, BASE, COMMAND + 0x40, GemNew);
ioctl_readwrite!(ioctl_gem_info, BASE, COMMAND + 0x44, GemInfo);

/// `DRM_IOCTL_NOUVEAU_GETPARAM`; `EINVAL` for a parameter that this kernel does not know.
pub(super) fn parameter(file: &DrmFile, param: u64) -> nix::Result<u64> {
    let mut argument = GetParameter { param, value: 0 };
    // SAFETY: `argument` has the layout asserted above and lives through the call.
    repeat(|| unsafe { ioctl_getparam(file.as_fd().as_raw_fd(), &raw mut argument) })?;
    Ok(argument.value)
}

/// `DRM_IOCTL_NOUVEAU_GEM_NEW`: a buffer in one of `domain`; tells its handle, its size and where it lies.
pub(super) fn gem_new(file: &DrmFile, size: u64, domain: u32, tile_flags: u32) -> nix::Result<GemInfo> {
    repeat(|| {
        let info = GemInfo { domain, size, tile_flags, ..GemInfo::default() };
        let mut argument = GemNew { info, channel_hint: 0, align: 0 };
        // SAFETY: `argument` has the layout asserted above and lives through the call.
        unsafe { ioctl_gem_new(file.as_fd().as_raw_fd(), &raw mut argument) }?;
        Ok(argument.info)
    })
}

/// `DRM_IOCTL_NOUVEAU_GEM_INFO`: where a buffer lies.
pub(super) fn gem_info(file: &DrmFile, handle: u32) -> nix::Result<GemInfo> {
    let mut argument = GemInfo { handle, ..GemInfo::default() };
    // SAFETY: `argument` has the layout asserted above and lives through the call.
    repeat(|| unsafe { ioctl_gem_info(file.as_fd().as_raw_fd(), &raw mut argument) })?;
    Ok(argument)
}

#[cfg(test)]
mod tests {
    use super::*;
    use devmem_uapi_check::{Header, layouts};

    #[test]
    fn the_kernel_headers_agree() {
        // libdrm's copy is another, older one, which does not compile alone.
        Header::new("drm/nouveau_drm.h")
            .value("NOUVEAU_GETPARAM_BUS_TYPE", PARAMETER_BUS_TYPE)
            .value("NOUVEAU_GETPARAM_FB_SIZE", PARAMETER_FB_SIZE)
            .value("NOUVEAU_GETPARAM_AGP_SIZE", PARAMETER_AGP_SIZE)
            .value("NOUVEAU_GETPARAM_CHIPSET_ID", PARAMETER_CHIPSET_ID)
            .value("NOUVEAU_GETPARAM_VRAM_BAR_SIZE", PARAMETER_VRAM_BAR_SIZE)
            .value("NOUVEAU_GETPARAM_VRAM_USED", PARAMETER_VRAM_USED)
            .value("NOUVEAU_GEM_DOMAIN_VRAM", DOMAIN_VRAM)
            .value("NOUVEAU_GEM_DOMAIN_GART", DOMAIN_GART)
            .value("NOUVEAU_GEM_TILE_NONCONTIG", TILE_NONCONTIG)
            .value(
                "DRM_IOCTL_NOUVEAU_GETPARAM",
                nix::request_code_readwrite!(BASE, COMMAND, size_of::<GetParameter>()),
            )
            .value(
                "DRM_IOCTL_NOUVEAU_GEM_NEW",
                nix::request_code_readwrite!(BASE, COMMAND + 0x40, size_of::<GemNew>()),
            )
            .value(
                "DRM_IOCTL_NOUVEAU_GEM_INFO",
                nix::request_code_readwrite!(BASE, COMMAND + 0x44, size_of::<GemInfo>()),
            )
            .values(layouts! {
                GetParameter as "drm_nouveau_getparam" { param, value }
                GemInfo as "drm_nouveau_gem_info" {
                    handle, domain, size, offset, map_handle, tile_mode, tile_flags
                }
                GemNew as "drm_nouveau_gem_new" { info, channel_hint, align }
            })
            .assert();
    }
}
