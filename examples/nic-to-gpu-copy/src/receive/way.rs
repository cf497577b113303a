//! Choosing the way of the payload, and setting the NIC up for it.

use std::fmt::Write;
use std::time::Duration;

use anyhow::Result;
use devmem_provider::dma_buf::Mapping;
use devmem_provider::{Buffer, DmaBuf, Error, ErrorKind, Pin, Require, ResidencyEvidence};
use devmem_receive::nic::{self, Flow, Nic, Plan, Queues};
use devmem_receive::path::{self, Binding};

use super::connection::Way;
use crate::arguments::{Demand, Path, ReceiveOptions};

/// The names of the other ways, as the summary tells them.
const COPY: &str = "copy";
const HOST: &str = "host";

/// A buffer, ready to be received into.
#[derive(Debug)]
pub(crate) struct Prepared {
    // The order of the fields is the order of release: the queues are unbound before the NIC is restored.
    pin: Option<Pin<Binding>>,
    nic: Option<nic::Prepared>,
    pub(crate) dma_buf: DmaBuf,
    pub(crate) path: &'static str,
    pub(crate) reason: Option<String>,
    pub(crate) before: ResidencyEvidence,
    pub(crate) after: ResidencyEvidence,
}

impl Prepared {
    /// Takes the way that was asked for.
    pub(crate) fn choose(options: &ReceiveOptions, buffer: &dyn Buffer) -> Result<Self> {
        match options.path {
            Path::DevmemTcp => Ok(Self::device(path::Path::DevmemTcp, options, buffer)?),
            Path::Zcrx => Ok(Self::device(path::Path::Zcrx, options, buffer)?),
            Path::Copy => Ok(Self::host(COPY, options, buffer, None)?),
            Path::Host => Ok(Self::host(HOST, options, buffer, None)?),
            Path::Auto => Self::first_possible(options, buffer),
        }
    }

    /// The first way that is possible.
    fn first_possible(options: &ReceiveOptions, buffer: &dyn Buffer) -> Result<Self> {
        let mut reason = String::new();
        for path in path::Path::ALL {
            match Self::device(path, options, buffer) {
                Ok(prepared) => {
                    let nic = prepared.nic_name().unwrap_or_default();
                    write!(reason, "{nic} can receive into device memory")?;
                    return Ok(Self { reason: Some(reason), ..prepared });
                }
                // Anything but a lack on the machine's side is the user's to mend.
                Err(error) if is_lack(&error) => write!(reason, "{path} is not possible: {error}; ")?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Self::host(COPY, options, buffer, Some(reason.trim_end_matches("; ").to_owned()))?)
    }

    fn device(path: path::Path, options: &ReceiveOptions, buffer: &dyn Buffer) -> Result<Self, Error> {
        let selector = match &options.nic {
            Some(nic) => nic.clone(),
            None if options.listen.ip().is_unspecified() => {
                return Err(Error::new(ErrorKind::InvalidInput, "choose a NIC")
                    .because(format!("{} is every address of this machine", options.listen.ip()))
                    .remedy("name the NIC with --nic, or listen on an address of its own"));
            }
            None => options.listen.ip().to_string(),
        };
        let mut flow = Flow::tcp_port(options.listen.port());
        if !options.listen.ip().is_unspecified() {
            flow = flow.to(options.listen.ip());
        }
        let plan = Plan::new(Queues::count(options.queues), flow).buffer_bytes(buffer.size());
        let nic = Nic::open(&selector)?.prepare(&plan)?;
        if let Some(recovered) = nic.recovered() {
            eprintln!("nic-to-gpu-copy: {recovered}");
        }
        let require = match options.require {
            Demand::Anywhere => Require::Anywhere,
            Demand::DeviceLocal => Require::DeviceLocal,
        };
        let pin = nic.pin_by(path, buffer, require)?;
        Ok(Self {
            dma_buf: pin.dma_buf().try_clone()?,
            before: pin.residency_before().clone(),
            after: pin.residency().clone(),
            pin: Some(pin),
            nic: Some(nic),
            path: path.name(),
            reason: None,
        })
    }

    fn host(
        path: &'static str,
        options: &ReceiveOptions,
        buffer: &dyn Buffer,
        reason: Option<String>,
    ) -> Result<Self, Error> {
        if options.require == Demand::DeviceLocal {
            return Err(Error::new(ErrorKind::InvalidInput, "demand device-local memory")
                .because(format!("on the path {path} the NIC does not write into the buffer"))
                .remedy("use --path devmem-tcp or zcrx"));
        }
        let residency = buffer.residency()?;
        Ok(Self {
            dma_buf: buffer.export()?,
            before: residency.clone(),
            after: residency,
            pin: None,
            nic: None,
            path,
            reason,
        })
    }

    /// The way, for the connections.
    pub(crate) fn way<'session>(&'session self, mapping: &'session Mapping) -> Way<'session> {
        match &self.pin {
            Some(pin) => Way::Device { binding: pin, mapping },
            None if self.path == HOST => Way::Host,
            None => Way::Copy { mapping },
        }
    }

    pub(crate) fn nic_name(&self) -> Option<String> {
        self.nic.as_ref().map(|nic| nic.nic().name().to_owned())
    }

    /// Bytes that the kernel copied into the buffer, where it counts them.
    pub(crate) fn kernel_copied_bytes(&self) -> Option<u64> {
        self.pin.as_ref()?.copied_bytes()
    }

    pub(crate) fn queues(&self) -> Vec<u32> {
        self.nic.as_ref().map(|nic| nic.queues().to_vec()).unwrap_or_default()
    }

    /// Unbinds, waits until the kernel has let go of the buffer, and puts the NIC's settings back. Returns
    /// whether they are as they were, if any were changed.
    pub(crate) fn finish(self, limit: Duration) -> Result<Option<bool>> {
        if let Some(pin) = self.pin
            && !pin.into_attachment().unbind(limit)?
        {
            let seconds = limit.as_secs();
            eprintln!("nic-to-gpu-copy: the kernel still holds the buffer {seconds} s after the unbind");
        }
        let Some(nic) = self.nic else { return Ok(None) };
        let report = nic.restore()?;
        if !report.is_complete() {
            eprintln!("nic-to-gpu-copy: {report}");
        }
        Ok(Some(report.is_complete()))
    }
}

/// Whether an error says that this machine, driver or kernel lacks something.
fn is_lack(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::PermissionDenied | ErrorKind::NotFound)
}
