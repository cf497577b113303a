//! Transfers between two sides of an RDMA device, behind an interface that the checks use.
//!
//! Both sides are queue pairs of the same device: what a peer does is done by the near side, with memory of this process,
//! to the far side, which has the DMA-bufs. So one device and no other machine is enough.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use devmem_provider::{DmaBuf, Error, ErrorKind, Result};
use devmem_receive::rdma::verbs::{
    Capabilities, Completion, CompletionQueue, Context, HostRegion, MemoryRegion, Part, Peer,
    ProtectionDomain, QueuePair, QueuePairOptions, RemoteMemory, Transport, VerbsFailure, Woken,
};
use devmem_receive::rdma::{AccessFlags, Device, Registration, RegistrationRefusal};

use crate::rdma_device::RdmaDevice;
use crate::verdict::{Skip, Stop};

/// How long a completion may take: one that never comes is a failure.
const LIMIT: Duration = Duration::from_secs(20);

/// How many requests, and how many receives, a queue pair has room for.
const ROOM: u32 = 16;

/// A device that was opened for transfers, with a protection domain for each side. What is made of it may outlive it.
pub trait Transfers: fmt::Debug {
    /// What the device can do.
    fn capabilities(&self) -> Capabilities;

    /// Registers a part of a DMA-buf on the far side.
    ///
    /// # Errors
    ///
    /// Why it was refused, with what to do.
    fn register(&self, dma_buf: &DmaBuf, registration: Registration) -> Result<Box<dyn FarRegion>>;

    /// Makes a queue pair on each side, makes the two known to each other, and gives the near side memory for requests of
    /// up to `bytes` bytes.
    ///
    /// # Errors
    ///
    /// What is missing, with what to do.
    fn connect(&self, bytes: usize) -> Result<Box<dyn Connected>>;
}

/// A memory region of the far side. Dropping it deregisters.
pub trait FarRegion: fmt::Debug {
    /// See [`MemoryRegion::remote`].
    fn remote(&self) -> RemoteMemory;

    /// See [`MemoryRegion::part`].
    ///
    /// # Errors
    ///
    /// As there.
    fn part(&self, offset: u64, length: u32) -> Result<Part<'_>>;
}

/// Two queue pairs that know each other. Every request is waited for. Dropping it ends both.
pub trait Connected: fmt::Debug {
    /// The near side writes bytes to the far side's memory. Returns how the request ended.
    ///
    /// # Errors
    ///
    /// It was not posted, or its end never came.
    fn write(&self, bytes: &[u8], to: RemoteMemory) -> Result<Completion>;

    /// The near side reads bytes of the far side's memory. Returns how the request ended, and what was read.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    fn read(&self, from: RemoteMemory, length: usize) -> Result<(Completion, Vec<u8>)>;

    /// The far side posts a part of a region for a message.
    ///
    /// # Errors
    ///
    /// What [`QueuePair::receive`] returns.
    fn post(&self, id: u64, part: Part<'_>) -> Result<()>;

    /// The near side sends a message. Returns how the request ended.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    fn send(&self, bytes: &[u8], immediate: Option<u32>) -> Result<Completion>;

    /// Waits until a posted receive ends, and returns how.
    ///
    /// # Errors
    ///
    /// None did.
    fn received(&self) -> Result<Completion>;

    /// Lets the far side's queue pair fail.
    ///
    /// # Errors
    ///
    /// What [`QueuePair::fail`] returns.
    fn fail(&self) -> Result<()>;
}

/// What a check transfers by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Transfer {
    /// Messages.
    Message,
    /// Writes to a peer's memory.
    Write,
    /// Reads of a peer's memory.
    Read,
}

impl Transfer {
    /// Tries whether a device has it, with requests of up to `bytes` bytes. The error says what is missing, how that was
    /// found, and what would change it.
    pub(crate) fn probe(self, device: &dyn RdmaDevice, bytes: usize) -> std::result::Result<(), Skip> {
        let attempt = || {
            let transfers = device.transfers()?;
            transfers.connect(bytes)?;
            Ok::<_, Error>(transfers.capabilities())
        };
        let can = match attempt() {
            Ok(can) => can,
            Err(error) if is_of_the_machine(&error) => {
                return Err(match Stop::skip(&error) {
                    Stop::Skip(skip) => skip,
                    Stop::Fail(_) => return Ok(()),
                });
            }
            // Any other failure is for the check to find.
            Err(_) => return Ok(()),
        };
        let has = match self {
            Self::Message => true,
            Self::Write => can.rdma_write,
            Self::Read => can.rdma_read,
        };
        if has {
            return Ok(());
        }
        Err(Skip {
            reason: format!("the device has no {self}"),
            found_by: "what rdma-core's library tells of the device".to_owned(),
            remedy: Some("name a device that has them: `--rdma NAME`".to_owned()),
        })
    }
}

impl fmt::Display for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Message => "messages",
            Self::Write => "writes to peers' memory",
            Self::Read => "reads of peers' memory",
        })
    }
}

