//! Why a DMA-buf does not become a memory region.
//!
//! The kernel's checks, in the order in which it makes them, are in `drivers/infiniband/core/uverbs_main.c`
//! (`ib_uverbs_open()`), `uverbs_std_types_mr.c` (`UVERBS_METHOD_REG_DMABUF_MR`), the device's driver (`efa_verbs.c`,
//! say), `umem_dmabuf.c` (`ib_umem_dmabuf_get_pinned()`) and the exporter. They answer with an errno and without a word,
//! and four reasons share `EOPNOTSUPP`, so that the same is asked again without a DMA-buf: a kernel that gets as far as
//! the descriptor that is not open (`EBADF`) has no other objection.

use devmem_provider::{Error, ErrorKind};
use nix::errno::Errno;

use super::access::AccessFlags;
use super::device::Device;

/// Why a DMA-buf, or host memory, was not registered, or a device not opened for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RegistrationRefusal {
    /// The kernel offers the device to no program: the module `ib_uverbs` is not loaded.
    NoUserAccess,
    /// The kernel has a node for the device, but `/dev` has not.
    MissingNode,
    /// The node may not be opened.
    NoPermission,
    /// The driver wants what its own library in rdma-core tells it, which is not known here.
    NeedsLibrary,
    /// The control group allows no more objects of RDMA devices (`rdma.max`).
    ControlGroupLimit,
    /// The caller may not lock so much memory (`RLIMIT_MEMLOCK`).
    MemoryLockLimit,
    /// The driver, or the kernel, makes no memory regions of DMA-bufs.
    NoDmaBufSupport,
    /// The device does not offer an access that was asked for.
    AccessNotOffered,
    /// No device may have these access flags: unknown ones, or peers that write where the device may not.
    InvalidAccess,
    /// The region would have no bytes.
    Empty,
    /// The region would reach beyond the end of the memory, or of the addresses.
    BeyondEnd,
    /// The region's first byte would lie elsewhere in a page than its address says.
    Misaligned,
    /// The descriptor is not open.
    BadDescriptor,
    /// The descriptor is something else than a DMA-buf.
    NotADmaBuf,
    /// The exporter refuses the device. Exporters with memory that cannot move to system memory do where the kernel
    /// finds no way between the two.
    ExporterRefused,
    /// The exporter cannot put the buffer where the device could use it: another importer holds it elsewhere, or it may
    /// lie nowhere else.
    ExporterCannotPlace,
    /// The exporter's device has gone away, or has revoked the memory.
    ExporterGone,
    /// Memory is short: the kernel's, the device's own for regions, or the exporter's in reach of peers.
    OutOfMemory,
    /// The RDMA device has gone away, or its driver was unbound.
    DeviceGone,
    /// A reason that is not known here; the errno says more.
    Other,
}

/// What was tried when the kernel refused.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt {
    pub(super) errno: Errno,
    pub(super) access: AccessFlags,
    /// Whether the descriptor is a DMA-buf.
    pub(super) is_dma_buf: bool,
}

impl RegistrationRefusal {
    /// Tells why a node was not opened.
    pub(super) fn of_open(errno: Errno) -> Self {
        match errno {
            Errno::ENOENT | Errno::ENOTDIR => Self::MissingNode,
            Errno::EACCES | Errno::EPERM => Self::NoPermission,
            Errno::ENXIO | Errno::ENODEV | Errno::EIO => Self::DeviceGone,
            Errno::ENOMEM | Errno::EMFILE | Errno::ENFILE => Self::OutOfMemory,
            _ => Self::Other,
        }
    }

    /// Tells why a context, a protection domain or a channel of events was not made.
    pub(super) fn of_object(errno: Errno) -> Self {
        match errno {
            Errno::EAGAIN => Self::ControlGroupLimit,
            Errno::EINVAL | Errno::EFAULT | Errno::EOPNOTSUPP => Self::NeedsLibrary,
            Errno::EIO | Errno::ENODEV => Self::DeviceGone,
            Errno::EPERM | Errno::EACCES => Self::NoPermission,
            Errno::ENOMEM | Errno::ENOSPC | Errno::EMFILE | Errno::ENFILE => Self::OutOfMemory,
            _ => Self::Other,
        }
    }

    /// Tells why a DMA-buf was not registered. `ask_without` asks the kernel for the same access with a descriptor that
    /// is not open, and returns its answer.
    pub(super) fn of_dma_buf(attempt: Attempt, ask_without: impl Fn(AccessFlags) -> Errno) -> Self {
        let comes_to_the_descriptor = |access| ask_without(access) == Errno::EBADF;
        match attempt.errno {
            Errno::EBADF => Self::BadDescriptor,
            Errno::EPROTONOSUPPORT => Self::NoDmaBufSupport,
            Errno::EOPNOTSUPP if !comes_to_the_descriptor(AccessFlags::LOCAL_WRITE) => Self::NoDmaBufSupport,
            Errno::EOPNOTSUPP if !comes_to_the_descriptor(attempt.access) => Self::AccessNotOffered,
            // habanalabs refuses with EPERM.
            Errno::EOPNOTSUPP | Errno::EPERM | Errno::EACCES => Self::ExporterRefused,
            Errno::EINVAL if !attempt.is_dma_buf => Self::NotADmaBuf,
            Errno::EINVAL if comes_to_the_descriptor(attempt.access) => Self::ExporterCannotPlace,
            Errno::EBUSY => Self::ExporterCannotPlace,
            Errno::ENODEV => Self::ExporterGone,
            Errno::EIO => Self::DeviceGone,
            Errno::EAGAIN => Self::ControlGroupLimit,
            Errno::ENOMEM | Errno::ENOSPC => Self::OutOfMemory,
            _ => Self::Other,
        }
    }

