//! udmabuf: a process's own memory as a DMA-buf (`drivers/dma-buf/udmabuf.c`).
//!
//! Needs no device: it is how a receive path is tried where there is no GPU. The pages are those of a
//! sealed memfd.

mod sealed_memory;
mod uapi;

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use devmem_provider::{
    Buffer, Capabilities, DeviceKind, DmaBuf, Error, ErrorKind, Heap, Identity, PageSize, Placement,
    Provider, Request, ResidencyEvidence, Result, base_page_size,
};
use nix::errno::Errno;

pub use sealed_memory::SealedMemory;

use crate::system_memory::{SystemBudget, always_system, check_placement};

/// The backend's name.
pub const NAME: &str = "udmabuf";

const HEAP: &str = "memfd";
const NODE: &str = "/dev/udmabuf";
const SIZE_LIMIT: &str = "/sys/module/udmabuf/parameters/size_limit_mb";

/// Finds the provider by making a DMA-buf of one page.
///
/// # Errors
///
/// Why this machine has none.
pub fn discover() -> Result<Vec<Arc<dyn Provider>>> {
    let provider = Udmabuf::open()?;
    provider.allocate(&Request::bytes(base_page_size()))?;
    Ok(vec![Arc::new(provider)])
}

/// The provider of memory from memfds.
#[derive(Debug)]
pub struct Udmabuf {
    identity: Arc<Identity>,
    device: File,
    memory: SystemBudget,
    /// The module parameter `size_limit_mb` as it was last read, in bytes.
    limit: AtomicU64,
}

impl Udmabuf {
    /// Opens `/dev/udmabuf`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] if this kernel has no such device, [`ErrorKind::PermissionDenied`] if
    /// this user may not open it.
    pub fn open() -> Result<Self> {
        let device = open_node(Path::new(NODE)).map_err(|error| match error.errno() {
            Some(Errno::ENOENT | Errno::ENODEV | Errno::ENXIO) => error
                .with_kind(ErrorKind::Unsupported)
                .because("this kernel has no udmabuf")
                .remedy("load the module udmabuf, or use a kernel built with CONFIG_UDMABUF"),
            Some(Errno::EACCES | Errno::EPERM) => {
                error.remedy("run as root, or let an administrator grant access to the node")
            }
            _ => error,
        })?;
        let identity = Arc::new(Identity {
            name: NAME.to_owned(),
            backend: NAME,
            description: "memory of this process, exported by udmabuf".to_owned(),
            kind: DeviceKind::Software,
            driver: NAME.to_owned(),
            driver_version: None,
            node: PathBuf::from(NODE),
            pci: None,
            numa_node: None,
        });
        let limit = AtomicU64::new(size_limit());
        Ok(Self { identity, device, memory: SystemBudget::open()?, limit })
    }

    /// Judges the size by what is known, and reads the limit again before it refuses.
    fn check_size(&self, request: &Request) -> Result<()> {
        let heap = |limit| Heap {
            name: HEAP.to_owned(),
            placement: Placement::System,
            size: Some(self.memory.total()),
            used: None,
            cpu_visible: None,
            maximum_allocation: Some(limit),
            granularity: base_page_size(),
        };
        if request.check_size(&heap(self.limit.load(Ordering::Relaxed))).is_ok() {
            return Ok(());
        }
        self.limit.store(size_limit(), Ordering::Relaxed);
        request.check_size(&heap(self.limit.load(Ordering::Relaxed))).map_err(|error| match error.kind() {
            // The limit is udmabuf's own and can be raised, unlike the size of the machine.
            ErrorKind::OutOfMemory if request.size() <= self.memory.total() => {
                error.remedy(format!("ask for less, or raise the limit in {SIZE_LIMIT} (in MiB)"))
            }
            _ => error,
        })
    }

