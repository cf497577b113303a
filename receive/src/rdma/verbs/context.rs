//! An opened device.

use std::fmt;
use std::sync::Arc;

use devmem_provider::{Error, ErrorKind, Result};
use nix::errno::Errno;

use super::abi::efa_capabilities;
use super::completion_queue::CompletionQueue;
use super::domain::ProtectionDomain;
use super::failure::VerbsFailure;
use super::library::{self, INSTALL};
use super::sys;
use crate::rdma::{Device, Gid};

/// The kernel driver of devices that have scalable reliable datagrams.
const EFA_DRIVER: &str = "efa";

/// Ports are counted from 1 on. Devices with several are several devices for most programs; here it is the first one.
const PORT: u8 = 1;

/// An RDMA device that was opened by rdma-core's library.
#[derive(Clone)]
pub struct Context {
    pub(super) raw: Arc<sys::Context>,
    pub(super) device: Arc<Device>,
    capabilities: Capabilities,
}

/// What a device can do with queue pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// The sort of queue pairs that moves files best: reliable, and with RDMA.
    pub transport: Transport,
    /// Whether requests write to peers' memory.
    pub rdma_write: bool,
    /// Whether requests read peers' memory.
    pub rdma_read: bool,
    /// The longest RDMA in bytes.
    pub maximum_rdma_bytes: u32,
    /// The longest message in bytes.
    pub maximum_message_bytes: u32,
    /// The most requests that may be outstanding in a queue pair.
    pub maximum_requests: u32,
    /// The most receives that may be posted to a queue pair.
    pub maximum_receives: u32,
    /// The most completions that a completion queue holds.
    pub maximum_completions: u32,
    /// The most reads that may be outstanding at a connected queue pair.
    pub(super) maximum_reads: u8,
}

/// A sort of queue pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Transport {
    /// Scalable reliable datagrams (SRD): messages and RDMA with any number of peers, delivered once and in any order.
    /// EFA devices have them.
    ScalableReliableDatagram,
    /// Unreliable datagrams (UD): messages of up to the network's packet size, to any number of peers. In a receive 40
    /// bytes come before the message, with the sender's address or not meant.
    UnreliableDatagram,
    /// A reliable connection (RC): messages and RDMA with one peer, in order.
    ReliableConnection,
}

