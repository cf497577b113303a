//! Memory that a device and its peers may access.

use std::fmt;
use std::marker::PhantomData;

use devmem_provider::{Error, ErrorKind, Result};

use super::sys;
use crate::rdma::Registration;
use crate::shared_memory::{OutOfBounds, SharedMemory};

/// A DMA-buf that is registered with a device. Dropping it deregisters; requests that still name it fail.
pub struct MemoryRegion {
    raw: sys::Region,
    registration: Registration,
}

/// Memory of this process that is registered with a device.
///
/// A device may write to it at any time, so that it is never seen as a slice: bytes are copied in and out.
pub struct HostRegion(MemoryRegion);

/// A part of a registered region, for a request of this device.
#[derive(Debug, Clone, Copy)]
pub struct Part<'region> {
    local: sys::Local,
    _region: PhantomData<&'region MemoryRegion>,
}

/// Memory of a peer, by what the peer told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemoteMemory {
    /// Where it begins, as the peer's region counts.
    pub address: u64,
    /// The region's remote key.
    pub key: u32,
}

impl RemoteMemory {
    /// The memory from `offset` bytes further on.
    #[must_use]
    pub fn at(self, offset: u64) -> Self {
        Self { address: self.address.wrapping_add(offset), ..self }
    }
}

impl MemoryRegion {
    pub(super) fn new(raw: sys::Region, registration: Registration) -> Self {
        Self { raw, registration }
    }

    /// What was registered: which bytes, at which address, for what.
    #[must_use]
    pub fn registration(&self) -> &Registration {
        &self.registration
    }

    /// The key by which this device's own requests name it.
    #[must_use]
    pub fn local_key(&self) -> u32 {
        self.raw.local_key()
    }

    /// The key by which peers name it, if the access lets them do something.
    #[must_use]
    pub fn remote_key(&self) -> u32 {
        self.raw.remote_key()
    }

    /// What a peer must know to reach it.
    #[must_use]
    pub fn remote(&self) -> RemoteMemory {
        RemoteMemory { address: self.registration.address(), key: self.remote_key() }
    }

    /// `length` bytes from `offset` on, counted from the region's first byte, for a request.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if they do not lie within the region.
    pub fn part(&self, offset: u64, length: u32) -> Result<Part<'_>> {
        let region = self.registration.length();
        if offset.checked_add(length.into()).is_none_or(|end| end > region) {
            return Err(outside(offset, u64::from(length), region));
        }
        let address = self.registration.address() + offset;
        let local = sys::Local { key: self.local_key(), address, length };
        Ok(Part { local, _region: PhantomData })
    }
}

impl HostRegion {
    pub(super) fn new(region: MemoryRegion) -> Self {
        Self(region)
    }

    /// The region, for requests and for peers.
    #[must_use]
    pub fn region(&self) -> &MemoryRegion {
        &self.0
    }

    /// Copies bytes in. A request that reads them at the same time may send those of either time.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if there is no room at `offset`.
    pub fn copy_from(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.touch(offset, bytes.len(), |memory, at| memory.copy_from(at, bytes))
    }

    /// Copies bytes out. Those that the device is writing at the same time may be of either time.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if they do not lie within the region.
    pub fn copy_to(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        self.touch(offset, bytes.len(), |memory, at| memory.copy_to(at, bytes))
    }

    fn touch(
        &self,
        offset: u64,
        length: usize,
        copy: impl FnOnce(&SharedMemory, usize) -> std::result::Result<(), OutOfBounds>,
    ) -> Result<()> {
        let memory = self.0.raw.memory();
        let done = memory.zip(usize::try_from(offset).ok()).and_then(|(memory, at)| copy(memory, at).ok());
        done.ok_or_else(|| outside(offset, length as u64, self.0.registration.length()))
    }
}

impl Part<'_> {
    pub(super) fn local(self) -> sys::Local {
        self.local
    }
}

fn outside(offset: u64, length: u64, region: u64) -> Error {
    Error::new(ErrorKind::InvalidInput, "use a part of a memory region")
        .because(format!("{length} bytes at {offset} do not lie within its {region} bytes"))
}

impl fmt::Debug for MemoryRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryRegion")
            .field("registration", &self.registration)
            .field("local_key", &self.local_key())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for HostRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HostRegion").field(&self.0).finish()
    }
}
