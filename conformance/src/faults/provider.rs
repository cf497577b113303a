//! A provider with one fault.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use devmem_provider::dma_buf::Access;
use devmem_provider::{
    Buffer, Capabilities, DeviceCopy, DeviceKind, DmaBuf, Error, ErrorKind, Heap, Identity, Placement,
    Provider, Reaction, Request, Residency, ResidencyEvidence, Result, Sharing, base_page_size,
};

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::Fault;

/// Another provider, with one fault put in.
#[derive(Debug)]
pub struct FaultyProvider {
    inner: Arc<dyn Provider>,
    fault: Fault,
    identity: Identity,
    /// Buffers that are alive.
    alive: Arc<AtomicUsize>,
    /// What was handed out and is not let go.
    kept: Mutex<Vec<Box<dyn Buffer>>>,
    /// The memory that all share.
    shared: Mutex<Option<DmaBuf>>,
    thread: std::thread::ThreadId,
}

impl FaultyProvider {
    /// `inner` with `fault`, under the same name.
    #[must_use]
    pub fn new(inner: Arc<dyn Provider>, fault: Fault) -> Self {
        let mut identity = inner.identity().clone();
        match fault {
            Fault::Nameless => identity.name.clear(),
            Fault::WrongDriver => "none".clone_into(&mut identity.driver),
            Fault::WrongKind => {
                identity.kind = match identity.kind {
                    DeviceKind::Software => DeviceKind::Discrete,
                    _ => DeviceKind::Software,
                }
            }
            _ => {}
        }
        Self {
            inner,
            fault,
            identity,
            alive: Arc::default(),
            kept: Mutex::default(),
            shared: Mutex::default(),
            thread: std::thread::current().id(),
        }
    }

    fn refuse_or_misbehave(&self) -> Result<()> {
        let refused = |reason: &'static str| Error::new(ErrorKind::Io, "allocate").because(reason);
        match self.fault {
            Fault::Hangs => loop {
                std::thread::sleep(Duration::from_secs(3600));
            },
            Fault::Crashes => std::process::abort(),
            Fault::Panics => panic!("a provider must not panic"),
            Fault::OneBuffer if self.alive.load(Ordering::SeqCst) > 0 => Err(refused("one at a time")),
            Fault::OneThread if std::thread::current().id() != self.thread => Err(refused("another thread")),
            _ => Ok(()),
        }
    }

    /// The request as this provider takes it.
    fn altered(&self, request: &Request) -> Request {
        let page = base_page_size();
        match self.fault {
            Fault::LargerBuffers => copy(request, request.size().saturating_add(page), true),
            Fault::RoundsSizes => {
                let size = request.size().checked_next_multiple_of(page).unwrap_or(page);
                copy(request, size.clamp(page, 1 << 20), true)
            }
            Fault::IgnoresRequire => copy(request, request.size(), false),
            _ => request.clone(),
        }
    }

    fn alter(&self, error: Error) -> Error {
        match self.fault {
            Fault::WrongErrorKind => error.with_kind(ErrorKind::Busy),
            Fault::NoRemedy => Error::new(error.kind(), error.operation().to_owned()),
            _ => error,
        }
    }
}

/// A request like another one, for `size` bytes, with or without its placement.
fn copy(request: &Request, size: u64, with_placement: bool) -> Request {
    let mut copy = Request::bytes(size).page_size(request.pages());
    if let Some(name) = request.buffer_name() {
        copy = copy.name(name);
    }
    if request.is_contiguous() {
        copy = copy.contiguous();
    }
    match request.placement().filter(|_| with_placement) {
        Some(placement) if request.is_required() => copy.require(placement),
        Some(placement) => copy.prefer(placement),
        None => copy,
    }
}

impl Provider for FaultyProvider {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn heaps(&self) -> Result<Vec<Heap>> {
        let mut heaps = self.inner.heaps()?;
        match self.fault {
            Fault::NoHeaps => heaps.clear(),
            Fault::AbsurdHeaps => {
                for heap in &mut heaps {
                    heap.granularity = heap.granularity.saturating_mul(3);
                    heap.size = Some(1);
                    heap.used = Some(2);
                }
            }
            Fault::CapabilityWithoutHeap => {
                for heap in &mut heaps {
                    heap.placement = match heap.placement {
                        Placement::System => Placement::DeviceLocal,
                        _ => Placement::System,
                    };
                }
            }
            _ => {}
        }
        Ok(heaps)
    }

    fn capabilities(&self) -> Capabilities {
        match self.fault {
            Fault::FalseCapability => Capabilities::all(),
            _ => self.inner.capabilities(),
        }
    }

