//! GPUs that go away while they are in use.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use devmem_backends::discover;
use devmem_provider::{Buffer, ErrorKind, Identity, Placement, Provider, Request};

use crate::ensure;
use crate::harness::{Failure, Outcome, SIZE};

const PATIENCE: Duration = Duration::from_secs(60);

fn function(identity: &Identity) -> Result<PathBuf, Failure> {
    let address = identity.pci.ok_or("no PCI address")?;
    Ok(Path::new("/sys/bus/pci/devices").join(address.to_string()))
}

/// Waits until the provider at the same address is back and hands out memory.
fn comes_back(identity: &Identity) -> Outcome {
    let deadline = Instant::now() + PATIENCE;
    let address = identity.pci.map(|pci| pci.to_string()).unwrap_or_default();
    loop {
        match discover().find(&address) {
            Ok(provider) => {
                provider.allocate(&Request::bytes(SIZE))?.export()?;
                return Ok(());
            }
            Err(error) => ensure!(Instant::now() < deadline, "it did not come back: {error}"),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// What is left to do with a GPU that is gone says so.
fn is_gone(provider: &dyn Provider, unexported: &dyn Buffer) -> Outcome {
    let request = Request::bytes(SIZE).prefer(Placement::System);
    let allocated = provider.allocate(&request).err().ok_or("a GPU that is gone allocated")?;
    let exported = unexported.export().err().ok_or("a GPU that is gone exported")?;
    // A heap that is the machine's own memory has its size all the same.
    for error in [Some(allocated), Some(exported), provider.heaps().err()].into_iter().flatten() {
        ensure!(error.kind() == ErrorKind::Gone && error.remedy_text().is_some(), "{error}");
    }
    Ok(())
}

fn remove_and_find_again(identity: &Identity, meanwhile: impl FnOnce() -> Outcome) -> Outcome {
    let function = function(identity)?;
    fs::write(function.join("remove"), "1")?;
    ensure!(!function.exists(), "{} is still there", function.display());
    let outcome = meanwhile();
    fs::write("/sys/bus/pci/rescan", "1")?;
    comes_back(identity)?;
    outcome
}

/// With nothing but the node open.
pub(crate) fn without_buffers(provider: Arc<dyn Provider>) -> Outcome {
    remove_and_find_again(provider.identity(), || {
        let error = provider.allocate(&Request::bytes(SIZE)).err().ok_or("a GPU that is gone allocated")?;
        ensure!(error.kind() == ErrorKind::Gone && error.remedy_text().is_some(), "{error}");
        Ok(())
    })
}

pub(crate) fn before_export(provider: Arc<dyn Provider>) -> Outcome {
    let buffer = provider.allocate(&Request::bytes(SIZE))?;
    remove_and_find_again(provider.identity(), || {
        is_gone(&*provider, &*buffer)?;
        // Which backend it was, the selector still tells.
        let error = discover().find(&provider.identity().name).err();
        ensure!(error.is_none_or(|error| error.kind() != ErrorKind::Gone), "a GPU that is gone is found");
        Ok(())
    })
}

/// The DMA-buf outlives its GPU. What would touch the memory says that it is gone, and the process does not end.
pub(crate) fn while_exported(provider: Arc<dyn Provider>) -> Outcome {
    let buffer = provider.allocate(&Request::bytes(SIZE))?;
    let unexported = provider.allocate(&Request::bytes(SIZE))?;
    let dma_buf = buffer.export()?;
    buffer.flush_peer_writes()?;
    remove_and_find_again(provider.identity(), || {
        is_gone(&*provider, &*unexported)?;
        ensure!(buffer.export()?.inode() == dma_buf.inode(), "another DMA-buf");
        let flushed = buffer.flush_peer_writes().err().ok_or("a GPU that is gone flushed")?;
        ensure!(flushed.kind() == ErrorKind::Gone, "{flushed}");
        let looked = buffer.residency().err().ok_or("a GPU that is gone told where a buffer is")?;
        ensure!(looked.kind() == ErrorKind::Gone, "{looked}");
        Ok(())
    })?;
    drop(buffer);
    ensure!(dma_buf.file_information()?.size == SIZE, "{dma_buf}");
    Ok(())
}

/// The driver comes back when nobody uses its device any more: amdgpu of Linux 7.2 leaves an attribute in sysfs
/// until then, which makes an earlier attempt fail.
pub(crate) fn the_driver_unbound(provider: Arc<dyn Provider>) -> Outcome {
    let identity = provider.identity().clone();
    let buffer = provider.allocate(&Request::bytes(SIZE))?;
    let unexported = provider.allocate(&Request::bytes(SIZE))?;
    let dma_buf = buffer.export()?;
    let function = function(&identity)?;
    let driver = fs::canonicalize(function.join("driver"))?;
    let address = function.file_name().and_then(|name| name.to_str()).ok_or("no address")?;
    fs::write(driver.join("unbind"), address)?;
    let outcome = is_gone(&*provider, &*unexported);
    drop((buffer, unexported, dma_buf, provider));
    fs::write(driver.join("bind"), address)?;
    comes_back(&identity)?;
    outcome
}
