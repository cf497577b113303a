//! The lock that gives a NIC to one process at a time.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use devmem_provider::{Error, ErrorKind, Result};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

/// What this process holds: the kernel's locks exclude other processes only.
static HELD: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// A held lock. Let go when dropped or when the process ends, however it ends.
///
/// It is a record lock (`fcntl(F_SETLK)`), which belongs to the process: a child made by `fork` does not
/// inherit it, so it cannot outlive its owner in a forgotten child, as a lock by `flock` could.
#[derive(Debug)]
pub(super) struct Lock {
    path: PathBuf,
    owner: u32,
    /// Closing it lets go, as would closing any other descriptor of the same file in this process: nothing
    /// else opens it.
    file: Option<File>,
}

impl Lock {
    /// Takes the lock, or says who has it: `object` is what is locked, for people.
    pub(super) fn take(path: &Path, object: &str) -> Result<Self> {
        let busy = |holder: &str, remedy: String| {
            Err(Error::new(ErrorKind::Busy, "take the NIC for this process")
                .on(object)
                .because(format!("{holder} has prepared it"))
                .remedy(remedy))
        };
        let mut held = lock_held();
        if held.contains(path) {
            return busy("this process", "restore it first".to_owned());
        }
        loop {
            let failed = |error| Error::from_io(error, "open the lock file").on(path.display());
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW)
                .open(path)
                .map_err(failed)?;
            match fcntl(&file, FcntlArg::F_SETLK(&whole_file())) {
                Ok(_) => {}
                Err(Errno::EAGAIN | Errno::EACCES) => match holder(&file) {
                    Some(pid) => {
                        let remedy = format!("wait for process {pid} to end, or end it");
                        return busy(&describe(pid), remedy);
                    }
                    // It was let go just now.
                    None => continue,
                },
                Err(errno) => return Err(Error::from_errno(errno, "lock").on(path.display())),
            }
            // The former holder removes the file before it lets go: then this is no longer the file that
            // others would lock.
            if is_at(&file, path) {
                held.insert(path.to_owned());
                return Ok(Self { path: path.to_owned(), owner: std::process::id(), file: Some(file) });
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let mut held = lock_held();
        held.remove(&self.path);
        // In a child made by `fork` the file is the parent's.
        if self.owner == std::process::id() {
            // An empty file that stays does no harm.
            let _ = std::fs::remove_file(&self.path);
        }
        // Before another thread can open the same file.
        self.file = None;
    }
}

/// The process that holds the lock of this path, for people; `None` if nobody does.
pub(super) fn held_by(path: &Path) -> Result<Option<String>> {
    // Opening and closing the file would let go of what this process holds.
    let held = lock_held();
    if held.contains(path) {
        return Ok(Some("this process".to_owned()));
    }
    match OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path) {
        Ok(file) => Ok(holder(&file).map(describe)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::from_io(error, "open the lock file").on(path.display())),
    }
}

fn lock_held() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

fn whole_file() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// The process that holds the lock; 0 if it is in a namespace that we do not see.
fn holder(file: &File) -> Option<u32> {
    let mut lock = whole_file();
    fcntl(file, FcntlArg::F_GETLK(&mut lock)).ok()?;
    (lock.l_type != libc::F_UNLCK as libc::c_short).then(|| lock.l_pid.cast_unsigned())
}

fn describe(pid: u32) -> String {
    if pid == 0 {
        return "a process of another container".to_owned();
    }
    match std::fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(program) => format!("process {pid} ({})", program.trim_end()),
        Err(_) => format!("process {pid}"),
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), path.symlink_metadata()) {
        (Ok(opened), Ok(found)) => (opened.dev(), opened.ino()) == (found.dev(), found.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_holds_it_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nic.lock");
        let lock = Lock::take(&path, "eth1").unwrap();
        let error = Lock::take(&path, "eth1").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert!(error.to_string().contains("this process has prepared it"), "{error}");
        drop(lock);
        assert!(!path.exists());
        drop(Lock::take(&path, "eth1").unwrap());
    }

    #[test]
    fn the_removed_file_of_a_former_holder_is_no_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nic.lock");
        let file = File::create(&path).unwrap();
        assert!(is_at(&file, &path));
        std::fs::remove_file(&path).unwrap();
        assert!(!is_at(&file, &path));
        std::fs::write(&path, "").unwrap();
        assert!(!is_at(&file, &path));
    }
}
