//! The file that says what was changed on a NIC and what was there before.
//!
//! It is written before each change, so whatever moment a process is killed at, the file names every change
//! that was made, and at most one that was not.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind as IoErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use devmem_provider::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use super::change::Change;
use super::identity::Identity;
use super::snapshot::Snapshot;

/// Raised when the meaning of a field changes.
const VERSION: u32 = 1;
/// A journal is some tens of KiB (RSS tables and features); more is none of ours.
const SIZE_MAX: u64 = 16 << 20;
const EXTENSION: &str = "journal.json";

/// What is in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Journal {
    version: u32,
    /// The settings of NICs do not survive a boot, and neither does a journal.
    boot: String,
    /// The process that made the changes, for people.
    process: u32,
    pub(super) nic: Identity,
    /// The queues that are to be bound.
    pub(super) queues: Vec<u32>,
    pub(super) before: Snapshot,
    /// In the order in which they were made; the last one perhaps was not.
    pub(super) changes: Vec<Change>,
}

impl Journal {
    pub(super) fn new(nic: Identity, before: Snapshot, queues: Vec<u32>) -> Result<Self> {
        let process = std::process::id();
        Ok(Self { version: VERSION, boot: boot_id()?, process, nic, queues, before, changes: Vec::new() })
    }

    /// The process that made the changes, for people.
    pub(super) fn process(&self) -> u32 {
        self.process
    }

    /// Writes the file as a whole: a reader sees the former or this one.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let failed = |error| Error::from_io(error, "write the journal").on(path.display());
        let text = serde_json::to_vec_pretty(self).map_err(|error| failed(error.into()))?;
        let new = path.with_extension("new");
        // A file that is left over from a kill belongs to nobody, as we hold the lock.
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != IoErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).map_err(failed)?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(failed)?;
        std::fs::rename(&new, path).map_err(failed)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
    }

    /// Reads a file; `None` if there is none, or it is of an earlier boot, whose changes are gone with it.
    pub(super) fn read(path: &Path) -> Result<Option<Self>> {
        let failed = |error| Error::from_io(error, "read the journal").on(path.display());
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path);
        let file = match file {
            Err(error) if error.kind() == IoErrorKind::NotFound => return Ok(None),
            file => file.map_err(failed)?,
        };
        let mut text = Vec::new();
        file.take(SIZE_MAX).read_to_end(&mut text).map_err(failed)?;
        Self::parse(&text, &boot_id()?).map_err(|reason| {
            Error::new(ErrorKind::Protocol, "read the journal")
                .on(path.display())
                .because(reason)
                .remedy("put the NIC's settings right by hand, then remove the file")
        })
    }

    fn parse(text: &[u8], boot: &str) -> Result<Option<Self>, String> {
        /// What every version has.
        #[derive(Deserialize)]
        struct Head {
            version: u32,
            boot: String,
        }
        let head: Head = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if head.boot != boot {
            return Ok(None);
        }
        if head.version != VERSION {
            return Err(format!(
                "it is of version {}, and this program knows version {VERSION}",
                head.version
            ));
        }
        serde_json::from_slice(text).map(Some).map_err(|error| error.to_string())
    }
}

/// Removes a journal whose changes are undone.
pub(super) fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != IoErrorKind::NotFound => {
            Err(Error::from_io(error, "remove the journal").on(path.display()))
        }
        _ => Ok(()),
    }
}

/// The files of one NIC: `lock` and journal, by network namespace and interface number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Files {
    pub(super) lock: PathBuf,
    pub(super) journal: PathBuf,
}

impl Files {
    pub(super) fn of(folder: &Path, namespace_inode: u64, ifindex: u32) -> Self {
        let name = format!("{namespace_inode}-{ifindex}");
        Self {
            lock: folder.join(format!("{name}.lock")),
            journal: folder.join(format!("{name}.{EXTENSION}")),
        }
    }

