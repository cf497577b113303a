//! `pin`: holds a buffer where an RDMA device reaches it, and shows the evidence.

mod report;
mod watch;

use std::sync::Arc;

use anyhow::{Result, bail};
use devmem_backends::find;
use devmem_provider::{Buffer, Forecast, PinnedBuffer, Request, Require};
use devmem_receive::rdma::{AccessFlags, Device, ProtectionDomain};

use crate::arguments::{Demand, PinOptions};
use crate::witness::{Witness, can_be_touched};
use report::Report;
use watch::{Ending, Signals};

/// Pins, tells, and waits for a signal.
pub(crate) fn run(options: &PinOptions) -> Result<()> {
    // From now on a signal ends the wait, and nothing else.
    let signals = Signals::take()?;
    let provider = find(&options.provider)?;
    let device = match &options.rdma {
        Some(selector) => Device::find(selector)?,
        None => Device::first()?,
    };
    let mut domain = ProtectionDomain::open(&device)?.with_access(options.access());
    let buffer: Arc<dyn Buffer> = Arc::from(provider.allocate(&request(options))?);
    let mut witness = Witness::call()?;
    // Drivers that allocate late put the pages where they belong when they are asked where they are.
    buffer.residency()?;
    let seen_before = match &mut witness {
        Some(witness) if can_be_touched(&*provider, options.placement.placement()) => {
            witness.locate_receive_buffer(&buffer.export()?).ok()
        }
        _ => None,
    };
    let forecast = Forecast::of(&domain, &*buffer)?;
    let events = domain.events()?;
    let pinned = PinnedBuffer::new(&mut domain, buffer, options.require())?;
    let seen_after =
        witness.as_mut().and_then(|witness| witness.locate_receive_buffer(pinned.pin().dma_buf()).ok());
    let report =
        Report { provider: &*provider, forecast: &forecast, pinned: &pinned, seen_before, seen_after };
    report.print(options.json)?;
    let mut watched = watch::Watched { pinned, events, json: options.json };
    let ending = watched.wait(&signals, options.seconds)?;
    watched.release()?;
    match ending {
        Ending::Asked => Ok(()),
        Ending::RequirementBroken => bail!("the buffer left device-local memory while it was pinned"),
        Ending::ExporterGone => bail!("the provider's device went away while the buffer was pinned"),
        Ending::DeviceGone => bail!("{device} went away while the buffer was pinned"),
    }
}

fn request(options: &PinOptions) -> Request {
    let request = Request::bytes(options.size).name("pinned");
    let Some(placement) = options.placement.placement() else { return request };
    if options.placement_only { request.require(placement) } else { request.prefer(placement) }
}

impl PinOptions {
    fn require(&self) -> Require {
        match self.require {
            Demand::Anywhere => Require::Anywhere,
            Demand::DeviceLocal => Require::DeviceLocal,
        }
    }

    fn access(&self) -> AccessFlags {
        let mut access = AccessFlags::LOCAL_WRITE;
        access.set(AccessFlags::REMOTE_WRITE, self.remote_write);
        access.set(AccessFlags::REMOTE_READ, self.remote_read);
        access
    }
}
