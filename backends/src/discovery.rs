//! Finding the providers of this machine.

use std::fmt;
use std::sync::Arc;

use devmem_provider::{Error, ErrorKind, Provider, Result};

/// A backend that is compiled in.
#[derive(Debug, Clone, Copy)]
pub struct Backend {
    /// Its name, as in [`Identity::backend`](devmem_provider::Identity::backend).
    pub name: &'static str,
    /// Finds its providers by trying: every provider that is returned has allocated and exported once.
    /// The error says why there is none.
    pub discover: fn() -> Result<Vec<Arc<dyn Provider>>>,
}

/// Every backend that is compiled in, in the order in which [`discover`] lists their providers.
pub const BACKENDS: &[Backend] = &[
    #[cfg(feature = "amdgpu")]
    Backend { name: crate::amdgpu::NAME, discover: crate::amdgpu::discover },
    #[cfg(feature = "i915")]
    Backend { name: crate::i915::NAME, discover: crate::i915::discover },
    #[cfg(feature = "xe")]
    Backend { name: crate::xe::NAME, discover: crate::xe::discover },
    #[cfg(feature = "nouveau")]
    Backend { name: crate::nouveau::NAME, discover: crate::nouveau::discover },
    #[cfg(feature = "virtio_gpu")]
    Backend { name: crate::virtio_gpu::NAME, discover: crate::virtio_gpu::discover },
    #[cfg(feature = "udmabuf")]
    Backend { name: crate::udmabuf::NAME, discover: crate::udmabuf::discover },
    #[cfg(feature = "dma_heap")]
    Backend { name: crate::dma_heap::NAME, discover: crate::dma_heap::discover },
    #[cfg(feature = "vgem")]
    Backend { name: crate::vgem::NAME, discover: crate::vgem::discover },
    // A GPU's address means its kernel driver's provider first.
    #[cfg(feature = "vulkan")]
    Backend { name: crate::vulkan::NAME, discover: crate::vulkan::discover },
];

/// A backend that found no provider on this machine.
#[derive(Debug)]
pub struct Unavailable {
    /// The backend's name.
    pub backend: &'static str,
    /// What was tried, and why it failed.
    pub reason: Error,
}

/// What this machine has.
#[derive(Debug, Default)]
pub struct Discovery {
    /// The providers that work.
    pub providers: Vec<Arc<dyn Provider>>,
    /// The backends without a provider, and why.
    pub unavailable: Vec<Unavailable>,
}

/// Looks for the providers of every backend that is compiled in.
#[must_use]
pub fn discover() -> Discovery {
    let mut discovery = Discovery::default();
    for backend in BACKENDS {
        discovery.ask(backend);
    }
    discovery
}

/// The first provider that `selector` means, as [`Discovery::find`]; but no more backends are asked than it takes: the
/// one that the selector names, or one after the other up to the first that has it.
///
/// # Errors
///
/// As [`Discovery::find`].
pub fn find(selector: &str) -> Result<Arc<dyn Provider>> {
    find_among(BACKENDS, selector)
}

fn find_among(backends: &[Backend], selector: &str) -> Result<Arc<dyn Provider>> {
    let named = backends.iter().position(|backend| backend.name == backend_of(selector));
    let asked = named.and_then(|index| backends.get(index..=index)).unwrap_or(backends);
    let mut discovery = Discovery::default();
    for backend in asked {
        discovery.ask(backend);
        if let Some(provider) = discovery.select(selector) {
            return Ok(provider);
        }
    }
    discovery.find(selector)
}

/// The part of a selector that may name a backend.
fn backend_of(selector: &str) -> &str {
    selector.split(':').next().unwrap_or(selector)
}

impl Discovery {
    fn ask(&mut self, backend: &Backend) {
        match (backend.discover)() {
            Ok(providers) => self.providers.extend(providers),
            Err(reason) => self.unavailable.push(Unavailable { backend: backend.name, reason }),
        }
    }

