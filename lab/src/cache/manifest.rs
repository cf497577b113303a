//! What an unpacked folder must contain, so that a damaged cache is noticed and not booted.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::write_whole;
use crate::error::{Context, Error, Result};

const FILE_NAME: &str = "manifest.json";
const FORMAT: u32 = 1;

/// The packages that were unpacked into a folder, and every file that must be there.
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct Manifest {
    format: u32,
    /// File names of the packages.
    pub(crate) packages: Vec<String>,
    files: BTreeMap<String, FileRecord>,
}

#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
struct FileRecord {
    size: u64,
    sha256: String,
}

impl Manifest {
    /// Describes every regular file below `folder` and writes the description there.
    pub(crate) fn record(folder: &Path, packages: Vec<String>) -> Result<Self> {
        let mut files = BTreeMap::new();
        collect(folder, folder, &mut files)?;
        let manifest = Self { format: FORMAT, packages, files };
        let text = serde_json::to_vec(&manifest).map_err(|error| Error::format(folder, error.to_string()))?;
        write_whole(&folder.join(FILE_NAME), &text)?;
        Ok(manifest)
    }

    /// Reads the description of `folder`; `None` when there is none, so nothing was unpacked.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(FILE_NAME);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context(|| format!("read {}", path.display())),
        };
        match serde_json::from_slice::<Self>(&text) {
            Ok(manifest) if manifest.format == FORMAT => Ok(Some(manifest)),
            Ok(_) => Ok(None),
            Err(error) => Err(Error::DamagedCache { path, reason: format!("cannot be read: {error}") }),
        }
    }

    /// Whether a package of this name, in any version, was unpacked.
    pub(crate) fn has_package(&self, name: &str) -> bool {
        self.packages.iter().any(|file| file.split('_').next() == Some(name))
    }

    /// Checks that every file is there with its size: a few milliseconds.
    pub(crate) fn check_sizes(&self, folder: &Path) -> Result<()> {
        for (name, record) in &self.files {
            let path = folder.join(name);
            match fs::symlink_metadata(&path) {
                Ok(found) if found.is_file() && found.len() == record.size => {}
                Ok(found) => {
                    let reason = format!("has {} bytes instead of {}", found.len(), record.size);
                    return Err(Error::DamagedCache { path, reason });
                }
                Err(error) => {
                    return Err(Error::DamagedCache { path, reason: format!("cannot be read: {error}") });
                }
            }
        }
        Ok(())
    }

    /// Checks the content of every file: about a second.
    pub(crate) fn check_contents(&self, folder: &Path) -> Result<()> {
        self.check_sizes(folder)?;
        for (name, record) in &self.files {
            let path = folder.join(name);
            if digest(&path)? != record.sha256 {
                return Err(Error::DamagedCache {
                    path,
                    reason: "has another content than when it was unpacked".into(),
                });
            }
        }
        Ok(())
    }

    /// The size of all files together, in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.files.values().map(|record| record.size).sum()
    }
}

fn collect(root: &Path, folder: &Path, files: &mut BTreeMap<String, FileRecord>) -> Result<()> {
    let entries = fs::read_dir(folder).context(|| format!("list {}", folder.display()))?;
    for entry in entries {
        let entry = entry.context(|| format!("list {}", folder.display()))?;
        let path = entry.path();
        let kind = entry.file_type().context(|| format!("look at {}", path.display()))?;
        if kind.is_dir() {
            collect(root, &path, files)?;
        } else if kind.is_file() {
            let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            let size = entry.metadata().context(|| format!("look at {}", path.display()))?.len();
            files.insert(name, FileRecord { size, sha256: digest(&path)? });
        }
    }
    Ok(())
}

fn digest(path: &Path) -> Result<String> {
    let action = || format!("read {}", path.display());
    let mut file = File::open(path).context(action)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer).context(action)? {
            0 => return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            count => hash.update(&buffer[..count]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_a_shortened_and_a_missing_file_are_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("usr/lib/libc.so.6");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, b"content").unwrap();
        let written = Manifest::record(folder.path(), vec!["libc6_2.41-12_amd64.deb".into()]).unwrap();
        let manifest = Manifest::read(folder.path()).unwrap().unwrap();
        assert_eq!(manifest, written);
        assert_eq!(manifest.size(), 7);
        assert!(manifest.has_package("libc6") && !manifest.has_package("libc"));
        manifest.check_contents(folder.path()).unwrap();

        fs::write(&file, b"CONTENT").unwrap();
        manifest.check_sizes(folder.path()).unwrap();
        assert!(matches!(manifest.check_contents(folder.path()), Err(Error::DamagedCache { .. })));
        fs::write(&file, b"short").unwrap();
        assert!(matches!(manifest.check_sizes(folder.path()), Err(Error::DamagedCache { .. })));
        fs::remove_file(&file).unwrap();
        assert!(matches!(manifest.check_sizes(folder.path()), Err(Error::DamagedCache { .. })));
    }

    #[test]
    fn an_unfinished_folder_has_no_manifest_and_a_broken_manifest_is_damage() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Manifest::read(folder.path()).unwrap().is_none());
        fs::write(folder.path().join(FILE_NAME), b"{ half").unwrap();
        assert!(matches!(Manifest::read(folder.path()), Err(Error::DamagedCache { .. })));
    }
}
