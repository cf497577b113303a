//! The ioctls of virtio-gpu, as `drm/virtgpu_drm.h` defines them.

use std::os::fd::{AsFd, AsRawFd};

use nix::ioctl_readwrite;

use crate::drm::ioctl::{BASE, COMMAND};
use crate::drm::{DrmFile, repeat};

/// `VIRTGPU_PARAM_RESOURCE_BLOB`: whether buffers without a format can be made.
pub(super) const PARAMETER_RESOURCE_BLOB: u64 = 3;
/// `VIRTGPU_PARAM_HOST_VISIBLE`: whether the device has a window in which its memory is seen.
pub(super) const PARAMETER_HOST_VISIBLE: u64 = 4;
/// `VIRTGPU_PARAM_SUPPORTED_CAPSET_IDs`: a mask of the protocols that the device speaks.
pub(super) const PARAMETER_CAPSETS: u64 = 7;
/// `VIRTGPU_PARAM_BLOB_ALIGNMENT`: what the sizes of blobs are multiples of.
pub(super) const PARAMETER_BLOB_ALIGNMENT: u64 = 9;

/// `VIRTIO_GPU_CAPSET_VENUS`: Vulkan's protocol, in which a blob of the identifier 0 is plain memory.
pub(super) const CAPSET_VENUS: u64 = 4;

/// `VIRTGPU_BLOB_MEM_GUEST`: the guest's pages.
pub(super) const MEMORY_GUEST: u32 = 1;
/// `VIRTGPU_BLOB_MEM_HOST3D`: memory of the device.
pub(super) const MEMORY_HOST3D: u32 = 2;

const FLAG_USE_MAPPABLE: u32 = 1;
const FLAG_USE_SHAREABLE: u32 = 2;
const CONTEXT_CAPSET_ID: u64 = 1;

/// `struct drm_virtgpu_getparam`.
#[repr(C)]
struct GetParameter {
    param: u64,
    value: u64,
}

/// `struct drm_virtgpu_resource_info`.
#[repr(C)]
struct ResourceInfo {
    bo_handle: u32,
    res_handle: u32,
    size: u32,
    blob_mem: u32,
}

/// `struct drm_virtgpu_resource_create_blob`. Kernels before 7.1 lack the last two members, and the DRM core passes
/// them what they know.
#[repr(C)]
struct CreateBlob {
    blob_mem: u32,
    blob_flags: u32,
    bo_handle: u32,
    res_handle: u32,
    size: u64,
    pad: u32,
    cmd_size: u32,
    cmd: u64,
    blob_id: u64,
    blob_hints: u32,
    pad2: u32,
}

/// `struct drm_virtgpu_context_set_param`.
#[repr(C)]
struct ContextParameter {
    param: u64,
    value: u64,
}

/// `struct drm_virtgpu_context_init`.
#[repr(C)]
struct ContextInit {
    num_params: u32,
    pad: u32,
    ctx_set_params: u64,
}

const _: () = {
    assert!(nix::request_code_readwrite!(BASE, COMMAND + 3, size_of::<GetParameter>()) == 0xc010_6443);
    assert!(nix::request_code_readwrite!(BASE, COMMAND + 5, size_of::<ResourceInfo>()) == 0xc010_6445);
    assert!(nix::request_code_readwrite!(BASE, COMMAND + 10, size_of::<CreateBlob>()) == 0xc038_644a);
    assert!(nix::request_code_readwrite!(BASE, COMMAND + 11, size_of::<ContextInit>()) == 0xc010_644b);
};

ioctl_readwrite!(ioctl_getparam, BASE, COMMAND + 3, GetParameter);
ioctl_readwrite!(ioctl_resource_info, BASE, COMMAND + 5, ResourceInfo);
ioctl_readwrite!(ioctl_create_blob, BASE, COMMAND + 10, CreateBlob);
ioctl_readwrite!(ioctl_context_init, BASE, COMMAND + 11, ContextInit);

/// `DRM_IOCTL_VIRTGPU_GETPARAM`; `EINVAL` or `ENOENT` for a parameter that this kernel or this device does not have.
pub(super) fn parameter(file: &DrmFile, param: u64) -> nix::Result<u64> {
    // Room for what the interface says; the kernel writes an int.
    let mut value = 0u64;
    // The kernel gets the address as a number.
    let mut argument = GetParameter { param, value: (&raw mut value).expose_provenance() as u64 };
    // SAFETY: `argument` has the layout asserted above; the kernel writes at most 8 bytes to `value`. Both live
    // through the call.
    repeat(|| unsafe { ioctl_getparam(file.as_fd().as_raw_fd(), &raw mut argument) })?;
    // SAFETY: a valid reference of our own; the kernel has written to it behind the compiler's back.
    let value = unsafe { (&raw const value).read_volatile() };
    // The int lies in the first four bytes, whatever the byte order.
    let [int @ .., _, _, _, _] = value.to_ne_bytes();
    Ok(u32::from_ne_bytes(int).into())
}

