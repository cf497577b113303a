//! DMA-bufs of others in Vulkan.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use devmem_backends::find;
use devmem_backends::vulkan::Vulkan;
use devmem_provider::{DmaBuf, ErrorKind, Placement, Provider, Request, base_page_size};

use crate::hardware::GPUS;
use crate::harness::{Failure, Outcome, SIZE, available_memory, descriptors, memory_is_back};
use crate::{SOFTWARE, device, ensure};

const PATIENCE: Duration = Duration::from_secs(30);

/// Providers of DMA-bufs of this guest.
const EXPORTERS: [&str; 7] = ["udmabuf", "dma-heap", "vgem", SOFTWARE, "amdgpu", "i915:0", "i915:1"];

/// The devices that import: without hardware and with.
fn importers() -> Result<Vec<Vulkan>, Failure> {
    let selectors = [SOFTWARE].into_iter().chain(GPUS.iter().map(|gpu| gpu.selector));
    selectors.map(|selector| device(&find(selector)?.identity().name)).collect()
}

fn dma_buf_of(provider: &str, placement: Placement) -> Result<DmaBuf, Failure> {
    Ok(find(provider)?.allocate(&Request::bytes(SIZE).prefer(placement))?.export()?)
}

pub(crate) fn of_every_exporter() -> Outcome {
    let mut refusals = Vec::new();
    for importer in importers()? {
        for exporter in EXPORTERS {
            for placement in [Placement::DeviceLocal, Placement::System] {
                let dma_buf = dma_buf_of(exporter, placement)?;
                let before = dma_buf.file_information()?.count;
                match importer.import(&dma_buf) {
                    Ok(imported) => ensure!(imported.size() == SIZE, "{exporter}: {imported:?}"),
                    Err(error) => {
                        let told = dma_buf.file_information()?.exporter;
                        ensure!(error.to_string().contains(&told), "{exporter}: {error}");
                        refusals.push(format!("{placement} of {exporter}, {}: {error}", importer.identity()));
                    }
                }
                nothing_refers(&dma_buf, before).map_err(|failure| format!("{exporter}: {failure}"))?;
            }
        }
    }
    ensure!(refusals.is_empty(), "{}", refusals.join("\n"));
    Ok(())
}

/// Waits until a DMA-buf has no more references than before: drivers drop theirs a little after the last user let go.
fn nothing_refers(dma_buf: &DmaBuf, before: u64) -> Outcome {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = dma_buf.file_information()?.count;
        if now == before {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{before} references before the import, {now} after it");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn of_what_is_no_dma_buf() -> Outcome {
    let device = device(SOFTWARE)?;
    let open = descriptors()?;
    let file = DmaBuf::from_exporter(File::open("/dev/null")?.into(), SIZE);
    let error = device.import(&file).err().ok_or("/dev/null was imported")?;
    ensure!(error.kind() == ErrorKind::InvalidInput && error.to_string().contains("/dev/null"), "{error}");
    drop(file);
    ensure!(descriptors()? == open, "a descriptor is left");
    Ok(())
}

pub(crate) fn of_the_wrong_size() -> Outcome {
    let device = device(SOFTWARE)?;
    let page = base_page_size();
    let true_one = dma_buf_of("udmabuf", Placement::System)?;
    let claims = |size| -> Result<DmaBuf, Failure> {
        Ok(DmaBuf::from_exporter(true_one.try_clone()?.into_fd()?, size))
    };
    let (before, references) = (descriptors()?, true_one.file_information()?.count);
    for size in [SIZE + page, u64::MAX - page + 1] {
        let error = device.import(&claims(size)?).err().ok_or(format!("{size} bytes were imported"))?;
        ensure!(error.kind() == ErrorKind::InvalidInput, "{error}");
        ensure!(
            error.to_string().contains("udmabuf") && error.to_string().contains(&SIZE.to_string()),
            "{error}"
        );
    }
    ensure!(device.import(&claims(0)?).is_err(), "nothing was imported");
    ensure!(device.import(&claims(page)?)?.size() == page, "a part");
    ensure!(descriptors()? == before, "descriptors are left");
    nothing_refers(&true_one, references)
}

pub(crate) fn of_a_closed_descriptor() -> Outcome {
    let device = device(SOFTWARE)?;
    let dma_buf = dma_buf_of("udmabuf", Placement::System)?;
    let number = dma_buf.as_fd().as_raw_fd();
    let copy = dma_buf.as_fd().try_clone_to_owned()?;
    // SAFETY: the descriptor is open, and nobody else opens one before it is restored below.
    ensure!(unsafe { libc::close(number) } == 0, "descriptor {number} is not open");
    let result = device.import(&dma_buf);
    // SAFETY: the number is free, and `dma_buf` owns it.
    ensure!(unsafe { libc::dup2(copy.as_raw_fd(), number) } == number, "descriptor {number} is not restored");
    let error = result.err().ok_or("a closed descriptor was imported")?;
    ensure!(error.kind() == ErrorKind::InvalidInput, "{error}");
    ensure!(error.remedy_text().is_some_and(|remedy| remedy.contains("open")), "{error}");
    Ok(())
}

pub(crate) fn leave_nothing_behind() -> Outcome {
    for importer in importers()? {
        let cycle = || -> Outcome {
            let dma_buf = dma_buf_of("udmabuf", Placement::System)?;
            importer.import(&dma_buf)?;
            Ok(())
        };
        cycle()?;
        let (open, memory) = (descriptors()?, available_memory()?);
        for _ in 0..128 {
            cycle()?;
        }
        let name = &importer.identity().name;
        ensure!(descriptors()? == open, "{name}: descriptors are left");
        memory_is_back(memory, 64 << 20).map_err(|failure| format!("{name}: {failure}"))?;
    }
    Ok(())
}
