//! Fetches what the lab consists of, or finds it in the cache.

use std::fs;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};

use crate::cache::manifest::Manifest;
use crate::cache::{Cache, CacheLock};
use crate::error::{Context, Error, Result};
use crate::kernel::Kernel;
use crate::kernel::image;
use crate::kernel::names::{Flavour, Release, Wish, choose_offer, is_unsigned, offers};
use crate::machine::Program;
use crate::packages::Progress;
use crate::packages::apt::{Apt, Archive, Wanted};
use crate::packages::mirror::Mirror;
use crate::packages::unpack::{remove, unpack};

/// QEMU, and the programs that a person wants in the guest.
const TOOL_PACKAGES: [&str; 6] = ["qemu-system-x86", "busybox-static", "bash", "dash", "iproute2", "ethtool"];

/// The kernel's headers for programs.
const HEADER_PACKAGES: [&str; 1] = ["linux-libc-dev"];

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

/// The unpacked QEMU and the guest's tools, kept from being removed as long as this exists.
#[derive(Debug)]
pub(crate) struct Tools {
    pub(crate) root: PathBuf,
    _in_use: Flock<fs::File>,
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
        lab.tools(progress)?;
        lab.kernel(None, Flavour::default(), progress)?;
        Ok(lab)
    }

    /// The cache folder.
    #[must_use]
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Brings the tools and a kernel up to date with the mirror, and repairs what is damaged. Without
    /// the network, an intact cache is enough.
    ///
    /// # Errors
    /// When something cannot be fetched and is not in the cache.
    pub fn fetch(&self, kernel: Option<&str>, flavour: Flavour, progress: &dyn Progress) -> Result<Kernel> {
        let wish = Wish::parse(kernel, flavour)?;
        let lock = self.lock(progress)?;
        progress.step("checking the cache");
        let apt = match self.updated_apt(&lock, progress) {
            Ok(apt) => apt,
            Err(error) => {
                let kernel = self.intact(&wish).map_err(|_| error)?;
                progress.step("the package lists cannot be fetched now; what is in the cache is intact");
                return Ok(kernel);
            }
        };
        self.fetch_tools(&lock, &apt, progress)?;
        self.fetch_kernel(&lock, &apt, &wish, progress)
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

    /// The folder with the newest kernel's headers for programs, DRM's among them. Without the
    /// network, the newest in the cache.
    ///
    /// # Errors
    /// When they cannot be fetched and are not in the cache.
    pub fn headers(&self, progress: &dyn Progress) -> Result<PathBuf> {
        let lock = self.lock(progress)?;
        let current = self.cache.headers().join("current");
        let include = current.join("usr/include");
        match self.updated_apt(&lock, progress) {
            Ok(apt) => {
                let archives = apt.download(Wanted::Alone(&HEADER_PACKAGES), progress)?;
                self.unpack_as_current(&self.cache.headers(), &archives, progress, |_| Ok(()))?;
            }
            Err(error) if !is_intact(&current) => return Err(error),
            Err(_) => {}
        }
        Ok(include)
    }

    /// The tools, fetched if they are missing.
    pub(crate) fn tools(&self, progress: &dyn Progress) -> Result<Tools> {
        if let Some(tools) = self.cached_tools()? {
            return Ok(tools);
        }
        let lock = self.lock(progress)?;
        if let Some(tools) = self.cached_tools()? {
            return Ok(tools);
        }
        let apt = self.updated_apt(&lock, progress)?;
        self.fetch_tools(&lock, &apt, progress)?;
        self.cached_tools()?.ok_or_else(|| Error::DamagedCache {
            path: self.cache.tools(),
            reason: "lost the tools that were just unpacked".into(),
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

    fn intact(&self, wish: &Wish) -> Result<Kernel> {
        let missing =
            || Error::DamagedCache { path: self.cache.root().to_owned(), reason: "is not complete".into() };
        let tools = self.cached_tools()?.ok_or_else(missing)?;
        Manifest::read(&tools.root)?.ok_or_else(missing)?.check_contents(&tools.root)?;
        let kernel = self.cached_kernel(wish)?.ok_or_else(missing)?;
        let folder = self.cache.kernels().join(&kernel.release);
        Manifest::read(&folder)?.ok_or_else(missing)?.check_contents(&folder)?;
        Ok(kernel)
    }

    fn cached_tools(&self) -> Result<Option<Tools>> {
        let Ok(root) = self.cache.tools().join("current").canonicalize() else { return Ok(None) };
        let Some(manifest) = Manifest::read(&root)? else { return Ok(None) };
        // An earlier version of this program may have fetched fewer.
        if !TOOL_PACKAGES.iter().all(|package| manifest.has_package(package)) {
            return Ok(None);
        }
        manifest.check_sizes(&root)?;
        let file = fs::File::open(&root).context(|| format!("open {}", root.display()))?;
        let in_use = Flock::lock(file, FlockArg::LockSharedNonblock)
            .map_err(|(_, error)| error)
            .context(|| format!("lock {}", root.display()))?;
        Ok(Some(Tools { root, _in_use: in_use }))
    }

    fn fetch_tools(&self, _lock: &CacheLock, apt: &Apt, progress: &dyn Progress) -> Result<()> {
        progress.step("resolving the packages of QEMU and of the guest's tools");
        let archives = apt.download(Wanted::WithDependencies(&TOOL_PACKAGES), progress)?;
        self.unpack_as_current(&self.cache.tools(), &archives, progress, |unpacked| {
            Program::Unpacked(unpacked.to_owned()).check()
        })
    }

    /// Unpacks packages below `parent` unless they are there, makes `current` lead to them, and removes what is not
    /// in use of what was there before.
    fn unpack_as_current(
        &self,
        parent: &Path,
        archives: &[Archive],
        progress: &dyn Progress,
        check: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        let id = identity(archives);
        let folder = parent.join(&id);
        if !is_intact(&folder) {
            unpack(archives, &folder, progress, check)?;
        }
        let link = parent.join("current");
        let new = parent.join(".current");
        remove(&new)?;
        std::os::unix::fs::symlink(&id, &new).context(|| format!("create {}", new.display()))?;
        fs::rename(&new, &link).context(|| format!("replace {}", link.display()))?;
        remove_unused(parent, &id)
    }

    fn cached_releases(&self) -> Result<Vec<Release>> {
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

    fn cached_kernel(&self, wish: &Wish) -> Result<Option<Kernel>> {
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

    fn fetch_kernel(
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

fn is_intact(folder: &Path) -> bool {
    matches!(Manifest::read(folder), Ok(Some(manifest)) if manifest.check_contents(folder).is_ok())
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

fn identity(archives: &[Archive]) -> String {
    let mut names: Vec<String> = archives.iter().map(Archive::name).collect();
    names.sort();
    let digest = Sha256::digest(names.join("\n"));
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Removes other versions of the tools unless a machine runs with them.
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
