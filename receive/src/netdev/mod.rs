//! The kernel's `netdev` family: queues, memory bindings, page pools and statistics of network devices.
//!
//! Numbers are those of include/uapi/linux/netdev.h; names are those of
//! Documentation/netlink/specs/netdev.yaml.

mod binding;
mod object;
pub mod uapi;

use crate::netlink::{Attributes, Error, Generic, Malformed, Result};
pub(crate) use binding::refuse_bindings;
pub use binding::{Binding, release_all_bindings};
pub use object::{
    Device, Lease, Napi, PagePool, PagePoolStatistics, Queue, QueueKind, QueueStatistics, XdpFeatures,
};

/// A socket that speaks to the `netdev` family.
///
/// A memory binding lives as long as the socket that made it, so [`Binding`] has one of its own; this one
/// never binds.
#[derive(Debug)]
pub struct Netdev {
    family: Generic,
}

impl Netdev {
    /// Opens a socket of its own.
    ///
    /// # Errors
    /// No socket is to be had, or the kernel (before 6.3) has no such family.
    pub fn open() -> Result<Self> {
        Ok(Self { family: Generic::open(uapi::FAMILY)? })
    }

    /// What the kernel says of one device.
    ///
    /// # Errors
    /// `ENODEV`: there is no such interface in this network namespace.
    pub fn device(&self, ifindex: u32) -> Result<Device> {
        let request = Attributes::new().u32(uapi::dev::IFINDEX, ifindex);
        Ok(Device::decode(&self.family.request_one(uapi::DEV_GET, &request, &uapi::DEV_NAMES)?)?)
    }

    /// Every device of this network namespace.
    ///
    /// # Errors
    /// The socket failed or a reply is malformed.
    pub fn devices(&self) -> Result<Vec<Device>> {
        let replies = self.family.dump(uapi::DEV_GET, &Attributes::new(), &uapi::DEV_NAMES)?;
        Ok(replies.iter().map(|reply| Device::decode(reply)).collect::<Result<_, _>>()?)
    }

    /// One queue: who polls it, and what memory it receives into.
    ///
    /// # Errors
    /// `ENOENT`: the interface is down. `EINVAL`: it has no such queue. `ENODEV`: no such interface.
    pub fn queue(&self, ifindex: u32, kind: QueueKind, id: u32) -> Result<Queue> {
        let request = Attributes::new()
            .u32(uapi::queue::IFINDEX, ifindex)
            .u32(uapi::queue::TYPE, kind.number())
            .u32(uapi::queue::ID, id);
        Ok(Queue::decode(&self.family.request_one(uapi::QUEUE_GET, &request, &uapi::QUEUE_NAMES)?)?)
    }

    /// Every queue of an interface; none while it is down.
    ///
    /// # Errors
    /// `ENODEV`: there is no such interface in this network namespace.
    pub fn queues(&self, ifindex: u32) -> Result<Vec<Queue>> {
        let request = Attributes::new().u32(uapi::queue::IFINDEX, ifindex);
        let replies = self.family.dump(uapi::QUEUE_GET, &request, &uapi::QUEUE_NAMES)?;
        Ok(replies.iter().map(|reply| Queue::decode(reply)).collect::<Result<_, _>>()?)
    }

    /// Every NAPI instance (what polls the queues) of an interface; none while it is down.
    ///
    /// # Errors
    /// `ENODEV`: there is no such interface in this network namespace.
    pub fn napis(&self, ifindex: u32) -> Result<Vec<Napi>> {
        let request = Attributes::new().u32(uapi::napi::IFINDEX, ifindex);
        let replies = self.family.dump(uapi::NAPI_GET, &request, &uapi::NAPI_NAMES)?;
        Ok(replies.iter().map(|reply| Napi::decode(reply)).collect::<Result<_, _>>()?)
    }

    /// The counters of every queue of an interface.
    ///
    /// # Errors
    /// `EOPNOTSUPP`: the driver does not count by queue. `ENODEV`: no such interface.
    pub fn queue_statistics(&self, ifindex: u32) -> Result<Vec<QueueStatistics>> {
        let request = Attributes::new()
            .u32(uapi::qstats::IFINDEX, ifindex)
            .u32(uapi::qstats::SCOPE, uapi::QSTATS_SCOPE_QUEUE);
        let replies = self.family.dump(uapi::QSTATS_GET, &request, &uapi::QSTATS_NAMES)?;
        Ok(replies.iter().map(|reply| QueueStatistics::decode(reply)).collect::<Result<_, _>>()?)
    }

    /// Every page pool of this network namespace, also those that wait for their last pages to come back.
    ///
    /// # Errors
    /// `EOPNOTSUPP`: the kernel is built without page pool statistics.
    pub fn page_pools(&self) -> Result<Vec<PagePool>> {
        let replies = self.family.dump(uapi::PAGE_POOL_GET, &Attributes::new(), &uapi::PAGE_POOL_NAMES)?;
        Ok(replies.iter().map(|reply| PagePool::decode(reply)).collect::<Result<_, _>>()?)
    }

