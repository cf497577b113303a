//! Vulkan in the guest: the loader, Mesa's drivers, the validation layer and `vulkaninfo`.
//!
//! One archive has what every such machine needs, with the driver that computes on the processor (lavapipe). Each
//! kernel driver of a GPU adds one with the Vulkan driver on top of it. Left out are drivers of GPUs that the lab does
//! not emulate, and Mesa's layers: its device selection, which is active without being asked for, would change the
//! order of the devices.
//!
//! NVK is there, but the loader finds it only where `VK_ADD_DRIVER_FILES` names it: on GPUs without a graphics engine, as
//! the emulated ones are, it makes a request that crashes the kernel (see docs/lab.md).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::archive::ArchiveWriter;
use super::cached::{CachedArchive, Parts, find_or_make, put};
use super::libraries::{Search, closure};
use crate::error::{Error, Result};

/// Something that is put into the guest with what it needs.
#[derive(Debug)]
struct Component {
    /// Opened by name at run time.
    libraries: &'static [&'static str],
    programs: &'static [&'static str],
    /// Place in the packages, place in the guest.
    files: &'static [(&'static str, &'static str)],
}

const SOFTWARE: Component = Component {
    libraries: &["libvulkan.so.1", "libvulkan_lvp.so", "libVkLayer_khronos_validation.so"],
    programs: &["usr/bin/vulkaninfo"],
    files: &[
        ("usr/share/vulkan/icd.d/lvp_icd.json", "usr/share/vulkan/icd.d/lvp_icd.json"),
        (
            "usr/share/vulkan/explicit_layer.d/VkLayer_khronos_validation.json",
            "usr/share/vulkan/explicit_layer.d/VkLayer_khronos_validation.json",
        ),
    ],
};

const AMD: Component = Component {
    libraries: &["libvulkan_radeon.so"],
    programs: &[],
    files: &[
        ("usr/share/vulkan/icd.d/radeon_icd.json", "usr/share/vulkan/icd.d/radeon_icd.json"),
        // libdrm complains on standard error where its list of names is missing.
        ("usr/share/libdrm/amdgpu.ids", "usr/share/libdrm/amdgpu.ids"),
    ],
};

const INTEL: Component = Component {
    libraries: &["libvulkan_intel.so"],
    programs: &[],
    files: &[("usr/share/vulkan/icd.d/intel_icd.json", "usr/share/vulkan/icd.d/intel_icd.json")],
};

const NVIDIA: Component = Component {
    libraries: &["libvulkan_nouveau.so"],
    programs: &[],
    files: &[("usr/share/vulkan/icd.d/nouveau_icd.json", "usr/share/vulkan/on-request/nouveau_icd.json")],
};

/// What is added for a GPU, by the kernel driver of it.
const OF_KERNEL_DRIVERS: [(&str, &Component); 4] =
    [("amdgpu", &AMD), ("i915", &INTEL), ("xe", &INTEL), ("nouveau", &NVIDIA)];

/// Finds or makes the archives for GPUs with these kernel drivers. `packages` is where the packages are unpacked;
/// libraries that are in `base` are not put in a second time.
pub(crate) fn archives(
    packages: &Path,
    base: &CachedArchive,
    kernel_drivers: &[&str],
) -> Result<Vec<CachedArchive>> {
    let mut components = vec![&SOFTWARE];
    for (kernel_driver, component) in OF_KERNEL_DRIVERS {
        let is_new = components.iter().all(|other| !std::ptr::eq(*other, component));
        if kernel_drivers.contains(&kernel_driver) && is_new {
            components.push(component);
        }
    }
    // The archives lie beside what they were made of, and vanish with it.
    let folder = packages.join("archives");
    let mut present = base.libraries.clone();
    let mut archives = Vec::new();
    for component in components {
        let archive = find_or_make(&folder, &Chosen::choose(packages, component, &present)?)?;
        present.extend(archive.libraries.iter().cloned());
        archives.push(archive);
    }
    Ok(archives)
}