    /// The provider of a name, or else the first that a selector means.
    fn select(&self, selector: &str) -> Option<Arc<dyn Provider>> {
        let named = |provider: &&Arc<dyn Provider>| provider.identity().name == selector;
        let meant = |provider: &&Arc<dyn Provider>| provider.identity().matches(selector);
        let mut providers = self.providers.iter();
        providers.clone().find(named).or_else(|| providers.find(meant)).cloned()
    }

    /// The first provider that `selector` means: a provider's or backend's name, a PCI address, a device node, or a
    /// backend's name with a part of the device's name.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`], with what there is, for a selector that means nothing here; the reason of
    /// the backend, if it is compiled in and does not work on this machine.
    pub fn find(mut self, selector: &str) -> Result<Arc<dyn Provider>> {
        if let Some(provider) = self.select(selector) {
            return Ok(provider);
        }
        let backend = backend_of(selector);
        if let Some(index) = self.unavailable.iter().position(|other| other.backend == backend) {
            return Err(self.unavailable.swap_remove(index).reason);
        }
        #[cfg(feature = "drm")]
        if let Some(driver) = crate::drm::describe(selector) {
            return Err(self.device_without_provider(selector, &driver));
        }
        let names: Vec<&str> =
            self.providers.iter().map(|provider| provider.identity().name.as_str()).collect();
        let available = if names.is_empty() {
            format!("no provider works on this machine{self}")
        } else {
            format!("this machine has {}", names.join(", "))
        };
        Err(Error::new(ErrorKind::NotFound, "find a provider of device memory")
            .on(format!("{selector:?}"))
            .because(available)
            .remedy("name a provider, a PCI address or a device node"))
    }
}

#[cfg(feature = "drm")]
impl Discovery {
    /// Why a DRM device that exists is no provider: its backend's reason, or that no backend knows its driver.
    fn device_without_provider(mut self, selector: &str, driver: &str) -> Error {
        let backend = driver.replace('_', "-");
        match self.unavailable.iter().position(|other| other.backend == backend) {
            Some(index) => self.unavailable.swap_remove(index).reason,
            None => Error::new(ErrorKind::Unsupported, "use a GPU")
                .on(selector)
                .because(format!("its kernel driver is {driver}, which no backend serves"))
                .remedy("choose another provider, or write a backend for it"),
        }
    }
}

impl fmt::Display for Discovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for provider in &self.providers {
            let identity = provider.identity();
            write!(f, "\n  {identity}: {} ({})", identity.description, identity.kind)?;
        }
        for Unavailable { backend, reason } in &self.unavailable {
            write!(f, "\n  {backend}: not available: {reason}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_backend_yields_providers_or_a_reason() {
        let discovery = discover();
        for backend in BACKENDS {
            let found = discovery.providers.iter().any(|p| p.identity().backend == backend.name);
            let missing = discovery.unavailable.iter().any(|u| u.backend == backend.name);
            assert!(found != missing, "{}: found {found}, missing {missing}", backend.name);
        }
    }

    #[test]
    fn an_unknown_selector_is_told_what_there_is() {
        let error = discover().find("no-such-backend").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("no-such-backend"), "{error}");
    }

    #[test]
    fn only_the_backend_that_a_selector_names_is_asked() {
        fn named() -> Result<Vec<Arc<dyn Provider>>> {
            Err(Error::new(ErrorKind::Unsupported, "open the Vulkan loader"))
        }
        fn other() -> Result<Vec<Arc<dyn Provider>>> {
            panic!("another backend was asked")
        }
        let backends =
            [Backend { name: "udmabuf", discover: other }, Backend { name: "vulkan", discover: named }];
        for selector in ["vulkan", "vulkan:llvmpipe", "vulkan:0000:03:00.0"] {
            let error = find_among(&backends, selector).unwrap_err();
            assert_eq!(error.operation(), "open the Vulkan loader");
        }
        let error = find_among(&backends[1..], "0000:7f:1f.7").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_backend_that_does_not_work_here_gives_its_reason() {
        let discovery = Discovery {
            providers: Vec::new(),
            unavailable: vec![Unavailable {
                backend: "dma-heap",
                reason: Error::new(ErrorKind::PermissionDenied, "open").on("/dev/dma_heap/system"),
            }],
        };
        let error = discovery.find("dma-heap:system").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    }
}
