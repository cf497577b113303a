//! Kernel modules: found by name, ordered by what they depend on, decompressed once.
//!
//! Distribution packages have no `modules.dep` (it is made when they are installed), so dependencies
//! are read from the modules themselves: their section `.modinfo` says `depends=`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::elf::Elf;
use super::symbols::without_unneeded;
use crate::cache::write_whole;
use crate::error::{Context, Error, Result};

/// Bytes of a compressed module from which on its symbols are worth leaving out.
const LARGE: u64 = 512 << 10;

/// The modules of one kernel.
#[derive(Debug)]
pub(crate) struct Modules {
    files: BTreeMap<String, PathBuf>,
    builtin: BTreeSet<String>,
    decompressed: PathBuf,
}

/// A module ready to be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Module {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

impl Modules {
    /// Finds the modules below `folder` (a `lib/modules/RELEASE`). Decompressed ones are kept in
    /// `decompressed`.
    pub(crate) fn find(folder: &Path, decompressed: PathBuf) -> Result<Self> {
        let mut files = BTreeMap::new();
        collect(folder, &mut files)?;
        let list = fs::read_to_string(folder.join("modules.builtin")).unwrap_or_default();
        let builtin = list.lines().filter_map(|line| module_name(Path::new(line))).collect();
        Ok(Self { files, builtin, decompressed })
    }

    /// Whether there is a module of this name, or it is built into the kernel.
    pub(crate) fn has(&self, name: &str) -> bool {
        let name = canonical(name);
        self.files.contains_key(&name) || self.builtin.contains(&name)
    }

    /// Adds a module that is not in the kernel's packages.
    pub(crate) fn add(&mut self, file: PathBuf) {
        if let Some(name) = module_name(&file) {
            self.files.insert(name, file);
        }
    }

    /// These modules and all that they depend on, in the order in which they can be loaded. What is
    /// built into the kernel is left out.
    pub(crate) fn in_order(&self, names: &[String]) -> Result<Vec<Module>> {
        let mut order = Vec::new();
        let mut visited = BTreeSet::new();
        for name in names {
            self.visit(&canonical(name), &mut visited, &mut order)?;
        }
        Ok(order)
    }

    fn visit(&self, name: &str, visited: &mut BTreeSet<String>, order: &mut Vec<Module>) -> Result<()> {
        if !visited.insert(name.to_owned()) || self.builtin.contains(name) {
            return Ok(());
        }
        let Some(file) = self.files.get(name) else {
            return Err(Error::option(format!("kernel module '{name}'"), "this kernel has no such module"));
        };
        let path = self.decompress(name, file)?;
        let content = fs::read(&path).context(|| format!("read {}", path.display()))?;
        for dependency in dependencies(&content).ok_or_else(|| Error::format(&path, "is no kernel module"))? {
            self.visit(&dependency, visited, order)?;
        }
        order.push(Module { name: name.to_owned(), path });
        Ok(())
    }

    fn decompress(&self, name: &str, file: &Path) -> Result<PathBuf> {
        let extension = file.extension().unwrap_or_default();
        if extension == "ko" {
            return Ok(file.to_owned());
        }
        let is_large = fs::metadata(file).is_ok_and(|found| found.len() > LARGE);
        let stripped = if is_large { ".stripped" } else { "" };
        let target = self.decompressed.join(format!("{name}{stripped}.ko"));
        if target.is_file() {
            return Ok(target);
        }
        let compressed = fs::read(file).context(|| format!("read {}", file.display()))?;
        let mut content = Vec::new();
        let done = if extension == "xz" {
            lzma_rust2::XzReader::new(compressed.as_slice(), true).read_to_end(&mut content)
        } else {
            ruzstd::decoding::StreamingDecoder::new(compressed.as_slice())
                .map_err(std::io::Error::other)
                .and_then(|mut decoder| decoder.read_to_end(&mut content))
        };
        done.map_err(|error| Error::format(file, format!("cannot be decompressed: {error}")))?;
        if is_large && let Some(stripped) = without_unneeded(&content) {
            content = stripped;
        }
        write_whole(&target, &content)?;
        Ok(target)
    }
}

