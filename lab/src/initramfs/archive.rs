//! Writes archives in the format that the kernel unpacks at boot: cpio "newc"
//! (`Documentation/driver-api/early-userspace/buffer-format.rst`).

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::path::{Component, Path};

use cpio::newc::{Builder, ModeFileType, trailer};

/// An archive that is being written.
#[derive(Debug)]
pub(crate) struct ArchiveWriter<W: Write> {
    out: W,
    number: u32,
    folders: BTreeSet<String>,
}

impl<W: Write> ArchiveWriter<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, number: 0, folders: BTreeSet::new() }
    }

    fn entry(&mut self, name: &str, kind: ModeFileType, permissions: u32) -> Builder {
        self.number += 1;
        Builder::new(name).ino(self.number).nlink(1).mode(permissions & 0o7777).set_mode_file_type(kind)
    }

    fn put(&mut self, entry: Builder, size: u64, content: &mut dyn Read) -> io::Result<()> {
        let size = u32::try_from(size).map_err(|_| {
            io::Error::new(io::ErrorKind::FileTooLarge, "this archive holds files below 4 GiB only")
        })?;
        let mut writer = entry.write(&mut self.out, size);
        let copied = io::copy(&mut content.take(u64::from(size)), &mut writer)?;
        if copied != u64::from(size) {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file became shorter while it was read",
            ));
        }
        writer.finish()?;
        Ok(())
    }

    /// A folder, after those that it lies in.
    pub(crate) fn folder(&mut self, path: &Path) -> io::Result<()> {
        let mut so_far = String::new();
        for name in names(path)? {
            if !so_far.is_empty() {
                so_far.push('/');
            }
            so_far.push_str(name);
            if self.folders.insert(so_far.clone()) {
                let entry = self.entry(&so_far, ModeFileType::Directory, 0o755);
                self.put(entry, 0, &mut io::empty())?;
            }
        }
        Ok(())
    }

    fn within_folder(&mut self, path: &Path) -> io::Result<String> {
        if let Some(folder) = path.parent() {
            self.folder(folder)?;
        }
        Ok(names(path)?.join("/"))
    }

    /// A file of `size` bytes.
    pub(crate) fn file(
        &mut self,
        path: &Path,
        permissions: u32,
        size: u64,
        content: &mut dyn Read,
    ) -> io::Result<()> {
        let name = self.within_folder(path)?;
        let entry = self.entry(&name, ModeFileType::Regular, permissions);
        self.put(entry, size, content)
    }

    /// A symbolic link.
    pub(crate) fn link(&mut self, path: &Path, target: &str) -> io::Result<()> {
        let name = self.within_folder(path)?;
        let entry = self.entry(&name, ModeFileType::Symlink, 0o777);
        self.put(entry, target.len() as u64, &mut target.as_bytes())
    }

    /// A symbolic link to a folder, into which entries can be put by that name afterwards.
    pub(crate) fn folder_link(&mut self, path: &Path, target: &str) -> io::Result<()> {
        self.link(path, target)?;
        self.folders.insert(names(path)?.join("/"));
        Ok(())
    }

    /// A character device.
    pub(crate) fn device(&mut self, path: &Path, permissions: u32, major: u32, minor: u32) -> io::Result<()> {
        let name = self.within_folder(path)?;
        let entry = self.entry(&name, ModeFileType::Char, permissions).rdev_major(major).rdev_minor(minor);
        self.put(entry, 0, &mut io::empty())
    }

    /// Ends the archive.
    pub(crate) fn finish(self) -> io::Result<W> {
        trailer(self.out)
    }
}

/// The names that a path consists of, from the root; a way upwards is refused.
fn names(path: &Path) -> io::Result<Vec<&str>> {
    let refused = || {
        io::Error::new(io::ErrorKind::InvalidInput, format!("{} is no path for the guest", path.display()))
    };
    path.components()
        .filter(|component| !matches!(component, Component::RootDir | Component::CurDir))
        .map(|component| match component {
            Component::Normal(name) => name.to_str().ok_or_else(refused),
            _ => Err(refused()),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use cpio::newc::Reader;

    fn listing(mut archive: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut entries = Vec::new();
        loop {
            let mut reader = Reader::new(archive).unwrap();
            if reader.entry().is_trailer() {
                return entries;
            }
            let (name, mode) = (reader.entry().name().to_owned(), reader.entry().mode());
            let mut content = Vec::new();
            reader.read_to_end(&mut content).unwrap();
            entries.push((name, mode, content));
            archive = reader.finish().unwrap();
        }
    }

    #[test]
    fn folders_come_before_what_lies_in_them_and_only_once() {
        let mut writer = ArchiveWriter::new(Vec::new());
        writer.file(Path::new("/usr/bin/a"), 0o755, 3, &mut &b"abc"[..]).unwrap();
        writer.file(Path::new("usr/bin/b"), 0o4644, 1, &mut &b"d"[..]).unwrap();
        writer.link(Path::new("/usr/c"), "bin/a").unwrap();
        writer.device(Path::new("/dev/console"), 0o600, 5, 1).unwrap();
        let entries = listing(&writer.finish().unwrap());
        let found: Vec<(&str, u32, &[u8])> =
            entries.iter().map(|(name, mode, content)| (name.as_str(), *mode, content.as_slice())).collect();
        let expected: [(&str, u32, &[u8]); 7] = [
            ("usr", 0o040_755, b""),
            ("usr/bin", 0o040_755, b""),
            ("usr/bin/a", 0o100_755, b"abc"),
            ("usr/bin/b", 0o104_644, b"d"),
            ("usr/c", 0o120_777, b"bin/a"),
            ("dev", 0o040_755, b""),
            ("dev/console", 0o020_600, b""),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_file_that_shrinks_or_is_too_large_or_leads_upwards_is_an_error() {
        let mut writer = ArchiveWriter::new(Vec::new());
        assert!(writer.file(Path::new("/a"), 0o644, 5, &mut &b"abc"[..]).is_err());
        assert!(writer.file(Path::new("/a"), 0o644, 1 << 32, &mut io::repeat(0)).is_err());
        assert!(writer.file(Path::new("/a/../../b"), 0o644, 0, &mut io::empty()).is_err());
    }
}