    /// The counters of every page pool of this network namespace.
    ///
    /// # Errors
    /// `EOPNOTSUPP`: the kernel is built without page pool statistics.
    pub fn page_pool_statistics(&self) -> Result<Vec<PagePoolStatistics>> {
        let command = uapi::PAGE_POOL_STATS_GET;
        let replies = self.family.dump(command, &Attributes::new(), &uapi::PAGE_POOL_STATS_NAMES)?;
        Ok(replies.iter().map(|reply| PagePoolStatistics::decode(reply)).collect::<Result<_, _>>()?)
    }

    /// Asks for a binding of a descriptor that cannot exist, to learn how far the kernel gets.
    ///
    /// Nothing is changed: the descriptor is looked at after every check of the device and before any work
    /// on a queue. `EBADF` therefore means that the device passed (net/core/netdev-genl.c,
    /// `netdev_nl_bind_rx_doit`).
    ///
    /// # Errors
    /// Only when the kernel could not be asked; its refusal is the result.
    pub fn probe_bind_rx(&self, ifindex: u32, queue: u32) -> Result<crate::netlink::KernelError> {
        let request = uapi::bind_rx(ifindex, &[queue], uapi::NO_DESCRIPTOR);
        refusal(self.family.request(uapi::BIND_RX, &request, &uapi::DMABUF_NAMES))
    }

    /// Asks for a transmit binding of a descriptor that cannot exist; `EBADF` means that the device passed.
    /// Needs no privilege and changes nothing.
    ///
    /// # Errors
    /// Only when the kernel could not be asked; its refusal is the result.
    pub fn probe_bind_tx(&self, ifindex: u32) -> Result<crate::netlink::KernelError> {
        let request =
            Attributes::new().u32(uapi::dmabuf::IFINDEX, ifindex).u32(uapi::dmabuf::FD, uapi::NO_DESCRIPTOR);
        refusal(self.family.request(uapi::BIND_TX, &request, &uapi::DMABUF_NAMES))
    }

    /// The cookie of the network namespace of this socket; `None` before Linux 5.14.
    #[must_use]
    pub fn namespace_cookie(&self) -> Option<u64> {
        self.family.namespace_cookie()
    }
}

/// The refusal that a probe must end with.
fn refusal(result: Result<Vec<Vec<u8>>>) -> Result<crate::netlink::KernelError> {
    match result {
        Err(Error::Kernel(error)) => Ok(*error),
        Err(error) => Err(error),
        Ok(_) => Err(Malformed("a binding of a descriptor that does not exist").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::errno::Errno;

    fn loopback() -> u32 {
        crate::netlink::Route::open().unwrap().link_by_name("lo").unwrap().ifindex
    }

    #[test]
    fn the_loopback_device_is_known() {
        let netdev = Netdev::open().unwrap();
        let ifindex = loopback();
        assert_eq!(netdev.device(ifindex).unwrap().ifindex, ifindex);
        assert!(netdev.devices().unwrap().iter().any(|device| device.ifindex == ifindex));
    }

    #[test]
    fn an_unknown_interface_is_refused_by_number() {
        let netdev = Netdev::open().unwrap();
        let error = netdev.device(0x7fff_fff0).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::ENODEV));
        let error = netdev.device(0).unwrap_err();
        assert_eq!(error.kernel().unwrap().attribute.as_deref(), Some("ifindex"));
    }

    #[test]
    fn loopback_cannot_receive_into_device_memory() {
        let netdev = Netdev::open().unwrap();
        let refusal = netdev.probe_bind_rx(loopback(), 0).unwrap();
        assert!([Errno::EOPNOTSUPP, Errno::EPERM].contains(&refusal.errno), "{refusal}");
    }

    #[test]
    fn a_queue_without_a_type_is_named_as_missing() {
        let netdev = Netdev::open().unwrap();
        let request = Attributes::new()
            .u32(uapi::dmabuf::IFINDEX, loopback())
            .nest(uapi::dmabuf::QUEUES, Attributes::new().u32(uapi::queue::ID, 0));
        let error = netdev.family.request(uapi::BIND_RX, &request, &uapi::DMABUF_NAMES).unwrap_err();
        let kernel = error.kernel().unwrap();
        if kernel.errno != Errno::EPERM {
            assert_eq!(kernel.missing.as_deref(), Some("fd"), "{kernel}");
        }
    }

    #[test]
    fn page_pools_can_be_listed() {
        let netdev = Netdev::open().unwrap();
        // A kernel without page pool statistics answers the second with EOPNOTSUPP, an older one both.
        for error in [netdev.page_pools().err(), netdev.page_pool_statistics().err()].into_iter().flatten() {
            assert_eq!(error.errno(), Some(Errno::EOPNOTSUPP), "{error}");
        }
    }
}
