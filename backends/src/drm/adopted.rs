//! Buffers that another interface than the driver's own ioctls made on a device: Vulkan, say.

use std::fmt;
use std::sync::Arc;

use devmem_provider::{Buffer, DmaBuf, Result};

use super::buffer::GemBuffer;
use super::gpu::{Driver, Gpu};
use super::nodes::Nodes;
use super::placement::Target;

/// A device whose driver a backend serves, to look at buffers that another interface made on it.
pub(crate) trait Adopter: fmt::Debug + Send + Sync {
    /// Takes a handle of a buffer by its DMA-buf, which must be one of this device. It is judged and flushed as the
    /// backend's own buffers are; `target` is where its maker was asked to create it.
    ///
    /// # Errors
    ///
    /// What the driver says to the import.
    fn adopt(&self, dma_buf: &DmaBuf, target: Target) -> Result<Box<dyn Buffer>>;

    /// Fails if the device is gone, which other interfaces tell as something else.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Gone`](devmem_provider::ErrorKind::Gone) if it is.
    fn check_presence(&self) -> Result<()>;
}

impl<D: Driver> Adopter for Gpu<D> {
    fn adopt(&self, dma_buf: &DmaBuf, target: Target) -> Result<Box<dyn Buffer>> {
        let gpu = self.opened();
        if D::STAYS_AWAKE {
            gpu.device.stay_awake();
        }
        let handle = gpu.device.file().import(dma_buf)?;
        Ok(Box::new(GemBuffer::adopted(Arc::clone(gpu), handle, dma_buf.clone(), target)))
    }

    fn check_presence(&self) -> Result<()> {
        self.opened().device.file().check_presence()
    }
}

/// Opens a device of a driver for the buffers of others.
pub(crate) fn adopter<D: Driver>(nodes: &Nodes) -> Result<Box<dyn Adopter>> {
    Ok(Box::new(Gpu::<D>::open(nodes, D::BACKEND.to_owned())?))
}
