//! The two sides of a test.

use std::time::Duration;

use devmem_receive::rdma::verbs::{
    Completion, CompletionQueue, Context, HostRegion, Peer, ProtectionDomain, QueuePair, QueuePairOptions,
    Transport, Woken,
};
use devmem_receive::rdma::{AccessFlags, Device};

use crate::harness::{Failure, ensure};

/// How long a completion may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

pub(crate) const MEMORY: usize = 1 << 20;

/// A device with a queue pair and some memory.
pub(crate) struct Side {
    pub(crate) domain: ProtectionDomain,
    pub(crate) completions: CompletionQueue,
    pub(crate) pair: QueuePair,
    pub(crate) memory: HostRegion,
}

/// What peers and the device itself may do with the memory of a [`Side`].
pub(crate) fn everything() -> AccessFlags {
    AccessFlags::LOCAL_WRITE | AccessFlags::REMOTE_WRITE | AccessFlags::REMOTE_READ
}

pub(crate) fn context(name: &str) -> Result<Context, Failure> {
    Ok(Context::open(&Device::find(name)?)?)
}

impl Side {
    pub(crate) fn of(name: &str, transport: Transport) -> Result<Self, Failure> {
        Self::with(name, transport, everything())
    }

    pub(crate) fn with(name: &str, transport: Transport, access: AccessFlags) -> Result<Self, Failure> {
        Self::on(&context(name)?, transport, access)
    }

    pub(crate) fn on(context: &Context, transport: Transport, access: AccessFlags) -> Result<Self, Failure> {
        let domain = context.protection_domain()?;
        let completions = context.completion_queue(64)?;
        let options = QueuePairOptions::default().transport(transport).requests(16).receives(16);
        let pair = domain.queue_pair(&completions, &completions, options)?;
        let memory = domain.host_memory(MEMORY, access)?;
        Ok(Self { domain, completions, pair, memory })
    }

    /// Waits for the next completion, whatever it is.
    pub(crate) fn completion(&self) -> Result<Completion, Failure> {
        match self.completions.wait(None, LIMIT)? {
            Woken::Completions(mut found) => {
                let first = found.next().ok_or("nothing was found")?;
                ensure!(found.is_empty(), "{found:?} besides {first:?}");
                Ok(first)
            }
            woken => Err(format!("{woken:?}").into()),
        }
    }

    pub(crate) fn fill(&self, offset: u64, bytes: &[u8]) -> Result<(), Failure> {
        Ok(self.memory.copy_from(offset, bytes)?)
    }

    pub(crate) fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>, Failure> {
        let mut bytes = vec![0; length];
        self.memory.copy_to(offset, &mut bytes)?;
        Ok(bytes)
    }
}

/// Two sides that know each other: the first one with the way to the second, and the other way round.
pub(crate) struct Sides {
    pub(crate) one: Side,
    pub(crate) other: Side,
    pub(crate) to_other: Peer,
    pub(crate) to_one: Peer,
}

impl Sides {
    pub(crate) fn of(transport: Transport) -> Result<Self, Failure> {
        Self::between(Side::of("efa_0", transport)?, Side::of("efa_1", transport)?)
    }

    pub(crate) fn between(one: Side, other: Side) -> Result<Self, Failure> {
        let to_other = one.pair.connect(&other.pair.endpoint())?;
        let to_one = other.pair.connect(&one.pair.endpoint())?;
        Ok(Self { one, other, to_other, to_one })
    }
}

/// Bytes that do not repeat soon.
pub(crate) fn pattern(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(length).collect()
}
