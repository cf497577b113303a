//! Kernels: which there are, how their image is made fit to boot, and their modules.

pub(crate) mod elf;
pub(crate) mod image;
pub(crate) mod modules;
pub(crate) mod names;
mod symbols;

use std::path::{Path, PathBuf};

/// A kernel that can be booted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    pub(crate) release: String,
    pub(crate) image: PathBuf,
    pub(crate) modules: Option<PathBuf>,
}

impl Kernel {
    /// Whether its packages, or its own folder of modules, have this module.
    pub(crate) fn has_module(&self, name: &str) -> crate::Result<bool> {
        match &self.modules {
            Some(folder) => Ok(modules::Modules::find(folder, PathBuf::new())?.has(name)),
            None => Ok(false),
        }
    }

    /// What `uname -r` says in the guest; for an own build, the file's name.
    #[must_use]
    pub fn release(&self) -> &str {
        &self.release
    }

    /// The image that is booted.
    #[must_use]
    pub fn image(&self) -> &Path {
        &self.image
    }
}
