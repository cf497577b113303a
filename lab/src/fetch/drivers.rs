//! Drivers that the distribution does not build: built once for a kernel, and kept.

use std::fs;
use std::path::{Path, PathBuf};

use super::Lab;
use super::package_set::is_intact;
use crate::cache::CacheLock;
use crate::cache::manifest::Manifest;
use crate::driver::{SourceDriver, build, extract};
use crate::error::{Context, Error, Result};
use crate::kernel::Kernel;
use crate::kernel::names::Release;
use crate::packages::Progress;
use crate::packages::apt::{Apt, Wanted};
use crate::packages::unpack::{remove, unpack};

impl Lab {
    /// The module of a driver for a kernel of the cache, built now if it is not there.
    pub(crate) fn driver(
        &self,
        driver: &SourceDriver,
        kernel: &Kernel,
        progress: &dyn Progress,
    ) -> Result<PathBuf> {
        if let Some(module) = self.built(driver, kernel)? {
            return Ok(module);
        }
        let lock = self.lock(progress)?;
        if let Some(module) = self.built(driver, kernel)? {
            return Ok(module);
        }
        let apt = self.updated_apt(&lock, progress)?;
        self.build_driver(&lock, &apt, driver, kernel, progress)
    }

    /// The module, if it was built.
    fn built(&self, driver: &SourceDriver, kernel: &Kernel) -> Result<Option<PathBuf>> {
        let folder = self.cache.drivers(&kernel.release);
        let Some(manifest) = Manifest::read(&folder)? else { return Ok(None) };
        manifest.check_sizes(&folder)?;
        let module = module_in(&folder, driver);
        Ok(module.is_file().then_some(module))
    }

    /// Whether the module is there with its content.
    pub(super) fn has_driver(&self, driver: &SourceDriver, kernel: &Kernel) -> bool {
        let folder = self.cache.drivers(&kernel.release);
        module_in(&folder, driver).is_file() && is_intact(&folder)
    }

    /// Builds a driver unless it is in the cache undamaged.
    pub(super) fn build_driver(
        &self,
        _lock: &CacheLock,
        apt: &Apt,
        driver: &SourceDriver,
        kernel: &Kernel,
        progress: &dyn Progress,
    ) -> Result<PathBuf> {
        let folder = self.cache.drivers(&kernel.release);
        if self.has_driver(driver, kernel) {
            return Ok(module_in(&folder, driver));
        }
        progress.step(&format!("the driver {} for the kernel {}", driver.module, kernel.release));
        let source = self.source_of(apt, driver, kernel, progress)?;
        let headers = format!("linux-headers-{}", kernel.release);
        if !apt.names(&headers)?.contains(&headers) {
            return Err(no_driver(driver, kernel, &not_offered(&headers)));
        }
        let archives = apt.download(Wanted::WithDependencies(&[&headers, "make"]), progress)?;
        unpack(&archives, &folder, progress, |unpacked| {
            progress.step(&format!("building the driver {}", driver.module));
            let module = build(unpacked, &source, driver, &kernel.release)?;
            keep_only(unpacked, &module)
        })?;
        Ok(module_in(&folder, driver))
    }

    /// The folder with the driver's source. It is the same for all flavours of a kernel, and kept; the package, of which it
    /// is a small part, is not.
    fn source_of(
        &self,
        apt: &Apt,
        driver: &SourceDriver,
        kernel: &Kernel,
        progress: &dyn Progress,
    ) -> Result<PathBuf> {
        let manifest = Manifest::read(&self.cache.kernels().join(&kernel.release))?;
        let version = manifest.as_ref().and_then(|manifest| package_version(&manifest.packages));
        let series = Release::parse(&kernel.release).and_then(|release| release.series());
        let (Some(version), Some(series)) = (version, series) else {
            return Err(no_driver(driver, kernel, "it is none of the distribution's, whose source is known"));
        };
        let target = self.cache.driver_sources().join(version).join(driver.module);
        if target.is_dir() {
            return Ok(target);
        }
        let package = format!("linux-source-{series}");
        let wanted = format!("{package}={version}");
        if !apt.versions(&package)?.iter().any(|offered| offered == version) {
            return Err(no_driver(driver, kernel, &not_offered(&wanted)));
        }
        let archives = apt.download(Wanted::Alone(&[&wanted]), progress)?;
        let Some(archive) = archives.first() else {
            return Err(no_driver(driver, kernel, &not_offered(&wanted)));
        };
        progress.step("taking the driver out of the kernel's source");
        let parent = target.parent().unwrap_or(&target);
        fs::create_dir_all(parent).context(|| format!("create {}", parent.display()))?;
        let partial =
            tempfile::tempdir_in(parent).context(|| format!("create a folder in {}", parent.display()))?;
        extract(archive, driver.folder, partial.path())?;
        let partial = partial.keep();
        fs::rename(&partial, &target).context(|| format!("rename {}", partial.display()))?;
        remove(&archive.path)?;
        Ok(target)
    }
}

