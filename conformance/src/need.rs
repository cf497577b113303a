//! What a check needs, each found by trying it.

use std::fmt;

use devmem_provider::dma_buf::FenceUse;
use devmem_provider::{Capabilities, DmaBuf, ErrorKind};

use devmem_receive::nic::Support;
use devmem_receive::rdma::AccessFlags;

use crate::context::{Context, no_nic, no_peer};
use crate::path::{Feature, ReceivePath};
use crate::rdma_device::no_rdma_device;
use crate::rdma_transfers::Transfer;
use crate::verdict::Skip;

/// Something that must be there for a check to say anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Need {
    /// The provider says that it can do this.
    Capability(Capabilities),
    /// The provider says that it cannot do this: the check looks at how it refuses.
    Lack(Capabilities),
    /// The kernel has sync_files.
    SyncFile,
    /// A NIC that can receive into device memory. Checks with this need are done for each receive path.
    Nic,
    /// A receive path that has this. Goes with [`Nic`](Self::Nic).
    Path(Feature),
    /// An RDMA device that makes memory regions of DMA-bufs.
    Rdma,
    /// Queue pairs of that device that transfer by this. Goes with [`Rdma`](Self::Rdma).
    RdmaTransfers(Transfer),
    /// A machine that sends to it.
    Peer,
    /// `/proc` shows this process's descriptors.
    Proc,
    /// The caller lets checks take devices away from the machine ([`Environment::disruptive`]).
    ///
    /// [`Environment::disruptive`]: crate::Environment::disruptive
    Disruption,
}

impl Need {
    /// Tries it. The error says what is missing, how that was found, and what would change it.
    pub(crate) fn probe(self, context: &Context<'_>) -> Result<(), Skip> {
        let provider = context.provider();
        let told = provider.capabilities();
        let says = |what: String| Skip {
            reason: what,
            found_by: format!("capabilities of {}", provider.identity().name),
            remedy: None,
        };
        match self {
            Self::Capability(wanted) if !told.contains(wanted) => {
                Err(says(format!("the provider does not offer {}", names(wanted - told))))
            }
            Self::Lack(unwanted) if told.intersects(unwanted) => {
                Err(says(format!("the provider offers {}", names(unwanted & told))))
            }
            Self::Capability(_) | Self::Lack(_) => Ok(()),
            Self::Nic => can_receive(context),
            Self::Path(feature) => match context.path() {
                Ok(path) if path.has(feature) => Ok(()),
                Ok(path) => Err(feature.missing_in(path.name())),
                Err(_) => Err(no_nic()),
            },
            Self::Rdma => can_register(context),
            Self::RdmaTransfers(transfer) => match &context.environment().rdma {
                // What the heaps say is for others to find wrong.
                Some(device) => transfer.probe(&**device, context.size().unwrap_or(1) as usize),
                None => Err(no_rdma_device()),
            },
            Self::Peer => match context.environment().peer {
                Some(_) => Ok(()),
                None => Err(no_peer()),
            },
            Self::SyncFile => {
                let attempt = || {
                    let exported = context.dma_buf()?;
                    // What is no DMA-buf says the same as a kernel without sync_files.
                    DmaBuf::from_fd(exported.into_fd()?)?.export_sync_file(FenceUse::Read)
                };
                match attempt() {
                    Err(error) if error.kind() == ErrorKind::Unsupported => Err(Skip {
                        reason: error.to_string(),
                        found_by: "an export of the fences of a new buffer".to_owned(),
                        remedy: error.remedy_text().map(str::to_owned),
                    }),
                    // Any other failure is for the check to find.
                    _ => Ok(()),
                }
            }
            Self::Disruption if context.environment().disruptive => Ok(()),
            Self::Disruption => Err(Skip {
                reason: "it takes a device away from the machine, which nobody asked for".to_owned(),
                found_by: "the environment of the run".to_owned(),
                remedy: Some("allow it: `--disruptive`".to_owned()),
            }),
            Self::Proc => std::fs::read_dir("/proc/self/fd").map(drop).map_err(|error| Skip {
                reason: format!("/proc/self/fd cannot be listed: {error}"),
                found_by: "listing it".to_owned(),
                remedy: Some("mount /proc".to_owned()),
            }),
        }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Capability(wanted) => f.write_str(&names(*wanted)),
            Self::Lack(unwanted) => write!(f, "no {}", names(*unwanted)),
            Self::SyncFile => f.write_str("sync_files in the kernel"),
            Self::Nic => f.write_str("a NIC that can receive into device memory"),
            Self::Path(feature) => write!(f, "a receive path with {feature}"),
            Self::Rdma => f.write_str("an RDMA device that registers DMA-bufs"),
            Self::RdmaTransfers(transfer) => {
                write!(f, "an RDMA device with {transfer}, and rdma-core's library")
            }
            Self::Peer => f.write_str("a machine that sends"),
            Self::Proc => f.write_str("/proc"),
            Self::Disruption => f.write_str("leave to take devices away (--disruptive)"),
        }
    }
}

/// Whether kernel and NIC can receive by the path, as far as that is seen without changing anything.
fn can_receive(context: &Context<'_>) -> Result<(), Skip> {
    let nic = context.environment().nic.as_ref().ok_or_else(no_nic)?;
    if let Some(lack) = context.path().ok().and_then(ReceivePath::lack) {
        return Err(lack);
    }
    let refused = |error: devmem_provider::Error| Skip {
        reason: error.to_string(),
        found_by: error.operation().to_owned(),
        remedy: error.remedy_text().map(str::to_owned),
    };
    let can = nic.open().and_then(|nic| nic.capabilities()).map_err(refused)?;
    if can.can_receive() != Support::No {
        return Ok(());
    }
    let missing = can.iter().find(|capability| capability.support == Support::No);
    Err(Skip {
        reason: missing.map(ToString::to_string).unwrap_or_default(),
        found_by: missing.map_or("the NIC's capabilities", |capability| capability.found_by).to_owned(),
        remedy: missing.and_then(|capability| capability.remedy).map(str::to_owned),
    })
}

/// Whether the RDMA device makes memory regions of DMA-bufs: asked with a descriptor that is not open.
fn can_register(context: &Context<'_>) -> Result<(), Skip> {
    let device = context.environment().rdma.as_ref().ok_or_else(no_rdma_device)?;
    let answer = device.open().and_then(|domain| domain.probe(AccessFlags::LOCAL_WRITE));
    answer.map_err(|error| Skip {
        reason: error.to_string(),
        found_by: error.operation().to_owned(),
        remedy: error.remedy_text().map(str::to_owned),
    })
}

/// The names of capabilities, as in the provider's interface.
fn names(capabilities: Capabilities) -> String {
    let names: Vec<&str> = capabilities.iter_names().map(|(name, _)| name).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_told_by_their_names() {
        assert_eq!(names(Capabilities::ZEROED | Capabilities::RESIDENCY), "ZEROED, RESIDENCY");
    }
}
