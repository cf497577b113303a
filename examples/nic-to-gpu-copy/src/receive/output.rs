//! The output file: under another name until it is whole and right, so that nothing is lost.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};

/// A file that is being written beside its final name. Removed on drop, unless it is kept.
#[derive(Debug)]
pub(crate) struct Output {
    file: Arc<File>,
    partial: PathBuf,
    path: PathBuf,
    kept: bool,
}

impl Output {
    /// Creates the file.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let name = path.file_name().with_context(|| format!("{} names no file", path.display()))?;
        let mut partial_name = OsString::from(".");
        partial_name.push(name);
        partial_name.push(format!(".{}.partial", std::process::id()));
        let partial = path.with_file_name(partial_name);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&partial)
            .with_context(|| format!("cannot create {}", partial.display()))?;
        Ok(Self { file: Arc::new(file), partial, path: path.to_owned(), kept: false })
    }

    pub(crate) fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// Gives the file its name; one of that name is replaced.
    pub(crate) fn keep(mut self) -> Result<()> {
        let named = || format!("cannot finish {}", self.path.display());
        self.file.sync_all().with_context(named)?;
        std::fs::rename(&self.partial, &self.path).with_context(named)?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if !self.kept {
            // Whatever failed before is told already.
            let _ = std::fs::remove_file(&self.partial);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_stays_until_the_new_file_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "old").unwrap();
        drop(Output::create(&path).unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
        let output = Output::create(&path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&*output.file(), b"new", 0).unwrap();
        output.keep().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
    }
}