fn collect(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).context(|| format!("list {}", folder.display()))? {
        let path = entry.context(|| format!("list {}", folder.display()))?.path();
        // The links `build` and `source` of an own build lead out of the folder.
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            collect(&path, files)?;
        } else if let Some(name) = module_name(&path) {
            files.insert(name, path);
        }
    }
    Ok(())
}

/// The name under which the kernel knows the module in a file: without folders and suffixes, and with
/// underscores.
fn module_name(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let name = name.strip_suffix(".xz").or_else(|| name.strip_suffix(".zst")).unwrap_or(name);
    name.strip_suffix(".ko").map(canonical)
}

fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// Names of the modules that a module depends on; `None` if it is none.
fn dependencies(module: &[u8]) -> Option<Vec<String>> {
    let information = Elf::parse(module)?.section(".modinfo")?;
    let entries = information.split(|&byte| byte == 0).filter_map(|entry| std::str::from_utf8(entry).ok());
    let mut found = Vec::new();
    for entry in entries {
        if let Some(list) = entry.strip_prefix("depends=") {
            found.extend(list.split(',').filter(|name| !name.is_empty()).map(canonical));
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The smallest ELF file with a section `.modinfo`.
    fn module(information: &[u8]) -> Vec<u8> {
        let names = b"\0.modinfo\0.shstrtab\0";
        let mut file = vec![0; 64];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let information_at = file.len();
        file.extend_from_slice(information);
        let names_at = file.len();
        file.extend_from_slice(names);
        let table = file.len();
        let mut header = |name: u32, offset: usize, size: usize| {
            let mut header = [0; 64];
            header[..4].copy_from_slice(&name.to_le_bytes());
            header[0x18..0x20].copy_from_slice(&(offset as u64).to_le_bytes());
            header[0x20..0x28].copy_from_slice(&(size as u64).to_le_bytes());
            file.extend_from_slice(&header);
        };
        header(0, 0, 0);
        header(1, information_at, information.len());
        header(10, names_at, names.len());
        file[0x28..0x30].copy_from_slice(&(table as u64).to_le_bytes());
        file[0x3a..0x3c].copy_from_slice(&64u16.to_le_bytes());
        file[0x3c..0x3e].copy_from_slice(&3u16.to_le_bytes());
        file[0x3e..0x40].copy_from_slice(&2u16.to_le_bytes());
        file
    }

    #[test]
    fn dependencies_come_first_and_once() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, depends: &str| {
            let information = format!("license=GPL\0depends={depends}\0name=x\0");
            fs::create_dir_all(folder.path().join("kernel/net")).unwrap();
            fs::write(folder.path().join("kernel/net").join(name), module(information.as_bytes())).unwrap();
        };
        write("top.ko", "left,right-side,in_kernel");
        write("left.ko", "bottom");
        write("right-side.ko", "bottom");
        write("bottom.ko", "");
        fs::write(folder.path().join("modules.builtin"), "kernel/fs/in-kernel.ko\n").unwrap();
        let modules = Modules::find(folder.path(), folder.path().join("decompressed")).unwrap();
        let order = |names: &[&str]| -> Vec<String> {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            modules.in_order(&names).unwrap().into_iter().map(|module| module.name).collect()
        };
        assert_eq!(order(&["top", "left"]), ["bottom", "left", "right_side", "top"]);
        assert_eq!(order(&["right_side"]), ["bottom", "right_side"]);
        assert!(order(&["in-kernel"]).is_empty());
        assert!(modules.in_order(&["absent".into()]).is_err());
    }

    #[test]
    fn a_circle_ends() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.ko"), module(b"depends=b\0")).unwrap();
        fs::write(folder.path().join("b.ko"), module(b"depends=a\0")).unwrap();
        let modules = Modules::find(folder.path(), folder.path().join("d")).unwrap();
        assert_eq!(modules.in_order(&["a".into()]).unwrap().len(), 2);
    }

    #[test]
    fn what_is_no_module_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("text.ko"), b"text").unwrap();
        fs::write(folder.path().join("damaged.ko.xz"), b"\xfd7zXZ\0damage").unwrap();
        let modules = Modules::find(folder.path(), folder.path().join("d")).unwrap();
        assert!(matches!(modules.in_order(&["text".into()]), Err(Error::Format { .. })));
        assert!(matches!(modules.in_order(&["damaged".into()]), Err(Error::Format { .. })));
    }
}
