//! DMA-bufs: guest memory, and memory of the GPU.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::sys::{ioctl, own};

/// `UDMABUF_CREATE` of `linux/udmabuf.h`.
const UDMABUF_CREATE: u64 = 0x4018_7542;
/// `DRM_IOCTL_AMDGPU_GEM_CREATE` of `drm/amdgpu_drm.h`.
const AMDGPU_GEM_CREATE: u64 = 0xc020_6440;
/// `DRM_IOCTL_PRIME_HANDLE_TO_FD` of `drm/drm.h`.
const PRIME_HANDLE_TO_FD: u64 = 0xc00c_642d;
/// `AMDGPU_GEM_DOMAIN_VRAM`.
const DOMAIN_VRAM: u64 = 4;
/// `AMDGPU_GEM_CREATE_CPU_ACCESS_REQUIRED`.
const CPU_ACCESS_REQUIRED: u64 = 1;
/// `O_RDWR | O_CLOEXEC`, as `DRM_RDWR | DRM_CLOEXEC`.
const READ_WRITE: u64 = 0o2_000_002;

fn open(path: &str) -> File {
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

/// A DMA-buf of guest memory.
pub(crate) fn udmabuf(size: u64) -> OwnedFd {
    let memory = File::from(memfd_create(c"buffer", MFdFlags::MFD_ALLOW_SEALING).unwrap());
    memory.set_len(size).unwrap();
    fcntl(&memory, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK)).unwrap();
    let descriptor = u64::from(memory.as_raw_fd().cast_unsigned());
    // The descriptor and the flag for close-on-exec, the offset, the size.
    own(ioctl(&open("/dev/udmabuf"), UDMABUF_CREATE, &mut [descriptor | 1 << 32, 0, size]).unwrap())
}

/// A DMA-buf of the GPU's memory, and the GPU that keeps it.
pub(crate) fn vram(size: u64) -> (File, OwnedFd) {
    let gpu = open("/dev/dri/renderD128");
    let mut create = [size, 4096, DOMAIN_VRAM, CPU_ACCESS_REQUIRED];
    ioctl(&gpu, AMDGPU_GEM_CREATE, &mut create).unwrap();
    let handle = create[0] & 0xffff_ffff;
    let mut export = [handle | READ_WRITE << 32, 0];
    ioctl(&gpu, PRIME_HANDLE_TO_FD, &mut export).unwrap();
    (gpu, own(export[1] as i32))
}
