//! The NIC whose receive path is checked.

use std::net::IpAddr;

use devmem_provider::{Error, ErrorKind, Result};
use devmem_receive::netlink::Route;
use devmem_receive::nic::Nic;

/// The NIC whose receive path is checked, and what it is checked with.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NicUnderTest {
    /// Its interface, PCI address or one of its IP addresses.
    pub selector: String,
    /// The TCP port that the peer connects to.
    pub port: u16,
}

impl NicUnderTest {
    /// The NIC with this name, PCI address or IP address.
    #[must_use]
    pub fn new(selector: impl Into<String>) -> Self {
        Self { selector: selector.into(), port: 5201 }
    }

    /// Opens it.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn open(&self) -> Result<Nic> {
        Nic::open(self.selector.as_str())
    }

    /// Its address of the family, not of the link alone.
    ///
    /// # Errors
    ///
    /// It has none.
    pub fn address(&self, nic: &Nic, family: Family) -> Result<IpAddr> {
        let mut route = Route::open().map_err(|error| error.during("read the NIC's addresses").on(nic))?;
        let all = route.addresses().map_err(|error| error.during("read the NIC's addresses").on(nic))?;
        let own = all.into_iter().filter(|known| known.ifindex == nic.ifindex());
        own.map(|known| known.address).find(|address| family.has(*address)).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("find an {} address of the NIC", family.name()))
                .on(nic)
                .remedy("give it one that the peer can reach")
        })
    }
}

/// A family of IP addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    fn has(self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self == Self::V4 && !address.is_link_local(),
            IpAddr::V6(address) => self == Self::V6 && !address.is_unicast_link_local(),
        }
    }
}