/// The files of a component.
struct Chosen {
    /// Place in the guest, permissions, place on the host.
    files: Vec<(&'static str, u32, PathBuf)>,
    libraries: BTreeMap<String, PathBuf>,
}

impl Chosen {
    fn choose(packages: &Path, component: &Component, present: &BTreeSet<String>) -> Result<Self> {
        let search = Search::below(packages);
        let mut libraries = BTreeMap::new();
        for &name in component.libraries {
            let path = search.library(name).ok_or_else(|| {
                Error::format(
                    packages,
                    format!("these packages have no {name}, which the guest needs for Vulkan"),
                )
            })?;
            libraries.insert(name.to_owned(), path);
        }
        let mut files: Vec<_> =
            component.programs.iter().map(|&path| (path, 0o755, packages.join(path))).collect();
        let mut start: Vec<&Path> = libraries.values().map(PathBuf::as_path).collect();
        start.extend(files.iter().map(|(.., path)| path.as_path()));
        let needed = closure(&start, &search)?;
        libraries.extend(needed);
        libraries.retain(|name, _| !present.contains(name));
        files.extend(component.files.iter().map(|&(from, to)| (to, 0o644, packages.join(from))));
        Ok(Self { files, libraries })
    }
}

impl Parts for Chosen {
    fn files(&self) -> Vec<&Path> {
        self.files.iter().map(|(.., path)| path.as_path()).collect()
    }

    fn libraries(&self) -> &BTreeMap<String, PathBuf> {
        &self.libraries
    }

    fn constants(&self) -> String {
        self.files.iter().fold(String::new(), |mut text, (place, permissions, _)| {
            // Writing to a string cannot fail.
            let _ = write!(text, "{place} {permissions:o} ");
            text
        })
    }

    fn write(&self, archive: &mut ArchiveWriter<&mut dyn Write>) -> io::Result<()> {
        for (place, permissions, path) in &self.files {
            put(archive, Path::new(place), *permissions, path)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// Packages in which every library is one that needs no other.
    fn packages() -> tempfile::TempDir {
        let packages = tempfile::tempdir().unwrap();
        let program = std::env::current_exe().unwrap();
        let loader =
            closure(&[&program], &Search::this_system()).unwrap().remove("ld-linux-x86-64.so.2").unwrap();
        for component in [&SOFTWARE, &AMD, &INTEL, &NVIDIA] {
            let libraries = component.libraries.iter().map(|name| format!("usr/lib/x86_64-linux-gnu/{name}"));
            let others =
                component.programs.iter().copied().chain(component.files.iter().map(|(from, _)| *from));
            for path in libraries.chain(others.map(str::to_owned)).map(|path| packages.path().join(path)) {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::copy(&loader, path).unwrap();
            }
        }
        packages
    }

    fn base(libraries: &[&str]) -> CachedArchive {
        let libraries = libraries.iter().map(|&name| name.to_owned()).collect();
        CachedArchive { file: tempfile::tempfile().unwrap(), libraries }
    }

    #[test]
    fn each_vendor_of_gpus_has_one_archive_and_what_is_there_is_not_put_in_twice() {
        let packages = packages();
        let made = |kernel_drivers: &[&str], present: &[&str]| -> Vec<Vec<String>> {
            let archives = archives(packages.path(), &base(present), kernel_drivers).unwrap();
            archives.into_iter().map(|archive| archive.libraries.into_iter().collect()).collect()
        };
        let software = ["libVkLayer_khronos_validation.so", "libvulkan.so.1", "libvulkan_lvp.so"];
        assert_eq!(made(&["virtio_gpu"], &[]), [software.to_vec()]);
        assert_eq!(
            made(&["xe", "i915", "amdgpu"], &["libvulkan.so.1"]),
            [
                vec!["libVkLayer_khronos_validation.so", "libvulkan_lvp.so"],
                vec!["libvulkan_radeon.so"],
                vec!["libvulkan_intel.so"]
            ]
        );
    }

    #[test]
    fn a_driver_that_is_not_in_the_packages_is_named() {
        let packages = packages();
        fs::remove_file(packages.path().join("usr/lib/x86_64-linux-gnu/libvulkan_lvp.so")).unwrap();
        let error = archives(packages.path(), &base(&[]), &[]).unwrap_err().to_string();
        assert!(error.contains("libvulkan_lvp.so"), "{error}");
    }
}
