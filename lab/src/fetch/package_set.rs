//! Sets of packages that are unpacked together, each in a folder of the cache.
//!
//! A folder is named after the packages in it, and a link `current` leads to the newest. Who uses it holds a lock, so
//! that a fetch does not remove it under a running machine.

use std::fs;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};

use crate::cache::manifest::Manifest;
use crate::cache::{Cache, CacheLock};
use crate::error::{Context, Result};
use crate::machine::Program;
use crate::packages::Progress;
use crate::packages::apt::{Apt, Archive, Wanted};
use crate::packages::unpack::{remove, unpack};

/// A set of packages.
#[derive(Debug)]
pub(crate) struct PackageSet {
    /// What they are, as a person calls it.
    pub(super) title: &'static str,
    /// Their folder in the cache.
    folder: &'static str,
    wanted: Wanted<'static>,
    /// Whether what was unpacked works on this machine.
    check: fn(&Path) -> Result<()>,
}

/// QEMU, and the programs that a person wants in the guest.
pub(crate) const TOOLS: PackageSet = PackageSet {
    title: "QEMU and the guest's tools",
    folder: "tools",
    wanted: Wanted::WithDependencies(&[
        "qemu-system-x86",
        "busybox-static",
        "bash",
        "dash",
        "iproute2",
        "ethtool",
    ]),
    check: |unpacked| Program::Unpacked(unpacked.to_owned()).check(),
};

/// The loader, Mesa's drivers, the validation layers and `vulkaninfo`.
pub(crate) const VULKAN: PackageSet = PackageSet {
    title: "Vulkan",
    folder: "vulkan",
    wanted: Wanted::WithDependencies(&[
        "libvulkan1",
        "mesa-vulkan-drivers",
        "vulkan-validationlayers",
        "vulkan-tools",
    ]),
    check: |_| Ok(()),
};

/// rdma-core's user libraries: the one that programs use, and its providers.
pub(crate) const RDMA: PackageSet = PackageSet {
    title: "RDMA",
    folder: "rdma",
    wanted: Wanted::WithDependencies(&["libibverbs1", "ibverbs-providers"]),
    check: |_| Ok(()),
};

/// The kernel's headers for programs, and rdma-core's.
pub(super) const HEADERS: PackageSet = PackageSet {
    title: "headers",
    folder: "headers",
    wanted: Wanted::Alone(&["linux-libc-dev", "libibverbs-dev"]),
    check: |_| Ok(()),
};

/// An unpacked set, kept from being removed as long as this exists.
#[derive(Debug)]
pub(crate) struct Unpacked {
    pub(crate) root: PathBuf,
    _in_use: Flock<fs::File>,
}

impl PackageSet {
    /// The link to the newest.
    pub(super) fn current(&self, cache: &Cache) -> PathBuf {
        cache.root().join(self.folder).join("current")
    }

    /// The newest in the cache, if it has all that the set consists of.
    pub(super) fn cached(&self, cache: &Cache) -> Result<Option<Unpacked>> {
        let Ok(root) = self.current(cache).canonicalize() else { return Ok(None) };
        let Some(manifest) = Manifest::read(&root)? else { return Ok(None) };
        // An earlier version of this program may have fetched fewer.
        if !self.wanted.packages().iter().all(|package| manifest.has_package(package)) {
            return Ok(None);
        }
        manifest.check_sizes(&root)?;
        let file = fs::File::open(&root).context(|| format!("open {}", root.display()))?;
        let in_use = Flock::lock(file, FlockArg::LockSharedNonblock)
            .map_err(|(_, error)| error)
            .context(|| format!("lock {}", root.display()))?;
        Ok(Some(Unpacked { root, _in_use: in_use }))
    }

    /// Whether the newest in the cache is complete and every file has its content.
    pub(super) fn is_intact(&self, cache: &Cache) -> bool {
        matches!(self.cached(cache), Ok(Some(unpacked)) if is_intact(&unpacked.root))
    }

    /// Fetches the newest on offer unless it is in the cache undamaged, makes `current` lead to it, and removes what
    /// is not in use of what was there before.
    pub(super) fn fetch(
        &self,
        cache: &Cache,
        _lock: &CacheLock,
        apt: &Apt,
        progress: &dyn Progress,
    ) -> Result<()> {
        progress.step(&format!("resolving the packages of {}", self.title));
        let archives = apt.download(self.wanted, progress)?;
        let parent = cache.root().join(self.folder);
        let id = identity(&archives);
        let folder = parent.join(&id);
        if !is_intact(&folder) {
            unpack(&archives, &folder, progress, self.check)?;
        }
        let link = self.current(cache);
        let new = parent.join(".current");
        remove(&new)?;
        std::os::unix::fs::symlink(&id, &new).context(|| format!("create {}", new.display()))?;
        fs::rename(&new, &link).context(|| format!("replace {}", link.display()))?;
        remove_unused(&parent, &id)
    }
}

/// Whether everything that was unpacked into this folder is there with its content.
pub(super) fn is_intact(folder: &Path) -> bool {
    matches!(Manifest::read(folder), Ok(Some(manifest)) if manifest.check_contents(folder).is_ok())
}

fn identity(archives: &[Archive]) -> String {
    let mut names: Vec<String> = archives.iter().map(Archive::name).collect();
    names.sort();
    let digest = Sha256::digest(names.join("\n"));
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Removes other versions unless a machine runs with them.
fn remove_unused(folder: &Path, keep: &str) -> Result<()> {
    for entry in fs::read_dir(folder).context(|| format!("list {}", folder.display()))? {
        let path = entry.context(|| format!("list {}", folder.display()))?.path();
        if path.is_symlink() || path.file_name().is_some_and(|name| name == keep) {
            continue;
        }
        let file = fs::File::open(&path).context(|| format!("open {}", path.display()))?;
        if let Ok(_unused) = Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            remove(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_taken_from_the_cache_if_all_of_it_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(folder.path())).unwrap();
        assert!(VULKAN.cached(&cache).unwrap().is_none());

        let root = folder.path().join("vulkan/1");
        fs::create_dir_all(&root).unwrap();
        fs::write(root.join("library"), "content").unwrap();
        std::os::unix::fs::symlink("1", VULKAN.current(&cache)).unwrap();
        let file_name = |package: &&str| format!("{package}_1_amd64.deb");
        let mut packages: Vec<String> = VULKAN.wanted.packages().iter().map(file_name).collect();
        Manifest::record(&root, packages.clone()).unwrap();
        let in_use = VULKAN.cached(&cache).unwrap().unwrap();
        assert_eq!(in_use.root, root.canonicalize().unwrap());
        assert!(VULKAN.is_intact(&cache));

        // Another version has come while a machine runs with this one.
        remove_unused(&folder.path().join("vulkan"), "2").unwrap();
        assert!(root.exists());
        drop(in_use);

        fs::write(root.join("library"), "CONTENT").unwrap();
        assert!(!VULKAN.is_intact(&cache));
        fs::write(root.join("library"), "short").unwrap();
        assert!(VULKAN.cached(&cache).is_err());

        packages.pop();
        Manifest::record(&root, packages).unwrap();
        assert!(VULKAN.cached(&cache).unwrap().is_none());
        remove_unused(&folder.path().join("vulkan"), "2").unwrap();
        assert!(!root.exists());
    }
}
