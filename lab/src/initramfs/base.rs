//! The part of the guest's file system that is the same for every run: folders, shell and tools, the C
//! library. It is made once and kept in the cache.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::archive::ArchiveWriter;
use super::libraries::{C_LIBRARY, Search, c_library_version, closure};
use crate::cache::{Cache, persist, write_whole};
use crate::error::{Context, Error, Result};

/// Where libraries lie in the guest. `/usr/lib64` leads there too, so that the C library of any
/// distribution finds them.
const LIBRARY_FOLDER: &str = "usr/lib/x86_64-linux-gnu";

/// Programs from the packages, besides busybox: path in the package, path in the guest. The shells are not
/// busybox's, which prefers its own commands (such as a small `ip`) to those in the path.
const PROGRAMS: [(&str, &str); 6] = [
    ("usr/bin/bash", "usr/bin/bash"),
    ("usr/bin/dash", "usr/bin/sh"),
    ("usr/bin/ip", "usr/bin/ip"),
    ("usr/sbin/tc", "usr/sbin/tc"),
    ("usr/bin/ss", "usr/bin/ss"),
    ("usr/sbin/ethtool", "usr/sbin/ethtool"),
];

/// Libraries that programs of the host commonly need, besides the C library.
const COMMON_LIBRARIES: [&str; 1] = ["libgcc_s.so.1"];

const EMPTY_FOLDERS: [&str; 9] = ["proc", "sys", "tmp", "run", "root", "mnt", "var", "usr/local/bin", "etc"];

