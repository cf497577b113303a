//! The key that a peer and its runners share.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use devmem_provider::{Error, ErrorKind, Result};

/// A key has at least so many bytes, and at most so many.
const SHORTEST: usize = 32;
const LONGEST: usize = 4096;

/// What tells to make one.
const MAKE: &str =
    "make one on one machine, and copy it to the other: `(umask 077; head -c 32 /dev/urandom > FILE)`";

/// The key that a peer and its runners share. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(Vec<u8>);

impl Key {
    /// Reads a key from a file.
    ///
    /// # Errors
    ///
    /// The file cannot be read, others than its owner may read or write it, or it is too short or too long.
    pub fn read(path: &Path) -> Result<Self> {
        let failed = |error| Error::from_io(error, "read the key").on(path.display()).remedy(MAKE);
        let refused = |reason: String, remedy: &'static str| {
            Err(Error::new(ErrorKind::InvalidInput, "use the key")
                .on(path.display())
                .because(reason)
                .remedy(remedy))
        };
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.mode() & 0o077 != 0 {
            return refused(
                format!("others than its owner have access to it (mode {:o})", metadata.mode() & 0o7777),
                "`chmod 600` it; make a new one if somebody else may have read it",
            );
        }
        let mut bytes = Vec::new();
        file.take(LONGEST as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
        match bytes.len() {
            SHORTEST..=LONGEST => Ok(Self(bytes)),
            length @ ..SHORTEST => {
                refused(format!("it has {length} bytes, and a key {SHORTEST} at least"), MAKE)
            }
            _ => refused(format!("it has more than {LONGEST} bytes"), MAKE),
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    #[cfg(test)]
    pub(super) fn of_test(byte: u8) -> Self {
        Self(vec![byte; SHORTEST])
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt;

    fn read(bytes: &[u8], mode: u32) -> Result<Key> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, bytes).unwrap();
        set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        Key::read(&path)
    }

    #[test]
    fn a_key_is_long_enough_and_its_owners_alone() {
        assert_eq!(read(&[7; 32], 0o600).unwrap(), Key::of_test(7));
        read(&[7; 4096], 0o400).unwrap();
        for (bytes, mode) in [(31, 0o600), (0, 0o600), (4097, 0o600), (32, 0o640), (32, 0o604), (32, 0o620)] {
            let error = read(&vec![7; bytes], mode).unwrap_err();
            assert!(error.remedy_text().is_some(), "{error}");
        }
        let error = Key::read(Path::new("/nowhere/key")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("/dev/urandom"), "{error}");
    }

    #[test]
    fn a_key_is_never_printed() {
        assert_eq!(format!("{:?}", Key::of_test(0x41)), "Key");
    }
}
