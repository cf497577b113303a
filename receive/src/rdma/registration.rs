//! Which part of a DMA-buf becomes a memory region, at which address, for what.

use std::fmt;
use std::ops::Range;

use devmem_provider::{DmaBuf, base_page_size};

use super::access::AccessFlags;
use super::refusal::RegistrationRefusal;

/// What to register: a range of a DMA-buf, the address by which the device and its peers name its first byte, and what
/// they may do.
///
/// The address is a number of the caller's choice: requests name bytes of the region by it, and nothing is mapped there
/// for the CPU. By default the first byte of the DMA-buf has address 0, so that addresses are offsets in the buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    offset: u64,
    length: u64,
    address: u64,
    access: AccessFlags,
}

impl Registration {
    /// All of a DMA-buf, for receiving, with offsets as addresses.
    #[must_use]
    pub fn whole(dma_buf: &DmaBuf) -> Self {
        Self::of(0, dma_buf.size())
    }

    /// `length` bytes from `offset` on, for receiving, with offsets as addresses.
    #[must_use]
    pub fn of(offset: u64, length: u64) -> Self {
        Self { offset, length, address: offset, access: AccessFlags::default() }
    }

    /// Gives the first byte of the range this address. It must be at the same place of a page as the offset is.
    #[must_use]
    pub fn at(mut self, address: u64) -> Self {
        self.address = address;
        self
    }

    /// Allows this access.
    #[must_use]
    pub fn access(mut self, access: AccessFlags) -> Self {
        self.access = access;
        self
    }

    /// Where the range begins in the DMA-buf, in bytes.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// How long it is, in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The address of its first byte.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.address
    }

    /// The addresses of its bytes.
    #[must_use]
    pub fn addresses(&self) -> Range<u64> {
        self.address..self.address.saturating_add(self.length)
    }

    /// What may be done.
    #[must_use]
    pub fn allowed(&self) -> AccessFlags {
        self.access
    }

    /// What the kernel would refuse whichever the device and the exporter, of a DMA-buf of `size` bytes.
    ///
    /// # Errors
    ///
    /// The reason.
    pub fn check(&self, size: u64) -> Result<(), RegistrationRefusal> {
        let ends_in = |start: u64, end: u64| start.checked_add(self.length).is_some_and(|last| last <= end);
        if !self.access.are_possible() {
            Err(RegistrationRefusal::InvalidAccess)
        } else if self.length == 0 {
            Err(RegistrationRefusal::Empty)
        } else if !ends_in(self.offset, size) || !ends_in(self.address, u64::MAX) {
            Err(RegistrationRefusal::BeyondEnd)
        } else if !(self.offset ^ self.address).is_multiple_of(base_page_size()) {
            Err(RegistrationRefusal::Misaligned)
        } else {
            Ok(())
        }
    }
}

impl fmt::Display for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { offset, length, address, access } = self;
        write!(f, "{length} bytes from {offset} on at address {address:#x} for {access}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIZE: u64 = 1 << 20;

    #[test]
    fn what_no_device_takes_is_found_before_the_kernel_is_asked() {
        use RegistrationRefusal::*;
        let page = base_page_size();
        let whole = || Registration::of(0, SIZE);
        for (registration, expected) in [
            (whole(), Ok(())),
            (whole().at(7 * page), Ok(())),
            (Registration::of(5, 6).at(page + 5), Ok(())),
            (Registration::of(SIZE - 1, 1), Ok(())),
            (Registration::of(0, 0), Err(Empty)),
            (Registration::of(0, SIZE + 1), Err(BeyondEnd)),
            (Registration::of(SIZE, 1), Err(BeyondEnd)),
            (Registration::of(u64::MAX, 2), Err(BeyondEnd)),
            (whole().at(u64::MAX - page + 1), Err(BeyondEnd)),
            (whole().at(1), Err(Misaligned)),
            (Registration::of(1, 1).at(page), Err(Misaligned)),
            (whole().access(AccessFlags::REMOTE_WRITE), Err(InvalidAccess)),
            (whole().access(AccessFlags::from_bits_retain(1 << 5)), Err(InvalidAccess)),
        ] {
            assert_eq!(registration.check(SIZE), expected, "{registration}");
        }
    }

    proptest! {
        #[test]
        fn no_numbers_make_it_panic(offset: u64, length: u64, address: u64, access: u32, size: u64) {
            let access = AccessFlags::from_bits_retain(access);
            let registration = Registration::of(offset, length).at(address).access(access);
            let good = registration.check(size).is_ok();
            prop_assert!(!good || offset + length <= size);
            let _ = (registration.to_string(), registration.addresses());
        }
    }
}
