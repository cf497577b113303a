//! How large receive rings may be beside a buffer.
//!
//! A receive ring holds one page of the buffer for each of its entries, from the moment its queue is bound. What
//! the first rings take, the others lack: a queue without a page receives nothing, not even the packet that
//! begins a connection.

use devmem_provider::{Error, ErrorKind, Result, base_page_size};

/// A buffer and how many queues it will be bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Buffer {
    bytes: u64,
    page_size: u64,
    queues: u64,
}

impl Buffer {
    pub(super) fn new(bytes: u64, queues: usize) -> Self {
        Self { bytes, page_size: base_page_size(), queues: queues as u64 }
    }

    fn pages(self) -> u64 {
        self.bytes / self.page_size
    }

    /// Fails if no ring of any size could have a page.
    pub(super) fn check(self) -> Result<()> {
        if self.pages() > 0 {
            return Ok(());
        }
        Err(self.too_small(format!("a buffer of {} bytes has no page", self.bytes)).remedy(format!(
            "bind a buffer of at least {} bytes",
            self.queues.saturating_mul(self.page_size)
        )))
    }

    /// The most entries, as a power of two, with which all rings together take at most half of the buffer; 1
    /// where even that is too many.
    pub(super) fn wanted_entries(self) -> u32 {
        let most = self.pages() / self.queues.saturating_mul(2).max(1);
        // Rounded down to a power of two.
        let exponent = most.checked_ilog2().unwrap_or(0).min(u32::BITS - 1);
        1 << exponent
    }

    /// Fails if rings of this size take the whole buffer before every queue has its share. One queue may have
    /// a larger ring: it is never full, and needs no more than the pages that there are.
    pub(super) fn check_rings(self, entries: u32) -> Result<()> {
        let entries = u64::from(entries);
        let needed = self.queues.saturating_mul(entries);
        if self.queues <= 1 || needed <= self.pages() {
            return Ok(());
        }
        let queues = (self.pages() / entries.max(1)).max(1);
        Err(self
            .too_small(format!(
                "the buffer of {} bytes has {} pages, and the receive rings of {} queues, which the driver makes \
                 no smaller than {entries} entries, take {needed}, so that some queues would never receive",
                self.bytes,
                self.pages(),
                self.queues
            ))
            .remedy(format!(
                "bind a buffer of at least {} bytes, or at most {queues} {}",
                needed.saturating_mul(self.page_size),
                if queues == 1 { "queue" } else { "queues" }
            )))
    }

    fn too_small(self, reason: String) -> Error {
        Error::new(ErrorKind::InvalidInput, "fit the receive rings into the buffer").because(reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn buffer(bytes: u64, queues: u64) -> Buffer {
        Buffer { bytes, page_size: 4096, queues }
    }

    #[test]
    fn rings_take_at_most_half_of_the_buffer() {
        for (bytes, queues, wanted) in [
            (2 << 20, 4, 64),
            (2 << 20, 3, 64),
            (2 << 20, 1, 256),
            (256 << 10, 4, 8),
            (64 << 20, 1, 8192),
            (4096, 8, 1),
            (u64::MAX, 1, 1 << 31),
        ] {
            assert_eq!(buffer(bytes, queues).wanted_entries(), wanted, "{bytes} bytes, {queues} queues");
        }
    }

    #[test]
    fn rings_that_starve_a_queue_are_refused_with_numbers() {
        let error = buffer(256 << 10, 4).check_rings(64).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        for part in ["262144 bytes", "4 queues", "64 entries", "at least 1048576 bytes", "at most 1 queue"] {
            assert!(error.to_string().contains(part), "{part}: {error}");
        }
        let error = buffer(600 << 10, 4).check_rings(64).unwrap_err();
        assert!(error.to_string().contains("at most 2 queues"), "{error}");
        assert!(buffer(1 << 20, 4).check_rings(64).is_ok());
    }

    #[test]
    fn one_queue_may_have_a_ring_beyond_the_buffer_but_needs_a_page() {
        assert!(buffer(4096, 1).check_rings(1024).is_ok());
        assert!(buffer(4096, 1).check().is_ok());
        let error = buffer(4095, 1).check().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("at least 4096 bytes"), "{error}");
    }

    proptest! {
        #[test]
        fn the_remedy_is_right(bytes in 4096u64..1 << 40, queues in 1u64..2000, entries: u32) {
            let wanted = buffer(bytes, queues).wanted_entries();
            prop_assert!(wanted.is_power_of_two());
            prop_assert!(wanted == 1 || queues * u64::from(wanted) * 2 <= bytes / 4096);
            prop_assert!(queues * u64::from(wanted) * 4 > bytes / 4096 || wanted == 1 << 31);
            if buffer(bytes, queues).check_rings(entries).is_err() {
                let pages = queues * u64::from(entries);
                prop_assert!(buffer(pages * 4096, queues).check_rings(entries).is_ok());
                let fewer = (bytes / 4096 / u64::from(entries.max(1))).max(1);
                prop_assert!(fewer < queues && buffer(bytes, fewer).check_rings(entries).is_ok());
            }
        }

        #[test]
        fn any_size_ends_without_panic(bytes: u64, queues: u64, entries: u32) {
            let buffer = buffer(bytes, queues);
            let _ = (buffer.check(), buffer.wanted_entries(), buffer.check_rings(entries));
        }
    }
}
