//! Memory of the guest: a memfd, read and written as a file while the hardware maps it.

use std::cell::Cell;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use nix::sys::memfd::{MFdFlags, memfd_create};

/// Where the memory is on the bus: above 4 GiB, so that addresses need all their bits.
pub(crate) const BASE: u64 = 0x1_4000_0000;
pub(crate) const SIZE: u64 = 64 << 20;

#[derive(Clone)]
pub(crate) struct Memory {
    file: Rc<File>,
    next: Rc<Cell<u64>>,
}

impl Memory {
    pub(crate) fn new() -> Memory {
        let file = File::from(memfd_create("guest", MFdFlags::MFD_CLOEXEC).unwrap());
        file.set_len(SIZE).unwrap();
        Memory { file: Rc::new(file), next: Rc::new(Cell::new(BASE)) }
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// New pages; they are zero.
    pub(crate) fn allocate(&self, bytes: u64) -> u64 {
        let address = self.next.get();
        self.next.set(address + bytes.next_multiple_of(4096));
        assert!(self.next.get() <= BASE + SIZE, "the test needs more memory");
        address
    }

    pub(crate) fn read(&self, address: u64, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.file.read_exact_at(&mut bytes, address - BASE).unwrap();
        bytes
    }

    pub(crate) fn array<const N: usize>(&self, address: u64) -> [u8; N] {
        self.read(address, N).try_into().unwrap()
    }

    pub(crate) fn write(&self, address: u64, bytes: &[u8]) {
        self.file.write_all_at(bytes, address - BASE).unwrap();
    }
}
