//! The fences of DMA-bufs, and sync_files, as a device waits for and adds them.

use std::os::fd::{AsFd, OwnedFd};

use devmem_provider::dma_buf::{FenceUse, SyncFile};
use devmem_provider::{DmaBuf, Error, Result};

use super::Shared;

/// The two buffers whose fences are waited for and added to.
#[derive(Debug)]
pub(crate) struct Reservations {
    source: DmaBuf,
    destination: DmaBuf,
}

impl Reservations {
    /// Makes sure that the kernel and the device know sync_files.
    pub(crate) fn new(shared: &Shared, source: &DmaBuf, destination: &DmaBuf) -> Result<Self> {
        check_imports(shared)?;
        check_exports(shared)?;
        let reservations = Self { source: source.clone(), destination: destination.clone() };
        reservations.fences()?;
        Ok(reservations)
    }

    /// What a gather must wait for: writers of the source, everybody who uses the destination.
    pub(crate) fn fences(&self) -> Result<(Option<OwnedFd>, Option<OwnedFd>)> {
        let source = self.source.export_sync_file(FenceUse::Read)?;
        let destination = self.destination.export_sync_file(FenceUse::Write)?;
        Ok((Some(source.into()), Some(destination.into())))
    }

    /// Adds the fence of a gather, which reads the source and writes the destination.
    pub(crate) fn add(&self, fence: &SyncFile) -> Result<()> {
        self.source.import_sync_file(fence, FenceUse::Read)?;
        self.destination.import_sync_file(fence, FenceUse::Write)
    }
}

/// A second descriptor of a fence, for the device to take over.
pub(crate) fn to_import(shared: &Shared, fence: &SyncFile) -> Result<OwnedFd> {
    check_imports(shared)?;
    fence
        .as_fd()
        .try_clone_to_owned()
        .map_err(|error| Error::from_io(error, "duplicate the descriptor of a sync_file").on(&shared.name))
}

fn check_imports(shared: &Shared) -> Result<()> {
    if shared.device.extensions().external_semaphore_fd
        && shared.device.physical().sync_file_support().imports
    {
        return Ok(());
    }
    Err(shared.refuse("wait for a sync_file", "its driver imports none (VK_KHR_external_semaphore_fd)"))
}

/// Refuses to make sync_files on a device that cannot.
pub(crate) fn check_exports(shared: &Shared) -> Result<()> {
    if shared.device.extensions().external_semaphore_fd
        && shared.device.physical().sync_file_support().exports
    {
        return Ok(());
    }
    Err(shared.refuse("make a sync_file", "its driver exports none (VK_KHR_external_semaphore_fd)"))
}