    /// Tells why host memory was not registered. `is_limited` is whether the caller may lock less than that.
    pub(super) fn of_host_memory(errno: Errno, is_limited: bool) -> Self {
        match errno {
            Errno::ENOMEM if is_limited => Self::MemoryLockLimit,
            Errno::ENOMEM | Errno::ENOSPC => Self::OutOfMemory,
            Errno::EOPNOTSUPP => Self::AccessNotOffered,
            Errno::EAGAIN => Self::ControlGroupLimit,
            Errno::EIO | Errno::ENODEV => Self::DeviceGone,
            _ => Self::Other,
        }
    }

    /// The reason that an error of this module carries.
    #[must_use]
    pub fn of(error: &Error) -> Option<Self> {
        std::error::Error::source(error)?.downcast_ref::<Self>().copied()
    }

    /// Whether it is the exporter that refuses the device, rather than the device or the kernel the request.
    #[must_use]
    pub fn is_of_exporter(self) -> bool {
        matches!(self, Self::ExporterRefused | Self::ExporterCannotPlace)
    }

    /// The error that it makes of `operation` on `device`; with the kernel's answer where it was asked.
    pub(super) fn error(self, operation: impl Into<String>, device: &Device, errno: Option<Errno>) -> Error {
        let mut error = Error::new(self.kind(), operation.into()).on(device).with_source(self);
        if let Some(errno) = errno {
            error = error.with_errno(errno);
        }
        match self.remedy() {
            Some(remedy) => error.remedy(remedy),
            None => error,
        }
    }

    /// The kind of error that it is.
    #[must_use]
    pub fn kind(self) -> ErrorKind {
        match self {
            Self::NoUserAccess | Self::MissingNode => ErrorKind::NotFound,
            Self::NoPermission => ErrorKind::PermissionDenied,
            Self::NeedsLibrary | Self::NoDmaBufSupport | Self::AccessNotOffered | Self::ExporterRefused => {
                ErrorKind::Unsupported
            }
            Self::ControlGroupLimit | Self::MemoryLockLimit | Self::OutOfMemory => ErrorKind::OutOfMemory,
            Self::InvalidAccess
            | Self::Empty
            | Self::BeyondEnd
            | Self::Misaligned
            | Self::BadDescriptor
            | Self::NotADmaBuf => ErrorKind::InvalidInput,
            Self::ExporterCannotPlace => ErrorKind::WrongState,
            Self::ExporterGone | Self::DeviceGone => ErrorKind::Gone,
            Self::Other => ErrorKind::Io,
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn remedy(self) -> Option<&'static str> {
        Some(match self {
            Self::NoUserAccess => "load the kernel module ib_uverbs",
            Self::MissingNode => {
                "let udev make the node, or give it to the container (--device=/dev/infiniband/uverbs0)"
            }
            Self::NoPermission => {
                "give the user access to the node, for example by a group and a udev rule; in a container, let its \
                 control group use the device, and its network namespace have it"
            }
            Self::NeedsLibrary => "use the data path, which goes through rdma-core's library for this driver",
            Self::ControlGroupLimit => {
                "raise rdma.max of the control group, or close what is not used any more"
            }
            Self::MemoryLockLimit => {
                "raise the limit on locked memory (ulimit -l, LimitMEMLOCK= of a systemd unit), or have CAP_IPC_LOCK"
            }
            Self::NoDmaBufSupport => {
                "use a device whose driver registers DMA-bufs, such as mlx5_ib, bnxt_re, irdma, mana_ib or efa; rxe and \
                 siw do not"
            }
            Self::AccessNotOffered => {
                "ask for less access: not every device has RDMA reads, writes and atomics"
            }
            Self::InvalidAccess => "add local write where peers write, and leave out unknown flags",
            Self::Empty => "register at least one byte",
            Self::BeyondEnd => "register no more than the memory has",
            Self::Misaligned => "let offset and address differ by a multiple of the page size",
            Self::BadDescriptor | Self::NotADmaBuf => "pass the descriptor of a DMA-buf that is still open",
            Self::ExporterRefused => {
                "allocate the buffer so that it may move to system memory, or put both devices where the kernel lets \
                 them reach each other"
            }
            Self::ExporterCannotPlace => {
                "release other importers of the buffer, or allocate it so that it may move to system memory"
            }
            Self::ExporterGone => "allocate a buffer anew",
            Self::OutOfMemory => {
                "free memory; memory of a GPU must lie in the window that peers see, which may be smaller than all of it"
            }
            Self::DeviceGone => "open the device again once it is back",
            Self::Other => return None,
        })
    }
}

impl std::fmt::Display for RegistrationRefusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NoUserAccess => "the kernel offers it to no program",
            Self::MissingNode => "its node does not exist",
            Self::NoPermission => "its node may not be opened",
            Self::NeedsLibrary => "the driver wants something of a program that is not known here",
            Self::ControlGroupLimit => "the control group allows no more objects of RDMA devices",
            Self::MemoryLockLimit => "the limit on locked memory is too low",
            Self::NoDmaBufSupport => "the driver makes no memory regions of DMA-bufs",
            Self::AccessNotOffered => "the device does not offer this access",
            Self::InvalidAccess => "no memory region has such access",
            Self::Empty => "it has no bytes",
            Self::BeyondEnd => "it reaches beyond the end",
            Self::Misaligned => "offset and address are at different places of a page",
            Self::BadDescriptor => "the descriptor is not open",
            Self::NotADmaBuf => "the descriptor is no DMA-buf",
            Self::ExporterRefused => "the exporter refuses this device",
            Self::ExporterCannotPlace => "the exporter cannot put the buffer where this device could use it",
            Self::ExporterGone => "the exporter's device has gone away",
            Self::OutOfMemory => "memory is short",
            Self::DeviceGone => "the device has gone away",
            Self::Other => "the kernel or the driver refused",
        })
    }
}