impl Transport {
    /// Its short name in the field.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ScalableReliableDatagram => "SRD",
            Self::UnreliableDatagram => "UD",
            Self::ReliableConnection => "RC",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Context {
    /// Opens a device.
    ///
    /// # Errors
    ///
    /// [`VerbsFailure::NoLibrary`], [`VerbsFailure::LibraryTooOld`], or [`VerbsFailure::NoProvider`] if the library does not
    /// list the device; and what the kernel says where its node may not be opened.
    pub fn open(device: &Device) -> Result<Self> {
        let verbs = library::verbs()?;
        let failed = |errno| Error::from_errno(errno, "open the RDMA device").on(device);
        let raw = match sys::Context::open(verbs, &device.name).map_err(failed)? {
            Some(raw) => raw,
            None => return Err(not_listed(verbs, device)),
        };
        let capabilities = Capabilities::of(&raw, device)?;
        Ok(Self { raw: Arc::new(raw), device: Arc::new(device.clone()), capabilities })
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// What it can do.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    /// Makes sure that requests of the device write to peers' memory.
    ///
    /// # Errors
    ///
    /// [`VerbsFailure::NoRdmaWrite`].
    pub fn require_rdma_write(&self) -> Result<()> {
        if self.capabilities.rdma_write {
            return Ok(());
        }
        Err(VerbsFailure::NoRdmaWrite
            .error("write to peers' memory")
            .on(&*self.device)
            .remedy("use a device that has RDMA writes, or send over TCP"))
    }

    /// The address by which peers reach the device: of those of its first port, one that routers carry (RoCE v2) before others,
    /// and one that holds an address of IPv4 before others.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::WrongState`] if it has none.
    pub fn gid(&self) -> Result<Gid> {
        let port = self.device.ports.iter().find(|port| port.number == PORT);
        let gids = port.map(|port| port.gids.as_slice()).unwrap_or_default();
        let rank = |gid: &&Gid| (self.is_routable(gid), gid.address.to_ipv4_mapped().is_some());
        // Of equals, the first.
        gids.iter().rev().max_by_key(rank).copied().ok_or_else(|| {
            Error::new(ErrorKind::WrongState, "find the address of the RDMA device")
                .on(&*self.device)
                .because("its first port has none")
                .remedy("set the interface of the device up, and give it an address")
        })
    }

    /// Whether an address is one of RoCE's second version. On Ethernet a port has each address once for each version
    /// (`Documentation/ABI/stable/sysfs-class-infiniband`).
    fn is_routable(&self, gid: &Gid) -> bool {
        let name = &self.device.name;
        let kind = format!("/sys/class/infiniband/{name}/ports/{PORT}/gid_attrs/types/{}", gid.index);
        std::fs::read_to_string(kind).is_ok_and(|kind| kind.trim_end() == "RoCE v2")
    }

    /// The local identifier of the first port, which is 0 unless the network is InfiniBand.
    pub(super) fn port(&self) -> Result<(u8, super::abi::PortAttributes)> {
        let port = self.raw.port(PORT);
        let port = port.map_err(|errno| Error::from_errno(errno, "look at the port").on(&*self.device))?;
        Ok((PORT, port))
    }

    /// Makes a protection domain, to which queue pairs and memory regions belong.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn protection_domain(&self) -> Result<ProtectionDomain> {
        ProtectionDomain::allocate(self)
    }

    /// Makes a completion queue with room for `entries` completions.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] for more than the device has room for; what the kernel says.
    pub fn completion_queue(&self, entries: u32) -> Result<CompletionQueue> {
        CompletionQueue::create(self, entries)
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("device", &self.device.name).finish_non_exhaustive()
    }
}

fn not_listed(verbs: &'static library::Verbs, device: &Device) -> Error {
    let listed = match sys::names(verbs) {
        Ok(names) if names.is_empty() => "none".to_owned(),
        Ok(names) => names.join(", "),
        Err(errno) => errno.desc().to_owned(),
    };
    let driver = device.driver.as_deref().unwrap_or("its driver");
    VerbsFailure::NoProvider
        .error("open the RDMA device")
        .on(device)
        .because(format!("rdma-core has no provider for {driver} here: it lists {listed}"))
        .remedy(INSTALL)
}

impl Capabilities {
    fn of(raw: &sys::Context, device: &Device) -> Result<Self> {
        let failed = |errno| Error::from_errno(errno, "look what the RDMA device can do").on(device);
        let attributes = raw.attributes().map_err(failed)?;
        let port = raw.port(PORT).map_err(failed)?;
        let count = |number: i32| u32::try_from(number).unwrap_or(0);
        let of_connections = Self {
            transport: Transport::ReliableConnection,
            rdma_write: true,
            rdma_read: true,
            maximum_rdma_bytes: port.max_msg_sz,
            maximum_message_bytes: port.max_msg_sz,
            maximum_requests: count(attributes.max_qp_wr),
            maximum_receives: count(attributes.max_qp_wr),
            maximum_completions: count(attributes.max_cqe),
            maximum_reads: u8::try_from(attributes.max_qp_init_rd_atom.min(attributes.max_qp_rd_atom))
                .unwrap_or(16),
        };
        if device.driver.as_deref() != Some(EFA_DRIVER) {
            return Ok(of_connections);
        }
        match raw.efa_attributes(library::efa()?) {
            Ok(efa) => Ok(Self {
                transport: Transport::ScalableReliableDatagram,
                rdma_write: efa.device_caps & efa_capabilities::RDMA_WRITE != 0,
                rdma_read: efa.device_caps & efa_capabilities::RDMA_READ != 0,
                maximum_rdma_bytes: efa.max_rdma_size,
                maximum_requests: efa.max_sq_wr,
                maximum_receives: efa.max_rq_wr,
                ..of_connections
            }),
            Err(Errno::EOPNOTSUPP) => Ok(of_connections),
            Err(errno) => Err(failed(errno)),
        }
    }
}
