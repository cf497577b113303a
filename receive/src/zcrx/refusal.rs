//! Why the kernel refuses to register a receive queue.
//!
//! The kernel's checks are in `io_uring/zcrx.c` (`io_register_zcrx()`, `io_import_dmabuf()`) and
//! `net/core/netdev_rx_queue.c` (`netif_mp_open_rxq()`). They answer with an errno and without a word, and many
//! share one, so that the reason is looked for where it is: in the NIC's settings, and in the answer to the same
//! question over netlink, which has words.

use devmem_provider::base_page_size;
use nix::errno::Errno;

use super::queue::Registration;
use super::raw_registration::RawRegistration;
use super::sys;
use super::uapi;
use crate::devmem::BindRefusal;
use crate::ethtool::DataSplit;
use crate::netdev::{Queue, QueueKind};
use crate::nic::Nic;

/// What was seen of a NIC after a refusal.
#[derive(Debug, Clone, Default)]
struct Seen {
    up: bool,
    xdp_attached: bool,
    header_split: Option<DataSplit>,
    header_split_threshold: Option<u32>,
    receive_queues: Option<u32>,
    queue: Option<Queue>,
    /// What `bind-rx` says of the device.
    bind: Option<BindRefusal>,
    /// Whether areas may be DMA-bufs, as the kernel says, or as it answers to one that is none.
    dmabuf_areas: Option<bool>,
}

/// Finds out why a queue with a DMA-buf, or with host memory, was refused.
pub(super) fn reason(
    nic: &Nic,
    queue: u32,
    dma_buf: bool,
    registration: Registration,
    errno: Errno,
) -> BindRefusal {
    let seen = if errno == Errno::EPERM { Seen::default() } else { Seen::of(nic, queue) };
    seen.reason(queue, dma_buf, registration, errno)
}

/// What the answer to a registration tells whose DMA-buf is a descriptor that is not open: a kernel that takes DMA-bufs
/// looks at it before it looks at the queue (`io_import_dmabuf()`), one that does not knows no such area.
fn areas_by_trying(answer: Result<(), Errno>) -> Option<bool> {
    match answer {
        Err(Errno::EBADF) => Some(true),
        Err(Errno::EINVAL) => Some(false),
        _ => None,
    }
}

impl Seen {
    /// Looks at everything; what cannot be seen explains nothing.
    fn of(nic: &Nic, queue: u32) -> Self {
        let link = nic.link().ok();
        let up = link.as_ref().is_none_or(|link| link.up);
        let snapshot = nic.snapshot().ok();
        let rings = snapshot.as_ref().and_then(|snapshot| snapshot.rings.as_ref());
        let bind = nic.netdev().probe_bind_rx(nic.ifindex(), queue).ok();
        Self {
            up,
            xdp_attached: link.is_some_and(|link| link.xdp_attached),
            header_split: rings.and_then(|rings| rings.data_split),
            header_split_threshold: rings.and_then(|rings| rings.header_split_threshold),
            receive_queues: snapshot.as_ref().map(super::super::nic::Snapshot::receive_queues),
            queue: nic.netdev().queue(nic.ifindex(), QueueKind::Receive, queue).ok(),
            bind: bind.map(|answer| BindRefusal::classify(&answer, up)),
            dmabuf_areas: match sys::query_zcrx() {
                Ok(query) => Some(query.area_flags & u64::from(uapi::AREA_DMABUF) != 0),
                Err(_) => {
                    RawRegistration::without_dma_buf(nic, queue).attempt().ok().and_then(areas_by_trying)
                }
            },
        }
    }