    /// Every NIC that has a journal in the folder: the inode of its network namespace and its number.
    pub(super) fn list(folder: &Path) -> Result<Vec<(u64, u32)>> {
        let failed = |error| Error::from_io(error, "list journals").on(folder.display());
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            found.extend(name.to_str().and_then(nic_of_file));
        }
        found.sort_unstable();
        Ok(found)
    }
}

fn nic_of_file(name: &str) -> Option<(u64, u32)> {
    let (inode, ifindex) = name.strip_suffix(EXTENSION)?.strip_suffix('.')?.split_once('-')?;
    Some((inode.parse().ok()?, ifindex.parse().ok()?))
}

fn boot_id() -> Result<String> {
    const PATH: &str = "/proc/sys/kernel/random/boot_id";
    let text = std::fs::read_to_string(PATH);
    text.map(|text| text.trim().to_owned())
        .map_err(|error| Error::from_io(error, "identify this boot").on(PATH).remedy("mount /proc"))
}

#[cfg(test)]
mod tests {
    use super::super::{identity, snapshot};
    use super::*;
    use proptest::prelude::*;

    fn example() -> Journal {
        let before = snapshot::tests::example();
        let mut journal = Journal::new(identity::tests::example(), before, vec![3]).unwrap();
        journal.changes.push(Change::Feature { name: "rx-ntuple-filter".into(), on: true });
        journal.changes.push(Change::RssTable { table: vec![0, 1, 2, 0] });
        journal
    }

    #[test]
    fn survives_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::of(folder.path(), 4_026_531_840, 3);
        assert_eq!(Journal::read(&files.journal).unwrap(), None);
        let mut journal = example();
        journal.write(&files.journal).unwrap();
        assert_eq!(Journal::read(&files.journal).unwrap().as_ref(), Some(&journal));
        journal.changes.clear();
        journal.write(&files.journal).unwrap();
        assert_eq!(Journal::read(&files.journal).unwrap(), Some(journal));
        assert_eq!(Files::list(folder.path()).unwrap(), [(4_026_531_840, 3)]);
        remove(&files.journal).unwrap();
        remove(&files.journal).unwrap();
        assert_eq!(Files::list(folder.path()).unwrap(), []);
    }

    #[test]
    fn what_a_kill_left_half_written_is_no_obstacle() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::of(folder.path(), 1, 3);
        std::fs::write(files.journal.with_extension("new"), "{\"version\":").unwrap();
        assert_eq!(Files::list(folder.path()).unwrap(), []);
        example().write(&files.journal).unwrap();
        assert!(Journal::read(&files.journal).unwrap().is_some());
    }

    #[test]
    fn a_journal_of_an_earlier_boot_is_void_and_a_newer_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1-3.journal.json");
        Journal { boot: "another".into(), ..example() }.write(&path).unwrap();
        assert_eq!(Journal::read(&path).unwrap(), None);
        Journal { version: VERSION + 1, ..example() }.write(&path).unwrap();
        let error = Journal::read(&path).unwrap_err();
        assert!(error.to_string().contains("version 2"), "{error}");
    }

    #[test]
    fn a_link_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("real"), folder.path().join("1-3.journal.json"));
        example().write(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert!(Journal::read(&link).is_err());
    }

    proptest! {
        #[test]
        fn any_text_ends_without_panic(text: Vec<u8>, name in ".*") {
            let _ = Journal::parse(&text, "boot");
            let _ = nic_of_file(&name);
        }

        #[test]
        fn a_damaged_journal_ends_without_panic(at in 0usize..4000, byte: u8, cut: bool) {
            let mut text = serde_json::to_vec(&example()).unwrap();
            let at = at % text.len();
            if cut {
                text.truncate(at);
                prop_assert!(Journal::parse(&text, &example().boot).is_err());
            } else {
                text[at] = byte;
                let _ = Journal::parse(&text, &example().boot);
            }
        }
    }
}
