//! A GEM buffer as a provider's buffer.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use devmem_provider::{
    Buffer, DmaBuf, ErrorKind, Identity, Residency, ResidencyEvidence, Result, Sharing, base_page_size,
};
use nix::errno::Errno;

use super::device::Device;
use super::gpu::{Driver, Opened};
use super::memory::View;
use super::placement::Target;
use super::witness::{Look, judge};

/// A buffer of a GPU. Its handle is closed on drop; an exported DMA-buf keeps the memory.
#[derive(Debug)]
pub(crate) struct GemBuffer<D: Driver> {
    gpu: Arc<Opened<D>>,
    handle: u32,
    size: u64,
    target: Target,
    /// Whether another interface made it, which may have told the driver something else than the target.
    is_adopted: bool,
    /// The DMA-buf, once it was exported: every export is this one.
    exported: Mutex<Option<DmaBuf>>,
    /// Whether a look has seen pages, or made the driver allocate them.
    had_pages: AtomicBool,
    /// The last page, once peer writes were flushed.
    last_page: OnceLock<View>,
}

impl<D: Driver> GemBuffer<D> {
    pub(super) fn new(gpu: Arc<Opened<D>>, handle: u32, size: u64, target: Target) -> Self {
        let had_pages = AtomicBool::new(false);
        let exported = Mutex::new(None);
        let last_page = OnceLock::new();
        Self { gpu, handle, size, target, is_adopted: false, exported, had_pages, last_page }
    }

    /// A buffer that was not created by the driver's own ioctl: its exports are the DMA-buf that it came as.
    pub(super) fn adopted(gpu: Arc<Opened<D>>, handle: u32, dma_buf: DmaBuf, target: Target) -> Self {
        let mut buffer = Self::new(gpu, handle, dma_buf.size(), target);
        buffer.exported = Mutex::new(Some(dma_buf));
        buffer.is_adopted = true;
        buffer
    }

    pub(crate) fn device(&self) -> &Device {
        &self.gpu.device
    }

    pub(crate) fn driver(&self) -> &D {
        &self.gpu.driver
    }

    pub(crate) fn handle(&self) -> u32 {
        self.handle
    }

    /// Where it was asked to be.
    pub(crate) fn target(&self) -> Target {
        self.target
    }

    /// Reads the last word back through the CPU's mapping, without `DMA_BUF_IOCTL_SYNC`, for which a driver may
    /// move a buffer that no importer holds.
    pub(crate) fn read_back(&self) -> Result<()> {
        let failed = |errno: Errno| {
            let error = self.device().file().failed(errno, "read back what a peer wrote");
            match errno {
                Errno::EFAULT | Errno::EINVAL | Errno::ENODEV => error
                    .with_kind(ErrorKind::Unsupported)
                    .because("the CPU does not reach this buffer")
                    .remedy("allocate it in CPU-visible memory"),
                _ => error,
            }
        };
        self.device().file().check_presence()?;
        if self.last_page.get().is_none() {
            let page = base_page_size();
            let length = usize::try_from(page).map_err(|_| failed(Errno::EINVAL))?;
            let view =
                View::map(self.export()?.as_fd(), self.size.saturating_sub(page), length).map_err(failed)?;
            // Another thread may have been faster; its view serves as well.
            let _ = self.last_page.set(view);
        }
        self.last_page.get().map_or(Ok(()), View::read_back).map_err(failed)
    }
}

impl<D: Driver> Buffer for GemBuffer<D> {
    fn size(&self) -> u64 {
        self.size
    }

    fn exporter(&self) -> Option<&Identity> {
        Some(&self.gpu.identity)
    }

    fn export(&self) -> Result<DmaBuf> {
        let mut exported = self.exported.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(dma_buf) = &*exported {
            return Ok(dma_buf.clone());
        }
        if D::STAYS_AWAKE {
            self.device().stay_awake();
        }
        let dma_buf = self.device().file().export(self.handle, self.size)?;
        Ok(exported.insert(dma_buf).clone())
    }

    fn residency(&self) -> Result<ResidencyEvidence> {
        self.driver().residency(self)
    }

    fn sharing(&self) -> Option<Sharing> {
        let (visible, only) = match self.target {
            Target::Device { visible, only, .. } => (visible, only),
            Target::System => (true, false),
        };
        let sharing = self.driver().sharing(visible, only);
        // Whatever its maker told the driver, it is the same.
        let is_known = || {
            [(true, true), (true, false), (false, true), (false, false)]
                .into_iter()
                .all(|(visible, only)| self.driver().sharing(visible, only) == sharing)
        };
        (!self.is_adopted || is_known()).then_some(sharing)
    }

    fn flush_peer_writes(&self) -> Result<()> {
        self.driver().flush(self)
    }
}

impl<D: Driver> Drop for GemBuffer<D> {
    fn drop(&mut self) {
        self.device().file().close_handle(self.handle);
    }
}

/// Where a buffer is by the fdinfo of the witness. Pages that the driver allocates late are allocated first; pages that
/// it took away again stay away, so that a look moves nothing.
pub(crate) fn judge_buffer<D: Driver>(buffer: &GemBuffer<D>) -> Result<ResidencyEvidence> {
    let dma_buf = buffer.export()?;
    let look = || Ok(judge(&buffer.device().usage(&dma_buf)?, buffer.size, D::is_device_region));
    let mut seen = look()?;
    if seen == Look::NoPages && !buffer.had_pages.load(Ordering::Relaxed) {
        buffer.driver().populate(buffer)?;
        seen = look()?;
    }
    buffer.had_pages.store(true, Ordering::Relaxed);
    Ok(match seen {
        Look::Seen(evidence) => evidence,
        Look::NoPages => ResidencyEvidence {
            residency: Residency::System,
            region: None,
            evidence: format!(
                "fdinfo shows none of the {} pages that it had: the driver has evicted them to system memory, or to \
                 where that is swapped",
                buffer.size / base_page_size()
            ),
        },
    })
}
