//! Devices of Vulkan copy between buffers of their own and of other exporters.

use std::sync::Arc;

use devmem_backends::find;
use devmem_backends::vulkan::{CopyOptions, GatherMethod};
use devmem_provider::device_copy::Worker;
use devmem_provider::{Capabilities, Provider};

use crate::every_copy::{COPY_TESTS, Copies, CopyTest};
use crate::harness::{Failure, Outcome};
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