/// Whether an error says that the machine is not made for transfers: a library, a provider for the driver, an address or
/// the right to lock memory is missing.
fn is_of_the_machine(error: &Error) -> bool {
    VerbsFailure::of(error).is_some()
        || RegistrationRefusal::of(error) == Some(RegistrationRefusal::MemoryLockLimit)
        || matches!(error.kind(), ErrorKind::WrongState | ErrorKind::PermissionDenied)
}

/// Opens a device by rdma-core's library.
pub(crate) fn open(device: &Device) -> Result<Box<dyn Transfers>> {
    let context = Context::open(device)?;
    let (near, far) = (context.protection_domain()?, context.protection_domain()?);
    Ok(Box::new(Domains { near, far }))
}

#[derive(Debug)]
struct Domains {
    near: ProtectionDomain,
    far: ProtectionDomain,
}

impl Transfers for Domains {
    fn capabilities(&self) -> Capabilities {
        self.far.context().capabilities()
    }

    fn register(&self, dma_buf: &DmaBuf, registration: Registration) -> Result<Box<dyn FarRegion>> {
        Ok(Box::new(self.far.register(dma_buf, registration)?))
    }

    fn connect(&self, bytes: usize) -> Result<Box<dyn Connected>> {
        let (near, far) = (Side::new(&self.near)?, Side::new(&self.far)?);
        let memory = self.near.host_memory(bytes, AccessFlags::LOCAL_WRITE)?;
        let to_far = near.pair.connect(&far.pair.endpoint())?;
        let to_near = far.pair.connect(&near.pair.endpoint())?;
        Ok(Box::new(Pairs { near, far, to_far, _to_near: to_near, memory }))
    }
}

impl FarRegion for MemoryRegion {
    fn remote(&self) -> RemoteMemory {
        MemoryRegion::remote(self)
    }

    fn part(&self, offset: u64, length: u32) -> Result<Part<'_>> {
        MemoryRegion::part(self, offset, length)
    }
}

/// A queue pair, and where its requests and receives are completed.
#[derive(Debug)]
struct Side {
    pair: QueuePair,
    completions: CompletionQueue,
    /// Taken out of the queue, and not returned yet.
    taken: RefCell<VecDeque<Completion>>,
}

impl Side {
    /// Of the sort that the device has for memory: scalable reliable datagrams where it has them, otherwise a connection.
    fn new(domain: &ProtectionDomain) -> Result<Self> {
        let completions = domain.context().completion_queue(2 * ROOM)?;
        let options = QueuePairOptions::default().requests(ROOM).receives(ROOM);
        let pair = domain.queue_pair(&completions, &completions, options)?;
        Ok(Self { pair, completions, taken: RefCell::default() })
    }

    fn completion(&self, what: &'static str) -> Result<Completion> {
        let mut taken = self.taken.borrow_mut();
        if taken.is_empty() {
            match self.completions.wait(None, LIMIT)? {
                Woken::Completions(found) => taken.extend(found),
                Woken::Other | Woken::TimedOut => {}
            }
        }
        taken.pop_front().ok_or_else(|| {
            Error::new(ErrorKind::Io, what)
                .on(format!("queue pair {}", self.pair.number()))
                .because(format!("nothing was completed within {} s", LIMIT.as_secs()))
        })
    }
}

#[derive(Debug)]
struct Pairs {
    near: Side,
    far: Side,
    to_far: Peer,
    /// A device answers only those that it knows.
    _to_near: Peer,
    /// The near side's, for requests.
    memory: HostRegion,
}

impl Pairs {
    /// The part of the near side's memory for a request about these bytes, which are put there.
    fn filled(&self, bytes: &[u8]) -> Result<Part<'_>> {
        let length = u32::try_from(bytes.len()).map_err(|_| {
            Error::new(ErrorKind::InvalidInput, format!("transfer {} bytes by one request", bytes.len()))
        })?;
        self.memory.copy_from(0, bytes)?;
        self.memory.region().part(0, length)
    }
}

impl Connected for Pairs {
    fn write(&self, bytes: &[u8], to: RemoteMemory) -> Result<Completion> {
        self.near.pair.write(0, self.filled(bytes)?, to, None, &self.to_far)?;
        self.near.completion("write to the peer's memory")
    }

    fn read(&self, from: RemoteMemory, length: usize) -> Result<(Completion, Vec<u8>)> {
        let mut bytes = vec![0; length];
        self.near.pair.read(0, self.filled(&bytes)?, from, &self.to_far)?;
        let completion = self.near.completion("read the peer's memory")?;
        self.memory.copy_to(0, &mut bytes)?;
        Ok((completion, bytes))
    }

    fn post(&self, id: u64, part: Part<'_>) -> Result<()> {
        self.far.pair.receive(id, part)
    }

    fn send(&self, bytes: &[u8], immediate: Option<u32>) -> Result<Completion> {
        self.near.pair.send(0, self.filled(bytes)?, immediate, &self.to_far)?;
        self.near.completion("send")
    }

    fn received(&self) -> Result<Completion> {
        self.far.completion("receive")
    }

    fn fail(&self) -> Result<()> {
        self.far.pair.fail()
    }
}

/// Whether an error of one request ends the queue pairs, as it does those of a connection.
pub(crate) fn ends_with_an_error(capabilities: Capabilities) -> bool {
    capabilities.transport == Transport::ReliableConnection
}
