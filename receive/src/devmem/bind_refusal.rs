//! Why the kernel refuses to bind a DMA-buf to receive queues.
//!
//! The kernel's checks, in the order in which it makes them, are in `net/core/netdev-genl.c`
//! (`netdev_nl_bind_rx_doit()`), `net/core/devmem.c` (`net_devmem_bind_dmabuf()`) and
//! `net/core/netdev_rx_queue.c` (`netif_mp_open_rxq()`). Many of them share an errno, so that the words of the
//! extended acknowledgement decide where there are any.

use devmem_provider::{Error, ErrorKind};
use nix::errno::Errno;

use crate::netlink::KernelError;

/// Why a bind was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BindRefusal {
    /// The caller lacks `CAP_NET_ADMIN` in the network namespace's user namespace.
    NoPrivilege,
    /// The caller lacks `CAP_NET_ADMIN` on the host: in the first user namespace.
    NoPrivilegeOnHost,
    /// There is no such interface in this network namespace.
    NoInterface,
    /// The driver cannot restart single queues, so that it cannot give one to a memory provider.
    NoQueueManagement,
    /// A queue's number is not that of an active receive queue.
    NoSuchQueue,
    /// The queues belong to different PCI functions of one interface.
    DifferentDevices,
    /// The interface does no DMA: a virtual device, or a queue that is leased to one.
    NoDma,
    /// The descriptor is not open.
    BadDescriptor,
    /// The descriptor is something else than a DMA-buf, or the buffer cannot be divided into pages.
    NotUsable,
    /// The exporter refuses the attachment. Exporters with memory that cannot move to system memory do:
    /// devmem TCP attaches without peer-to-peer.
    ExporterRefusedAttachment,
    /// The exporter refuses to map the attachment, for example because another importer holds the memory
    /// where this one cannot use it.
    ExporterRefusedMapping,
    /// A piece of the buffer is no multiple of the page size.
    UnalignedPieces,
    /// The queue is leased to a virtual interface.
    QueueLeased,
    /// Header split is off, or was never turned on explicitly.
    HeaderSplitDisabled,
    /// Header split is on, but leaves small packets whole (`hds-thresh`).
    HeaderSplitThreshold,
    /// An XDP program is attached to the interface.
    XdpAttached,
    /// The queue has a memory provider already.
    QueueAlreadyBound,
    /// The queue is in use by AF_XDP.
    QueueUsedByAfXdp,
    /// The driver cannot restart this very queue, or not in the state it is in. gve's queue 0 is one.
    QueueNotRestartable,
    /// The interface is down, and its driver can only bind while it is up.
    InterfaceDown,
    /// The driver did not create a page pool that takes device memory.
    NoDeviceMemoryPool,
    /// The driver's receive buffers are larger than a page.
    LargeReceiveBuffers,
    /// The driver or the memory cannot have receive buffers of the size that was asked for.
    ReceiveBufferSize,
    /// The kernel's zero-copy receive does not take DMA-bufs.
    NoDmaBufAreas,
    /// The driver or the kernel is out of memory.
    OutOfMemory,
    /// A reason that is not known here; the errno and the kernel's words say more.
    Other,
}

impl BindRefusal {
    /// Tells the reason from what the kernel said. `interface_up` is the state of the interface: some
    /// drivers' errno for "down" means other things as well.
    #[must_use]
    pub fn classify(error: &KernelError, interface_up: bool) -> Self {
        let words = error.message.as_deref().unwrap_or_default();
        let objects_to = |name: &str| {
            [&error.attribute, &error.missing].into_iter().flatten().any(|attribute| attribute.contains(name))
        };
        match error.errno {
            Errno::EPERM | Errno::EACCES if words.is_empty() => Self::NoPrivilege,
            _ if words.contains("Failed to bind dmabuf") => Self::ExporterRefusedAttachment,
            _ if words.contains("Failed to map dmabuf") => Self::ExporterRefusedMapping,
            _ if words.contains("PAGE_SIZE aligned") => Self::UnalignedPieces,
            _ if words.contains("tcp-data-split is disabled") => Self::HeaderSplitDisabled,
            _ if words.contains("hds-thresh") => Self::HeaderSplitThreshold,
            _ if words.contains("XDP program") => Self::XdpAttached,
            _ if words.contains("already memory provider bound") => Self::QueueAlreadyBound,
            _ if words.contains("AF_XDP") => Self::QueueUsedByAfXdp,
            _ if words.contains("leased") || words.contains("virtual netdev") => Self::QueueLeased,
            _ if words.contains("DMA device mismatch") => Self::DifferentDevices,
            _ if words.contains("support DMA") => Self::NoDma,
            Errno::EBADF => Self::BadDescriptor,
            Errno::ENODEV if interface_up => Self::NoInterface,
            Errno::EAGAIN | Errno::ENETDOWN | Errno::ENODEV if !interface_up => Self::InterfaceDown,
            Errno::EINVAL if objects_to("queue") => Self::NoSuchQueue,
            Errno::EINVAL => Self::NotUsable,
            Errno::EOPNOTSUPP => Self::NoQueueManagement,
            Errno::ERANGE => Self::QueueNotRestartable,
            Errno::ENODATA => Self::NoDeviceMemoryPool,
            Errno::E2BIG => Self::LargeReceiveBuffers,
            Errno::ENOMEM | Errno::ENOBUFS => Self::OutOfMemory,
            _ => Self::Other,
        }
    }

