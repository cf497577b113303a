//! DMA-bufs of any exporter as buffers of a device.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use devmem_provider::{DmaBuf, Error, ErrorKind, Result};

use super::errors;
use super::sys::device::Device;
use super::sys::memory::{self, BoundBuffer, Buffer, Sharing, Source};
use super::usage;

/// Imports a DMA-buf, ours or foreign, as a buffer of its size. The buffer holds a reference to the memory: the DMA-buf
/// may be closed.
///
/// An importer of this kind takes part in the exporter's moves (a dynamic attachment), or is one process with it;
/// whether memory moves is the exporter's decision.
///
/// # Errors
///
/// [`ErrorKind::InvalidInput`] if the descriptor is closed, is no DMA-buf, or is one that is smaller than it claims to
/// be, and for one that the driver does not take; [`ErrorKind::Unsupported`] if the device imports none, or none of
/// this size or memory. Nothing is left behind.
pub(crate) fn import(device: &Arc<Device>, dma_buf: &DmaBuf) -> Result<Arc<BoundBuffer>> {
    let name = device.physical().name();
    let checked = check(dma_buf).map_err(|error| error.on(&name))?;
    let operation = describe(dma_buf, &checked);
    let refuse = |reason: String| {
        Error::new(ErrorKind::Unsupported, operation.clone())
            .on(&name)
            .because(reason)
            .remedy("export it from another device, or import it with another")
    };
    let failed = |code| errors::failed(code, operation.clone(), &name);
    let size = dma_buf.size();
    let usage = usage::of_imports(device)
        .ok_or_else(|| refuse("the device imports no DMA-bufs as buffers".to_owned()))?;
    let new_buffer = || Buffer::new(device, size, usage, Sharing::DmaBuf).map_err(failed);
    let requirements = new_buffer()?.requirements();
    if requirements.size > checked.size() {
        return Err(refuse(format!(
            "the device needs {} bytes of memory for a buffer of {size} bytes, and this one has {}",
            requirements.size,
            checked.size()
        )));
    }
    let of_memory = memory::import_types(device, checked.as_fd()).map_err(failed)?;
    let types = of_memory & requirements.memory_types;
    let mut first_failure = None;
    for (memory_type, _) in device.physical().memory().allowed(types) {
        let fd = duplicate(&checked)?;
        match BoundBuffer::new(new_buffer()?, memory_type, Source::Import(fd)) {
            Ok(buffer) => return Ok(Arc::new(buffer)),
            Err(code) => first_failure = first_failure.or(Some(code)),
        }
    }
    Err(match first_failure {
        Some(code) => failed(code),
        None => refuse(format!(
            "the device takes this memory as the types {of_memory:#x}, and a buffer in the types {:#x}",
            requirements.memory_types
        )),
    })
}

/// A second descriptor, of what is known to be a DMA-buf of at least the size that is claimed.
fn check(dma_buf: &DmaBuf) -> Result<DmaBuf> {
    let checked = DmaBuf::from_fd(duplicate(dma_buf)?)?;
    if checked.size() < dma_buf.size() {
        return Err(Error::new(ErrorKind::InvalidInput, describe(dma_buf, &checked))
            .because(format!("it has {} bytes only", checked.size()))
            .remedy("pass its true size"));
    }
    Ok(checked)
}

fn duplicate(dma_buf: &DmaBuf) -> Result<OwnedFd> {
    dma_buf.as_fd().try_clone_to_owned().map_err(|error| {
        Error::from_io(error, "duplicate the descriptor of a DMA-buf to import")
            .remedy("pass a descriptor that is open, and keep some free")
    })
}

/// What is tried, with the exporter's name, which the kernel tells.
fn describe(dma_buf: &DmaBuf, checked: &DmaBuf) -> String {
    let exporter = checked.file_information().map(|information| information.exporter);
    let exporter = exporter.unwrap_or_else(|_| "an unknown exporter".to_owned());
    format!("import DMA-buf {} of {} bytes from {exporter}", checked.inode(), dma_buf.size())
}
