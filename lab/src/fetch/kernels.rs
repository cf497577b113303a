//! Kernels: in the cache, on offer, or somebody's own.

use std::fs;
use std::path::{Path, PathBuf};

use super::Lab;
use super::package_set::is_intact;
use crate::cache::CacheLock;
use crate::cache::manifest::Manifest;
use crate::error::{Context, Error, Result};
use crate::kernel::Kernel;
use crate::kernel::image;
use crate::kernel::names::{Release, Wish, choose_offer, is_unsigned, offers};
use crate::packages::Progress;
use crate::packages::apt::{Apt, Wanted};
use crate::packages::unpack::{remove, unpack};

impl Lab {
    pub(super) fn cached_releases(&self) -> Result<Vec<Release>> {
        let folder = self.cache.kernels();
        let Ok(entries) = fs::read_dir(&folder) else { return Ok(Vec::new()) };
        let mut releases = Vec::new();
        for entry in entries {
            let entry = entry.context(|| format!("list {}", folder.display()))?;
            if let Some(release) = entry.file_name().to_str().and_then(Release::parse)
                && Manifest::read(&entry.path())?.is_some()
            {
                releases.push(release);
            }
        }
        Ok(releases)
    }

    pub(super) fn cached_kernel(&self, wish: &Wish) -> Result<Option<Kernel>> {
        let releases = self.cached_releases()?;
        let candidates = releases.iter().filter(|release| !wish.is_open() || self.is_published(release));
        let Some(release) = wish.choose(candidates) else { return Ok(None) };
        let folder = self.cache.kernels().join(&release.name);
        if let Some(manifest) = Manifest::read(&folder)? {
            manifest.check_sizes(&folder)?;
        }
        Ok(Some(in_folder(&folder, release)))
    }

    /// A kernel that was fetched before it was published is taken only if it is asked for.
    fn is_published(&self, release: &Release) -> bool {
        let manifest = Manifest::read(&self.cache.kernels().join(&release.name));
        let is_signed = |manifest: Manifest| !manifest.packages.iter().any(|name| is_unsigned(name));
        manifest.is_ok_and(|manifest| manifest.is_some_and(is_signed))
    }

    pub(super) fn fetch_kernel(
        &self,
        _lock: &CacheLock,
        apt: &Apt,
        wish: &Wish,
        progress: &dyn Progress,
    ) -> Result<Kernel> {
        let offers = offers(&apt.names("linux-")?);
        let Some(offer) = choose_offer(&offers, wish) else {
            // A version that vanished from the mirror must not break a machine that has it.
            if let Some(kernel) = self.cached_kernel(wish)? {
                return Ok(kernel);
            }
            let known: Vec<&str> = offers.iter().rev().map(|offer| offer.release.name.as_str()).collect();
            return Err(Error::NoKernel {
                wanted: wish.to_string(),
                known: if known.is_empty() {
                    "none is on offer".into()
                } else {
                    format!("on offer: {}", known.join(", "))
                },
            });
        };
        let release = &offer.release;
        let folder = self.cache.kernels().join(&release.name);
        if !is_intact(&folder) {
            progress.step(&format!("kernel {}", release.name));
            let packages: Vec<&str> = offer.packages.iter().map(String::as_str).collect();
            let archives = apt.download(Wanted::Alone(&packages), progress)?;
            unpack(&archives, &folder, progress, |unpacked| {
                progress.step("taking the kernel out of its image");
                let packed = in_package(unpacked, release)?;
                image::extract(&packed, &unpacked.join("vmlinux"))?;
                remove(&packed)
            })?;
        }
        Ok(in_folder(&folder, release))
    }
}

/// Somebody's own kernel build: an image, and the folder `lib/modules/RELEASE` if it has modules.
pub(crate) fn own_kernel(image: &Path, modules: Option<&Path>) -> Result<Kernel> {
    let action = || format!("read {}", image.display());
    let image = image.canonicalize().context(action)?;
    if !image.is_file() {
        return Err(Error::option(
            format!("--kernel {}", image.display()),
            "is not a file; name the image itself",
        ));
    }
    let release = image.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Kernel { release, image, modules: modules.map(Path::to_owned) })
}

fn in_folder(folder: &Path, release: &Release) -> Kernel {
    let modules = ["usr/lib/modules", "lib/modules"].map(|part| folder.join(part).join(&release.name));
    Kernel {
        release: release.name.clone(),
        image: folder.join("vmlinux"),
        modules: modules.into_iter().find(|folder| folder.is_dir()),
    }
}

fn in_package(folder: &Path, release: &Release) -> Result<PathBuf> {
    let name = &release.name;
    let places = [
        format!("usr/lib/modules/{name}/vmlinuz"),
        format!("usr/lib/modules/{name}/vmlinuz.unsigned"),
        format!("lib/modules/{name}/vmlinuz"),
        format!("boot/vmlinuz-{name}"),
    ];
    places
        .iter()
        .map(|place| folder.join(place))
        .find(|path| path.is_file())
        .ok_or_else(|| Error::format(folder, format!("the package has no image at {}", places.join(", "))))
}
