//! What a check works with.

use devmem_provider::{Buffer, DmaBuf, Provider, Request, base_page_size};

use crate::environment::Environment;

/// What a check works with: a provider, and the machine around it.
#[derive(Debug, Clone, Copy)]
pub struct Context<'run> {
    provider: &'run dyn Provider,
    environment: &'run Environment,
}

impl<'run> Context<'run> {
    /// Checks `provider` in `environment`.
    #[must_use]
    pub fn new(provider: &'run dyn Provider, environment: &'run Environment) -> Self {
        Self { provider, environment }
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
