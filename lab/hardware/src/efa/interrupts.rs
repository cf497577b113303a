//! The MSI-X vectors: what could not be signalled is signalled as soon as the vector is in use.

use std::collections::BTreeSet;

use crate::pci::Vectors;

/// Vectors that wait, and how many were signalled.
#[derive(Debug, Default)]
pub(super) struct Interrupts {
    waiting: BTreeSet<u8>,
    /// Interrupts that fired.
    pub(super) fired: u64,
}

impl Interrupts {
    /// Signals a vector now, or when it is in use.
    pub(super) fn raise(&mut self, vector: u8, vectors: &Vectors) {
        if vectors.signal(vector.into()) {
            self.fired += 1;
        } else {
            self.waiting.insert(vector);
        }
    }

    /// Vectors came into use.
    pub(super) fn retry(&mut self, vectors: &Vectors) {
        for vector in std::mem::take(&mut self.waiting) {
            self.raise(vector, vectors);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::OwnedFd;

    use nix::sys::eventfd::{EfdFlags, EventFd};

    use super::*;

    #[test]
    fn an_interrupt_waits_for_its_vector() {
        let vectors = Vectors::new(2);
        let mut interrupts = Interrupts::default();
        interrupts.raise(1, &vectors);
        interrupts.raise(1, &vectors);
        interrupts.retry(&vectors);
        assert_eq!(interrupts.fired, 0);
        let event = File::from(OwnedFd::from(EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap()));
        vectors.set(1, vec![Some(event.try_clone().unwrap())]).unwrap();
        interrupts.retry(&vectors);
        interrupts.retry(&vectors);
        let mut count = [0; 8];
        (&event).read_exact(&mut count).unwrap();
        assert_eq!((u64::from_ne_bytes(count), interrupts.fired), (1, 1));
    }
}
