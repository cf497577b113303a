//! The cache folder: where fetched packages are unpacked, and who may write there.
//!
//! ```text
//! cache folder
//! ├── lock              held by whoever fetches
//! ├── apt/              package lists and downloaded packages, private to the lab
//! ├── tools/ID/         QEMU, its libraries and the guest's tools; `tools/current` names the one in use
//! ├── vulkan/ID/        Vulkan for the guest, as packages and as archives; `vulkan/current` likewise
//! ├── headers/ID/       the kernel's headers; `headers/current` likewise
//! ├── kernels/RELEASE/  vmlinux, configuration, modules
//! ├── drivers/RELEASE/  modules of drivers that the distribution does not build, built for that kernel
//! ├── drivers/sources/  what they are built from
//! ├── base/KEY.cpio     the part of the guest's file system that does not change from run to run
//! └── kvm.json          whether KVM works on this host, since its last boot
//! ```

pub(crate) mod manifest;

use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::error::{Context, Error, Result};

/// The environment variable that names the cache folder.
pub const CACHE_VARIABLE: &str = "DEVMEM_LAB_CACHE";

/// The lab's cache folder.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

/// The right to write to the cache, until it is dropped.
#[derive(Debug)]
pub(crate) struct CacheLock {
    _lock: Flock<File>,
}

impl Cache {
    /// Opens, and creates if need be, the cache folder: `explicit`, else `$DEVMEM_LAB_CACHE`, else
    /// `$XDG_CACHE_HOME/devmem-lab`, else `~/.cache/devmem-lab`.
    ///
    /// # Errors
    /// When no place can be named, or the folder cannot be created.
    pub fn open(explicit: Option<&Path>) -> Result<Self> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let root = explicit
            .map(Path::to_owned)
            .or_else(|| variable(CACHE_VARIABLE))
            .or_else(|| variable("XDG_CACHE_HOME").map(|folder| folder.join("devmem-lab")))
            .or_else(|| variable("HOME").map(|folder| folder.join(".cache/devmem-lab")))
            .ok_or_else(|| {
                Error::option(
                    CACHE_VARIABLE,
                    "neither this variable nor HOME is set; name a cache folder with it or with --cache",
                )
            })?;
        fs::create_dir_all(&root).context(|| {
            format!(
                "create the cache folder {} (another one can be named with --cache or {CACHE_VARIABLE})",
                root.display()
            )
        })?;
        let root = root.canonicalize().context(|| format!("resolve {}", root.display()))?;
        Ok(Self { root })
    }

    /// The folder itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn apt(&self) -> PathBuf {
        self.root.join("apt")
    }

    pub(crate) fn kernels(&self) -> PathBuf {
        self.root.join("kernels")
    }

    pub(crate) fn drivers(&self, release: &str) -> PathBuf {
        self.root.join("drivers").join(release)
    }

    pub(crate) fn driver_sources(&self) -> PathBuf {
        self.root.join("drivers/sources")
    }

    pub(crate) fn base_archives(&self) -> PathBuf {
        self.root.join("base")
    }

    pub(crate) fn kvm_verdict(&self) -> PathBuf {
        self.root.join("kvm.json")
    }

    /// Waits until nobody else fetches. `waiting` is called once if somebody does.
    pub(crate) fn lock(&self, waiting: impl FnOnce()) -> Result<CacheLock> {
        let path = self.root.join("lock");
        let action = || {
            format!(
                "lock {} (another cache folder can be named with --cache or {CACHE_VARIABLE})",
                path.display()
            )
        };
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).context(action)?;
        let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((file, Errno::EWOULDBLOCK)) => {
                waiting();
                loop_on_interrupt(file).context(action)?
            }
            Err((_, error)) => return Err(error).context(action),
        };
        Ok(CacheLock { _lock: lock })
    }
}

fn loop_on_interrupt(mut file: File) -> std::result::Result<Flock<File>, Errno> {
    loop {
        match Flock::lock(file, FlockArg::LockExclusive) {
            Ok(lock) => return Ok(lock),
            Err((returned, Errno::EINTR)) => file = returned,
            Err((_, error)) => return Err(error),
        }
    }
}

/// Writes a file so that a reader sees the old content or the new, never a part.
pub(crate) fn write_whole(path: &Path, content: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder).context(|| format!("create {}", folder.display()))?;
    let mut file = tempfile::NamedTempFile::new_in(folder)
        .context(|| format!("create a file in {}", folder.display()))?;
    std::io::Write::write_all(&mut file, content).context(|| format!("write {}", path.display()))?;
    persist(file, path)
}

/// Gives a temporary file its place. Such files are made for their owner alone; the cache may be shared.
pub(crate) fn persist(file: tempfile::NamedTempFile, path: &Path) -> Result<()> {
    let action = || format!("write {}", path.display());
    file.as_file().set_permissions(Permissions::from_mode(0o644)).context(action)?;
    file.persist(path).map_err(|error| error.error).context(action)?;
    Ok(())
}
