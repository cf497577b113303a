//! The ioctls of the backends, written straight: no trait, no allocation, no extra call.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use devmem_provider::{DeviceKind, Provider};
use nix::libc;

use crate::Failure;

/// How one driver's buffers are made.
#[derive(Debug)]
enum Create {
    Udmabuf,
    Amdgpu,
    I915 { device: bool },
    Nouveau,
}

/// A node and what to tell it.
#[derive(Debug)]
pub(crate) struct Straight {
    node: File,
    create: Create,
    bytes: u64,
}

// Request numbers of `drm.h`, `amdgpu_drm.h`, `i915_drm.h`, `nouveau_drm.h` and `udmabuf.h`.
const GEM_CLOSE: u64 = 0x4008_6409;
const PRIME_HANDLE_TO_FD: u64 = 0xc00c_642d;
const AMDGPU_GEM_CREATE: u64 = 0xc020_6440;
const I915_GEM_CREATE_EXT: u64 = 0xc018_647c;
const NOUVEAU_GEM_NEW: u64 = 0xc030_6480;
const UDMABUF_CREATE: u64 = 0x4018_7542;

// Words of 64 bits below hold two members of 32 bits each, the first in the lower half.
const _: () = assert!(cfg!(target_endian = "little"));

impl Straight {
    /// The straight way to what a provider does by default; `None` for providers that are not compared.
    pub(crate) fn of(provider: &dyn Provider, bytes: u64) -> Result<Option<Self>, Failure> {
        let identity = provider.identity();
        let create = match identity.backend {
            "udmabuf" => Create::Udmabuf,
            "amdgpu" => Create::Amdgpu,
            "i915" => Create::I915 { device: identity.kind == DeviceKind::Discrete },
            "nouveau" => Create::Nouveau,
            _ => return Ok(None),
        };
        let node = OpenOptions::new().read(true).write(true).open(&identity.node)?;
        Ok(Some(Self { node, create, bytes }))
    }

    /// Allocates, exports and frees once.
    pub(crate) fn cycle(&self) -> Result<(), Failure> {
        let drm = self.node.as_raw_fd();
        let handle = match self.create {
            Create::Udmabuf => return udmabuf(drm, self.bytes),
            Create::Amdgpu => amdgpu(drm, self.bytes)?,
            Create::I915 { device } => i915(drm, self.bytes, device)?,
            Create::Nouveau => nouveau(drm, self.bytes)?,
        };
        let mut prime = [handle, (libc::O_CLOEXEC | libc::O_RDWR) as u32, 0];
        ioctl(drm, PRIME_HANDLE_TO_FD, &mut prime)?;
        let dma_buf = own(prime[2] as RawFd);
        ioctl(drm, GEM_CLOSE, &mut [handle, 0])?;
        drop(dma_buf);
        Ok(())
    }
}

fn udmabuf(node: RawFd, bytes: u64) -> Result<(), Failure> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: the name is a C string.
    let memfd = own(check(unsafe { libc::memfd_create(c"straight".as_ptr(), flags) })?);
    // SAFETY: no pointers are passed.
    check(unsafe { libc::ftruncate(memfd.as_raw_fd(), bytes as i64) })?;
    // SAFETY: as above.
    check(unsafe { libc::fcntl(memfd.as_raw_fd(), libc::F_ADD_SEALS, libc::F_SEAL_SHRINK) })?;
    // memfd and flags, offset, size.
    let mut create = [memfd.as_raw_fd() as u64 | 1 << 32, 0, bytes];
    let dma_buf = own(ioctl(node, UDMABUF_CREATE, &mut create)?);
    drop(memfd);
    drop(dma_buf);
    Ok(())
}

/// VRAM that the CPU reaches.
fn amdgpu(drm: RawFd, bytes: u64) -> Result<u32, Failure> {
    let mut create = [bytes, 0, 4, 1];
    ioctl(drm, AMDGPU_GEM_CREATE, &mut create)?;
    Ok(create[0] as u32)
}

/// Device memory that the CPU reaches, else system memory.
fn i915(drm: RawFd, bytes: u64, device: bool) -> Result<u32, Failure> {
    // Class and instance of each region.
    let regions: [[u16; 2]; 2] = [[1, 0], [0, 0]];
    let placements = if device { &regions[..] } else { &regions[1..] };
    // Next extension, name and flags, reserved, padding and number of regions, their address.
    let extension: [u64; 6] = [0, 0, 0, 0, (placements.len() as u64) << 32, placements.as_ptr() as u64];
    // Size, handle and flags, the extension's address.
    let mut create = [bytes, u64::from(device) << 32, extension.as_ptr() as u64];
    ioctl(drm, I915_GEM_CREATE_EXT, &mut create)?;
    Ok(create[1] as u32)
}

/// VRAM or GART, in any number of pieces.
fn nouveau(drm: RawFd, bytes: u64) -> Result<u32, Failure> {
    // Handle and domains, size, offset, map handle, tile mode and flags, channel and alignment.
    let mut create = [6 << 32, bytes, 0, 0, 8 << 32, 0];
    ioctl(drm, NOUVEAU_GEM_NEW, &mut create)?;
    Ok(create[0] as u32)
}

fn ioctl<T, const N: usize>(fd: RawFd, request: u64, argument: &mut [T; N]) -> Result<RawFd, Failure> {
    debug_assert_eq!(size_of::<[T; N]>() as u64, request >> 16 & 0x3fff);
    // SAFETY: the argument is as large as the request says, and addresses in it lead to what lives through the call.
    check(unsafe { libc::ioctl(fd, request as libc::Ioctl, argument.as_mut_ptr()) })
}

/// Closes it on drop, as a program in Rust would.
fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just returned it, and nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn check(result: i32) -> Result<i32, Failure> {
    if result < 0 { Err(std::io::Error::last_os_error().into()) } else { Ok(result) }
}
