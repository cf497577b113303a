//! Making what a NIC has scattered over the receive buffer contiguous in a second buffer.
//!
//! ```text
//! receive ─payload→ StripeGather ─submit→ Ticket ──┐ completed
//!         ─fragments→ Held ──────────── close ─────┴──────────► release to the NIC
//! ```
//!
//! The header and the digest of a stripe lie in the receive buffer as well. They are framing, which the CPU reads; of
//! the payload it reads nothing. What arrived in host memory the CPU copies, and it is counted.

mod destination;
mod held;
mod stripe;
mod summary;
#[cfg(test)]
mod tests;
mod verification;

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use devmem_backends::cpu_copy::CpuCopy;
use devmem_backends::find;
use devmem_provider::device_copy::{DeviceCopy, Fences, Worker};
use devmem_provider::{Buffer, DmaBuf, ErrorKind, Extent, Provider};

use super::output::Output;
use super::summary::Totals;
use crate::arguments::{Path, ReceiveOptions};
use crate::transfer::Header;
use crate::witness::can_be_touched;
use destination::{Destination, Room};
pub(crate) use held::{Held, Share};
pub(crate) use stripe::{Placed, StripeGather};
pub(crate) use summary::GatherSummary;

/// Who gathers a file, and where to.
#[derive(Debug)]
pub(crate) struct Gatherer {
    provider: Arc<dyn Provider>,
    copy: Arc<dyn DeviceCopy>,
    /// Who computes the digests, if any are wanted.
    verifier: Option<Arc<dyn DeviceCopy>>,
    room: Room,
    source: DmaBuf,
    destination: OnceLock<Destination>,
    /// Held while the destination is allocated.
    allocating: Mutex<()>,
}

impl Gatherer {
    /// The one that was asked for, if any. Tries whether it can read from `source`, before anything else is done.
    pub(crate) fn choose(
        options: &ReceiveOptions,
        receiving: &Arc<dyn Provider>,
        source: &dyn Buffer,
    ) -> Result<Option<Self>> {
        let Some(choice) = &options.gather else { return Ok(None) };
        if options.path == Path::Host {
            bail!(
                "cannot gather on the path host, where no payload comes to a buffer; use --path devmem-tcp, zcrx or copy"
            );
        }
        let provider = match choice {
            Some(selector) => find(selector)?,
            None => Arc::clone(receiving),
        };
        let copy = provider.device_copy()?.unwrap_or_else(|| Arc::new(CpuCopy));
        let room = Room { limit: options.gather_limit, placement: options.gather_placement.placement() };
        let mut gatherer = Self {
            provider,
            copy,
            verifier: None,
            room,
            source: source.export()?,
            destination: OnceLock::new(),
            allocating: Mutex::new(()),
        };
        gatherer.attempt(!options.discard).with_context(|| {
            format!(
                "{} cannot gather what is received into a buffer of {}",
                gatherer.name(),
                receiving.identity()
            )
        })?;
        Ok(Some(gatherer))
    }

    /// Tries what will be needed. Some devices copy and do not compute: then the CPU verifies.
    fn attempt(&mut self, verify: bool) -> Result<()> {
        let destination = destination::allocate(&*self.provider, self.room.placement, 1)?.export()?;
        self.copy.gather(&self.source, &destination, Fences::Explicit)?;
        if verify {
            self.verifier = Some(match self.copy.sha256(&destination, &[Extent::new(0, 1)]) {
                Ok(_) => Arc::clone(&self.copy),
                Err(error) if error.kind() == ErrorKind::Unsupported => Arc::new(CpuCopy),
                Err(error) => return Err(error.into()),
            });
        }
        Ok(())
    }

    /// Begins with the stripe that `header` announces; the first one makes room for the file.
    pub(crate) fn begin(&self, header: &Header, from_buffer: bool) -> Result<StripeGather<'_>> {
        let destination = self.make_room(header)?;
        if !destination.expects(header) {
            bail!("the connections belong to different transfers; let one sender send at a time");
        }
        // The NIC adds no fence, and nobody else works on the buffers.
        let gather = from_buffer
            .then(|| self.copy.gather(&self.source, destination.dma_buf(), Fences::Explicit))
            .transpose()?;
        Ok(StripeGather::new(gather, self.copy.worker(), destination))
    }

    fn make_room(&self, header: &Header) -> Result<&Destination> {
        let _allocating = self.allocating.lock().map_err(|_| anyhow!("a receiving thread panicked"))?;
        if self.destination.get().is_none() {
            let destination = Destination::allocate(&*self.provider, self.room, header)?;
            return Ok(self.destination.get_or_init(|| destination));
        }
        self.destination.get().context("there is no room for the file")
    }

    /// The buffer of the gathered file, if the CPU can touch it without moving it.
    pub(crate) fn touchable_file(&self) -> Option<&DmaBuf> {
        let touchable = can_be_touched(&*self.provider, self.room.placement);
        self.destination.get().filter(|_| touchable).map(Destination::dma_buf)
    }

    /// Verifies the file on the device, writes `output`, and tells what gathering came to.
    pub(crate) fn conclude(&self, totals: &mut Totals, output: Option<&Output>) -> Result<GatherSummary> {
        let destination = self.destination.get().context("nothing was gathered")?;
        let residency = destination.buffer().residency()?;
        let started = Instant::now();
        if let Some(verifier) = &self.verifier {
            verification::verify(&**verifier, destination.dma_buf(), totals)?;
        }
        let digest_seconds = started.elapsed().as_secs_f64();
        let verifier = self.verifier.as_ref().map(|verifier| verifier.worker());
        let mut read_back = if verifier == Some(Worker::Cpu) { totals.file_bytes() } else { 0 };
        if let Some(output) = output.filter(|_| totals.digests_match() != Some(false)) {
            destination.read_back(&output.file())?;
            read_back += totals.file_bytes();
        }
        let placed = totals.placed();
        Ok(GatherSummary {
            gathered_bytes: Some(placed.by_device),
            gather_batches: Some(placed.batches),
            gather_provider: Some(self.provider.identity().name.clone()),
            gather_worker: Some(self.copy.worker().to_string()),
            gather_buffer_bytes: Some(destination.dma_buf().size()),
            gather_residency: Some(residency.residency.to_string()),
            gather_region: residency.region,
            gather_residency_evidence: Some(residency.evidence),
            gather_tail_seconds: Some(placed.tail.as_secs_f64()),
            gather_verifier: verifier.map(|verifier| verifier.to_string()),
            gather_digest_seconds: verifier.map(|_| digest_seconds),
            read_back_bytes: Some(read_back),
        })
    }

    fn name(&self) -> String {
        match self.copy.worker() {
            Worker::Device => self.provider.identity().to_string(),
            _ => {
                format!("the CPU, in place of {}, which has no device that copies,", self.provider.identity())
            }
        }
    }
}
