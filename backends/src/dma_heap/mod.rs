//! DMA heaps: the kernel's own allocators of DMA-bufs (`drivers/dma-buf/dma-heap.c`).
//!
//! Every node under `/dev/dma_heap` is a provider: `dma-heap:system` and what else the machine has.

mod uapi;

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use devmem_provider::{
    Buffer, Capabilities, DeviceKind, DmaBuf, Error, ErrorKind, Heap, Identity, PageSize, Placement,
    Provider, Request, Residency, ResidencyEvidence, Result, base_page_size,
};
use nix::errno::Errno;

use crate::system_memory::{SystemBudget, always_system, check_placement};

/// The backend's name.
pub const NAME: &str = "dma-heap";

const FOLDER: &str = "/dev/dma_heap";

/// Finds the heaps by allocating one page from each.
///
/// # Errors
///
/// Why this machine has none, or, if it has some, why the first of them does not work.
pub fn discover() -> Result<Vec<Arc<dyn Provider>>> {
    discover_in(Path::new(FOLDER))
}

fn discover_in(folder: &Path) -> Result<Vec<Arc<dyn Provider>>> {
    let no_heaps = |error: Error| {
        error
            .with_kind(ErrorKind::Unsupported)
            .because("this kernel offers no DMA heaps")
            .remedy("use a kernel built with CONFIG_DMABUF_HEAPS and CONFIG_DMABUF_HEAPS_SYSTEM")
    };
    let listing = |error| Error::from_io(error, "list the DMA heaps").on(folder.display());
    let entries = std::fs::read_dir(folder).map_err(|error| {
        let absent = error.kind() == std::io::ErrorKind::NotFound;
        if absent { no_heaps(listing(error)) } else { listing(error) }
    })?;
    let mut nodes =
        entries.map(|entry| Ok(entry.map_err(listing)?.path())).collect::<Result<Vec<PathBuf>>>()?;
    nodes.sort();
    let mut providers: Vec<Arc<dyn Provider>> = Vec::new();
    let mut first_failure = None;
    for node in nodes {
        let working = DmaHeap::open(&node).and_then(|heap| {
            heap.allocate(&Request::bytes(base_page_size()))?;
            Ok(heap)
        });
        match working {
            Ok(heap) => providers.push(Arc::new(heap)),
            Err(error) => {
                first_failure.get_or_insert(error);
            }
        }
    }
    if !providers.is_empty() {
        return Ok(providers);
    }
    Err(first_failure.unwrap_or_else(|| {
        no_heaps(Error::new(ErrorKind::Unsupported, "list the DMA heaps").on(folder.display()))
    }))
}

/// One DMA heap.
#[derive(Debug)]
pub struct DmaHeap {
    identity: Arc<Identity>,
    heap: String,
    device: File,
    memory: SystemBudget,
}

impl DmaHeap {
    /// Opens the heap of a device node.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] or [`ErrorKind::PermissionDenied`].
    pub fn open(node: &Path) -> Result<Self> {
        // Allocating needs no write access to the node (`dma_heap_ioctl()` checks none).
        let device = File::open(node).map_err(|error| {
            let error = Error::from_io(error, "open").on(node.display());
            match error.kind() {
                ErrorKind::PermissionDenied => {
                    error.remedy("run as root, or let an administrator grant access to the node")
                }
                _ => error,
            }
        })?;
        let heap = node.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let identity = Arc::new(Identity {
            name: format!("{NAME}:{heap}"),
            backend: NAME,
            description: format!("the kernel's DMA heap {heap:?}"),
            kind: DeviceKind::Software,
            driver: NAME.to_owned(),
            driver_version: None,
            node: node.to_owned(),
            pci: None,
            numa_node: None,
        });
        Ok(Self { identity, heap, device, memory: SystemBudget::open()? })
    }

    /// The heap of ordinary pages, as opposed to those of reserved or contiguous memory.
    fn is_system(&self) -> bool {
        self.heap == "system"
    }
}

impl Provider for DmaHeap {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn heaps(&self) -> Result<Vec<Heap>> {
        let mut heap = self.memory.now()?.heap(&self.heap, base_page_size(), None);
        if !self.is_system() {
            // The kernel tells nothing of the size of other heaps; the machine's memory still bounds them.
            heap.used = None;
        }
        Ok(vec![heap])
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::CPU_MAPPING | Capabilities::ZEROED;
        capabilities.set(Capabilities::RESIDENCY, self.is_system());
        capabilities
    }

    fn allocate(&self, request: &Request) -> Result<Box<dyn Buffer>> {
        check_placement(request, &self.identity.name)?;
        let unsupported = |what: &str, why: &'static str| {
            Error::new(ErrorKind::Unsupported, format!("allocate {what}"))
                .on(&self.identity.name)
                .because(why)
        };
        if request.is_contiguous() {
            return Err(unsupported("contiguous memory", "a heap does not tell whether its memory is"));
        }
        if request.pages() != PageSize::Base {
            return Err(unsupported("huge pages", "a heap chooses its pages itself"));
        }
        request.check_size(&Heap {
            name: self.heap.clone(),
            placement: Placement::System,
            size: Some(self.memory.total()),
            used: None,
            cpu_visible: None,
            maximum_allocation: None,
            granularity: base_page_size(),
        })?;
        self.memory.take(request)?;
        let fd = uapi::allocate(self.device.as_fd(), request.size()).map_err(|errno| {
            let error = Error::from_errno(errno, format!("allocate {} bytes", request.size()))
                .on(self.identity.node.display());
            if errno == Errno::ENOMEM { error.remedy("ask for less, or free memory") } else { error }
        })?;
        // The kernel rounds up to pages, and the size is a multiple of them.
        let dma_buf = DmaBuf::from_exporter(fd, request.size());
        if let Some(name) = request.buffer_name() {
            dma_buf.set_name(name)?;
        }
        let exporter = Arc::clone(&self.identity);
        Ok(Box::new(HeapBuffer { dma_buf, exporter, system: self.is_system() }))
    }
}

#[derive(Debug)]
struct HeapBuffer {
    dma_buf: DmaBuf,
    exporter: Arc<Identity>,
    system: bool,
}

impl Buffer for HeapBuffer {
    fn size(&self) -> u64 {
        self.dma_buf.size()
    }

    fn exporter(&self) -> Option<&Identity> {
        Some(&self.exporter)
    }

    fn export(&self) -> Result<DmaBuf> {
        Ok(self.dma_buf.clone())
    }

    fn residency(&self) -> Result<ResidencyEvidence> {
        if self.system {
            return Ok(always_system("the system heap allocates ordinary pages, and never moves them"));
        }
        Ok(ResidencyEvidence {
            residency: Residency::Unknown,
            region: None,
            evidence: "the kernel does not tell what memory this heap has".to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_heaps_says_so() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path().to_owned(), folder.path().join("missing")] {
            let error = discover_in(&path).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(error.to_string().contains("no DMA heaps"), "{error}");
        }
    }

    #[test]
    fn a_node_that_is_no_heap_gives_its_own_reason() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("fake"), "").unwrap();
        let error = discover_in(folder.path()).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::ENOTTY));
        assert!(error.to_string().contains("fake"), "{error}");
    }
}
