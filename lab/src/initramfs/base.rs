//! The part of the guest's file system that is the same for every run: folders, shell and tools, the C
//! library. It is made once and kept in the cache.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::archive::ArchiveWriter;
use super::cached::{CachedArchive, LIBRARY_FOLDER, Parts, find_or_make, put};
use super::libraries::{C_LIBRARY, Search, c_library_version, closure};
use crate::cache::Cache;
use crate::error::Result;

/// Programs from the packages, besides busybox: path in the package, path in the guest. The shells are not
/// busybox's, which prefers its own commands (such as a small `ip`) to those in the path.
const PROGRAMS: [(&str, &str); 7] = [
    ("usr/bin/bash", "usr/bin/bash"),
    ("usr/bin/dash", "usr/bin/sh"),
    ("usr/bin/ip", "usr/bin/ip"),
    ("usr/bin/rdma", "usr/bin/rdma"),
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

/// Finds the archive for these tools in the cache, or makes it. Without packages, the guest has the
/// host's C library and, if there is one, the host's static busybox. Programs and libraries of `others`, a root folder of
/// packages, find a C library that is new enough for them.
pub(crate) fn base(cache: &Cache, tools: Option<&Path>, others: Option<&Path>) -> Result<CachedArchive> {
    find_or_make(&cache.base_archives(), &BaseParts::choose(tools, others)?)
}

/// The host's files that go into the archive.
struct BaseParts {
    busybox: Option<PathBuf>,
    programs: Vec<(PathBuf, PathBuf)>,
    libraries: BTreeMap<String, PathBuf>,
}

impl BaseParts {
    fn choose(tools: Option<&Path>, others: Option<&Path>) -> Result<Self> {
        let host = Search::this_system();
        let packaged = tools.map(Search::below);
        let others = others.map(Search::below);
        let mut libraries = BTreeMap::new();
        let mut programs = Vec::new();
        if let (Some(root), Some(search)) = (tools, &packaged) {
            let present = PROGRAMS.iter().map(|(from, to)| (root.join(from), PathBuf::from(to)));
            programs = present.filter(|(from, _)| from.is_file()).collect();
            let files: Vec<&Path> = programs.iter().map(|(from, _)| from.as_path()).collect();
            libraries = closure(&files, search)?;
        }
        // Programs run on a C library as new as theirs or newer, so the newest one it is; its parts go together.
        let version = |search: &&Search| search.library("libc.so.6").as_deref().and_then(c_library_version);
        // Of equally new ones, the last.
        let newest =
            [Some(&host), others.as_ref(), packaged.as_ref()].into_iter().flatten().max_by_key(version);
        let newest = newest.unwrap_or(&host);
        for name in C_LIBRARY {
            libraries.remove(name);
            if let Some(path) = newest.library(name) {
                libraries.insert(name.to_owned(), path);
            }
        }
        for name in COMMON_LIBRARIES {
            if let Some(path) = newest.library(name) {
                libraries.entry(name.to_owned()).or_insert(path);
            }
        }
        Ok(Self { busybox: busybox(tools), programs, libraries })
    }
}

impl Parts for BaseParts {
    fn files(&self) -> Vec<&Path> {
        let programs = self.programs.iter().map(|(from, _)| from);
        self.busybox.iter().chain(programs).map(PathBuf::as_path).collect()
    }

    fn libraries(&self) -> &BTreeMap<String, PathBuf> {
        &self.libraries
    }

    fn constants(&self) -> String {
        format!("{EMPTY_FOLDERS:?} {SETTINGS:?} {PROGRAMS:?}")
    }

    fn write(&self, archive: &mut ArchiveWriter<&mut dyn Write>) -> io::Result<()> {
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
            put(archive, to, 0o755, from)?;
        }
        if let Some(busybox) = &self.busybox {
            put(archive, Path::new("usr/bin/busybox"), 0o755, busybox)?;
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
        Ok(())
    }
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
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn without_packages_the_guest_has_this_systems_c_library_and_the_archive_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(folder.path())).unwrap();
        let first = base(&cache, None, None).unwrap();
        assert!(first.libraries.contains("libc.so.6") && first.libraries.contains("ld-linux-x86-64.so.2"));
        let second = base(&cache, None, None).unwrap();
        assert_eq!(second.file.metadata().unwrap().ino(), first.file.metadata().unwrap().ino());

        let archives = fs::read_dir(cache.base_archives()).unwrap().map(|entry| entry.unwrap().path());
        let archive =
            archives.into_iter().find(|path| path.extension().is_some_and(|name| name == "cpio")).unwrap();
        fs::write(&archive, b"damage").unwrap();
        let third = base(&cache, None, None).unwrap();
        assert!(third.file.metadata().unwrap().len() > 1_000_000);
    }
}
