//! Where a buffer is, by the kernel driver of its device.
//!
//! Vulkan names the heap that memory was allocated from, and not where it is now: the kernel moves it, above all when an
//! importer attaches. The driver is asked as its own backend asks it.

use std::os::fd::AsFd;
use std::sync::OnceLock;

use devmem_provider::{
    Buffer, DeviceKind, DmaBuf, Error, ErrorKind, Residency, ResidencyEvidence, Result, Sharing,
    base_page_size,
};

use super::sys::physical_device::{Description, DrmNode};
use crate::drm::{self, Adopter, Nodes, Target, View};
use crate::system_memory::always_system;

type Open = fn(&Nodes) -> Result<Box<dyn Adopter>>;

/// The kernel drivers whose backends look at buffers of Vulkan.
const DRIVERS: &[(&str, Open)] = &[
    #[cfg(feature = "amdgpu")]
    (<crate::amdgpu::Amdgpu as drm::Driver>::DRIVER, drm::adopter::<crate::amdgpu::Amdgpu>),
    #[cfg(feature = "i915")]
    (<crate::i915::I915 as drm::Driver>::DRIVER, drm::adopter::<crate::i915::I915>),
    #[cfg(feature = "nouveau")]
    (<crate::nouveau::Nouveau as drm::Driver>::DRIVER, drm::adopter::<crate::nouveau::Nouveau>),
    #[cfg(feature = "xe")]
    (<crate::xe::Xe as drm::Driver>::DRIVER, drm::adopter::<crate::xe::Xe>),
];

/// Who tells where the buffers of a device are.
#[derive(Debug)]
pub(crate) enum Witness {
    /// Nobody has to: they are in system memory.
    Software,
    /// The kernel driver.
    Kernel(Box<dyn Adopter>),
    /// Nobody, for this reason.
    Missing(String),
}

impl Witness {
    /// The witness of a device, with its DRM device where it has one.
    pub(crate) fn of(description: &Description, nodes: Option<&Nodes>) -> Self {
        if description.kind == DeviceKind::Software {
            return Self::Software;
        }
        let Some(nodes) = nodes else {
            return Self::Missing(
                "neither its DRM node nor its PCI address leads to a DRM device".to_owned(),
            );
        };
        match DRIVERS.iter().find(|(driver, _)| *driver == nodes.driver) {
            Some((_, open)) => match open(nodes) {
                Ok(adopter) => Self::Kernel(adopter),
                Err(error) => Self::Missing(error.to_string()),
            },
            None => Self::Missing(format!(
                "its kernel driver is {}, of which no backend that is compiled in can ask it",
                nodes.driver
            )),
        }
    }

    /// Fails if the kernel says that the device is gone. Vulkan's drivers tell it as a lack of memory.
    pub(crate) fn check_presence(&self) -> Result<()> {
        match self {
            Self::Kernel(adopter) => adopter.check_presence(),
            Self::Software | Self::Missing(_) => Ok(()),
        }
    }

    /// Begins to watch a buffer, which was asked for at `target`.
    pub(crate) fn watch(&self, dma_buf: &DmaBuf, target: Target) -> Watched {
        match self {
            Self::Software => Watched::Software,
            Self::Kernel(adopter) => match adopter.adopt(dma_buf, target) {
                Ok(buffer) => Watched::Kernel(buffer),
                Err(error) => Watched::missing(error.to_string()),
            },
            Self::Missing(reason) => Watched::missing(reason.clone()),
        }
    }
}

/// The DRM device of a Vulkan device, by its nodes or by its PCI address.
pub(crate) fn nodes_of(description: &Description) -> Option<Nodes> {
    let by_number = |node: Option<DrmNode>| drm::find_by_number(node.map(|node| (node.major, node.minor))?);
    by_number(description.render_node)
        .or_else(|| by_number(description.primary_node))
        .or_else(|| description.pci.and_then(drm::find_by_pci))
}

/// A buffer whose place is watched.
#[derive(Debug)]
pub(crate) enum Watched {
    /// It has nowhere to go.
    Software,
    /// As the kernel driver's own backend sees it.
    Kernel(Box<dyn Buffer>),
    /// Nobody can tell, for this reason.
    Missing {
        reason: String,
        /// The last page, once peer writes were flushed.
        last_page: OnceLock<View>,
    },
}

impl Watched {
    fn missing(reason: String) -> Self {
        Self::Missing { reason, last_page: OnceLock::new() }
    }

    /// Looks where the buffer is now.
    pub(crate) fn residency(&self) -> Result<ResidencyEvidence> {
        match self {
            Self::Software => {
                Ok(always_system("a device that is executed by the CPU allocates system memory"))
            }
            Self::Kernel(buffer) => buffer.residency(),
            Self::Missing { reason, .. } => Ok(ResidencyEvidence {
                residency: Residency::Unknown,
                region: None,
                evidence: reason.clone(),
            }),
        }
    }

    /// How the kernel driver shares it, where that is known.
    pub(crate) fn sharing(&self) -> Option<Sharing> {
        match self {
            Self::Kernel(buffer) => buffer.sharing(),
            Self::Software | Self::Missing { .. } => None,
        }
    }

    /// Makes what a peer has written visible. Where no driver's backend knows better, by reading back.
    pub(crate) fn flush_peer_writes(&self, dma_buf: &DmaBuf) -> Result<()> {
        match self {
            Self::Software => Ok(()),
            Self::Kernel(buffer) => buffer.flush_peer_writes(),
            Self::Missing { last_page, .. } => {
                let failed = |errno| {
                    Error::from_errno(errno, "read back what a peer wrote")
                        .on(dma_buf)
                        .with_kind(ErrorKind::Unsupported)
                        .because("the CPU does not reach this buffer")
                        .remedy("allocate it in CPU-visible memory")
                };
                if last_page.get().is_none() {
                    let page = base_page_size();
                    let length = usize::try_from(page).unwrap_or(4096);
                    let offset = dma_buf.size().saturating_sub(page);
                    let view = View::map(dma_buf.as_fd(), offset, length).map_err(failed)?;
                    // Another thread may have been faster; its view serves as well.
                    let _ = last_page.set(view);
                }
                last_page.get().map_or(Ok(()), View::read_back).map_err(failed)
            }
        }
    }
}