    fn device_copy(&self) -> Result<Option<Arc<dyn DeviceCopy>>> {
        self.inner.device_copy()
    }

    fn allocate(&self, request: &Request) -> Result<Box<dyn Buffer>> {
        self.refuse_or_misbehave()?;
        let inner = self.inner.allocate(&self.altered(request)).map_err(|error| self.alter(error))?;
        if self.fault == Fault::StaleData {
            let mapping = inner.export()?.map(Access::ReadWrite)?;
            let access = mapping.write()?;
            access.copy_from(mapping.length() / 2, &[0xa5])?;
            access.finish()?;
        }
        let exported = match self.fault {
            Fault::SharedMemory => {
                let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
                match &*shared {
                    Some(dma_buf) => Some(dma_buf.clone()),
                    None => Some(shared.insert(inner.export()?).clone()),
                }
            }
            Fault::ShortExport => {
                let shorter = request.size().saturating_sub(base_page_size()).max(base_page_size());
                Some(self.inner.allocate(&copy(request, shorter, true))?.export()?)
            }
            Fault::IgnoresName => Some(self.inner.allocate(&Request::bytes(request.size()))?.export()?),
            _ => None,
        };
        if self.fault == Fault::LeakedMemory {
            let another = self.inner.allocate(&self.altered(request))?;
            self.kept.lock().unwrap_or_else(PoisonError::into_inner).push(touched(another)?);
        }
        self.alive.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(FaultyBuffer {
            inner,
            fault: self.fault,
            provider: Arc::clone(&self.inner),
            identity: self.identity.clone(),
            exported,
            alive: Arc::clone(&self.alive),
            looked: AtomicBool::new(false),
        }))
    }
}

/// A buffer whose pages exist: some drivers give a buffer its pages when it is touched.
fn touched(buffer: Box<dyn Buffer>) -> Result<Box<dyn Buffer>> {
    let mapping = buffer.export()?.map(Access::ReadWrite)?;
    let access = mapping.write()?;
    for offset in (0..mapping.length()).step_by(4096) {
        access.copy_from(offset, &[1])?;
    }
    access.finish()?;
    Ok(buffer)
}

#[derive(Debug)]
struct FaultyBuffer {
    inner: Box<dyn Buffer>,
    fault: Fault,
    provider: Arc<dyn Provider>,
    identity: Identity,
    /// What is exported in place of its own memory.
    exported: Option<DmaBuf>,
    alive: Arc<AtomicUsize>,
    looked: AtomicBool,
}

impl Buffer for FaultyBuffer {
    fn size(&self) -> u64 {
        match self.fault {
            Fault::WrongSize => self.inner.size() * 2,
            _ => self.inner.size(),
        }
    }

    fn exporter(&self) -> Option<&Identity> {
        (self.fault != Fault::NoExporter).then_some(&self.identity)
    }

    fn export(&self) -> Result<DmaBuf> {
        match (self.fault, &self.exported) {
            (Fault::ExportsAnew, _) => self.provider.allocate(&Request::bytes(self.inner.size()))?.export(),
            (Fault::ExportsNoDmaBuf, _) => {
                let file = memfd_create(c"no DMA-buf", MFdFlags::MFD_CLOEXEC);
                let file = file.map_err(|errno| Error::from_errno(errno, "create a file in memory"))?;
                Ok(DmaBuf::from_exporter(file, self.inner.size()))
            }
            (Fault::LeakedDescriptor, _) => {
                let dma_buf = self.inner.export()?;
                std::mem::forget(dma_buf.try_clone()?);
                Ok(dma_buf)
            }
            (_, Some(other)) => Ok(other.clone()),
            _ => self.inner.export(),
        }
    }

    fn residency(&self) -> Result<ResidencyEvidence> {
        let mut seen = self.inner.residency()?;
        let opposite = match seen.residency {
            Residency::DeviceLocal => Residency::System,
            _ => Residency::DeviceLocal,
        };
        match self.fault {
            Fault::LyingResidency => seen.residency = opposite,
            Fault::UnknownResidency => seen.residency = Residency::Unknown,
            Fault::NoEvidence => seen.evidence.clear(),
            Fault::MovingLook if self.looked.fetch_xor(true, Ordering::SeqCst) => seen.residency = opposite,
            _ => {}
        }
        Ok(seen)
    }

    fn sharing(&self) -> Option<Sharing> {
        match self.fault {
            Fault::WrongSharing => Some(Sharing::always(Reaction::Refuses)),
            _ => self.inner.sharing(),
        }
    }

    fn flush_peer_writes(&self) -> Result<()> {
        self.inner.flush_peer_writes()
    }
}

impl Drop for FaultyBuffer {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::SeqCst);
    }
}
