//! A DRM device that is in use.

use std::path::Path;
use std::sync::OnceLock;

use devmem_provider::{DmaBuf, Error, ErrorKind, Result};

use super::fdinfo::Regions;
use super::file::{DrmFile, Version};
use super::nodes::Nodes;
use super::pci_function::PciFunction;
use super::power::Awake;
use super::witness::Witness;

/// A device with one node open.
#[derive(Debug)]
pub(crate) struct Device {
    file: DrmFile,
    version: Version,
    pci: Option<PciFunction>,
    witness: Witness,
    awake: OnceLock<Option<Awake>>,
}

impl Device {
    /// Opens the render node.
    pub(crate) fn open_render(nodes: &Nodes) -> Result<Self> {
        Self::open(nodes, nodes.render.as_deref(), "render")
    }

    /// Opens the primary node.
    pub(crate) fn open_primary(nodes: &Nodes) -> Result<Self> {
        Self::open(nodes, nodes.primary.as_deref(), "primary")
    }

    fn open(nodes: &Nodes, node: Option<&Path>, kind: &str) -> Result<Self> {
        let node = node.ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, format!("open the {kind} node of {}", nodes.driver))
                .because("the device has none")
        })?;
        let file = DrmFile::open(node)?;
        let version = file.version()?;
        if version.driver != nodes.driver {
            return Err(Error::new(ErrorKind::Protocol, format!("open a node of {}", nodes.driver))
                .on(node.display())
                .because(format!("the node is one of {}", version.driver))
                .remedy("make the nodes in /dev agree with /sys/class/drm"));
        }
        if !file.can_export()? {
            return Err(Error::new(ErrorKind::Unsupported, "export DMA-bufs")
                .on(node.display())
                .because(format!("this kernel's {} does not offer it", version.driver)));
        }
        Ok(Self {
            file,
            version,
            pci: nodes.pci.clone(),
            witness: Witness::default(),
            awake: OnceLock::new(),
        })
    }

    pub(crate) fn file(&self) -> &DrmFile {
        &self.file
    }

    pub(crate) fn version(&self) -> &Version {
        &self.version
    }

    pub(crate) fn pci(&self) -> Option<&PciFunction> {
        self.pci.as_ref()
    }

    /// What a buffer of this device takes in each region that the driver prints.
    pub(crate) fn usage(&self, dma_buf: &DmaBuf) -> Result<Regions> {
        self.witness.look(self.file.node(), dma_buf)
    }

    /// Keeps the GPU awake from now on, until this device and its buffers are dropped.
    pub(crate) fn stay_awake(&self) {
        self.awake.get_or_init(|| self.pci.as_ref().and_then(|pci| Awake::hold(&pci.folder)));
    }
}
