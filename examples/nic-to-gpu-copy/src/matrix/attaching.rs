//! The two ways of attaching to a buffer.

use std::time::Duration;

use devmem_provider::{Agreement, Buffer, Error, Forecast, Importer, Pin, Require};
use devmem_receive::devmem::{Binding, DevmemTcp};
use devmem_receive::nic::Prepared;
use devmem_receive::rdma::{MemoryRegion, ProtectionDomain};

/// How long the kernel may take to let go of a buffer.
const UNBIND_LIMIT: Duration = Duration::from_secs(5);

/// A way of attaching.
#[derive(Debug, Clone, Copy)]
pub(super) enum Attaching<'a> {
    /// To a receive queue, by devmem TCP.
    Binding(&'a Prepared),
    /// As a memory region of an RDMA device.
    Registering(&'a ProtectionDomain),
}

/// What holds a buffer.
#[derive(Debug)]
pub(super) enum Attached {
    Binding(Pin<Binding>),
    Region(Pin<MemoryRegion>),
}

impl Attaching<'_> {
    /// What the importer is called in a row.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Binding(_) => "devmem TCP",
            Self::Registering(_) => "RDMA",
        }
    }

    pub(super) fn foretell(self, buffer: &dyn Buffer) -> Result<Forecast, Error> {
        match self {
            Self::Binding(nic) => Forecast::of(&DevmemTcp::on(nic), buffer),
            Self::Registering(domain) => Forecast::of(domain, buffer),
        }
    }

    /// Whether an error is the exporter's refusal of this importer.
    pub(super) fn is_refusal_of_exporter(self, error: &Error) -> bool {
        match self {
            Self::Binding(nic) => DevmemTcp::on(nic).is_refusal_of_exporter(error),
            Self::Registering(domain) => domain.is_refusal_of_exporter(error),
        }
    }

    pub(super) fn pin(self, buffer: &dyn Buffer, require: Require) -> Result<Attached, Error> {
        match self {
            Self::Binding(nic) => nic.pin(buffer, require).map(Attached::Binding),
            Self::Registering(domain) => Pin::new(&mut domain.clone(), buffer, require).map(Attached::Region),
        }
    }
}

impl Attached {
    /// Holds what happened against what was foretold.
    pub(super) fn compare(&self, forecast: &Forecast) -> Agreement {
        match self {
            Self::Binding(pin) => forecast.compare(Some(pin)),
            Self::Region(pin) => forecast.compare(Some(pin)),
        }
    }

    /// Waits until the buffer, and the queue, are free for the next attempt.
    pub(super) fn release(self) -> Result<(), Error> {
        match self {
            Self::Binding(pin) => pin.into_attachment().unbind(UNBIND_LIMIT).map(drop),
            Self::Region(pin) => pin.into_attachment().deregister(),
        }
    }
}
