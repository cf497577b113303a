//! The Vulkan loader, the library that finds the drivers; opened at run time.

use std::ffi::{CStr, OsStr};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use ash::vk;

/// The name of the loader's interface, as every Linux distribution installs it.
pub(crate) const LIBRARY: &str = "libvulkan.so.1";

/// A version of Vulkan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ApiVersion(pub(crate) u32);

impl ApiVersion {
    /// The oldest version with timeline semaphores and the names of drivers.
    pub(crate) const NEEDED: Self = Self(vk::API_VERSION_1_2);
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(version) = *self;
        let (major, minor) = (vk::api_version_major(version), vk::api_version_minor(version));
        write!(f, "{major}.{minor}.{}", vk::api_version_patch(version))
    }
}

/// The loader, open.
pub(crate) struct Loader {
    entry: ash::Entry,
    path: PathBuf,
}

impl Loader {
    /// Opens a library, by the system's search path if `library` is a name alone.
    pub(crate) fn open(library: &str) -> Result<Self, ash::LoadingError> {
        // SAFETY: the library's constructors run. It is the system's loader or what a test names in its place, and it
        // stays loaded for as long as `entry` does, which every object made through it holds.
        let entry = unsafe { ash::Entry::load_from(library) }?;
        let function = entry.static_fn().get_instance_proc_addr as *const nix::libc::c_void;
        let path = library_of(function).unwrap_or_else(|| PathBuf::from(library));
        Ok(Self { entry, path })
    }

    /// The newest version that the loader itself serves; a loader of Vulkan 1.0 cannot tell.
    pub(crate) fn version(&self) -> ash::prelude::VkResult<ApiVersion> {
        // SAFETY: the function has no preconditions.
        let version = unsafe { self.entry.try_enumerate_instance_version() }?;
        Ok(ApiVersion(version.unwrap_or(vk::API_VERSION_1_0)))
    }

    /// The file that was opened.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn entry(&self) -> &ash::Entry {
        &self.entry
    }
}

impl fmt::Debug for Loader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Loader").field(&self.path).finish()
    }
}

/// The file of the library that a function belongs to.
fn library_of(function: *const nix::libc::c_void) -> Option<PathBuf> {
    let mut information = std::mem::MaybeUninit::<nix::libc::Dl_info>::zeroed();
    // SAFETY: `dladdr` takes any address, and fills in the structure where it knows the address.
    let known = unsafe { nix::libc::dladdr(function, information.as_mut_ptr()) } != 0;
    // SAFETY: zeroed or filled in, both of which are valid.
    let name = unsafe { information.assume_init() }.dli_fname;
    if !known || name.is_null() {
        return None;
    }
    // SAFETY: `dladdr` gives a zero-terminated name, which lives as long as the library is loaded, as it is.
    let name = unsafe { CStr::from_ptr(name) };
    Path::new(OsStr::from_bytes(name.to_bytes())).canonicalize().ok()
}
