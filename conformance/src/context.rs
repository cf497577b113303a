//! What a check works with.

use devmem_provider::{Buffer, DmaBuf, Provider, Request, base_page_size};

use crate::environment::Environment;
use crate::nic_under_test::NicUnderTest;
use crate::path::ReceivePath;
use crate::peer::Session;
use crate::rdma_device::{RdmaDevice, no_rdma_device};
use crate::verdict::{Skip, Stop};

/// What a check works with: a provider, and the machine around it.
#[derive(Debug, Clone, Copy)]
pub struct Context<'run> {
    provider: &'run dyn Provider,
    environment: &'run Environment,
    path: Option<&'run dyn ReceivePath>,
}

impl<'run> Context<'run> {
    /// Checks `provider` in `environment`, with the receive path if there is one.
    #[must_use]
    pub fn new(
        provider: &'run dyn Provider,
        environment: &'run Environment,
        path: Option<&'run dyn ReceivePath>,
    ) -> Self {
        Self { provider, environment, path }
    }

    /// The receive path that is checked.
    ///
    /// # Errors
    ///
    /// A skip if none is: only a check that needs a NIC may ask.
    pub fn path(&self) -> Result<&'run dyn ReceivePath, Stop> {
        self.path.ok_or_else(|| Stop::Skip(no_nic()))
    }

    /// The NIC whose receive path is checked.
    ///
    /// # Errors
    ///
    /// A skip if none was named.
    pub fn nic(&self) -> Result<&'run NicUnderTest, Stop> {
        self.environment.nic.as_ref().ok_or_else(|| Stop::Skip(no_nic()))
    }

    /// The RDMA device that makes memory regions.
    ///
    /// # Errors
    ///
    /// A skip if there is none.
    pub fn rdma(&self) -> Result<&'run dyn RdmaDevice, Stop> {
        self.environment.rdma.as_deref().ok_or_else(|| Stop::Skip(no_rdma_device()))
    }

    /// The provider that is checked.
    #[must_use]
    pub fn provider(&self) -> &'run dyn Provider {
        self.provider
    }

    /// The machine around it.
    #[must_use]
    pub fn environment(&self) -> &'run Environment {
        self.environment
    }

    /// A session with the peer.
    ///
    /// # Errors
    ///
    /// A skip if none was named; otherwise it cannot be reached.
    pub(crate) fn peer(&self) -> Result<Session, Stop> {
        let choice = self.environment.peer.as_ref().ok_or_else(|| Stop::Skip(no_peer()))?;
        Ok(Session::open(self, choice)?)
    }

    /// The size of a buffer where none matters, in bytes: what fits the granularity of every heap.
    ///
    /// # Errors
    ///
    /// What asking for the heaps returns.
    pub fn size(&self) -> devmem_provider::Result<u64> {
        Ok(self.environment.buffer_bytes.next_multiple_of(self.granularity()?.max(1)))
    }

    /// What the sizes of buffers are multiples of, whichever heap they come from, in bytes.
    ///
    /// # Errors
    ///
    /// What asking for the heaps returns.
    pub fn granularity(&self) -> devmem_provider::Result<u64> {
        let heaps = self.provider.heaps()?;
        Ok(heaps.iter().map(|heap| heap.granularity).max().unwrap_or(base_page_size()))
    }

    /// A buffer of that size, wherever the provider puts it.
    ///
    /// # Errors
    ///
    /// What the provider returns.
    pub fn buffer(&self) -> devmem_provider::Result<Box<dyn Buffer>> {
        self.provider.allocate(&Request::bytes(self.size()?))
    }

    /// The DMA-buf of such a buffer, which is dropped.
    ///
    /// # Errors
    ///
    /// What the provider returns.
    pub fn dma_buf(&self) -> devmem_provider::Result<DmaBuf> {
        self.buffer()?.export()
    }
}

/// Why nothing can be said of a receive path without a NIC.
pub(crate) fn no_nic() -> Skip {
    Skip {
        reason: "no NIC was named".to_owned(),
        found_by: "the environment of the run".to_owned(),
        remedy: Some("name one: `--nic eth1`, and the peer that sends to it".to_owned()),
    }
}

/// Why nothing can be received without a peer.
pub(crate) fn no_peer() -> Skip {
    Skip {
        reason: "no peer was named".to_owned(),
        found_by: "the environment of the run".to_owned(),
        remedy: Some("name who sends: `--peer-namespace /run/netns/peer`, or `--peer HOST:PORT`".to_owned()),
    }
}