    /// Exports ranges of memfds, one after the other, as one buffer (`UDMABUF_CREATE_LIST`).
    ///
    /// The memfds must be sealed against shrinking and not against writing, and offsets and sizes must be
    /// multiples of the page size.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if the kernel refuses the ranges.
    pub fn allocate_from(&self, parts: &[Part<'_>]) -> Result<Box<dyn Buffer>> {
        let ranges: Vec<uapi::Range> = parts.iter().map(Part::range).collect();
        let size = parts.iter().fold(0u64, |sum, part| sum.saturating_add(part.size));
        if parts.len() > uapi::LIST_CAPACITY {
            return Err(Error::new(ErrorKind::InvalidInput, format!("export {} parts", parts.len()))
                .on(NODE)
                .remedy(format!("pass at most {} parts", uapi::LIST_CAPACITY)));
        }
        let fd = uapi::create_list(self.device.as_fd(), &ranges).map_err(|errno| {
            refused(errno, size).remedy(
                "seal the memfds against shrinking and not against writing, align offsets and sizes to \
                 pages, and keep to udmabuf's limits",
            )
        })?;
        self.finish(fd, size, None)
    }

    fn finish(&self, fd: OwnedFd, size: u64, name: Option<&str>) -> Result<Box<dyn Buffer>> {
        let dma_buf = DmaBuf::from_exporter(fd, size);
        if let Some(name) = name {
            dma_buf.set_name(name)?;
        }
        Ok(Box::new(UdmabufBuffer { dma_buf, exporter: Arc::clone(&self.identity) }))
    }
}

/// A range of a memfd, for [`Udmabuf::allocate_from`].
#[derive(Debug, Clone, Copy)]
pub struct Part<'memory> {
    /// The memfd.
    pub memory: &'memory SealedMemory,
    /// Where the range begins, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub size: u64,
}

impl Part<'_> {
    fn range(&self) -> uapi::Range {
        uapi::Range { memfd: self.memory.as_fd().as_raw_fd(), offset: self.offset, size: self.size }
    }
}

impl Provider for Udmabuf {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn heaps(&self) -> Result<Vec<Heap>> {
        Ok(vec![self.memory.now()?.heap(HEAP, base_page_size(), Some(size_limit()))])
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::CPU_MAPPING | Capabilities::ZEROED | Capabilities::HUGE_PAGES | Capabilities::RESIDENCY
    }

    fn allocate(&self, request: &Request) -> Result<Box<dyn Buffer>> {
        check_placement(request, NAME)?;
        if request.is_contiguous() {
            return Err(Error::new(ErrorKind::Unsupported, "allocate contiguous memory")
                .on(NAME)
                .because("a memfd's pages lie anywhere")
                .remedy("ask for huge pages, or use a contiguous DMA heap"));
        }
        self.check_size(request)?;
        if request.pages() == PageSize::Base {
            self.memory.take(request)?;
        }
        let sealed = SealedMemory::new(request.size(), request.pages())?;
        let whole = Part { memory: &sealed, offset: 0, size: request.size() };
        let fd = uapi::create(self.device.as_fd(), whole.range()).map_err(|errno| {
            let error = refused(errno, request.size());
            match (request.pages(), errno) {
                // EPERM is Linux 6.18's word for it, of a reservation that fails (`memfd_alloc_folio()`).
                (PageSize::Huge2MiB, Errno::ENOMEM | Errno::ENOSPC | Errno::EINVAL | Errno::EPERM) => error
                    .with_kind(ErrorKind::OutOfMemory)
                    .because("too few huge pages of 2 MiB are free")
                    .remedy("reserve them: write their number to /proc/sys/vm/nr_hugepages"),
                _ => error,
            }
        })?;
        self.finish(fd, request.size(), request.buffer_name())
    }
}

fn refused(errno: Errno, size: u64) -> Error {
    Error::from_errno(errno, format!("export {size} bytes of a memfd as a DMA-buf")).on(NODE)
}

/// The module parameter `size_limit_mb`, in bytes; no limit where it cannot be read: the kernel judges then.
fn size_limit() -> u64 {
    let text = std::fs::read_to_string(SIZE_LIMIT).unwrap_or_default();
    text.trim().parse::<u64>().ok().and_then(|mebibytes| mebibytes.checked_mul(1 << 20)).unwrap_or(u64::MAX)
}

/// Opens a device node for reading and writing.
fn open_node(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(|error| Error::from_io(error, "open").on(path.display()))
}

#[derive(Debug)]
struct UdmabufBuffer {
    dma_buf: DmaBuf,
    exporter: Arc<Identity>,
}

impl Buffer for UdmabufBuffer {
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
        Ok(always_system("udmabuf exports the pages of a memfd, and never moves them"))
    }
}
