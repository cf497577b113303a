//! Archives that change rarely: each is made once and kept in the cache.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::archive::ArchiveWriter;
use crate::cache::{persist, write_whole};
use crate::error::{Context, Error, Result};

/// Where libraries lie in the guest. `/usr/lib64` leads there too, so that the C library of any
/// distribution finds them.
pub(super) const LIBRARY_FOLDER: &str = "usr/lib/x86_64-linux-gnu";

/// What an archive is made of.
pub(super) trait Parts {
    /// The host's files, besides the libraries.
    fn files(&self) -> Vec<&Path>;

    /// The libraries: name and file.
    fn libraries(&self) -> &BTreeMap<String, PathBuf>;

    /// Everything that is in the archive besides the host's files, in any form.
    fn constants(&self) -> String;

    /// Writes everything but the libraries.
    fn write(&self, archive: &mut ArchiveWriter<&mut dyn Write>) -> io::Result<()>;
}

/// An archive in the cache.
#[derive(Debug)]
pub(crate) struct CachedArchive {
    pub(crate) file: File,
    /// Names of the libraries that are in it.
    pub(crate) libraries: BTreeSet<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    size: u64,
    libraries: BTreeSet<String>,
}

/// Finds the archive with these parts in `folder`, or makes it.
pub(super) fn find_or_make(folder: &Path, parts: &dyn Parts) -> Result<CachedArchive> {
    let key = key(parts)?;
    let path = folder.join(format!("{key}.cpio"));
    let record_path = folder.join(format!("{key}.json"));
    if let Ok(text) = fs::read(&record_path)
        && let Ok(record) = serde_json::from_slice::<Record>(&text)
        && let Ok(file) = File::open(&path)
        && file.metadata().is_ok_and(|found| found.len() == record.size)
    {
        return Ok(CachedArchive { file, libraries: record.libraries });
    }
    fs::create_dir_all(folder).context(|| format!("create {}", folder.display()))?;
    let action = || format!("write {}", path.display());
    let mut file = tempfile::NamedTempFile::new_in(folder).context(action)?;
    let mut out = BufWriter::with_capacity(1 << 18, file.as_file_mut());
    write(parts, &mut out).context(action)?;
    out.flush().context(action)?;
    drop(out);
    let size = file.as_file().metadata().context(action)?.len();
    persist(file, &path)?;
    let record = Record { size, libraries: parts.libraries().keys().cloned().collect() };
    let text = serde_json::to_vec(&record).map_err(|error| Error::format(&record_path, error.to_string()))?;
    write_whole(&record_path, &text)?;
    let file = File::open(&path).context(|| format!("open {}", path.display()))?;
    Ok(CachedArchive { file, libraries: record.libraries })
}

/// Names what is in the archive: every file by its path, size and time of change.
fn key(parts: &dyn Parts) -> Result<String> {
    let mut hash = Sha256::new();
    hash.update(format!("{} {}\n", env!("CARGO_PKG_VERSION"), parts.constants()));
    for path in parts.files().into_iter().chain(parts.libraries().values().map(PathBuf::as_path)) {
        let found = fs::metadata(path).context(|| format!("look at {}", path.display()))?;
        hash.update(format!("{} {} {}\n", path.display(), found.size(), found.mtime()));
    }
    Ok(hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}

fn write(parts: &dyn Parts, out: &mut dyn Write) -> io::Result<()> {
    let mut archive = ArchiveWriter::new(out);
    parts.write(&mut archive)?;
    for (name, from) in parts.libraries() {
        put(&mut archive, &Path::new(LIBRARY_FOLDER).join(name), 0o755, from)?;
    }
    archive.finish()?;
    Ok(())
}

/// Puts a file of the host into an archive.
pub(super) fn put(
    archive: &mut ArchiveWriter<impl Write>,
    to: &Path,
    permissions: u32,
    from: &Path,
) -> io::Result<()> {
    let mut file = File::open(from)?;
    let size = file.metadata()?.len();
    archive.file(to, permissions, size, &mut file)
}
