//! Host memory to receive into, where no DMA-buf is wanted.

use devmem_provider::{Error, ErrorKind, Result};
use nix::errno::Errno;

use crate::shared_memory::SharedMemory;

/// Memory of this process that a NIC receives into.
///
/// Unlike a DMA-buf it can take payload that arrived elsewhere: the kernel copies it there, and counts that.
#[derive(Debug)]
pub struct HostMemory(pub(crate) SharedMemory);

impl HostMemory {
    /// Allocates memory, in whole pages.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if `bytes` is 0; [`ErrorKind::OutOfMemory`] if there is none.
    pub fn allocate(bytes: usize) -> Result<Self> {
        Self::with_pages(bytes, false)
    }

    /// Allocates huge pages of the machine's default size, of which `bytes` must be a multiple: receive buffers
    /// that are larger than a page take memory that is contiguous.
    ///
    /// # Errors
    ///
    /// As [`allocate`](Self::allocate); `vm.nr_hugepages` says how many huge pages there are.
    pub fn allocate_huge_pages(bytes: usize) -> Result<Self> {
        Self::with_pages(bytes, true)
    }

    fn with_pages(bytes: usize, huge: bool) -> Result<Self> {
        let memory = SharedMemory::allocate(bytes, huge).map_err(|errno| {
            let error = Error::from_errno(errno, format!("allocate {bytes} bytes to receive into"));
            match errno {
                Errno::EINVAL => error.with_kind(ErrorKind::InvalidInput),
                Errno::ENOMEM if huge => error.remedy("raise vm.nr_hugepages"),
                _ => error,
            }
        })?;
        Ok(Self(memory))
    }

    /// Its size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.0.length() as u64
    }

    /// Where it is mapped.
    pub(crate) fn address(&self) -> u64 {
        self.0.address()
    }

    /// Copies out what lies at `offset`. Bytes that the NIC is writing at the same time may be of either time.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if it does not lie within the memory.
    pub fn copy_to(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        let length = bytes.len();
        usize::try_from(offset).ok().and_then(|offset| self.0.copy_to(offset, bytes).ok()).ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, "copy received bytes").because(format!(
                "{length} bytes at {offset} are not within the {} bytes of memory",
                self.size()
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_cannot_be_is_refused_with_words() {
        assert_eq!(HostMemory::allocate(0).unwrap_err().kind(), ErrorKind::InvalidInput);
        let memory = HostMemory::allocate(4096).unwrap();
        let error = memory.copy_to(4090, &mut [0; 7]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("7 bytes at 4090"), "{error}");
    }
}
