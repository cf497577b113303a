//! What is put into the guest for one run: the agent, the command with its libraries, files, modules.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use devmem_lab_hardware::Driver;
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::error::{Context, Error, Result};
use crate::initramfs::archive::ArchiveWriter;
use crate::initramfs::cached::CachedArchive;
use crate::initramfs::libraries::{C_LIBRARY, Search, closure};
use crate::kernel::elf::Elf;
use crate::kernel::modules::Module;
use crate::protocol::description::Run;
use crate::protocol::{AGENT, DESCRIPTION, HOME, LIBRARY_FOLDER, MODULE_FOLDER};

/// Where a command of the host lies in the guest.
const COMMAND_FOLDER: &str = "/usr/local/bin";

/// Where the kernel looks for firmware.
const FIRMWARE_FOLDER: &str = "/usr/lib/firmware";

/// A file of the host and its place in the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GuestFile {
    pub(super) host: PathBuf,
    pub(super) guest: PathBuf,
}

impl GuestFile {
    /// A place that is not absolute is meant from the command's working folder; one that is missing or
    /// a folder takes the file's own name.
    pub(super) fn new(host: &Path, guest: Option<&str>) -> Self {
        let name = Path::new(host.file_name().unwrap_or(OsStr::new("file")));
        let guest = match guest {
            None | Some("") => Path::new(HOME).join(name),
            Some(folder) if folder.ends_with('/') => Path::new(HOME).join(folder).join(name),
            Some(path) => Path::new(HOME).join(path),
        };
        Self { host: host.to_owned(), guest }
    }
}

/// Finds out whether the command is a program of the host. If so it is put into the guest, and its
/// name there is returned; else it is a program of the guest.
pub(super) fn resolve_command(program: &str) -> Result<(String, Option<GuestFile>)> {
    let path = Path::new(program);
    if !program.contains('/') || !path.exists() {
        return Ok((program.to_owned(), None));
    }
    let found = fs::metadata(path).context(|| format!("look at {program}"))?;
    if !found.is_file() || found.permissions().mode() & 0o111 == 0 {
        return Err(Error::option(program, "is not an executable file"));
    }
    let file = GuestFile::new(path, Some(&format!("{COMMAND_FOLDER}/")));
    Ok((file.guest.to_string_lossy().into_owned(), Some(file)))
}

/// Everything for one run.
#[derive(Debug)]
pub(super) struct Content<'a> {
    /// Those that change rarely, in order.
    pub(super) archives: &'a [CachedArchive],
    pub(super) run: &'a Run,
    pub(super) agent: &'a Path,
    pub(super) files: &'a [GuestFile],
    pub(super) modules: &'a [Module],
    pub(super) drivers: &'a [Driver],
}

impl Content<'_> {
    /// The archives one after the other, in memory that vanishes with its last user.
    pub(super) fn write(&self) -> Result<File> {
        let memory =
            memfd_create(c"initramfs", MFdFlags::MFD_CLOEXEC).context(|| "create a file in memory".into())?;
        let mut memory = File::from(memory);
        let action = || "write the guest's files to memory (is /dev/shm or the memory full?)".to_owned();
        for archive in self.archives {
            io::copy(&mut &archive.file, &mut memory).context(action)?;
        }
        let mut archive = ArchiveWriter::new(io::BufWriter::with_capacity(1 << 18, memory));
        self.put_agent(&mut archive)?;
        let run = serde_json::to_vec(self.run).map_err(|error| Error::Machine(error.to_string()))?;
        archive.file(Path::new(DESCRIPTION), 0o644, run.len() as u64, &mut run.as_slice()).context(action)?;
        for file in self.files {
            put(&mut archive, &file.host, &file.guest)?;
        }
        for module in self.modules {
            put(&mut archive, &module.path, &Path::new(MODULE_FOLDER).join(&module.name))?;
        }
        for file in self.drivers.iter().flat_map(|driver| &driver.firmware) {
            let path = Path::new(FIRMWARE_FOLDER).join(&file.path);
            let content = &file.content;
            archive.file(&path, 0o644, content.len() as u64, &mut content.as_slice()).context(action)?;
        }
        for (name, path) in self.libraries()? {
            put(&mut archive, &path, &Path::new(LIBRARY_FOLDER).join(name))?;
        }
        let buffer = archive.finish().context(action)?;
        buffer.into_inner().map_err(io::IntoInnerError::into_error).context(action)
    }

    /// The agent is this program without what it needs only when it is debugged.
    fn put_agent(&self, archive: &mut ArchiveWriter<impl Write>) -> Result<()> {
        let content = fs::read(self.agent).context(|| format!("read {}", self.agent.display()))?;
        let part = Elf::parse(&content)
            .and_then(|elf| elf.loadable_part())
            .ok_or_else(|| Error::format(self.agent, "is no program for this processor"))?;
        archive
            .file(Path::new(AGENT), 0o755, part.len() as u64, &mut part.as_slice())
            .context(|| format!("put {} into the guest", self.agent.display()))
    }

    /// The libraries of the programs that are not in the archives.
    fn libraries(&self) -> Result<BTreeMap<String, PathBuf>> {
        let programs: Vec<&Path> = [self.agent]
            .into_iter()
            .chain(self.files.iter().map(|file| file.host.as_path()).filter(|path| path.is_file()))
            .collect();
        let mut libraries = closure(&programs, &Search::this_system())?;
        let is_there = |name: &str| self.archives.iter().any(|archive| archive.libraries.contains(name));
        libraries.retain(|name, _| !is_there(name) && !C_LIBRARY.contains(&name.as_str()));
        Ok(libraries)
    }
}

/// A file, or a folder with what is in it.
fn put(archive: &mut ArchiveWriter<impl Write>, host: &Path, guest: &Path) -> Result<()> {
    let action = || format!("put {} into the guest", host.display());
    let found = fs::metadata(host).context(action)?;
    if found.is_dir() {
        archive.folder(guest).context(action)?;
        for entry in fs::read_dir(host).context(action)? {
            let entry = entry.context(action)?;
            put(archive, &entry.path(), &guest.join(entry.file_name()))?;
        }
        return Ok(());
    }
    let mut file = File::open(host).context(action)?;
    archive.file(guest, found.permissions().mode(), found.len(), &mut file).context(action)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_in_the_guest_are_found() {
        let guest = |place| GuestFile::new(Path::new("/host/data.bin"), place).guest;
        assert_eq!(guest(None), Path::new("/root/data.bin"));
        assert_eq!(guest(Some("/tmp/")), Path::new("/tmp/data.bin"));
        assert_eq!(guest(Some("other")), Path::new("/root/other"));
        assert_eq!(guest(Some("/etc/other")), Path::new("/etc/other"));
    }

    #[test]
    fn a_command_is_of_the_host_if_it_is_an_executable_path() {
        assert_eq!(resolve_command("sh").unwrap(), ("sh".into(), None));
        assert_eq!(resolve_command("/guest/only").unwrap(), ("/guest/only".into(), None));
        let program = std::env::current_exe().unwrap();
        let (name, file) = resolve_command(program.to_str().unwrap()).unwrap();
        assert!(name.starts_with("/usr/local/bin/"));
        assert_eq!(file.unwrap().host, program);
        let text = tempfile::NamedTempFile::new().unwrap();
        assert!(resolve_command(text.path().to_str().unwrap()).is_err());
    }
}