/// `DRM_IOCTL_VIRTGPU_CONTEXT_INIT`: makes the file's context speak a protocol.
pub(super) fn context_init(file: &DrmFile, capset: u64) -> nix::Result<()> {
    let parameter = ContextParameter { param: CONTEXT_CAPSET_ID, value: capset };
    // The kernel gets the address as a number.
    let ctx_set_params = (&raw const parameter).expose_provenance() as u64;
    let mut argument = ContextInit { num_params: 1, pad: 0, ctx_set_params };
    // SAFETY: both structures have the layouts asserted above and live through the call; the kernel only reads them.
    repeat(|| unsafe { ioctl_context_init(file.as_fd().as_raw_fd(), &raw mut argument) }).map(drop)
}

/// `DRM_IOCTL_VIRTGPU_RESOURCE_CREATE_BLOB`: a buffer that can be mapped and shared; returns its handle. That the host
/// refused it shows only when it is mapped.
pub(super) fn create_blob(file: &DrmFile, blob_mem: u32, size: u64) -> nix::Result<u32> {
    repeat(|| {
        let mut argument = CreateBlob {
            blob_mem,
            blob_flags: FLAG_USE_MAPPABLE | FLAG_USE_SHAREABLE,
            bo_handle: 0,
            res_handle: 0,
            size,
            pad: 0,
            cmd_size: 0,
            cmd: 0,
            blob_id: 0,
            blob_hints: 0,
            pad2: 0,
        };
        // SAFETY: `argument` has the layout asserted above and lives through the call.
        unsafe { ioctl_create_blob(file.as_fd().as_raw_fd(), &raw mut argument) }?;
        Ok(argument.bo_handle)
    })
}

/// `DRM_IOCTL_VIRTGPU_RESOURCE_INFO`: what memory a buffer has; 0 for one that is no blob.
pub(super) fn memory_of(file: &DrmFile, bo_handle: u32) -> nix::Result<u32> {
    let mut argument = ResourceInfo { bo_handle, res_handle: 0, size: 0, blob_mem: 0 };
    // SAFETY: `argument` has the layout asserted above and lives through the call.
    repeat(|| unsafe { ioctl_resource_info(file.as_fd().as_raw_fd(), &raw mut argument) })?;
    Ok(argument.blob_mem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drm::headers;
    use devmem_uapi_check::layouts;
    use std::mem::offset_of;

    #[test]
    fn the_kernel_headers_agree() {
        let blob = |member, offset: usize| {
            (format!("offsetof(struct drm_virtgpu_resource_create_blob, {member})"), offset as i128)
        };
        headers::drm("virtgpu_drm.h")
            .value("VIRTGPU_PARAM_RESOURCE_BLOB", PARAMETER_RESOURCE_BLOB)
            .value("VIRTGPU_PARAM_HOST_VISIBLE", PARAMETER_HOST_VISIBLE)
            .value("VIRTGPU_PARAM_SUPPORTED_CAPSET_IDs", PARAMETER_CAPSETS)
            .value("VIRTGPU_PARAM_BLOB_ALIGNMENT", PARAMETER_BLOB_ALIGNMENT)
            .value("VIRTGPU_DRM_CAPSET_VENUS", CAPSET_VENUS)
            .value("VIRTGPU_BLOB_MEM_GUEST", MEMORY_GUEST)
            .value("VIRTGPU_BLOB_MEM_HOST3D", MEMORY_HOST3D)
            .value("VIRTGPU_BLOB_FLAG_USE_MAPPABLE", FLAG_USE_MAPPABLE)
            .value("VIRTGPU_BLOB_FLAG_USE_SHAREABLE", FLAG_USE_SHAREABLE)
            .value("VIRTGPU_CONTEXT_PARAM_CAPSET_ID", CONTEXT_CAPSET_ID)
            .value("DRM_VIRTGPU_RESOURCE_CREATE_BLOB", 10)
            .value(
                "DRM_IOCTL_VIRTGPU_GETPARAM",
                nix::request_code_readwrite!(BASE, COMMAND + 3, size_of::<GetParameter>()),
            )
            .value(
                "DRM_IOCTL_VIRTGPU_RESOURCE_INFO",
                nix::request_code_readwrite!(BASE, COMMAND + 5, size_of::<ResourceInfo>()),
            )
            .value(
                "DRM_IOCTL_VIRTGPU_CONTEXT_INIT",
                nix::request_code_readwrite!(BASE, COMMAND + 11, size_of::<ContextInit>()),
            )
            .values(layouts! {
                GetParameter as "drm_virtgpu_getparam" { param, value }
                ResourceInfo as "drm_virtgpu_resource_info" { bo_handle, res_handle, size, blob_mem }
                ContextParameter as "drm_virtgpu_context_set_param" { param, value }
                ContextInit as "drm_virtgpu_context_init" { num_params, ctx_set_params }
            })
            // Its size, and with it the number of the request, grew: only members are compared.
            .values([
                blob("blob_mem", offset_of!(CreateBlob, blob_mem)),
                blob("blob_flags", offset_of!(CreateBlob, blob_flags)),
                blob("bo_handle", offset_of!(CreateBlob, bo_handle)),
                blob("size", offset_of!(CreateBlob, size)),
                blob("cmd_size", offset_of!(CreateBlob, cmd_size)),
                blob("blob_id", offset_of!(CreateBlob, blob_id)),
                blob("blob_hints", offset_of!(CreateBlob, blob_hints)),
            ])
            .assert();
    }
}
