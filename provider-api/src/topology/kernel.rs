//! What the running kernel was built with.

use std::io::{BufRead, BufReader, Read};

/// Whether the kernel has the code that this module foretells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PeerToPeerSupport {
    /// It has (`CONFIG_PCI_P2PDMA`).
    Present,
    /// It has not, and lets no driver find a way.
    Absent,
    /// Nothing that can be read tells.
    Unknown,
}

/// The running kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// Its release, for example `7.2.12-amd64`.
    pub release: Option<String>,
    /// Whether it was built with `CONFIG_PCI_P2PDMA`, as its symbols or a device's `p2pmem` folder show.
    pub peer_to_peer: PeerToPeerSupport,
}

impl Kernel {
    /// The numbers that its release begins with.
    pub(super) fn version(&self) -> Option<(u32, u32)> {
        let mut numbers = self.release.as_deref()?.split(|c: char| !c.is_ascii_digit());
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    }
}

/// The global function that exists only in kernels with the code.
const FUNCTION: &[u8] = b" T pci_p2pdma_distance_many";

/// Looks for the kernel's function among its symbols (`/proc/kallsyms`), whose names everybody may read.
pub(super) fn search_symbols(symbols: impl Read) -> std::io::Result<PeerToPeerSupport> {
    let mut symbols = BufReader::with_capacity(1 << 16, symbols);
    let mut line = Vec::new();
    let mut any = false;
    while symbols.read_until(b'\n', &mut line)? > 0 {
        if line.trim_ascii_end().ends_with(FUNCTION) {
            return Ok(PeerToPeerSupport::Present);
        }
        any = true;
        line.clear();
    }
    Ok(if any { PeerToPeerSupport::Absent } else { PeerToPeerSupport::Unknown })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_global_function_tells_and_its_stub_does_not() {
        let search = |text: &str| search_symbols(text.as_bytes()).unwrap();
        let other = "0000000000000000 T pci_read_config_word\n";
        assert_eq!(
            search(&format!("{other}0000000000000000 T pci_p2pdma_distance_many\n{other}")),
            PeerToPeerSupport::Present
        );
        assert_eq!(search(other), PeerToPeerSupport::Absent);
        assert_eq!(
            search(&format!("{other}0000000000000000 t pci_p2pdma_distance_many\t[amdgpu]\n")),
            PeerToPeerSupport::Absent
        );
        assert_eq!(search(""), PeerToPeerSupport::Unknown);
    }

    #[test]
    fn a_release_begins_with_its_version() {
        let version = |release: &str| {
            let kernel =
                Kernel { release: Some(release.to_owned()), peer_to_peer: PeerToPeerSupport::Unknown };
            kernel.version()
        };
        assert_eq!(version("7.2.12+deb13-amd64"), Some((7, 2)));
        assert_eq!(version("7.3-rc1"), Some((7, 3)));
        assert_eq!(version("unknown"), None);
    }
}
