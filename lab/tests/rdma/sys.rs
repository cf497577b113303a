//! What the test needs of the system beyond safe Rust.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{Ordering, fence};

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// Memory that is shared with a device.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    length: usize,
}

impl Mapping {
    pub(crate) fn new(file: BorrowedFd<'_>, offset: u64, length: usize) -> Mapping {
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let (offset, size) = (offset.try_into().unwrap(), length.try_into().unwrap());
        // SAFETY: a new mapping at an address of the kernel's choice; it replaces nothing.
        let base = unsafe { mmap(None, size, protection, MapFlags::MAP_SHARED, file, offset) }.unwrap();
        Mapping { base: base.cast(), length }
    }

    /// Reads words, the first one before the others.
    pub(crate) fn read<const WORDS: usize>(&self, at: usize) -> [u32; WORDS] {
        assert!(at.is_multiple_of(4) && at + WORDS * 4 <= self.length);
        std::array::from_fn(|index| {
            // SAFETY: within the mapping and aligned, as just checked.
            let word = unsafe { self.base.add(at + index * 4).cast::<u32>().read_volatile() };
            fence(Ordering::Acquire);
            word
        })
    }

    /// Writes words.
    pub(crate) fn write(&self, at: usize, words: &[u64]) {
        assert!(at.is_multiple_of(8) && at + words.len() * 8 <= self.length);
        fence(Ordering::Release);
        for (index, word) in words.iter().enumerate() {
            // SAFETY: within the mapping and aligned, as just checked.
            unsafe { self.base.add(at + index * 8).cast::<u64>().write_volatile(*word) };
        }
    }

    /// Rings a doorbell.
    pub(crate) fn ring(&self, at: usize, value: u32) {
        assert!(at.is_multiple_of(4) && at + 4 <= self.length);
        fence(Ordering::SeqCst);
        // SAFETY: within the mapping and aligned, as just checked.
        unsafe { self.base.add(at).cast::<u32>().write_volatile(value) };
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`; no reference to it was ever lent.
        let _ = unsafe { munmap(self.base.cast(), self.length) };
    }
}

/// An ioctl with a structure of bytes, which the kernel reads and changes.
pub(crate) fn ioctl(file: &impl AsRawFd, request: u64, structure: &mut [u64]) -> Result<i32, Errno> {
    assert!((request >> 16 & 0x3fff) as usize <= structure.len() * 8 || request >> 8 & 0xff == 0x1b);
    // SAFETY: the structure is as large as the request says, or says itself how large it is; pointers in it lead to
    // memory of the caller that outlives the call.
    Errno::result(unsafe { nix::libc::ioctl(file.as_raw_fd(), request, structure.as_mut_ptr()) })
}

/// Owns a descriptor that the kernel has just made for this process.
pub(crate) fn own(descriptor: i32) -> OwnedFd {
    // SAFETY: nobody else knows it yet.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}