const SETTINGS: [(&str, &str); 7] = [
    ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
    ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
    ("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    ("etc/hostname", "devmem-lab\n"),
    ("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
    ("etc/protocols", "ip 0 IP\nicmp 1 ICMP\ntcp 6 TCP\nudp 17 UDP\nipv6-icmp 58 IPv6-ICMP\n"),
    ("etc/profile", "PS1='lab:\\w\\$ '\n"),
];

/// The archive in the cache.
#[derive(Debug)]
pub(crate) struct Base {
    pub(crate) archive: PathBuf,
    /// Names of the libraries that are in it.
    pub(crate) libraries: BTreeSet<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    size: u64,
    libraries: BTreeSet<String>,
}

/// Finds the archive for these tools in the cache, or makes it. Without packages, the guest has the
/// host's C library and, if there is one, the host's static busybox.
pub(crate) fn base(cache: &Cache, tools: Option<&Path>) -> Result<Base> {
    let parts = Parts::choose(tools)?;
    let key = parts.key()?;
    let archive = cache.base_archives().join(format!("{key}.cpio"));
    let record_path = cache.base_archives().join(format!("{key}.json"));
    if let Ok(text) = fs::read(&record_path)
        && let Ok(record) = serde_json::from_slice::<Record>(&text)
        && fs::metadata(&archive).is_ok_and(|found| found.len() == record.size)
    {
        return Ok(Base { archive, libraries: record.libraries });
    }
    let folder = cache.base_archives();
    fs::create_dir_all(&folder).context(|| format!("create {}", folder.display()))?;
    let action = || format!("write {}", archive.display());
    let file = tempfile::NamedTempFile::new_in(&folder).context(action)?;
    let mut out = BufWriter::new(file);
    parts.write(&mut out).context(action)?;
    let file = out.into_inner().map_err(std::io::IntoInnerError::into_error).context(action)?;
    let size = file.as_file().metadata().context(action)?.len();
    persist(file, &archive)?;
    let libraries: BTreeSet<String> = parts.libraries.into_keys().collect();
    let record = Record { size, libraries };
    let text = serde_json::to_vec(&record).map_err(|error| Error::format(&record_path, error.to_string()))?;
    write_whole(&record_path, &text)?;
    Ok(Base { archive, libraries: record.libraries })
}

/// The host's files that go into the archive.
struct Parts {
    busybox: Option<PathBuf>,
    programs: Vec<(PathBuf, PathBuf)>,
    libraries: BTreeMap<String, PathBuf>,
}

impl Parts {
    fn choose(tools: Option<&Path>) -> Result<Self> {
        let host = Search::this_system();
        let packaged = tools.map(Search::below);
        let mut libraries = BTreeMap::new();
        let mut programs = Vec::new();
        if let (Some(root), Some(search)) = (tools, &packaged) {
            let present = PROGRAMS.iter().map(|(from, to)| (root.join(from), PathBuf::from(to)));
            programs = present.filter(|(from, _)| from.is_file()).collect();
            let files: Vec<&Path> = programs.iter().map(|(from, _)| from.as_path()).collect();
            libraries = closure(&files, search)?;
        }
        // Programs of the host run on a C library as new as theirs or newer, so the newer one it is;
        // its parts go together.
        let c_library = |search: &Search| search.library("libc.so.6").as_deref().and_then(c_library_version);
        let newer = match &packaged {
            Some(packaged) if c_library(packaged) >= c_library(&host) => packaged,
            _ => &host,
        };
        for name in C_LIBRARY {
            libraries.remove(name);
            if let Some(path) = newer.library(name) {
                libraries.insert(name.to_owned(), path);
            }
        }
        for name in COMMON_LIBRARIES {
            if let Some(path) = newer.library(name) {
                libraries.entry(name.to_owned()).or_insert(path);
            }
        }
        Ok(Self { busybox: busybox(tools), programs, libraries })
    }

    /// Names what is in the archive: every file by its path, size and time of change.
    fn key(&self) -> Result<String> {
        let mut hash = Sha256::new();
        hash.update(format!("{} {EMPTY_FOLDERS:?} {SETTINGS:?} {PROGRAMS:?}\n", env!("CARGO_PKG_VERSION")));
        let programs = self.programs.iter().map(|(from, _)| from);
        for path in self.busybox.iter().chain(programs).chain(self.libraries.values()) {
            let found = fs::metadata(path).context(|| format!("look at {}", path.display()))?;
            hash.update(format!("{} {} {}\n", path.display(), found.size(), found.mtime()));
        }
        Ok(hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect())
    }

    fn write(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let mut archive = ArchiveWriter::new(out);
        for folder in ["usr/bin", "usr/sbin", LIBRARY_FOLDER] {
            archive.folder(Path::new(folder))?;
        }
        archive.folder_link(Path::new("usr/lib64"), "lib/x86_64-linux-gnu")?;
        for folder in ["bin", "sbin", "lib", "lib64"] {
            archive.folder_link(Path::new(folder), &format!("usr/{folder}"))?;
        }
        for folder in EMPTY_FOLDERS {
            archive.folder(Path::new(folder))?;
        }
        // The kernel opens it for the first process, before anything is mounted.
        archive.device(Path::new("dev/console"), 0o600, 5, 1)?;
        for (path, text) in SETTINGS {
            archive.file(Path::new(path), 0o644, text.len() as u64, &mut text.as_bytes())?;
        }
        for (from, to) in &self.programs {
            put(&mut archive, to, 0o755, from)?;
        }
        for (name, from) in &self.libraries {
            put(&mut archive, &Path::new(LIBRARY_FOLDER).join(name), 0o755, from)?;
        }
        if let Some(busybox) = &self.busybox {
            put(&mut archive, Path::new("usr/bin/busybox"), 0o755, busybox)?;
            let taken: BTreeSet<&str> = self
                .programs
                .iter()
                .filter_map(|(_, to)| to.file_name()?.to_str())
                .chain(["busybox"])
                .collect();
            for applet in applets(busybox) {
                if !taken.contains(applet.as_str()) {
                    archive.link(&Path::new("usr/bin").join(&applet), "busybox")?;
                }
            }
        }
        archive.finish()?;
        Ok(())
    }
}

fn put(
    archive: &mut ArchiveWriter<impl Write>,
    to: &Path,
    permissions: u32,
    from: &Path,
) -> std::io::Result<()> {
    let mut file = File::open(from)?;
    let size = file.metadata()?.len();
    archive.file(to, permissions, size, &mut file)
}

fn busybox(tools: Option<&Path>) -> Option<PathBuf> {
    if let Some(root) = tools {
        return ["usr/bin/busybox", "bin/busybox"]
            .iter()
            .map(|path| root.join(path))
            .find(|path| path.is_file());
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&folders).map(|folder| folder.join("busybox")).find(|path| path.is_file())?;
    let is_static = closure(&[&found], &Search::this_system()).is_ok_and(|needs| needs.is_empty());
    is_static.then_some(found)
}

/// The commands that this busybox can be, in its own words.
fn applets(busybox: &Path) -> Vec<String> {
    let output = Command::new(busybox).arg("--list").output();
    let list = output.map(|output| output.stdout).unwrap_or_default();
    let is_name = |line: &&str| !line.is_empty() && !line.contains('/');
    String::from_utf8_lossy(&list).lines().filter(is_name).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_packages_the_guest_has_this_systems_c_library_and_the_archive_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(folder.path())).unwrap();
        let first = base(&cache, None).unwrap();
        assert!(first.libraries.contains("libc.so.6") && first.libraries.contains("ld-linux-x86-64.so.2"));
        let made = fs::metadata(&first.archive).unwrap().ino();
        let second = base(&cache, None).unwrap();
        assert_eq!(fs::metadata(&second.archive).unwrap().ino(), made);

        fs::write(&first.archive, b"damage").unwrap();
        let third = base(&cache, None).unwrap();
        assert!(fs::metadata(&third.archive).unwrap().len() > 1_000_000);
    }
}
