//! Which NIC: how people name it, and how it is known again.

use std::convert::Infallible;
use std::fmt;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::str::FromStr;

use devmem_provider::{Error, ErrorKind, PciAddress, Result};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::ethtool::Ethtool;
use crate::netlink::{Link, Route};

/// How a person names a NIC.
///
/// Read from text, an IP address is taken as such, then a PCI address, then the name of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// The name of an interface, such as `eth1`; alternative names count.
    Name(String),
    /// The PCI function behind it.
    Pci(PciAddress),
    /// An IP address that it has.
    Address(IpAddr),
}

impl FromStr for Selector {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self::from(text))
    }
}

impl From<&str> for Selector {
    fn from(text: &str) -> Self {
        if let Ok(address) = text.parse() {
            Self::Address(address)
        } else if let Ok(address) = text.parse() {
            Self::Pci(address)
        } else {
            Self::Name(text.to_owned())
        }
    }
}

impl From<&String> for Selector {
    fn from(text: &String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<String> for Selector {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<PciAddress> for Selector {
    fn from(address: PciAddress) -> Self {
        Self::Pci(address)
    }
}

impl From<IpAddr> for Selector {
    fn from(address: IpAddr) -> Self {
        Self::Address(address)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Pci(address) => address.fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}

impl Selector {
    /// Finds the interface in this network namespace.
    pub(super) fn find(&self, route: &mut Route) -> Result<Link> {
        let failed = |error: crate::netlink::Error| error.during("find the NIC").on(self);
        let not_found = |reason: String| {
            Error::new(ErrorKind::NotFound, "find the NIC")
                .on(self)
                .because(reason)
                .remedy("name an interface of this network namespace; `ip link` lists them")
        };
        match self {
            Self::Name(name) => match route.link_by_name(name) {
                Err(error)
                    if matches!(error.errno(), Some(Errno::ENODEV | Errno::ERANGE | Errno::EINVAL)) =>
                {
                    Err(not_found("no interface has this name".to_owned()))
                }
                link => link.map_err(failed),
            },
            Self::Pci(address) => {
                let mut links = route.links().map_err(failed)?;
                links.retain(|link| pci_address(link) == Some(*address));
                match links.len() {
                    1 => Ok(links.remove(0)),
                    0 => Err(not_found("no interface belongs to this PCI function".to_owned())),
                    _ => {
                        let names: Vec<_> = links.into_iter().map(|link| link.name).collect();
                        Err(not_found(format!("it has several interfaces: {}", names.join(", ")))
                            .with_kind(ErrorKind::InvalidInput)
                            .remedy("name one of them"))
                    }
                }
            }
            Self::Address(address) => {
                let addresses = route.addresses().map_err(failed)?;
                let wanted = address.to_canonical();
                let owner = addresses.iter().find(|local| local.address == wanted);
                let owner = owner.ok_or_else(|| not_found("no interface has this IP address".to_owned()))?;
                route.link(owner.ifindex).map_err(failed)
            }
        }
    }
}

fn pci_address(link: &Link) -> Option<PciAddress> {
    if link.parent_bus.as_deref() != Some("pci") {
        return None;
    }
    link.parent_name.as_deref()?.parse().ok()
}

/// The address of a network interface's link layer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MacAddress(Vec<u8>);

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02x}", if index == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

/// What a NIC is known by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Identity {
    /// The name of its interface.
    pub name: String,
    /// The number of its interface.
    pub ifindex: u32,
    /// Its driver; empty for interfaces that nothing drives.
    pub driver: String,
    /// The PCI function behind it; `None` for virtual interfaces.
    #[serde(with = "pci_text")]
    pub pci: Option<PciAddress>,
    /// The address that was burnt in where it is known, otherwise the present one.
    pub mac: MacAddress,
    /// The inode of its network namespace, as `/proc/self/ns/net` shows it.
    pub namespace_inode: u64,
    /// The cookie of its network namespace, which is never used again while the machine runs; `None` before
    /// Linux 5.14.
    pub namespace_cookie: Option<u64>,
}

impl Identity {
    /// The identity of an interface of a network namespace.
    pub(super) fn of(link: &Link, ethtool: &Ethtool, namespace: Namespace) -> Self {
        // Loopback, for one, has no driver.
        let driver = ethtool.driver(link.ifindex).unwrap_or_default();
        Self {
            name: link.name.clone(),
            ifindex: link.ifindex,
            pci: pci_address(link).or_else(|| driver.bus.parse().ok()),
            driver: driver.name,
            mac: MacAddress(link.permanent_address.clone().unwrap_or_else(|| link.address.clone())),
            namespace_inode: namespace.inode,
            namespace_cookie: namespace.cookie,
        }
    }

    /// Whether both are the same NIC. Interface numbers can be given again, so more than the number counts;
    /// a NIC may be renamed, so the name counts only for virtual interfaces.
    #[must_use]
    pub fn is_same_nic(&self, other: &Self) -> bool {
        self.ifindex == other.ifindex
            && self.namespace_inode == other.namespace_inode
            && self.namespace_cookie == other.namespace_cookie
            && self.pci == other.pci
            && self.mac == other.mac
            && (self.pci.is_some() || self.name == other.name)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// A network namespace.
#[derive(Debug, Clone, Copy)]
pub(super) struct Namespace {
    pub(super) inode: u64,
    pub(super) cookie: Option<u64>,
}

/// The inode of the calling thread's network namespace.
pub(super) fn namespace_inode() -> Result<u64> {
    const PATH: &str = "/proc/thread-self/ns/net";
    let metadata = std::fs::metadata(PATH);
    metadata.map(|metadata| metadata.ino()).map_err(|error| {
        Error::from_io(error, "identify the network namespace").on(PATH).remedy("mount /proc")
    })
}

/// PCI addresses as text in the journal.
mod pci_text {
    use devmem_provider::PciAddress;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(pci: &Option<PciAddress>, to: S) -> Result<S::Ok, S::Error> {
        pci.map(|address| address.to_string()).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PciAddress>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::nic) fn example() -> Identity {
        Identity {
            name: "eth1".into(),
            ifindex: 3,
            driver: "gve".into(),
            pci: Some("0000:00:05.0".parse().unwrap()),
            mac: MacAddress(vec![2, 0, 0, 0, 0, 9]),
            namespace_inode: 4_026_531_840,
            namespace_cookie: Some(1),
        }
    }

    #[test]
    fn text_becomes_the_selector_that_it_looks_like() {
        assert_eq!(Selector::from("eth1"), Selector::Name("eth1".into()));
        assert_eq!(Selector::from("10.0.0.1"), Selector::Address([10, 0, 0, 1].into()));
        assert!(matches!(Selector::from("fe80::1"), Selector::Address(IpAddr::V6(_))));
        assert!(matches!(Selector::from("0000:03:00.0"), Selector::Pci(_)));
        assert!(matches!(Selector::from("3:00.0"), Selector::Pci(_)));
    }

    #[test]
    fn a_renamed_nic_is_the_same_and_another_card_is_not() {
        let nic = example();
        assert!(nic.is_same_nic(&Identity { name: "fast0".into(), ..nic.clone() }));
        assert!(!nic.is_same_nic(&Identity { mac: MacAddress(vec![2, 0, 0, 0, 0, 8]), ..nic.clone() }));
        assert!(!nic.is_same_nic(&Identity { namespace_cookie: Some(2), ..nic.clone() }));
        let virtual_nic = Identity { pci: None, ..nic };
        assert!(!virtual_nic.is_same_nic(&Identity { name: "veth9".into(), ..virtual_nic.clone() }));
    }

    #[test]
    fn survives_the_journal() {
        let nic = example();
        let text = serde_json::to_string(&nic).unwrap();
        assert_eq!(serde_json::from_str::<Identity>(&text).unwrap(), nic);
        assert_eq!(nic.mac.to_string(), "02:00:00:00:00:09");
    }

    #[test]
    fn what_does_not_exist_is_not_found() {
        let mut route = Route::open().unwrap();
        for text in ["nosuch0", "ffff:1f:1f.7", "192.0.2.77", "2001:db8::77", "a/b:c d"] {
            let error = Selector::from(text).find(&mut route).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound, "{text}: {error}");
            assert!(error.remedy_text().is_some());
        }
    }

    #[test]
    fn an_own_address_leads_to_its_interface() {
        let mut route = Route::open().unwrap();
        if route.link_by_name("lo").unwrap().up {
            assert_eq!(Selector::from("127.0.0.1").find(&mut route).unwrap().name, "lo");
            assert_eq!(Selector::from("::ffff:127.0.0.1").find(&mut route).unwrap().name, "lo");
        }
    }
}