impl std::error::Error for RegistrationRefusal {}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: AccessFlags = AccessFlags::LOCAL_WRITE;

    /// What a device answers where no DMA-buf is.
    fn device(offered: AccessFlags) -> impl Fn(AccessFlags) -> Errno {
        move |access| if offered.contains(access) { Errno::EBADF } else { Errno::EOPNOTSUPP }
    }

    fn refusal(errno: Errno, access: AccessFlags, offered: AccessFlags) -> RegistrationRefusal {
        RegistrationRefusal::of_dma_buf(Attempt { errno, access, is_dma_buf: true }, device(offered))
    }

    #[test]
    fn four_reasons_for_one_errno_are_told_apart() {
        use RegistrationRefusal::*;
        let remote = LOCAL | AccessFlags::REMOTE_READ;
        let none = AccessFlags::empty();
        assert_eq!(refusal(Errno::EOPNOTSUPP, LOCAL, none), NoDmaBufSupport);
        assert_eq!(refusal(Errno::EOPNOTSUPP, remote, LOCAL), AccessNotOffered);
        assert_eq!(refusal(Errno::EOPNOTSUPP, remote, remote), ExporterRefused);
        assert_eq!(refusal(Errno::EPROTONOSUPPORT, LOCAL, none), NoDmaBufSupport);
    }

    #[test]
    fn an_invalid_argument_is_the_callers_or_the_exporters() {
        use RegistrationRefusal::*;
        assert_eq!(refusal(Errno::EINVAL, LOCAL, LOCAL), ExporterCannotPlace);
        let attempt = Attempt { errno: Errno::EINVAL, access: LOCAL, is_dma_buf: false };
        assert_eq!(RegistrationRefusal::of_dma_buf(attempt, device(LOCAL)), NotADmaBuf);
        // A device that objects without a DMA-buf as well.
        let attempt = Attempt { is_dma_buf: true, ..attempt };
        assert_eq!(RegistrationRefusal::of_dma_buf(attempt, |_| Errno::EINVAL), Other);
    }

    #[test]
    fn the_kernels_table_becomes_reasons() {
        use RegistrationRefusal::*;
        for (errno, expected) in [
            (Errno::EBADF, BadDescriptor),
            (Errno::EPERM, ExporterRefused),
            (Errno::EBUSY, ExporterCannotPlace),
            (Errno::ENODEV, ExporterGone),
            (Errno::EIO, DeviceGone),
            (Errno::EAGAIN, ControlGroupLimit),
            (Errno::ENOMEM, OutOfMemory),
            (Errno::ENOSPC, OutOfMemory),
            (Errno::ERANGE, Other),
        ] {
            assert_eq!(refusal(errno, LOCAL, LOCAL), expected, "{errno}");
        }
        for (errno, expected) in [
            (Errno::ENOENT, MissingNode),
            (Errno::EACCES, NoPermission),
            (Errno::EPERM, NoPermission),
            (Errno::ENXIO, DeviceGone),
            (Errno::EINVAL, Other),
        ] {
            assert_eq!(RegistrationRefusal::of_open(errno), expected, "{errno}");
        }
        assert_eq!(RegistrationRefusal::of_object(Errno::EINVAL), NeedsLibrary);
        assert_eq!(RegistrationRefusal::of_object(Errno::EAGAIN), ControlGroupLimit);
        assert_eq!(RegistrationRefusal::of_host_memory(Errno::ENOMEM, true), MemoryLockLimit);
        assert_eq!(RegistrationRefusal::of_host_memory(Errno::ENOMEM, false), OutOfMemory);
    }
}
