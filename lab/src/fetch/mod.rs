//! Fetches what the lab consists of, or finds it in the cache.

mod drivers;
mod kernels;
mod package_set;

use std::path::{Path, PathBuf};

pub(crate) use kernels::own_kernel;
use package_set::{HEADERS, is_intact};
pub(crate) use package_set::{PackageSet, RDMA, TOOLS, Unpacked, VULKAN};

use crate::cache::{Cache, CacheLock};
use crate::driver::EFA;
use crate::error::{Error, Result};
use crate::kernel::Kernel;
use crate::kernel::names::{Flavour, Release, Wish, offers};
use crate::packages::Progress;
use crate::packages::apt::Apt;
use crate::packages::mirror::Mirror;

/// The suites that have QEMU 10.1 or newer and a kernel 7.2 or newer, in ascending preference.
const SUITES: [&str; 2] = ["trixie", "trixie-backports"];

/// Where packages come from.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// Address of the server; by default the one that this machine's own apt uses.
    pub mirror: Option<String>,
    /// Keys of the archive; by default those of the package `debian-archive-keyring`.
    pub keyring: Option<PathBuf>,
    /// Suites, later ones preferred; empty for the default ones.
    pub suites: Vec<String>,
}

/// A kernel in the cache or on the mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedKernel {
    /// Its release, as `--kernel` takes it.
    pub release: String,
    /// Whether it is unpacked in the cache.
    pub is_cached: bool,
    /// Whether the mirror still offers it; `None` if that was not asked.
    pub is_offered: Option<bool>,
}

/// Everything the lab needs from outside, in one cache folder.
#[derive(Debug, Clone)]
pub struct Lab {
    cache: Cache,
    source: Source,
}

impl Lab {
    /// Opens the cache folder (see [`Cache::open`]) without fetching anything.
    ///
    /// # Errors
    /// When the folder cannot be created.
    pub fn open(cache: Option<&Path>, source: Source) -> Result<Self> {
        Ok(Self { cache: Cache::open(cache)?, source })
    }

    /// The default lab, with everything that a run needs in its cache: fetched now if it is missing,
    /// without any network access if it is there.
    ///
    /// # Errors
    /// When something is missing and cannot be fetched.
    pub fn ensure_fetched(progress: &dyn Progress) -> Result<Self> {
        let lab = Self::open(None, Source::default())?;
        lab.packages(&TOOLS, progress)?;
        lab.kernel(None, Flavour::default(), progress)?;
        Ok(lab)
    }

    /// The cache folder.
    #[must_use]
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Brings the tools and a kernel up to date with the mirror, and repairs what is damaged; likewise the packages of
    /// [`Machine::vulkan`](crate::Machine::vulkan) and [`Machine::rdma`](crate::Machine::rdma), if they are wanted or in the
    /// cache. With `rdma`, builds the driver that RDMA needs for the kernel. Without the network, an intact cache is enough.
    ///
    /// # Errors
    /// When something cannot be fetched and is not in the cache.
    pub fn fetch(
        &self,
        kernel: Option<&str>,
        flavour: Flavour,
        vulkan: bool,
        rdma: bool,
        progress: &dyn Progress,
    ) -> Result<Kernel> {
        let wish = Wish::parse(kernel, flavour)?;
        let lock = self.lock(progress)?;
        progress.step("checking the cache");
        let mut sets = vec![&TOOLS];
        if vulkan || VULKAN.current(&self.cache).exists() {
            sets.push(&VULKAN);
        }
        if rdma || RDMA.current(&self.cache).exists() {
            sets.push(&RDMA);
        }
        let apt = match self.updated_apt(&lock, progress) {
            Ok(apt) => apt,
            Err(error) => {
                let kernel = self.intact(&wish, &sets, rdma).map_err(|_| error)?;
                progress.step("the package lists cannot be fetched now; what is in the cache is intact");
                return Ok(kernel);
            }
        };
        for set in sets {
            set.fetch(&self.cache, &lock, &apt, progress)?;
        }
        let kernel = self.fetch_kernel(&lock, &apt, &wish, progress)?;
        if rdma && !kernel.has_module(EFA.module)? {
            self.build_driver(&lock, &apt, &EFA, &kernel, progress)?;
        }
        Ok(kernel)
    }