    /// The reason that an error of [`DevmemTcp::attach`](super::DevmemTcp) carries.
    #[must_use]
    pub fn of(error: &Error) -> Option<Self> {
        std::error::Error::source(error)?.downcast_ref::<Self>().copied()
    }

    /// The kind of error that it is.
    #[must_use]
    pub fn kind(self) -> ErrorKind {
        match self {
            Self::NoPrivilege | Self::NoPrivilegeOnHost => ErrorKind::PermissionDenied,
            Self::NoInterface => ErrorKind::NotFound,
            Self::NoQueueManagement
            | Self::DifferentDevices
            | Self::NoDma
            | Self::ExporterRefusedAttachment
            | Self::UnalignedPieces
            | Self::QueueNotRestartable
            | Self::NoDeviceMemoryPool
            | Self::LargeReceiveBuffers
            | Self::ReceiveBufferSize
            | Self::NoDmaBufAreas => ErrorKind::Unsupported,
            Self::NoSuchQueue | Self::BadDescriptor | Self::NotUsable => ErrorKind::InvalidInput,
            Self::HeaderSplitDisabled
            | Self::HeaderSplitThreshold
            | Self::XdpAttached
            | Self::InterfaceDown
            | Self::ExporterRefusedMapping => ErrorKind::WrongState,
            Self::QueueLeased | Self::QueueAlreadyBound | Self::QueueUsedByAfXdp => ErrorKind::Busy,
            Self::OutOfMemory => ErrorKind::OutOfMemory,
            Self::Other => ErrorKind::Io,
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn remedy(self) -> Option<&'static str> {
        Some(match self {
            Self::NoPrivilege => {
                "run as root, or with CAP_NET_ADMIN in the user namespace that owns the network namespace"
            }
            Self::NoPrivilegeOnHost => {
                "run as root of the host, or with its CAP_NET_ADMIN; devmem TCP needs it only in the container"
            }
            Self::NoInterface => "look at /sys/class/net for the interfaces of this network namespace",
            Self::NoQueueManagement => {
                "use a NIC whose driver has queue management and devmem TCP, such as bnxt, fbnic, gve or mlx5"
            }
            Self::NoSuchQueue => "choose among the active receive queues, or raise their number",
            Self::DifferentDevices => "bind the queues of each PCI function to a buffer of its own",
            Self::NoDma => "bind on the physical interface, or on a netkit interface with a leased queue",
            Self::BadDescriptor | Self::NotUsable => "pass the descriptor of a DMA-buf that is still open",
            Self::ExporterRefusedAttachment => {
                "allocate the buffer so that it may move to system memory: the kernel attaches without peer-to-peer"
            }
            Self::ExporterRefusedMapping => {
                "release other importers that pin this buffer in device memory, or bind before them"
            }
            Self::UnalignedPieces => "allocate the buffer in whole pages",
            Self::QueueLeased => {
                "bind through the virtual interface that leases the queue, or choose another"
            }
            Self::HeaderSplitDisabled => {
                "turn header split on explicitly (tcp-data-split on), also if it is shown as on"
            }
            Self::HeaderSplitThreshold => "set hds-thresh to 0",
            Self::XdpAttached => "detach the XDP program from the interface",
            Self::QueueAlreadyBound => "choose another queue, or end the program that bound this one",
            Self::QueueUsedByAfXdp => "close the AF_XDP socket of the queue, or choose another",
            Self::QueueNotRestartable => "choose another queue than 0",
            Self::InterfaceDown => "set the interface up",
            Self::NoDeviceMemoryPool => {
                "turn header split on, and check that this driver and device can receive into device memory"
            }
            Self::LargeReceiveBuffers => "set the NIC's receive buffers (rx-buf-len) to one page",
            Self::ReceiveBufferSize => {
                "receive into buffers of a page, or use a driver and contiguous memory that allow larger ones"
            }
            Self::NoDmaBufAreas => "use a newer kernel, or devmem TCP",
            Self::OutOfMemory => "free memory, or make the NIC's rings smaller",
            Self::Other => return None,
        })
    }
}

impl std::fmt::Display for BindRefusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NoPrivilege => "it takes CAP_NET_ADMIN",
            Self::NoPrivilegeOnHost => "it takes CAP_NET_ADMIN on the host",
            Self::NoInterface => "the interface is not in this network namespace",
            Self::NoQueueManagement => "the driver cannot restart single queues",
            Self::NoSuchQueue => "a queue is not an active receive queue of the interface",
            Self::DifferentDevices => "the queues belong to different PCI functions",
            Self::NoDma => "the interface does no DMA",
            Self::BadDescriptor => "the descriptor is not open",
            Self::NotUsable => "the descriptor is no DMA-buf that can be divided into pages",
            Self::ExporterRefusedAttachment => "the exporter refuses this importer",
            Self::ExporterRefusedMapping => {
                "the exporter cannot place the buffer where this importer needs it"
            }
            Self::UnalignedPieces => "a piece of the buffer is no multiple of the page size",
            Self::QueueLeased => "the queue is leased to a virtual interface",
            Self::HeaderSplitDisabled => "header split is off",
            Self::HeaderSplitThreshold => "header split leaves small packets whole",
            Self::XdpAttached => "an XDP program is attached",
            Self::QueueAlreadyBound => "the queue has a memory provider already",
            Self::QueueUsedByAfXdp => "AF_XDP uses the queue",
            Self::QueueNotRestartable => "the driver cannot restart this queue",
            Self::InterfaceDown => "the interface is down",
            Self::NoDeviceMemoryPool => "the driver does not take device memory on this queue",
            Self::LargeReceiveBuffers => "the driver's receive buffers are larger than a page",
            Self::ReceiveBufferSize => "receive buffers cannot have that size",
            Self::NoDmaBufAreas => "the kernel takes no DMA-buf as an area",
            Self::OutOfMemory => "memory is short",
            Self::Other => "the kernel or the driver refused",
        })
    }
}

