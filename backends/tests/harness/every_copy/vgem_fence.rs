//! Fences that signal when a test says so: those of vgem (`include/uapi/drm/vgem_drm.h`), which signal by themselves
//! after 10 seconds.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use devmem_backends::find;
use devmem_provider::DmaBuf;
use devmem_provider::dma_buf::FenceUse;

use crate::harness::{Failure, Outcome, skip};

const WRITE: u32 = 1;

/// `struct drm_mode_create_dumb`.
#[repr(C)]
#[derive(Default)]
struct CreateDumb {
    height: u32,
    width: u32,
    bits_per_pixel: u32,
    flags: u32,
    handle: u32,
    pitch: u32,
    size: u64,
}

/// `struct drm_prime_handle`.
#[repr(C)]
#[derive(Default)]
struct PrimeHandle {
    handle: u32,
    flags: u32,
    fd: i32,
}

/// `struct drm_vgem_fence_attach`.
#[repr(C)]
#[derive(Default)]
struct FenceAttach {
    handle: u32,
    flags: u32,
    out_fence: u32,
    padding: u32,
}

/// `struct drm_vgem_fence_signal`.
#[repr(C)]
#[derive(Default)]
struct FenceSignal {
    fence: u32,
    flags: u32,
}

nix::ioctl_readwrite!(create_dumb, b'd', 0xb2, CreateDumb);
nix::ioctl_readwrite!(handle_to_fd, b'd', 0x2d, PrimeHandle);
nix::ioctl_readwrite!(fence_attach, b'd', 0x41, FenceAttach);
nix::ioctl_write_ptr!(fence_signal, b'd', 0x42, FenceSignal);

/// A buffer of vgem, to which fences can be attached.
pub(super) struct VgemBuffer {
    pub(super) dma_buf: DmaBuf,
    node: Arc<File>,
    handle: u32,
}

/// A fence that has not signalled.
pub(super) struct VgemFence {
    node: Arc<File>,
    fence: u32,
}

impl VgemBuffer {
    /// Skips the test where the guest has no vgem.
    pub(super) fn new(bytes: u64) -> Result<Self, Failure> {
        let node = match find("vgem") {
            Ok(provider) => OpenOptions::new().read(true).write(true).open(&provider.identity().node)?,
            Err(error) => return skip(error),
        };
        let mut dumb = CreateDumb {
            width: u32::try_from(bytes)?,
            height: 1,
            bits_per_pixel: 8,
            ..CreateDumb::default()
        };
        // SAFETY: the structure is what the request reads and writes; so below.
        unsafe { create_dumb(node.as_raw_fd(), &mut dumb) }?;
        let flags = (nix::libc::O_CLOEXEC | nix::libc::O_RDWR) as u32;
        let mut prime = PrimeHandle { handle: dumb.handle, flags, fd: -1 };
        // SAFETY: as above.
        unsafe { handle_to_fd(node.as_raw_fd(), &mut prime) }?;
        // SAFETY: the kernel returned a new descriptor.
        let dma_buf = DmaBuf::from_fd(unsafe { OwnedFd::from_raw_fd(prime.fd) })?;
        Ok(Self { dma_buf, node: Arc::new(node), handle: dumb.handle })
    }

    /// Attaches a fence of work that reads or writes the buffer.
    pub(super) fn attach_fence(&self, fences: FenceUse) -> Result<VgemFence, Failure> {
        let flags = if fences == FenceUse::Write { WRITE } else { 0 };
        let mut attach = FenceAttach { handle: self.handle, flags, ..FenceAttach::default() };
        // SAFETY: as above.
        unsafe { fence_attach(self.node.as_raw_fd(), &mut attach) }?;
        Ok(VgemFence { node: Arc::clone(&self.node), fence: attach.out_fence })
    }
}

impl VgemFence {
    /// Lets it signal.
    pub(super) fn signal(self) -> Outcome {
        let signal = FenceSignal { fence: self.fence, flags: 0 };
        // SAFETY: as above.
        unsafe { fence_signal(self.node.as_raw_fd(), &signal) }?;
        Ok(())
    }
}
