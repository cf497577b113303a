//! Who has a NIC, seen without taking it.

use std::path::PathBuf;

use devmem_provider::Result;

use super::device::Nic;
use super::journal::{Files, Journal};
use super::{lock, state_directory};

/// Who has a NIC, as its lock and its journal tell.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Occupancy {
    /// Nobody who uses this library.
    Free,
    /// A process that is alive has prepared it.
    Held {
        /// Which, for people: "process 17 (name)".
        by: String,
    },
    /// A process was killed before it put the NIC back: [`restore`](super::restore) does.
    LeftBehind {
        /// The number that the process had.
        process: u32,
        /// How many changes it had noted down.
        changes: usize,
        /// The file that tells what was there before.
        journal: PathBuf,
    },
    /// This user may not look.
    Unseen {
        /// The folder of locks and journals.
        folder: PathBuf,
    },
}

/// Looks in every folder where there may be a lock or a journal; makes none.
pub(super) fn look(nic: &Nic) -> Result<Occupancy> {
    let mut answer = Occupancy::Free;
    for folder in state_directory::existing() {
        let files = Files::of(&folder, nic.identity().namespace_inode, nic.ifindex());
        match look_at(&files, nic) {
            Ok(Occupancy::Free) => {}
            Err(error) if error.kind() == devmem_provider::ErrorKind::PermissionDenied => {
                answer = Occupancy::Unseen { folder };
            }
            found => return found,
        }
    }
    Ok(answer)
}

fn look_at(files: &Files, nic: &Nic) -> Result<Occupancy> {
    if let Some(by) = lock::held_by(&files.lock)? {
        return Ok(Occupancy::Held { by });
    }
    let journal = Journal::read(&files.journal)?.filter(|journal| journal.nic.is_same_nic(nic.identity()));
    Ok(match journal {
        Some(journal) => Occupancy::LeftBehind {
            process: journal.process(),
            changes: journal.changes.len(),
            journal: files.journal.clone(),
        },
        None => Occupancy::Free,
    })
}

#[cfg(test)]
mod tests {
    use super::super::lock::Lock;
    use super::super::snapshot;
    use super::*;

    #[test]
    fn a_lock_and_a_journal_are_seen_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let nic = Nic::open("lo").unwrap();
        let files = Files::of(folder.path(), nic.identity().namespace_inode, nic.ifindex());
        assert_eq!(look_at(&files, &nic).unwrap(), Occupancy::Free);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);

        let before = snapshot::tests::example();
        let journal = Journal::new(nic.identity().clone(), before, vec![3]).unwrap();
        journal.write(&files.journal).unwrap();
        let left =
            Occupancy::LeftBehind { process: std::process::id(), changes: 0, journal: files.journal.clone() };
        assert_eq!(look_at(&files, &nic).unwrap(), left);

        let lock = Lock::take(&files.lock, "lo").unwrap();
        assert!(matches!(look_at(&files, &nic).unwrap(), Occupancy::Held { by } if by == "this process"));
        drop(lock);
        assert_eq!(look_at(&files, &nic).unwrap(), left);
    }

    #[test]
    fn the_journal_of_another_nic_is_none_of_this_one() {
        let folder = tempfile::tempdir().unwrap();
        let nic = Nic::open("lo").unwrap();
        let files = Files::of(folder.path(), nic.identity().namespace_inode, nic.ifindex());
        let other = super::super::identity::tests::example();
        Journal::new(other, snapshot::tests::example(), vec![3]).unwrap().write(&files.journal).unwrap();
        assert_eq!(look_at(&files, &nic).unwrap(), Occupancy::Free);
    }
}
