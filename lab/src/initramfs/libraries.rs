//! The shared libraries that a program of the host needs in the guest.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Context, Error, Result};
use crate::kernel::elf::Elf;

/// Folders where dynamic loaders look without being told, on all distributions.
const STANDARD_FOLDERS: [&str; 6] =
    ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib64", "usr/lib64", "lib", "usr/lib"];

/// Libraries that belong to the dynamic loader and must be of its version.
pub(crate) const C_LIBRARY: [&str; 10] = [
    "ld-linux-x86-64.so.2",
    "libc.so.6",
    "libm.so.6",
    "libpthread.so.0",
    "libdl.so.2",
    "librt.so.1",
    "libutil.so.1",
    "libresolv.so.2",
    "libnss_files.so.2",
    "libnss_dns.so.2",
];

/// Where libraries are looked for.
#[derive(Debug, Clone)]
pub(crate) struct Search {
    folders: Vec<PathBuf>,
}

impl Search {
    /// The standard folders below `root`, after those named by the environment if it is this system.
    pub(crate) fn below(root: &Path) -> Self {
        Self { folders: STANDARD_FOLDERS.iter().map(|folder| root.join(folder)).collect() }
    }

    /// This system, as the dynamic loader would search it.
    pub(crate) fn this_system() -> Self {
        let named = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
        let named = std::env::split_paths(&named).filter(|folder| folder.is_absolute());
        let mut folders: Vec<PathBuf> = named.collect();
        folders.extend(Self::below(Path::new("/")).folders);
        configured_folders(Path::new("/etc/ld.so.conf"), &mut folders, 4);
        Self { folders }
    }

    /// The library of this name.
    pub(crate) fn library(&self, name: &str) -> Option<PathBuf> {
        self.folders.iter().map(|folder| folder.join(name)).find(|path| is_library(path))
    }
}

fn is_library(path: &Path) -> bool {
    let mut start = [0; 6];
    fs::File::open(path).and_then(|mut file| std::io::Read::read_exact(&mut file, &mut start)).is_ok()
        && Elf::parse(&start).is_some()
}

/// Reads the dynamic loader's list of folders, with the lists that it includes.
fn configured_folders(list: &Path, folders: &mut Vec<PathBuf>, depth: u32) {
    let Ok(text) = fs::read_to_string(list) else { return };
    for line in text.lines().map(|line| line.split('#').next().unwrap_or_default().trim()) {
        if let Some(pattern) = line.strip_prefix("include ").map(|rest| Path::new(rest.trim())) {
            let suffix =
                pattern.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix('*'));
            if let (Some(folder), Some(suffix), 1..) = (pattern.parent(), suffix, depth) {
                let mut lists: Vec<PathBuf> =
                    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
                lists.sort();
                for list in lists.iter().filter(|list| list.to_string_lossy().ends_with(suffix)) {
                    configured_folders(list, folders, depth - 1);
                }
            }
        } else if line.starts_with('/') {
            folders.push(line.into());
        }
    }
}

/// The libraries that `programs` need, directly or through other libraries: name and file.
///
/// Files that are no dynamic programs need nothing.
pub(crate) fn closure(programs: &[&Path], search: &Search) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut waiting: Vec<PathBuf> = programs.iter().map(|&program| program.to_owned()).collect();
    while let Some(program) = waiting.pop() {
        if !seen.insert(program.clone()) {
            continue;
        }
        let content = fs::read(&program).context(|| format!("read {}", program.display()))?;
        let Some(elf) = Elf::parse(&content) else { continue };
        let needs = elf.needs().ok_or_else(|| Error::format(&program, "is a damaged program"))?;
        let origin = program.parent().unwrap_or(Path::new("/")).to_string_lossy();
        let own: Vec<PathBuf> = needs
            .search
            .iter()
            .map(|folder| folder.replace("${ORIGIN}", &origin).replace("$ORIGIN", &origin).into())
            .collect();
        let loader = needs.interpreter.as_deref().and_then(|path| Path::new(path).file_name()?.to_str());
        for name in needs.libraries.iter().map(String::as_str).chain(loader) {
            if found.contains_key(name) {
                continue;
            }
            let path = own.iter().map(|folder| folder.join(name)).find(|path| is_library(path));
            let path = path.or_else(|| search.library(name)).ok_or_else(|| Error::MissingLibrary {
                program: program.clone(),
                library: name.to_owned(),
                searched: own
                    .iter()
                    .chain(&search.folders)
                    .map(|folder| folder.display().to_string())
                    .collect::<Vec<_>>()
                    .join(", "),
            })?;
            waiting.push(path.clone());
            found.insert(name.to_owned(), path);
        }
    }
    Ok(found)
}

/// The newest interface that a C library has: the N of the greatest `GLIBC_2.N` in it.
pub(crate) fn c_library_version(library: &Path) -> Option<u32> {
    const MARK: &[u8] = b"GLIBC_2.";
    let content = fs::read(library).ok()?;
    let mut newest = None;
    let mut rest = content.as_slice();
    while let Some(at) = rest.windows(MARK.len()).position(|window| window == MARK) {
        rest = &rest[at + MARK.len()..];
        let digits = rest.iter().take(4).take_while(|byte| byte.is_ascii_digit()).count();
        let number = std::str::from_utf8(&rest[..digits]).ok().and_then(|digits| digits.parse().ok());
        newest = newest.max(number);
    }
    newest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_needs_the_c_library_and_its_loader() {
        let program = std::env::current_exe().unwrap();
        let found = closure(&[&program], &Search::this_system()).unwrap();
        assert!(found.contains_key("libc.so.6") && found.contains_key("ld-linux-x86-64.so.2"), "{found:?}");
        assert!(c_library_version(&found["libc.so.6"]).unwrap() >= 28);
    }

    #[test]
    fn a_missing_library_is_named_with_who_needs_it() {
        let program = std::env::current_exe().unwrap();
        let empty = tempfile::tempdir().unwrap();
        let error = closure(&[&program], &Search::below(empty.path())).unwrap_err();
        assert!(
            matches!(&error, Error::MissingLibrary { program: named, .. } if *named == program),
            "{error}"
        );
    }

    #[test]
    fn scripts_need_nothing() {
        let script = tempfile::NamedTempFile::new().unwrap();
        fs::write(&script, "#!/bin/sh\n").unwrap();
        assert!(closure(&[script.path()], &Search::this_system()).unwrap().is_empty());
    }

    #[test]
    fn lists_of_folders_are_followed() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("ld.so.conf");
        fs::create_dir(folder.path().join("d")).unwrap();
        fs::write(
            &list,
            format!("include {}/d/*.conf\n/last # comment\nrelative\n", folder.path().display()),
        )
        .unwrap();
        fs::write(folder.path().join("d/1.conf"), "/first\n").unwrap();
        fs::write(folder.path().join("d/2.other"), "/never\n").unwrap();
        let mut folders = Vec::new();
        configured_folders(&list, &mut folders, 4);
        assert_eq!(folders, [Path::new("/first"), Path::new("/last")]);
    }
}
