//! An open NIC.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use devmem_provider::{Error, ErrorKind, Result};
use nix::errno::Errno;

use super::capability::{self, Capabilities};
use super::identity::{self, Identity, Namespace, Selector};
use super::occupancy::{self, Occupancy};
use super::plan::Plan;
use super::prepared::{self, Prepared};
use super::snapshot::{self, Snapshot};
use crate::ethtool::Ethtool;
use crate::netdev::Netdev;
use crate::netlink::{Link, Route};

/// A network card, open for being asked and changed.
///
/// It keeps sockets in the network namespace that it was opened in, and works there from any thread.
/// A clone is the same NIC.
#[derive(Clone)]
pub struct Nic {
    inner: Arc<Inner>,
}

struct Inner {
    identity: Identity,
    ethtool: Ethtool,
    netdev: Netdev,
    route: Mutex<Route>,
}

impl Nic {
    /// Finds a NIC by the name of its interface, its PCI address or an IP address that it has, in the
    /// calling thread's network namespace.
    ///
    /// # Errors
    /// There is none, or the kernel lacks the interfaces to ask.
    pub fn open(selector: impl Into<Selector>) -> Result<Self> {
        let selector = selector.into();
        let failed = |error: crate::netlink::Error| error.during("open the NIC").on(&selector);
        let mut route = Route::open().map_err(failed)?;
        let ethtool = Ethtool::open().map_err(failed)?;
        let netdev = Netdev::open().map_err(failed)?;
        let link = selector.find(&mut route)?;
        let namespace = Namespace { inode: identity::namespace_inode()?, cookie: netdev.namespace_cookie() };
        let identity = Identity::of(&link, &ethtool, namespace);
        Ok(Self { inner: Arc::new(Inner { identity, ethtool, netdev, route: Mutex::new(route) }) })
    }

    /// What the NIC is known by.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.inner.identity
    }

    /// The name of its interface when it was opened.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.identity.name
    }

    /// The number of its interface.
    #[must_use]
    pub fn ifindex(&self) -> u32 {
        self.inner.identity.ifindex
    }

    /// The kernel's ethtool interface, in the NIC's network namespace.
    #[must_use]
    pub fn ethtool(&self) -> &Ethtool {
        &self.inner.ethtool
    }

    /// The kernel's `netdev` family, in the NIC's network namespace.
    #[must_use]
    pub fn netdev(&self) -> &Netdev {
        &self.inner.netdev
    }

    /// The interface as it is now.
    ///
    /// # Errors
    /// The NIC is gone, or its number belongs to another one by now.
    pub fn link(&self) -> Result<Link> {
        let link = match self.route().link(self.ifindex()) {
            Err(error) if error.errno() == Some(Errno::ENODEV) => return Err(self.gone()),
            link => link.map_err(|error| error.during("read the state of the NIC").on(self))?,
        };
        let then = self.identity();
        let namespace = Namespace { inode: then.namespace_inode, cookie: then.namespace_cookie };
        let now = Identity::of(&link, &self.inner.ethtool, namespace);
        if now.is_same_nic(then) { Ok(link) } else { Err(self.gone()) }
    }

    /// The socket that speaks rtnetlink, in the NIC's network namespace.
    pub(super) fn route(&self) -> MutexGuard<'_, Route> {
        self.inner.route.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether its interface is set up.
    ///
    /// # Errors
    /// The NIC is gone.
    pub fn is_up(&self) -> Result<bool> {
        self.link().map(|link| link.up)
    }

    fn gone(&self) -> Error {
        Error::new(ErrorKind::Gone, "find the NIC again")
            .on(self)
            .because("its interface was removed or moved to another network namespace")
    }

    /// The NIC's settings.
    ///
    /// # Errors
    /// The kernel refuses to tell.
    pub fn snapshot(&self) -> Result<Snapshot> {
        snapshot::take(&mut self.route(), self.ethtool(), self.ifindex(), self.name())
    }

    /// What the NIC can do for receiving into device memory, found without changing anything.
    ///
    /// # Errors
    /// The kernel cannot be asked at all. What it refuses is part of the answer.
    pub fn capabilities(&self) -> Result<Capabilities> {
        capability::probe(self)
    }

    /// Who has the NIC, or left it changed, as locks and journals tell; takes and changes nothing.
    ///
    /// # Errors
    /// A journal is there and cannot be understood.
    pub fn occupancy(&self) -> Result<Occupancy> {
        occupancy::look(self)
    }

    /// Prepares the NIC for receiving into device memory: see the [module](super).
    ///
    /// If an earlier process left the NIC changed, it is restored first: see [`Prepared::recovered`].
    ///
    /// # Errors
    /// Everything that was changed is put back before an error is returned. The kinds:
    /// - [`Busy`](ErrorKind::Busy): another process has the NIC, or somebody has a queue that was named;
    /// - [`WrongState`](ErrorKind::WrongState): the interface is down, or an XDP program is attached;
    /// - [`PermissionDenied`](ErrorKind::PermissionDenied): `CAP_NET_ADMIN` is missing;
    /// - [`Unsupported`](ErrorKind::Unsupported): the driver cannot do it;
    /// - [`InvalidInput`](ErrorKind::InvalidInput): queues that it does not have, or a buffer too small for the
    ///   receive rings of that many queues.
    pub fn prepare(&self, plan: &Plan) -> Result<Prepared> {
        prepared::prepare(self, plan)
    }
}

impl fmt::Display for Nic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for Nic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Nic").field(&self.inner.identity).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_by_name_and_address() {
        let lo = Nic::open("lo").unwrap();
        assert_eq!((lo.name(), lo.link().unwrap().name.as_str()), ("lo", "lo"));
        assert_eq!(lo.identity().pci, None);
        assert_eq!(lo.snapshot().unwrap().channels, None);
    }
}
