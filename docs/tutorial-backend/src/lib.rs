//! The kernel's `system` DMA heap as a provider of device memory.
//!
//! This is the backend that `docs/adding-a-backend.md` writes, piece by piece. It depends on `devmem-provider` alone; the
//! checks of `devmem-conformance` are run by `examples/conformance.rs`.

mod sys;

use std::fs::File;
use std::sync::Arc;

use devmem_provider::{
    Buffer, Capabilities, DeviceKind, DmaBuf, Error, ErrorKind, Heap, Identity, PageSize, Placement,
    Provider, Request, Residency, ResidencyEvidence, Result, base_page_size,
};

const NODE: &str = "/dev/dma_heap/system";
const MEMINFO: &str = "/proc/meminfo";

/// The heap of ordinary pages.
#[derive(Debug)]
pub struct SystemHeap {
    identity: Arc<Identity>,
    node: File,
}

impl SystemHeap {
    /// Opens the heap's node.
    ///
    /// # Errors
    ///
    /// The kernel has no such heap, or this user may not open it.
    pub fn open() -> Result<Self> {
        let node = File::open(NODE).map_err(|error| {
            Error::from_io(error, "open the system heap")
                .on(NODE)
                .remedy("run as root, on a kernel built with CONFIG_DMABUF_HEAPS_SYSTEM")
        })?;
        let identity = Arc::new(Identity {
            name: "system-heap".to_owned(),
            backend: "system-heap",
            description: "ordinary pages from the kernel's system heap".to_owned(),
            kind: DeviceKind::Software,
            driver: "dma-heap".to_owned(),
            driver_version: None,
            node: NODE.into(),
            pci: None,
            numa_node: None,
        });
        Ok(Self { identity, node })
    }
}

impl Provider for SystemHeap {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn heaps(&self) -> Result<Vec<Heap>> {
        let text = std::fs::read_to_string(MEMINFO)
            .map_err(|error| Error::from_io(error, "read").on(MEMINFO).remedy("mount /proc"))?;
        let (total, available) = (memory(&text, "MemTotal:")?, memory(&text, "MemAvailable:")?);
        Ok(vec![Heap {
            name: "system".to_owned(),
            placement: Placement::System,
            size: Some(total),
            used: Some(total.saturating_sub(available)),
            cpu_visible: Some(total),
            maximum_allocation: Some(available),
            granularity: base_page_size(),
        }])
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::CPU_MAPPING | Capabilities::ZEROED | Capabilities::RESIDENCY
    }

    fn allocate(&self, request: &Request) -> Result<Box<dyn Buffer>> {
        refuse_what_it_lacks(request)?;
        for heap in self.heaps()? {
            request.check_size(&heap)?;
        }
        let fd = sys::allocate(&self.node, request.size()).map_err(|errno| {
            Error::from_errno(errno, format!("allocate {} bytes", request.size()))
                .on(NODE)
                .remedy("ask for less, or free memory")
        })?;
        let dma_buf = DmaBuf::from_exporter(fd, request.size());
        if let Some(name) = request.buffer_name() {
            dma_buf.set_name(name)?;
        }
        Ok(Box::new(SystemBuffer { dma_buf, provider: Arc::clone(&self.identity) }))
    }
}

/// Refuses what this heap cannot keep to: another placement, contiguous memory, huge pages.
fn refuse_what_it_lacks(request: &Request) -> Result<()> {
    let elsewhere = request.placement().filter(|&placement| placement != Placement::System);
    let (what, why) = match elsewhere {
        Some(placement) if request.is_required() => (format!("in {placement}"), "it has system memory only"),
        _ if request.is_contiguous() => ("contiguous memory".to_owned(), "its pages lie anywhere"),
        _ if request.pages() != PageSize::Base => ("huge pages".to_owned(), "it chooses its pages itself"),
        _ => return Ok(()),
    };
    Err(Error::new(ErrorKind::Unsupported, format!("allocate {what}"))
        .on(NODE)
        .because(why)
        .remedy("ask another provider, or do not demand it"))
}

/// A figure of `/proc/meminfo`, in bytes.
fn memory(text: &str, key: &str) -> Result<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(key));
    let kibibytes = value.and_then(|value| value.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kibibytes.and_then(|kibibytes| kibibytes.checked_mul(1024)).ok_or_else(|| {
        Error::new(ErrorKind::Protocol, "read").on(MEMINFO).because(format!("it has no {key}"))
    })
}

#[derive(Debug)]
struct SystemBuffer {
    dma_buf: DmaBuf,
    provider: Arc<Identity>,
}

impl Buffer for SystemBuffer {
    fn size(&self) -> u64 {
        self.dma_buf.size()
    }

    fn exporter(&self) -> Option<&Identity> {
        Some(&self.provider)
    }

    fn export(&self) -> Result<DmaBuf> {
        Ok(self.dma_buf.clone())
    }

    fn residency(&self) -> Result<ResidencyEvidence> {
        Ok(ResidencyEvidence {
            residency: Residency::System,
            region: None,
            evidence: "the system heap allocates ordinary pages, and has nowhere to move them".to_owned(),
        })
    }
}
