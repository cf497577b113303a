//! Devices of Vulkan copy between buffers of their own and of other exporters.

use std::sync::Arc;
use std::time::Duration;

use devmem_backends::find;
use devmem_backends::vulkan::{CopyOptions, GatherMethod};
use devmem_provider::device_copy::{Fences, Worker};
use devmem_provider::{Capabilities, DmaBuf, ErrorKind, Extent, Provider, Request};

use crate::every_copy::{COPY_TESTS, Copies, CopyTest};
use crate::harness::{Failure, Outcome, SIZE, descriptors};
use crate::{SOFTWARE, device, ensure};

/// From where to where, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way {
    pub(crate) name: &'static str,
    source: &'static str,
    destination: &'static str,
    method: GatherMethod,
}

pub(crate) const WAYS: &[Way] = &[
    Way { name: "commands", source: "udmabuf", destination: SOFTWARE, method: GatherMethod::Commands },
    Way { name: "indirect", source: "dma-heap", destination: SOFTWARE, method: GatherMethod::Indirect },
    Way { name: "shader", source: SOFTWARE, destination: "vgem", method: GatherMethod::Shader },
];

impl Way {
    fn copies(&self) -> Result<Copies, Failure> {
        let device = device(SOFTWARE)?;
        let copy = device.device_copy_with(CopyOptions { gather: self.method });
        Ok(Copies { copy, source: find(self.source)?, destination: find(self.destination)? })
    }

    /// The tests of what copies, one after the other.
    pub(crate) fn tests(&'static self) -> impl Iterator<Item = (String, impl FnOnce() -> Outcome + Send)> {
        COPY_TESTS.iter().map(move |&(name, test): &CopyTest| {
            (format!("copies::{}::{name}", self.name), move || test(&self.copies()?))
        })
    }
}

pub(crate) fn every_device_copies() -> Outcome {
    let provider: Arc<dyn Provider> = find(SOFTWARE)?;
    ensure!(provider.capabilities().contains(Capabilities::DEVICE_COPY), "{:?}", provider.capabilities());
    let copy = provider.device_copy()?.ok_or("it does not copy")?;
    ensure!(copy.worker() == Worker::Device, "{}", copy.worker());
    Ok(())
}

/// A device that is lost while it copies says so at once and for ever, and leaves nothing behind.
pub(crate) fn of_a_lost_device() -> Outcome {
    let (source, destination) = (find("udmabuf")?, find("dma-heap")?);
    let allocate = |provider: &Arc<dyn Provider>| -> Result<DmaBuf, Failure> {
        Ok(provider.allocate(&Request::bytes(SIZE))?.export()?)
    };
    let (source, destination) = (allocate(&source)?, allocate(&destination)?);
    let gone = |outcome: devmem_provider::Result<()>| -> Outcome {
        let error = outcome.err().ok_or("it goes on")?;
        ensure!(error.kind() == ErrorKind::Gone && error.remedy_text().is_some(), "{error}");
        Ok(())
    };
    let all = [Extent::new(0, SIZE)];
    let cycle = || -> Outcome {
        let device = device(SOFTWARE)?;
        let copy = device.device_copy()?.ok_or("it does not copy")?;
        let mut gather = copy.gather(&source, &destination, Fences::Explicit)?;
        let mut other = copy.gather(&source, &destination, Fences::Explicit)?;
        let done = gather.submit(&all, 0)?;
        ensure!(gather.wait(done, Duration::from_secs(60))?, "it takes too long");
        let ticket = gather.submit(&all, 0)?;
        device.pretend_lost();
        gone(gather.submit(&all, 0).map(drop))?;
        gone(gather.wait(ticket, Duration::MAX).map(drop))?;
        gone(gather.completed().map(drop))?;
        gone(gather.sync_file(ticket).map(drop))?;
        // And whatever else it does.
        gone(other.submit(&all, 0).map(drop))?;
        gone(copy.gather(&source, &destination, Fences::Explicit).map(drop))?;
        gone(copy.sha256(&source, &all).map(drop))?;
        gone(copy.first_difference(&source, all[0], &destination, 0).map(drop))
    };
    cycle()?;
    let before = descriptors()?;
    for _ in 0..5 {
        cycle()?;
    }
    ensure!(descriptors()? == before, "{} descriptors are open instead of {before}", descriptors()?);
    // Another one of the same device, taken into use anew, is not lost.
    let copy = device(SOFTWARE)?.device_copy()?.ok_or("it does not copy")?;
    copy.sha256(&source, &all)?;
    Ok(())
}
