//! RDMA in the guest: rdma-core's user libraries, with the providers for the emulated device and for the kernel's devices of
//! software.
//!
//! `libefa` is there once, under both of its names: opened as two files it would be two libraries, and what one makes the
//! other would not know.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::archive::ArchiveWriter;
use super::cached::{CachedArchive, LIBRARY_FOLDER, Parts, find_or_make, put};
use super::libraries::{Search, closure};
use crate::error::{Context, Error, Result};

/// Opened by name at run time.
const LIBRARIES: [&str; 2] = ["libibverbs.so.1", EFA_LIBRARY];
const EFA_LIBRARY: &str = "libefa.so.1";

/// Providers: their names, and whether their library is one of the above.
const PROVIDERS: [(&str, Option<&str>); 2] = [("efa", Some(EFA_LIBRARY)), ("rxe", None)];

/// Where the library looks for providers, below [`LIBRARY_FOLDER`] and everywhere.
const PROVIDER_FOLDER: &str = "libibverbs";
const PROVIDER_LIST: &str = "etc/libibverbs.d";

/// Finds or makes the archive. `packages` is where the packages are unpacked; libraries that are in `base` are not put in
/// a second time.
pub(crate) fn archive(packages: &Path, base: &CachedArchive) -> Result<CachedArchive> {
    // It lies beside what it was made of, and vanishes with it.
    find_or_make(&packages.join("archives"), &Chosen::choose(packages, &base.libraries)?)
}

/// A provider's library in the guest.
enum Provider {
    /// Another name for one of the libraries.
    Link(PathBuf, String),
    File(PathBuf, PathBuf),
}

struct Chosen {
    providers: Vec<Provider>,
    /// Place in the guest, place on the host.
    lists: Vec<(PathBuf, PathBuf)>,
    libraries: BTreeMap<String, PathBuf>,
}

impl Chosen {
    fn choose(packages: &Path, present: &BTreeSet<String>) -> Result<Self> {
        let search = Search::below(packages);
        let missing = |what: &str| {
            Error::format(packages, format!("these packages have no {what}, which the guest needs for RDMA"))
        };
        let mut libraries = BTreeMap::new();
        for name in LIBRARIES {
            let path = search.library(name).ok_or_else(|| missing(name))?;
            libraries.insert(name.to_owned(), path);
        }
        let mut chosen = Self { providers: Vec::new(), lists: Vec::new(), libraries: BTreeMap::new() };
        let folder = Path::new(LIBRARY_FOLDER).join(PROVIDER_FOLDER);
        let mut needing: Vec<PathBuf> = libraries.values().cloned().collect();
        for (name, library) in PROVIDERS {
            let list = Path::new(PROVIDER_LIST).join(format!("{name}.driver"));
            let file = provider_file(&packages.join(&folder), name)?
                .ok_or_else(|| missing(&format!("provider for {name}")))?;
            let host = packages.join(&folder).join(&file);
            let guest = folder.join(file);
            chosen.lists.push((list.clone(), packages.join(list)));
            chosen.providers.push(match library {
                Some(library) => Provider::Link(guest, format!("../{library}")),
                None => {
                    needing.push(host.clone());
                    Provider::File(guest, host)
                }
            });
        }
        let start: Vec<&Path> = needing.iter().map(PathBuf::as_path).collect();
        let needed = closure(&start, &search)?;
        libraries.extend(needed);
        libraries.retain(|name, _| !present.contains(name));
        chosen.libraries = libraries;
        Ok(chosen)
    }
}

/// The name of a provider's library, in which there is the number of the interface between library and providers.
fn provider_file(folder: &Path, name: &str) -> Result<Option<String>> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(None) };
    for entry in entries {
        let entry = entry.context(|| format!("list {}", folder.display()))?;
        let file = entry.file_name().to_string_lossy().into_owned();
        if file.starts_with(&format!("lib{name}-rdmav")) && file.ends_with(".so") {
            return Ok(Some(file));
        }
    }
    Ok(None)
}

impl Parts for Chosen {
    fn files(&self) -> Vec<&Path> {
        let providers = self.providers.iter().filter_map(|provider| match provider {
            Provider::Link(..) => None,
            Provider::File(_, host) => Some(host.as_path()),
        });
        providers.chain(self.lists.iter().map(|(_, host)| host.as_path())).collect()
    }

    fn libraries(&self) -> &BTreeMap<String, PathBuf> {
        &self.libraries
    }

    fn constants(&self) -> String {
        let place = |provider: &Provider| match provider {
            Provider::Link(guest, target) => format!("{} {target}", guest.display()),
            Provider::File(guest, _) => guest.display().to_string(),
        };
        self.providers.iter().map(place).collect::<Vec<_>>().join(" ")
    }

    fn write(&self, archive: &mut ArchiveWriter<&mut dyn Write>) -> io::Result<()> {
        for provider in &self.providers {
            match provider {
                Provider::Link(guest, target) => archive.link(guest, target)?,
                Provider::File(guest, host) => put(archive, guest, 0o755, host)?,
            }
        }
        for (guest, host) in &self.lists {
            put(archive, guest, 0o644, host)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packages in which every library is one that needs no other.
    fn packages() -> tempfile::TempDir {
        let packages = tempfile::tempdir().unwrap();
        let program = std::env::current_exe().unwrap();
        let loader =
            closure(&[&program], &Search::this_system()).unwrap().remove("ld-linux-x86-64.so.2").unwrap();
        for place in [
            "usr/lib/x86_64-linux-gnu/libibverbs.so.1",
            "usr/lib/x86_64-linux-gnu/libefa.so.1",
            "usr/lib/x86_64-linux-gnu/libibverbs/libefa-rdmav34.so",
            "usr/lib/x86_64-linux-gnu/libibverbs/librxe-rdmav34.so",
            "etc/libibverbs.d/efa.driver",
            "etc/libibverbs.d/rxe.driver",
        ] {
            let path = packages.path().join(place);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::copy(&loader, path).unwrap();
        }
        packages
    }

    #[test]
    fn efa_has_one_library_under_two_names() {
        let packages = packages();
        let chosen = Chosen::choose(packages.path(), &BTreeSet::new()).unwrap();
        let links: Vec<_> = chosen
            .providers
            .iter()
            .filter_map(|provider| match provider {
                Provider::Link(guest, target) => Some((guest.to_str().unwrap(), target.as_str())),
                Provider::File(..) => None,
            })
            .collect();
        assert_eq!(links, [("usr/lib/x86_64-linux-gnu/libibverbs/libefa-rdmav34.so", "../libefa.so.1")]);
        assert_eq!(chosen.libraries.keys().collect::<Vec<_>>(), ["libefa.so.1", "libibverbs.so.1"]);
        assert_eq!(chosen.files().len(), 3);
    }

    #[test]
    fn a_provider_that_is_not_in_the_packages_is_named() {
        let packages = packages();
        fs::remove_file(packages.path().join("usr/lib/x86_64-linux-gnu/libibverbs/librxe-rdmav34.so"))
            .unwrap();
        let Err(error) = Chosen::choose(packages.path(), &BTreeSet::new()) else { panic!("it was found") };
        assert!(error.to_string().contains("provider for rxe"), "{error}");
    }
}
