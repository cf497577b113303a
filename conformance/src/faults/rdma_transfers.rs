//! Transfers between two sides of an RDMA device with one fault.

use std::cell::RefCell;
use std::rc::Rc;

use devmem_provider::{DmaBuf, Result, base_page_size};
use devmem_receive::rdma::Registration;
use devmem_receive::rdma::verbs::{Capabilities, Completion, CompletionStatus, Part, RemoteMemory};

use super::Fault;
use crate::rdma_transfers::{Connected, FarRegion, Transfers};

/// Other transfers, with one fault put in.
#[derive(Debug)]
pub(super) struct FaultyTransfers {
    inner: Box<dyn Transfers>,
    fault: Fault,
}

impl FaultyTransfers {
    pub(super) fn new(inner: Box<dyn Transfers>, fault: Fault) -> Self {
        Self { inner, fault }
    }
}

impl Transfers for FaultyTransfers {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn register(&self, dma_buf: &DmaBuf, registration: Registration) -> Result<Box<dyn FarRegion>> {
        let inner = Rc::from(self.inner.register(dma_buf, registration)?);
        if self.fault == Fault::LeaksBinding {
            keep(&inner);
        }
        Ok(Box::new(FaultyRegion { inner, fault: self.fault }))
    }

    fn connect(&self, bytes: usize) -> Result<Box<dyn Connected>> {
        let inner = Rc::from(self.inner.connect(bytes)?);
        if self.fault == Fault::KeepsConnection {
            keep(&inner);
        }
        Ok(Box::new(FaultyPairs { inner, fault: self.fault, again: RefCell::default() }))
    }
}

/// Has it stay when everybody has dropped it.
fn keep<T: ?Sized>(shared: &Rc<T>) {
    std::mem::forget(Rc::clone(shared));
}

#[derive(Debug)]
struct FaultyRegion {
    inner: Rc<dyn FarRegion>,
    fault: Fault,
}

#[derive(Debug)]
struct FaultyPairs {
    inner: Rc<dyn Connected>,
    fault: Fault,
    /// What is told a second time.
    again: RefCell<Option<Completion>>,
}

impl FaultyPairs {
    fn altered(&self, completion: Completion) -> Completion {
        let is_success = completion.status == CompletionStatus::Success;
        match self.fault {
            Fault::SwallowsErrors if !is_success => {
                Completion { status: CompletionStatus::Success, ..completion }
            }
            Fault::WrongRefusal if !is_success => {
                Completion { status: CompletionStatus::Other(0), ..completion }
            }
            _ => completion,
        }
    }

    /// Memory of the far side as requests reach it.
    fn displaced(&self, memory: RemoteMemory) -> RemoteMemory {
        match self.fault {
            Fault::WrongOffset => RemoteMemory { address: memory.address ^ base_page_size(), ..memory },
            _ => memory,
        }
    }

    /// Bytes as they are transferred.
    fn resized(&self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        match self.fault {
            Fault::DropsBytes if bytes.len() > 1 => drop(bytes.pop()),
            Fault::WrongLength => bytes.extend(bytes.last().copied()),
            _ => {}
        }
        bytes
    }
}

impl FarRegion for FaultyRegion {
    fn remote(&self) -> RemoteMemory {
        self.inner.remote()
    }

    fn part(&self, offset: u64, length: u32) -> Result<Part<'_>> {
        let inner = &self.inner;
        match self.fault {
            Fault::WrongOffset => inner.part(offset ^ base_page_size(), length),
            Fault::IgnoresLength => {
                let longer = length.saturating_add(base_page_size() as u32);
                inner.part(offset, longer).or_else(|_| inner.part(offset, length))
            }
            _ => inner.part(offset, length),
        }
    }
}

impl Connected for FaultyPairs {
    fn write(&self, bytes: &[u8], to: RemoteMemory) -> Result<Completion> {
        if self.fault == Fault::DoneInPart
            && let Some(first) = bytes.get(..1)
        {
            self.inner.write(first, to)?;
        }
        Ok(self.altered(self.inner.write(&self.resized(bytes), self.displaced(to))?))
    }

    fn read(&self, from: RemoteMemory, length: usize) -> Result<(Completion, Vec<u8>)> {
        let (completion, bytes) = self.inner.read(self.displaced(from), length)?;
        Ok((self.altered(completion), self.resized(&bytes)))
    }

    fn post(&self, id: u64, part: Part<'_>) -> Result<()> {
        self.inner.post(id, part)
    }

    fn send(&self, bytes: &[u8], immediate: Option<u32>) -> Result<Completion> {
        let bytes = match self.fault {
            // Longer than what was posted for it, it would not arrive at all.
            Fault::WrongLength => bytes.to_vec(),
            _ => self.resized(bytes),
        };
        Ok(self.altered(self.inner.send(&bytes, immediate)?))
    }

    fn received(&self) -> Result<Completion> {
        if let Some(completion) = self.again.take() {
            return Ok(completion);
        }
        let completion = self.altered(self.inner.received()?);
        if self.fault == Fault::ReportsTwice {
            self.again.replace(Some(completion));
        }
        Ok(match self.fault {
            Fault::WrongLength => Completion { bytes: completion.bytes + 1, ..completion },
            Fault::LosesMessages => Completion { immediate: None, ..completion },
            _ => completion,
        })
    }

    fn fail(&self) -> Result<()> {
        self.inner.fail()
    }
}
