//! A folder for the sockets of one run, gone when the run ends. Should a run be killed, the next one
//! removes what it left.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use tempfile::TempDir;

use crate::error::{Context, Result};

const PREFIX: &str = "devmem-lab-";

/// The folder of one run. Its lock tells that the run is alive.
#[derive(Debug)]
pub(super) struct Workspace {
    folder: TempDir,
    _alive: Flock<File>,
}

impl Workspace {
    pub(super) fn create() -> Result<Self> {
        let place = std::env::temp_dir();
        remove_abandoned(&place);
        let action = || format!("create a folder in {} (TMPDIR names another place)", place.display());
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(&place).context(action)?;
        let alive = lock(folder.path()).context(action)?;
        Ok(Self { folder, _alive: alive })
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }
}

fn lock(folder: &Path) -> std::io::Result<Flock<File>> {
    Flock::lock(File::open(folder)?, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| error.into())
}

/// Those of other users cannot be locked or removed, and that is as it should be.
fn remove_abandoned(place: &Path) {
    let entries = fs::read_dir(place).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX));
    for folder in folders.map(|entry| entry.path()).filter(|path| !path.is_symlink() && is_old(path)) {
        if lock(&folder).is_ok() {
            let _ = fs::remove_dir_all(&folder);
        }
    }
}

/// A folder that was made just now may not have been locked yet.
fn is_old(path: &PathBuf) -> bool {
    let made = fs::metadata(path).and_then(|found| found.modified());
    made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age.as_secs() > 60))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    #[test]
    fn abandoned_folders_go_and_those_in_use_stay() {
        let place = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let path = place.path().join(name);
            fs::create_dir(&path).unwrap();
            File::open(&path).unwrap().set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
            path
        };
        let (abandoned, in_use, other) = (make("devmem-lab-1"), make("devmem-lab-2"), make("other"));
        let alive = lock(&in_use).unwrap();
        remove_abandoned(place.path());
        assert!(!abandoned.exists() && in_use.exists() && other.exists());
        drop(alive);
        remove_abandoned(place.path());
        assert!(!in_use.exists());
    }
}
