//! What may be done to a memory region.

use std::fmt;

use super::uapi;

bitflags::bitflags! {
    /// What a device and its peers may do to a memory region (`enum ib_uverbs_access_flags` in
    /// `include/uapi/rdma/ib_user_ioctl_verbs.h`, of which DMA-bufs may have these).
    ///
    /// A region can always be read by the device that has it: no flag is needed to send from it.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct AccessFlags: u32 {
        /// The device writes what it receives, and what it reads from peers.
        const LOCAL_WRITE = uapi::ACCESS_LOCAL_WRITE;
        /// Peers write to it. Takes [`LOCAL_WRITE`](Self::LOCAL_WRITE).
        const REMOTE_WRITE = uapi::ACCESS_REMOTE_WRITE;
        /// Peers read from it.
        const REMOTE_READ = uapi::ACCESS_REMOTE_READ;
        /// Peers do atomic operations on it. Takes [`LOCAL_WRITE`](Self::LOCAL_WRITE).
        const REMOTE_ATOMIC = uapi::ACCESS_REMOTE_ATOMIC;
        /// Writes may overtake one another on PCI. A device that cannot do it ignores the wish.
        const RELAXED_ORDERING = uapi::ACCESS_RELAXED_ORDERING;
    }
}

impl AccessFlags {
    /// Whether a region of a DMA-buf may have them, whichever the device: no unknown ones, and peers write only where the
    /// device does (`ib_check_mr_access()` in `include/rdma/ib_verbs.h`).
    #[must_use]
    pub fn are_possible(self) -> bool {
        let writes_of_peers = Self::REMOTE_WRITE | Self::REMOTE_ATOMIC;
        Self::all().contains(self) && (!self.intersects(writes_of_peers) || self.contains(Self::LOCAL_WRITE))
    }
}

/// What a region is for if nothing else is said: receiving.
impl Default for AccessFlags {
    fn default() -> Self {
        Self::LOCAL_WRITE
    }
}

impl fmt::Display for AccessFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (Self::LOCAL_WRITE, "local write"),
            (Self::REMOTE_WRITE, "remote write"),
            (Self::REMOTE_READ, "remote read"),
            (Self::REMOTE_ATOMIC, "remote atomic"),
            (Self::RELAXED_ORDERING, "relaxed ordering"),
        ];
        let mut separator = "";
        for (_, name) in names.iter().filter(|(flag, _)| self.contains(*flag)) {
            write!(f, "{separator}{name}")?;
            separator = ", ";
        }
        let unknown = self.difference(Self::all());
        match (unknown.is_empty(), separator) {
            (true, "") => f.write_str("local read"),
            (true, _) => Ok(()),
            (false, _) => write!(f, "{separator}{:#x}", unknown.bits()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_write_only_where_the_device_does() {
        use AccessFlags as Flags;
        for flags in [Flags::empty(), Flags::LOCAL_WRITE, Flags::REMOTE_READ, Flags::all()] {
            assert!(flags.are_possible(), "{flags}");
        }
        // Windows, and pages that are found when they are touched.
        let unknown = [1 << 4, 1 << 6, 1 << 31].map(|bit| Flags::from_bits_retain(bit | 1));
        for flags in
            [Flags::REMOTE_WRITE, Flags::REMOTE_ATOMIC | Flags::REMOTE_READ].into_iter().chain(unknown)
        {
            assert!(!flags.are_possible(), "{flags}");
        }
    }

    #[test]
    fn flags_are_told_in_words() {
        assert_eq!(AccessFlags::empty().to_string(), "local read");
        let flags = AccessFlags::LOCAL_WRITE | AccessFlags::REMOTE_READ;
        assert_eq!(flags.to_string(), "local write, remote read");
        assert_eq!(AccessFlags::from_bits_retain(0x11).to_string(), "local write, 0x10");
    }
}
