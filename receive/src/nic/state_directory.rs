//! The folder where locks and journals live.

use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use devmem_provider::{Error, ErrorKind, Result};

/// Names another folder.
const OVERRIDE: &str = "DEVMEM_STATE_DIR";
/// The folder for those who may write there. It is gone after a reboot, as are the settings of NICs.
const SYSTEM: &str = "/run/devmem";

/// Finds the folder and makes it if it is not there.
pub(super) fn open() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(OVERRIDE) {
        return make(PathBuf::from(path));
    }
    let error = match make(PathBuf::from(SYSTEM)) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => error,
        result => return result,
    };
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(path) => make(Path::new(&path).join("devmem")),
        None => Err(error.remedy("run as root, or set DEVMEM_STATE_DIR to a folder of your own")),
    }
}

/// The folders that there are, whoever made them.
pub(super) fn existing() -> Vec<PathBuf> {
    let folders = match std::env::var_os(OVERRIDE) {
        Some(path) => vec![PathBuf::from(path)],
        None => {
            let own = std::env::var_os("XDG_RUNTIME_DIR").map(|path| Path::new(&path).join("devmem"));
            std::iter::once(PathBuf::from(SYSTEM)).chain(own).collect()
        }
    };
    folders.into_iter().filter(|folder| folder.exists()).collect()
}

/// The folder, private to its owner: what a journal says is done to NICs.
fn make(path: PathBuf) -> Result<PathBuf> {
    let failed = |error| Error::from_io(error, "make the folder for locks and journals").on(path.display());
    DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(failed)?;
    let metadata = path.symlink_metadata().map_err(failed)?;
    let own = metadata.uid() == nix::unistd::geteuid().as_raw();
    let others_may_write = metadata.permissions().mode() & 0o022 != 0;
    if metadata.is_dir() && own && !others_may_write {
        return Ok(path);
    }
    let reason = if own { "others may write to it" } else { "it belongs to somebody else" };
    Err(Error::new(ErrorKind::PermissionDenied, "use the folder for locks and journals")
        .on(path.display())
        .because(if metadata.is_dir() { reason } else { "it is no folder" })
        .remedy("set DEVMEM_STATE_DIR to a folder that only you can write to"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_folder_is_private() {
        let parent = tempfile::tempdir().unwrap();
        let path = make(parent.path().join("a/b")).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(make(path.clone()).unwrap(), path);
    }

    #[test]
    fn a_folder_that_others_can_write_to_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        std::fs::set_permissions(parent.path(), PermissionsExt::from_mode(0o777)).unwrap();
        let error = make(parent.path().to_owned()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        let link = parent.path().join("link");
        std::os::unix::fs::symlink("/tmp", &link).unwrap();
        assert!(make(link).is_err());
        let file = parent.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(make(file).is_err());
    }
}
