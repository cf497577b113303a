//! Vulkan in the guest: the loader, Mesa's drivers, the validation layer and `vulkaninfo`.
//!
//! One archive has what every such machine needs, with the driver that computes on the processor (lavapipe). Each
//! kernel driver of a GPU adds one with the Vulkan driver on top of it. Left out are drivers of GPUs that the lab does
//! not emulate, and Mesa's layers: its device selection, which is active without being asked for, would change the
//! order of the devices.

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
    programs: &'static [&'static str],
    /// Opened by name at run time.
    libraries: &'static [&'static str],
    /// Files at the same place in the guest.
    files: &'static [&'static str],
}

const SOFTWARE: Component = Component {
    programs: &["usr/bin/vulkaninfo"],
    libraries: &["libvulkan.so.1", "libvulkan_lvp.so", "libVkLayer_khronos_validation.so"],
    files: &[
        "usr/share/vulkan/icd.d/lvp_icd.json",
        "usr/share/vulkan/explicit_layer.d/VkLayer_khronos_validation.json",
    ],
};

const AMD: Component = Component {
    programs: &[],
    libraries: &["libvulkan_radeon.so"],
    // libdrm complains on standard error where its list of names is missing.
    files: &["usr/share/vulkan/icd.d/radeon_icd.json", "usr/share/libdrm/amdgpu.ids"],
};

const INTEL: Component = Component {
    programs: &[],
    libraries: &["libvulkan_intel.so"],
    files: &["usr/share/vulkan/icd.d/intel_icd.json"],
};

const NVIDIA: Component = Component {
    programs: &[],
    libraries: &["libvulkan_nouveau.so"],
    files: &["usr/share/vulkan/icd.d/nouveau_icd.json"],
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
        let place = |permissions| move |&path: &&'static str| (path, permissions, packages.join(path));
        let mut files: Vec<_> = component.programs.iter().map(place(0o755)).collect();
        let mut start: Vec<&Path> = libraries.values().map(PathBuf::as_path).collect();
        start.extend(files.iter().map(|(.., path)| path.as_path()));
        let needed = closure(&start, &search)?;
        libraries.extend(needed);
        libraries.retain(|name, _| !present.contains(name));
        files.extend(component.files.iter().map(place(0o644)));
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
