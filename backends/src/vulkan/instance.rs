//! The instance of this process.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use devmem_provider::{Error, ErrorKind, Result};

use super::errors;
use super::sys::instance::Instance;
use super::sys::loader::{ApiVersion, LIBRARY, Loader};

static SHARED: Mutex<Weak<Instance>> = Mutex::new(Weak::new());

/// The instance that this process has, or a new one. It is destroyed when nobody uses it any more: drivers list the
/// devices that were there when it was new, so that only another one finds others.
///
/// # Errors
///
/// [`ErrorKind::Unsupported`] without a loader, with one that is too old, and without any driver.
pub(crate) fn shared() -> Result<Arc<Instance>> {
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(instance) = shared.upgrade() {
        return Ok(instance);
    }
    let instance = Arc::new(new(LIBRARY)?);
    *shared = Arc::downgrade(&instance);
    Ok(instance)
}

fn new(library: &str) -> Result<Instance> {
    let loader = Loader::open(library).map_err(|error| {
        Error::new(ErrorKind::Unsupported, "open the Vulkan loader").on(library).with_source(error).remedy(
            "install the Vulkan loader; distributions call its package libvulkan1, vulkan-loader or vulkan-icd-loader",
        )
    })?;
    let path = loader.path().display().to_string();
    let version = loader
        .version()
        .map_err(|code| errors::failed(code, "ask the Vulkan loader for its version", &path))?;
    check_version(version).map_err(|error| error.on(&path).remedy("install a newer Vulkan loader"))?;
    Instance::new(loader).map_err(|code| errors::failed(code, "create a Vulkan instance", &path))
}

/// Refuses what serves only an older Vulkan than is needed.
pub(crate) fn check_version(version: ApiVersion) -> Result<()> {
    if version >= ApiVersion::NEEDED {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Unsupported, format!("use Vulkan {}", ApiVersion::NEEDED))
        .because(format!("it serves Vulkan {version} only")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::process::Command;

    /// Builds a library that passes for a loader, from C.
    fn library(folder: &Path, source: &str) -> Option<String> {
        let (file, library) = (folder.join("loader.c"), folder.join("libvulkan-of-test.so"));
        std::fs::write(&file, source).unwrap();
        let mut compiler = Command::new("cc");
        let built = compiler.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&file).status();
        match built {
            Ok(status) if status.success() => Some(library.display().to_string()),
            result => {
                eprintln!("skipped: no C compiler makes a library here: {result:?}");
                None
            }
        }
    }

    #[test]
    fn without_a_loader_the_reason_and_the_remedy_are_told() {
        let error = new("/nonexistent/libvulkan.so.1").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        let text = error.to_string();
        assert!(text.contains("/nonexistent/libvulkan.so.1") && text.contains("install"), "{text}");
    }

    #[test]
    fn a_library_that_is_no_loader_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let Some(library) = library(folder.path(), "int nothing;\n") else { return };
        let error = new(&library).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("vkGetInstanceProcAddr"), "{error}");
    }

    #[test]
    fn a_loader_of_an_older_vulkan_is_refused_with_its_version() {
        let folder = tempfile::tempdir().unwrap();
        let of_1_0 = "void *vkGetInstanceProcAddr(void *instance, const char *name) { return 0; }\n";
        let Some(library) = library(folder.path(), of_1_0) else { return };
        let error = new(&library).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("serves Vulkan 1.0.0 only"), "{error}");
    }

    #[test]
    fn the_oldest_version_that_serves_is_1_2() {
        let version = |minor| ApiVersion(ash::vk::make_api_version(0, 1, minor, 131));
        assert!(check_version(version(1)).is_err());
        assert!(check_version(version(2)).is_ok());
        assert!(check_version(version(4)).is_ok());
    }
}
