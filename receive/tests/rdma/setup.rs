//! Devices and buffers of the guest.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

use devmem_backends::discover;
use devmem_provider::{Buffer, DmaBuf, Placement, Provider, Request, Residency, ResidencyEvidence};
use devmem_receive::rdma::{Device, ProtectionDomain};
use nix::errno::Errno;

use crate::harness::{Failure, Outcome, ensure};

/// Several of any page.
pub(crate) const SIZE: u64 = 2 << 20;

/// The device that offers everything, and the one that offers no RDMA reads and writes.
pub(crate) const DEVICE: &str = "efa_0";
pub(crate) const PLAIN_DEVICE: &str = "efa_1";

pub(crate) fn domain() -> Result<ProtectionDomain, Failure> {
    domain_of(DEVICE)
}

pub(crate) fn domain_of(device: &str) -> Result<ProtectionDomain, Failure> {
    Ok(ProtectionDomain::open(&Device::find(device)?)?)
}

pub(crate) fn provider(name: &str) -> Result<Arc<dyn Provider>, Failure> {
    Ok(discover().find(name)?)
}

/// A buffer in the memory of the AMD GPU.
pub(crate) fn vram(size: u64) -> Result<Box<dyn Buffer>, Failure> {
    let buffer = provider("amdgpu")?.allocate(&Request::bytes(size).prefer(Placement::DeviceLocal))?;
    is_in(&*buffer, Residency::DeviceLocal)?;
    Ok(buffer)
}

/// A buffer in system memory.
pub(crate) fn system(size: u64) -> Result<Box<dyn Buffer>, Failure> {
    Ok(provider("udmabuf")?.allocate(&Request::bytes(size))?)
}

/// Fails if a buffer is somewhere else, by its driver's own figures.
pub(crate) fn is_in(buffer: &dyn Buffer, residency: Residency) -> Outcome {
    seen_in(&buffer.residency()?, residency)
}

pub(crate) fn seen_in(evidence: &ResidencyEvidence, residency: Residency) -> Outcome {
    ensure!(evidence.residency == residency, "{evidence:?}");
    Ok(())
}

/// `DRM_IOCTL_PRIME_FD_TO_HANDLE` of `drm/drm.h`.
const PRIME_FD_TO_HANDLE: u64 = 0xc00c_642e;

/// Imports a buffer into vgem, which attaches to it, as long as the file is open.
pub(crate) fn import_into_vgem(dma_buf: &DmaBuf) -> Result<File, Failure> {
    let vgem = OpenOptions::new().read(true).write(true).open(provider("vgem")?.identity().node.as_path())?;
    // The handle, flags, the descriptor.
    let mut prime = [0, 0, dma_buf.as_fd().as_raw_fd()];
    // SAFETY: the ioctl reads and writes `struct drm_prime_handle`, three integers of 32 bits.
    let result = unsafe { libc::ioctl(vgem.as_raw_fd(), PRIME_FD_TO_HANDLE, prime.as_mut_ptr()) };
    Errno::result(result)?;
    Ok(vgem)
}