    fn reason(&self, queue: u32, dma_buf: bool, registration: Registration, errno: Errno) -> BindRefusal {
        let large_buffers =
            registration.buffer_bytes.is_some_and(|bytes| u64::from(bytes) > base_page_size());
        let is_set = |of: fn(&Queue) -> bool| self.queue.as_ref().is_some_and(of);
        match errno {
            Errno::EPERM => BindRefusal::NoPrivilegeOnHost,
            Errno::ENODEV if self.up => BindRefusal::NoInterface,
            Errno::EAGAIN | Errno::ENETDOWN | Errno::ENODEV if !self.up => BindRefusal::InterfaceDown,
            Errno::EEXIST if self.xdp_attached => BindRefusal::XdpAttached,
            Errno::EEXIST => BindRefusal::QueueAlreadyBound,
            Errno::EBUSY if is_set(|queue| queue.lease.is_some()) => BindRefusal::QueueLeased,
            Errno::EBUSY => BindRefusal::QueueUsedByAfXdp,
            Errno::ENODATA => BindRefusal::NoDeviceMemoryPool,
            Errno::E2BIG => BindRefusal::LargeReceiveBuffers,
            Errno::EBADF => BindRefusal::BadDescriptor,
            Errno::ENOMEM | Errno::ENOBUFS => BindRefusal::OutOfMemory,
            Errno::ERANGE if self.receive_queues.is_some_and(|count| queue >= count) => {
                BindRefusal::NoSuchQueue
            }
            Errno::ERANGE if large_buffers => BindRefusal::ReceiveBufferSize,
            Errno::ERANGE => BindRefusal::QueueNotRestartable,
            Errno::EOPNOTSUPP => match self.bind {
                // The device does everything that it takes, so that the refusal came later.
                Some(BindRefusal::BadDescriptor) if large_buffers => BindRefusal::ReceiveBufferSize,
                Some(BindRefusal::BadDescriptor) if dma_buf => BindRefusal::ExporterRefusedAttachment,
                Some(BindRefusal::BadDescriptor) | None => BindRefusal::NoQueueManagement,
                Some(said) => said,
            },
            // The number that means none (`io_register_zcrx()`).
            Errno::EINVAL if queue == u32::MAX => BindRefusal::NoSuchQueue,
            Errno::EINVAL if dma_buf && self.dmabuf_areas == Some(false) => BindRefusal::NoDmaBufAreas,
            Errno::EINVAL
                if registration
                    .buffer_bytes
                    .is_some_and(|bytes| !bytes.is_power_of_two() || u64::from(bytes) < base_page_size()) =>
            {
                BindRefusal::ReceiveBufferSize
            }
            Errno::EINVAL if self.header_split.is_some_and(|split| split != DataSplit::Enabled) => {
                BindRefusal::HeaderSplitDisabled
            }
            Errno::EINVAL if self.header_split_threshold.is_some_and(|threshold| threshold != 0) => {
                BindRefusal::HeaderSplitThreshold
            }
            // Header split may be on by itself and not by request, which the driver does not tell.
            Errno::EINVAL => BindRefusal::NotUsable,
            _ => BindRefusal::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(seen: &Seen, dma_buf: bool, errno: Errno) -> BindRefusal {
        seen.reason(1, dma_buf, Registration::default(), errno)
    }

    #[test]
    fn an_errno_is_told_apart_by_the_state_of_the_nic() {
        let good = Seen {
            up: true,
            header_split: Some(DataSplit::Enabled),
            receive_queues: Some(4),
            bind: Some(BindRefusal::BadDescriptor),
            dmabuf_areas: Some(true),
            ..Seen::default()
        };
        let split_off = Seen { header_split: Some(DataSplit::Disabled), ..good.clone() };
        let threshold = Seen { header_split_threshold: Some(64), ..good.clone() };
        let xdp = Seen { xdp_attached: true, ..good.clone() };
        let few_queues = Seen { receive_queues: Some(1), ..good.clone() };
        let no_areas = Seen { dmabuf_areas: Some(false), ..good.clone() };
        let down = Seen { up: false, ..good.clone() };
        let no_dma = Seen { bind: Some(BindRefusal::NoDma), ..good.clone() };
        for (seen, dma_buf, errno, expected) in [
            (&good, true, Errno::EPERM, BindRefusal::NoPrivilegeOnHost),
            (&split_off, true, Errno::EINVAL, BindRefusal::HeaderSplitDisabled),
            (&threshold, true, Errno::EINVAL, BindRefusal::HeaderSplitThreshold),
            (&no_areas, true, Errno::EINVAL, BindRefusal::NoDmaBufAreas),
            (&no_areas, false, Errno::EINVAL, BindRefusal::NotUsable),
            (&good, true, Errno::EINVAL, BindRefusal::NotUsable),
            (&xdp, true, Errno::EEXIST, BindRefusal::XdpAttached),
            (&good, true, Errno::EEXIST, BindRefusal::QueueAlreadyBound),
            (&few_queues, true, Errno::ERANGE, BindRefusal::NoSuchQueue),
            (&good, true, Errno::ERANGE, BindRefusal::QueueNotRestartable),
            (&good, true, Errno::EOPNOTSUPP, BindRefusal::ExporterRefusedAttachment),
            (&good, false, Errno::EOPNOTSUPP, BindRefusal::NoQueueManagement),
            (&no_dma, true, Errno::EOPNOTSUPP, BindRefusal::NoDma),
            (&down, true, Errno::EAGAIN, BindRefusal::InterfaceDown),
            (&good, true, Errno::ENODEV, BindRefusal::NoInterface),
            (&good, true, Errno::EBUSY, BindRefusal::QueueUsedByAfXdp),
        ] {
            assert_eq!(reason(seen, dma_buf, errno), expected, "{errno}, {seen:?}");
        }
    }

    #[test]
    fn the_number_that_means_no_queue_is_none() {
        let good = Seen { up: true, header_split: Some(DataSplit::Enabled), ..Seen::default() };
        let reason = good.reason(u32::MAX, true, Registration::default(), Errno::EINVAL);
        assert_eq!(reason, BindRefusal::NoSuchQueue);
    }

    #[test]
    fn a_kernel_that_cannot_be_asked_is_known_by_what_it_looks_at_first() {
        assert_eq!(areas_by_trying(Err(Errno::EBADF)), Some(true));
        assert_eq!(areas_by_trying(Err(Errno::EINVAL)), Some(false));
        assert_eq!(areas_by_trying(Err(Errno::EPERM)), None);
    }

    #[test]
    fn a_size_of_receive_buffers_is_found_to_be_the_reason() {
        let good = Seen { up: true, bind: Some(BindRefusal::BadDescriptor), ..Seen::default() };
        let large = Registration { buffer_bytes: Some(1 << 20), ..Registration::default() };
        let odd = Registration { buffer_bytes: Some(5000), ..Registration::default() };
        for (registration, errno) in
            [(large, Errno::EOPNOTSUPP), (large, Errno::ERANGE), (odd, Errno::EINVAL)]
        {
            assert_eq!(good.reason(1, true, registration, errno), BindRefusal::ReceiveBufferSize, "{errno}");
        }
    }
}
