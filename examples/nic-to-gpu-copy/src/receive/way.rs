//! Choosing the way of the payload, and setting the NIC up for it.

use std::fmt::Write;
use std::time::Duration;

use anyhow::Result;
use devmem_provider::dma_buf::Mapping;
use devmem_provider::topology::{Machine, Verdict};
use devmem_provider::{Buffer, DmaBuf, Error, ErrorKind, Importer, Pin, Require, ResidencyEvidence};
use devmem_receive::nic::{self, Flow, Nic, Plan, Queues};
use devmem_receive::path::{self, Binding};
use devmem_receive::rdma::AccessFlags;
use devmem_receive::rdma::verbs::{MemoryRegion, ProtectionDomain};

use super::connection::Way;
use crate::arguments::{Demand, Path, ReceiveOptions};
use crate::rdma::{self, Receiver};

/// The names of the other ways, as the summary tells them.
const RDMA: &str = "rdma";
const COPY: &str = "copy";
const HOST: &str = "host";

/// What a device writes into the buffer by.
#[derive(Debug)]
enum Attached {
    // The order of the fields is the order of release: the queues are unbound before the NIC is restored.
    Queues { pin: Pin<Binding>, nic: Box<nic::Prepared> },
    Region { pin: Pin<MemoryRegion>, domain: ProtectionDomain },
}

/// A buffer, ready to be received into.
#[derive(Debug)]
pub(crate) struct Prepared {
    attached: Option<Attached>,
    pub(crate) dma_buf: DmaBuf,
    pub(crate) path: &'static str,
    pub(crate) reason: Option<String>,
    pub(crate) before: ResidencyEvidence,
    pub(crate) after: ResidencyEvidence,
    /// What the kernel's rule says of the way from an RDMA device to the memory, and why.
    pub(crate) peer_to_peer: Option<(&'static str, String)>,
}

impl Prepared {
    /// Takes the way that was asked for.
    pub(crate) fn choose(options: &ReceiveOptions, buffer: &dyn Buffer) -> Result<Self> {
        match options.path {
            Path::DevmemTcp => Ok(Self::device(path::Path::DevmemTcp, options, buffer)?),
            Path::Zcrx => Ok(Self::device(path::Path::Zcrx, options, buffer)?),
            Path::Rdma => Ok(Self::rdma(options, buffer)?),
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
        let pin = nic.pin_by(path, buffer, required(options))?;
        Ok(Self {
            dma_buf: pin.dma_buf().try_clone()?,
            before: pin.residency_before().clone(),
            after: pin.residency().clone(),
            attached: Some(Attached::Queues { pin, nic: Box::new(nic) }),
            path: path.name(),
            reason: None,
            peer_to_peer: None,
        })
    }

    fn rdma(options: &ReceiveOptions, buffer: &dyn Buffer) -> Result<Self> {
        let context = rdma::open(options.rdma.as_deref())?;
        let access = AccessFlags::LOCAL_WRITE | AccessFlags::REMOTE_WRITE;
        let mut domain = context.protection_domain()?.with_access(access);
        let pin = Pin::new(&mut domain, buffer, required(options))?;
        Ok(Self {
            dma_buf: pin.dma_buf().try_clone()?,
            before: pin.residency_before().clone(),
            after: pin.residency().clone(),
            peer_to_peer: way_between(buffer, &domain),
            attached: Some(Attached::Region { pin, domain }),
            path: RDMA,
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
                .remedy("use --path devmem-tcp, zcrx or rdma"));
        }
        let residency = buffer.residency()?;
        Ok(Self {
            dma_buf: buffer.export()?,
            before: residency.clone(),
            after: residency,
            attached: None,
            path,
            reason,
            peer_to_peer: None,
        })
    }

    /// The registered memory and what it belongs to, on the path rdma.
    pub(crate) fn region(&self) -> Option<(&ProtectionDomain, &MemoryRegion)> {
        match &self.attached {
            Some(Attached::Region { pin, domain }) => Some((domain, pin)),
            _ => None,
        }
    }

    /// The way, for the connections. `receiver` is there on the path rdma.
    pub(crate) fn way<'session>(
        &'session self,
        mapping: &'session Mapping,
        receiver: Option<&'session Receiver<'session>>,
    ) -> Way<'session> {
        match (&self.attached, receiver) {
            (_, Some(receiver)) => Way::Rdma { receiver, mapping },
            (Some(Attached::Queues { pin, .. }), None) => Way::Device { binding: pin, mapping },
            _ if self.path == HOST => Way::Host,
            _ => Way::Copy { mapping },
        }
    }

    /// The name of the NIC, or of the RDMA device.
    pub(crate) fn nic_name(&self) -> Option<String> {
        match self.attached.as_ref()? {
            Attached::Queues { nic, .. } => Some(nic.nic().name().to_owned()),
            Attached::Region { domain, .. } => Some(domain.context().device().name.clone()),
        }
    }

    /// Bytes that the kernel copied into the buffer, where it counts them.
    pub(crate) fn kernel_copied_bytes(&self) -> Option<u64> {
        match self.attached.as_ref()? {
            Attached::Queues { pin, .. } => pin.copied_bytes(),
            // It has no part in RDMA.
            Attached::Region { .. } => Some(0),
        }
    }

    pub(crate) fn queues(&self) -> Vec<u32> {
        match &self.attached {
            Some(Attached::Queues { nic, .. }) => nic.queues().to_vec(),
            _ => Vec::new(),
        }
    }

    /// Unbinds, waits until the kernel has let go of the buffer, and puts the NIC's settings back. Returns
    /// whether they are as they were, if any were changed.
    pub(crate) fn finish(self, limit: Duration) -> Result<Option<bool>> {
        let Some(Attached::Queues { pin, nic }) = self.attached else { return Ok(None) };
        if !pin.into_attachment().unbind(limit)? {
            let seconds = limit.as_secs();
            eprintln!("nic-to-gpu-copy: the kernel still holds the buffer {seconds} s after the unbind");
        }
        let report = nic.restore()?;
        if !report.is_complete() {
            eprintln!("nic-to-gpu-copy: {report}");
        }
        Ok(Some(report.is_complete()))
    }
}

fn required(options: &ReceiveOptions) -> Require {
    match options.require {
        Demand::Anywhere => Require::Anywhere,
        Demand::DeviceLocal => Require::DeviceLocal,
    }
}

/// What the kernel's rule says of the way from the importer to the buffer's memory, and why; `None` where one of them is no
/// PCI function.
fn way_between(buffer: &dyn Buffer, importer: &impl Importer) -> Option<(&'static str, String)> {
    let (exporter, importer) = (buffer.exporter()?.pci?, importer.device()?);
    let topology = Machine::running().topology(exporter, importer).ok()?;
    let verdict = match &topology.verdict {
        Verdict::Reachable(_) => "reachable",
        Verdict::NotReachable(_) => "not-reachable",
        _ => "unknown",
    };
    Some((verdict, topology.verdict.to_string()))
}

/// Whether an error says that this machine, driver or kernel lacks something.
fn is_lack(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::PermissionDenied | ErrorKind::NotFound)
}