fn module_in(folder: &Path, driver: &SourceDriver) -> PathBuf {
    folder.join(format!("{}.ko", driver.module))
}

fn no_driver(driver: &SourceDriver, kernel: &Kernel, reason: &str) -> Error {
    let (driver, kernel) = (driver.module, kernel.release.clone());
    Error::NoDriver { driver, kernel, reason: reason.to_owned() }
}

fn not_offered(package: &str) -> String {
    format!("the mirror has no package {package}, of which it is built")
}

/// The version of a kernel's packages, from the name of one: `NAME_VERSION_ARCHITECTURE.deb`.
fn package_version(packages: &[String]) -> Option<&str> {
    packages.first()?.split('_').nth(1).filter(|version| !version.contains('%'))
}

/// Leaves of a folder nothing but one file, at its top.
fn keep_only(folder: &Path, file: &Path) -> Result<()> {
    let name = file.file_name().unwrap_or_default();
    let kept = folder.join(name);
    fs::rename(file, &kept).context(|| format!("rename {}", file.display()))?;
    for entry in fs::read_dir(folder).context(|| format!("list {}", folder.display()))? {
        let path = entry.context(|| format!("list {}", folder.display()))?.path();
        if path != kept {
            remove(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Cache;
    use crate::driver::EFA;
    use crate::fetch::Source;
    use crate::packages::NoProgress;

    #[test]
    fn versions_come_from_the_names_of_packages() {
        let packages = ["linux-binary-7.3.4+deb13-amd64_7.3.4-1~bpo13+1_amd64.deb".to_owned()];
        assert_eq!(package_version(&packages), Some("7.3.4-1~bpo13+1"));
        assert_eq!(package_version(&[]), None);
        assert_eq!(package_version(&["x_1%3a2_amd64.deb".to_owned()]), None, "kernels have no epoch");
    }

    #[test]
    fn a_driver_that_was_built_is_found_and_a_damaged_one_is_not_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let lab = Lab::open(Some(folder.path()), Source::default()).unwrap();
        let cache: &Cache = lab.cache();
        let kernel = Kernel { release: "7.3.4+deb13-amd64".into(), image: "vmlinux".into(), modules: None };
        assert!(lab.built(&EFA, &kernel).unwrap().is_none());
        let place = cache.drivers(&kernel.release);
        fs::create_dir_all(place.join("usr/bin")).unwrap();
        fs::create_dir_all(place.join("driver")).unwrap();
        fs::write(place.join("driver/efa.ko"), "module").unwrap();
        keep_only(&place, &place.join("driver/efa.ko")).unwrap();
        Manifest::record(&place, vec!["make_4_amd64.deb".into()]).unwrap();
        assert_eq!(lab.driver(&EFA, &kernel, &NoProgress).unwrap(), place.join("efa.ko"));
        assert!(lab.has_driver(&EFA, &kernel) && !place.join("usr").exists());
        fs::write(place.join("efa.ko"), "MODULE").unwrap();
        assert!(!lab.has_driver(&EFA, &kernel));
        fs::write(place.join("efa.ko"), "short").unwrap();
        assert!(lab.built(&EFA, &kernel).is_err());
    }
}