    /// The kernels in the cache and, if `ask_mirror`, those on offer; newest first.
    ///
    /// # Errors
    /// When the cache or the mirror cannot be read.
    pub fn kernels(&self, ask_mirror: bool, progress: &dyn Progress) -> Result<Vec<ListedKernel>> {
        let cached = self.cached_releases()?;
        let mut releases = cached.clone();
        let mut offered = Vec::new();
        if ask_mirror {
            let lock = self.lock(progress)?;
            let apt = self.updated_apt(&lock, progress)?;
            offered = offers(&apt.names("linux-")?).into_iter().map(|offer| offer.release).collect();
            releases.extend(offered.iter().cloned());
        }
        releases.sort();
        releases.dedup();
        let listed = |release: Release| ListedKernel {
            is_cached: cached.contains(&release),
            is_offered: ask_mirror.then(|| offered.contains(&release)),
            release: release.name,
        };
        Ok(releases.into_iter().rev().map(listed).collect())
    }

    /// The folder with the newest kernel's headers for programs, DRM's among them, and with rdma-core's. Without the
    /// network, the newest in the cache.
    ///
    /// # Errors
    /// When they cannot be fetched and are not in the cache.
    pub fn headers(&self, progress: &dyn Progress) -> Result<PathBuf> {
        let lock = self.lock(progress)?;
        match self.updated_apt(&lock, progress) {
            Ok(apt) => HEADERS.fetch(&self.cache, &lock, &apt, progress)?,
            Err(error) if !HEADERS.is_intact(&self.cache) => return Err(error),
            Err(_) => {}
        }
        Ok(HEADERS.current(&self.cache).join("usr/include"))
    }

    /// A set of packages, fetched if it is missing.
    pub(crate) fn packages(&self, set: &PackageSet, progress: &dyn Progress) -> Result<Unpacked> {
        if let Some(unpacked) = set.cached(&self.cache)? {
            return Ok(unpacked);
        }
        let lock = self.lock(progress)?;
        if let Some(unpacked) = set.cached(&self.cache)? {
            return Ok(unpacked);
        }
        let apt = self.updated_apt(&lock, progress)?;
        set.fetch(&self.cache, &lock, &apt, progress)?;
        set.cached(&self.cache)?.ok_or_else(|| {
            let path = set.current(&self.cache);
            Error::DamagedCache { path, reason: "vanished just after it was unpacked".into() }
        })
    }

    /// The newest kernel in the cache that fits, else the newest that the mirror offers. A path is
    /// somebody's own build.
    pub(crate) fn kernel(
        &self,
        wish: Option<&str>,
        flavour: Flavour,
        progress: &dyn Progress,
    ) -> Result<Kernel> {
        let wish = Wish::parse(wish, flavour)?;
        if let Some(kernel) = self.cached_kernel(&wish)? {
            return Ok(kernel);
        }
        let lock = self.lock(progress)?;
        if let Some(kernel) = self.cached_kernel(&wish)? {
            return Ok(kernel);
        }
        let apt = self.updated_apt(&lock, progress)?;
        self.fetch_kernel(&lock, &apt, &wish, progress)
    }

    fn lock(&self, progress: &dyn Progress) -> Result<CacheLock> {
        self.cache.lock(|| progress.step("another fetch is running; waiting for it"))
    }

    fn updated_apt(&self, _lock: &CacheLock, progress: &dyn Progress) -> Result<Apt> {
        let mirror = Mirror::find(self.source.mirror.as_deref(), self.source.keyring.as_deref())?;
        let suites = match self.source.suites.as_slice() {
            [] => SUITES.map(str::to_owned).to_vec(),
            suites => suites.to_vec(),
        };
        let apt = Apt::prepare(&self.cache.apt(), &mirror, &suites)?;
        progress.step(&format!("packages are those of {} at {}", suites.join(" and "), mirror.address));
        apt.update(progress)?;
        Ok(apt)
    }

    /// The kernel, if everything is in the cache undamaged.
    fn intact(&self, wish: &Wish, sets: &[&PackageSet], rdma: bool) -> Result<Kernel> {
        let missing =
            || Error::DamagedCache { path: self.cache.root().to_owned(), reason: "is not complete".into() };
        if !sets.iter().all(|set| set.is_intact(&self.cache)) {
            return Err(missing());
        }
        let kernel = self.cached_kernel(wish)?.ok_or_else(missing)?;
        let folder = self.cache.kernels().join(&kernel.release);
        let has_drivers = !rdma || kernel.has_module(EFA.module)? || self.has_driver(&EFA, &kernel);
        if is_intact(&folder) && has_drivers { Ok(kernel) } else { Err(missing()) }
    }
}
