//! Takes one folder out of the package with the kernel's source.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path};
use std::process::{Command, Stdio};

use crate::error::{Context, Error, Result};
use crate::packages::apt::Archive;

/// Writes the files of `folder` of the kernel's source in this package to `target`.
///
/// The package holds a compressed archive of the whole source: it is read from its beginning up to the end of the folder,
/// and nothing but the folder is written.
pub(crate) fn extract(package: &Archive, folder: &str, target: &Path) -> Result<()> {
    let action = || format!("read the kernel's source from {}", package.path.display());
    let mut child = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(&package.path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // It complains of the pipe that is closed before its end.
        .stderr(Stdio::null())
        .spawn()
        .map_err(|_| Error::MissingProgram {
            program: "dpkg-deb".into(),
            remedy: "install the package dpkg".into(),
        })?;
    let result = match child.stdout.take() {
        Some(output) => from_package(output, folder, target),
        None => Err(io::Error::other("there is no pipe")),
    };
    let _ = child.wait();
    match result.context(action)? {
        0 => Err(Error::format(&package.path, format!("has no folder {folder}"))),
        _ => Ok(()),
    }
}

/// Finds the archive of the source in the archive of the package; tells how many files were written.
fn from_package(package: impl Read, folder: &str, target: &Path) -> io::Result<usize> {
    for entry in tar::Archive::new(package).entries()? {
        let entry = entry?;
        if entry.path()?.to_string_lossy().ends_with(".tar.xz") {
            return from_source(lzma_rust2::XzReader::new(entry, true), folder, target);
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, "the package has no archive of the source"))
}

/// Writes the files of the folder, which are next to each other in the archive.
fn from_source(source: impl Read, folder: &str, target: &Path) -> io::Result<usize> {
    let mut written = 0;
    for entry in tar::Archive::new(source).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        // The first part is the name of the whole.
        let in_source: std::path::PathBuf = path.components().skip(1).collect();
        let Ok(name) = in_source.strip_prefix(folder) else {
            if written > 0 {
                break;
            }
            continue;
        };
        let is_plain = name.components().all(|part| matches!(part, Component::Normal(_)));
        if !entry.header().entry_type().is_file() || !is_plain || name.as_os_str().is_empty() {
            continue;
        }
        let file = target.join(name);
        fs::create_dir_all(file.parent().unwrap_or(target))?;
        io::copy(&mut entry, &mut File::create(file)?)?;
        written += 1;
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(files: &[(&str, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, path, content.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn only_the_folder_is_written() {
        let target = tempfile::tempdir().unwrap();
        let source = archive(&[
            ("linux/drivers/net/a.c", "no"),
            ("linux/drivers/net/b/Makefile", "obj"),
            ("linux/drivers/net/b/deep/c.h", "header"),
            ("linux/drivers/net/bb/d.c", "no"),
        ]);
        assert_eq!(from_source(source.as_slice(), "drivers/net/b", target.path()).unwrap(), 2);
        assert_eq!(fs::read_to_string(target.path().join("Makefile")).unwrap(), "obj");
        assert_eq!(fs::read_to_string(target.path().join("deep/c.h")).unwrap(), "header");
        assert_eq!(fs::read_dir(target.path()).unwrap().count(), 2);
        assert_eq!(from_source(source.as_slice(), "drivers/none", target.path()).unwrap(), 0);
    }

    #[test]
    fn a_package_without_source_is_an_error() {
        let target = tempfile::tempdir().unwrap();
        assert!(from_package(archive(&[("usr/share/x", "")]).as_slice(), "drivers", target.path()).is_err());
    }
}