impl std::error::Error for BindRefusal {}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(errno: Errno, message: &str, attribute: &str) -> KernelError {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let mut error = KernelError::from_errno(errno);
        error.message = text(message);
        error.attribute = text(attribute);
        error
    }

    #[test]
    fn the_kernels_table_becomes_reasons() {
        use BindRefusal::*;
        let table = [
            (Errno::EPERM, "", "", NoPrivilege),
            (Errno::ENODEV, "", "", NoInterface),
            (Errno::EOPNOTSUPP, "", "ifindex", NoQueueManagement),
            (Errno::EINVAL, "", "queues.id", NoSuchQueue),
            (
                Errno::EOPNOTSUPP,
                "DMA device mismatch between queue 1 and 2 (multi-PF device?)",
                "",
                DifferentDevices,
            ),
            (Errno::EOPNOTSUPP, "Device doesn't support DMA", "", NoDma),
            (Errno::EBADF, "", "", BadDescriptor),
            (Errno::EINVAL, "", "", NotUsable),
            (Errno::EOPNOTSUPP, "Failed to bind dmabuf to device", "", ExporterRefusedAttachment),
            (Errno::EPERM, "Failed to bind dmabuf to device", "", ExporterRefusedAttachment),
            (Errno::EINVAL, "Failed to map dmabuf attachment", "", ExporterRefusedMapping),
            (Errno::EINVAL, "dma-buf SG length must be PAGE_SIZE aligned", "", UnalignedPieces),
            (Errno::EBUSY, "rx queue leased to a virtual netdev", "", QueueLeased),
            (Errno::EOPNOTSUPP, "rx queue belongs to a virtual netdev", "", QueueLeased),
            (Errno::EINVAL, "tcp-data-split is disabled", "", HeaderSplitDisabled),
            (Errno::EINVAL, "hds-thresh is not zero", "", HeaderSplitThreshold),
            (
                Errno::EEXIST,
                "unable to custom memory provider to device with XDP program attached",
                "",
                XdpAttached,
            ),
            (Errno::EEXIST, "designated queue already memory provider bound", "", QueueAlreadyBound),
            (Errno::EBUSY, "designated queue already in use by AF_XDP", "", QueueUsedByAfXdp),
            (Errno::ERANGE, "", "", QueueNotRestartable),
            (Errno::ENODATA, "", "", NoDeviceMemoryPool),
            (Errno::E2BIG, "", "", LargeReceiveBuffers),
            (Errno::ENOMEM, "", "", OutOfMemory),
            (Errno::EIO, "", "", Other),
        ];
        for (errno, message, attribute, expected) in table {
            let refusal = BindRefusal::classify(&said(errno, message, attribute), true);
            assert_eq!(refusal, expected, "{errno} {message:?} {attribute:?}");
        }
    }

    #[test]
    fn a_driver_that_wants_the_interface_up_is_understood() {
        for errno in [Errno::EAGAIN, Errno::ENODEV] {
            let refusal = BindRefusal::classify(&said(errno, "", ""), false);
            assert_eq!(refusal, BindRefusal::InterfaceDown, "{errno}");
        }
    }
}
