//! rtnetlink: interfaces and their addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::sys::socket::SockProtocol;

use super::attribute::{Attribute, AttributeIter, Attributes};
use super::connection::{Connection, Request};
use super::error::{Malformed, Result};
use super::names::{AttributeName, AttributeTable};

/// The bytes of `struct ifinfomsg`.
const LINK_HEADER: usize = 16;
/// The bytes of `struct ifaddrmsg`.
const ADDRESS_HEADER: usize = 8;
/// The bytes of `struct rtmsg`.
const ROUTE_HEADER: usize = 12;

/// `IFLA_XDP_ATTACHED` and its value for "nothing" (include/uapi/linux/if_link.h).
const XDP_ATTACHED: u16 = 2;
const XDP_ATTACHED_NONE: u8 = 0;

static LINK_NAMES: AttributeTable = AttributeTable {
    attributes: &[
        AttributeName::plain(libc::IFLA_IFNAME, "ifname"),
        AttributeName::plain(libc::IFLA_ALT_IFNAME, "alt-ifname"),
        AttributeName::plain(libc::IFLA_MTU, "mtu"),
    ],
};
static ADDRESS_NAMES: AttributeTable = AttributeTable { attributes: &[] };
static ROUTE_NAMES: AttributeTable =
    AttributeTable { attributes: &[AttributeName::plain(libc::RTA_DST, "dst")] };

/// A network interface as rtnetlink describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Link {
    /// Its number, unique in its network namespace.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// Its other names.
    pub alternative_names: Vec<String>,
    /// The greatest packet it takes, in bytes.
    pub mtu: u32,
    /// Whether it is set up (`IFF_UP`).
    pub up: bool,
    /// The address of its link layer; 6 bytes for Ethernet.
    pub address: Vec<u8>,
    /// The address that was burnt in, where the driver tells.
    pub permanent_address: Option<Vec<u8>>,
    /// The bus that its device sits on, such as `pci`.
    pub parent_bus: Option<String>,
    /// The device's name on that bus, such as `0000:03:00.0`.
    pub parent_name: Option<String>,
    /// Whether an XDP program is attached.
    pub xdp_attached: bool,
}

/// An IP address of an interface of this network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalAddress {
    /// The interface.
    pub ifindex: u32,
    /// The address.
    pub address: IpAddr,
    /// How many of its bits are those of the network.
    pub prefix_length: u8,
    /// How far it is valid, such as `RT_SCOPE_UNIVERSE`.
    pub scope: u8,
    /// `IFA_F_*`.
    pub flags: u32,
}

/// A socket that speaks rtnetlink.
#[derive(Debug)]
pub struct Route {
    connection: Connection,
}

impl Route {
    /// Opens a socket of its own.
    ///
    /// # Errors
    /// No netlink socket is to be had.
    pub fn open() -> Result<Self> {
        Ok(Self { connection: Connection::open(SockProtocol::NetlinkRoute)? })
    }

    /// The interface with this number.
    ///
    /// # Errors
    /// `ENODEV`: there is none in this network namespace.
    pub fn link(&mut self, ifindex: u32) -> Result<Link> {
        self.one_link(ifindex, &Attributes::new())
    }

    /// The interface with this name, which may be an alternative name.
    ///
    /// # Errors
    /// `ENODEV`: there is none in this network namespace. `ERANGE`: the kernel takes no name this long.
    pub fn link_by_name(&mut self, name: &str) -> Result<Link> {
        let kind = if name.len() < libc::IFNAMSIZ { libc::IFLA_IFNAME } else { libc::IFLA_ALT_IFNAME };
        match self.one_link(0, &Attributes::new().string(kind, name)) {
            Err(error) if kind == libc::IFLA_IFNAME && error.errno() == Some(nix::errno::Errno::ENODEV) => {
                self.one_link(0, &Attributes::new().string(libc::IFLA_ALT_IFNAME, name))
            }
            link => link,
        }
    }

    /// Every interface of this network namespace.
    ///
    /// # Errors
    /// The socket failed or a reply is malformed.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        let header = link_header(0);
        let attributes = Attributes::new();
        let request =
            Request { kind: libc::RTM_GETLINK, header: &header, attributes: &attributes, names: &LINK_NAMES };
        let replies = self.connection.dump(request)?;
        Ok(replies.payloads.iter().map(|payload| decode_link(payload)).collect::<Result<_, _>>()?)
    }

    /// Every IP address of this network namespace.
    ///
    /// # Errors
    /// The socket failed or a reply is malformed.
    pub fn addresses(&mut self) -> Result<Vec<LocalAddress>> {
        let attributes = Attributes::new();
        let request = Request {
            kind: libc::RTM_GETADDR,
            header: &[0; ADDRESS_HEADER],
            attributes: &attributes,
            names: &ADDRESS_NAMES,
        };
        let replies = self.connection.dump(request)?;
        let mut addresses = Vec::new();
        for payload in &replies.payloads {
            addresses.extend(decode_address(payload)?);
        }
        Ok(addresses)
    }

    /// Sets an interface up or down.
    ///
    /// # Errors
    /// `EPERM`: without `CAP_NET_ADMIN`. Otherwise the driver's refusal.
    pub fn set_up(&mut self, ifindex: u32, up: bool) -> Result<()> {
        let mut header = link_header(ifindex);
        let flag = libc::IFF_UP.cast_unsigned();
        header[8..12].copy_from_slice(&if up { flag } else { 0 }.to_ne_bytes());
        header[12..16].copy_from_slice(&flag.to_ne_bytes());
        self.set_link(&header, &Attributes::new())
    }

    /// Sets the greatest packet that an interface takes, in bytes.
    ///
    /// # Errors
    /// `EINVAL` with the kernel's words: beyond what the driver allows. `EPERM`: without `CAP_NET_ADMIN`.
    pub fn set_mtu(&mut self, ifindex: u32, mtu: u32) -> Result<()> {
        self.set_link(&link_header(ifindex), &Attributes::new().u32(libc::IFLA_MTU, mtu))
    }

    /// Gives an interface an address; its flags are those that may be asked for.
    ///
    /// # Errors
    /// `EEXIST`: it has the address. `EACCES`: it has no IPv6. `EPERM`: without `CAP_NET_ADMIN`.
    pub fn add_address(&mut self, address: &LocalAddress) -> Result<()> {
        let (family, bytes) = match address.address {
            IpAddr::V4(address) => (libc::AF_INET, address.octets().to_vec()),
            IpAddr::V6(address) => (libc::AF_INET6, address.octets().to_vec()),
        };
        let mut header = [0; ADDRESS_HEADER];
        header[0] = family as u8;
        header[1] = address.prefix_length;
        header[3] = address.scope;
        header[4..8].copy_from_slice(&address.ifindex.to_ne_bytes());
        let attributes = Attributes::new()
            .bytes(libc::IFA_LOCAL, &bytes)
            .bytes(libc::IFA_ADDRESS, &bytes)
            .u32(libc::IFA_FLAGS, address.flags);
        let names = &ADDRESS_NAMES;
        let kind = libc::RTM_NEWADDR;
        // Without NLM_F_REPLACE an address that exists is refused (net/ipv4/devinet.c, net/ipv6/addrconf.c).
        self.connection.exchange(Request { kind, header: &header, attributes: &attributes, names }).map(drop)
    }

    /// The number of the interface by which packets to an address leave; that of the loopback interface for an address
    /// of this network namespace.
    ///
    /// # Errors
    /// `ENETUNREACH`: no route leads there.
    pub fn interface_towards(&mut self, address: IpAddr) -> Result<u32> {
        let (family, bytes) = match address {
            IpAddr::V4(address) => (libc::AF_INET, address.octets().to_vec()),
            IpAddr::V6(address) => (libc::AF_INET6, address.octets().to_vec()),
        };
        let mut header = [0; ROUTE_HEADER];
        header[0] = family as u8;
        // The whole address: the kernel takes nothing less in a question for one route.
        header[1] = (bytes.len() * 8) as u8;
        let attributes = Attributes::new().bytes(libc::RTA_DST, &bytes);
        let names = &ROUTE_NAMES;
        let request = Request { kind: libc::RTM_GETROUTE, header: &header, attributes: &attributes, names };
        let replies = self.connection.exchange(request)?;
        let payload = replies.payloads.first().ok_or(Malformed("an acknowledgement without its route"))?;
        Ok(decode_route(payload)?)
    }

    fn set_link(&mut self, header: &[u8], attributes: &Attributes) -> Result<()> {
        let request = Request { kind: libc::RTM_SETLINK, header, attributes, names: &LINK_NAMES };
        self.connection.exchange(request).map(drop)
    }

    fn one_link(&mut self, ifindex: u32, attributes: &Attributes) -> Result<Link> {
        let header = link_header(ifindex);
        let request = Request { kind: libc::RTM_GETLINK, header: &header, attributes, names: &LINK_NAMES };
        let replies = self.connection.exchange(request)?;
        let payload =
            replies.payloads.first().ok_or(Malformed("an acknowledgement without its interface"))?;
        Ok(decode_link(payload)?)
    }
}

/// `struct ifinfomsg` for a request: all zero but the number.
fn link_header(ifindex: u32) -> [u8; LINK_HEADER] {
    let mut header = [0; LINK_HEADER];
    header[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    header
}

fn decode_route(payload: &[u8]) -> Result<u32, Malformed> {
    let attributes = payload.get(ROUTE_HEADER..).ok_or(Malformed("a route header that is cut off"))?;
    for attribute in AttributeIter::new(attributes) {
        let attribute = attribute?;
        if attribute.kind() == libc::RTA_OIF {
            return attribute.u32();
        }
    }
    Err(Malformed("a route without an interface"))
}

fn decode_link(payload: &[u8]) -> Result<Link, Malformed> {
    let Some((header, attributes)) = payload.split_first_chunk::<LINK_HEADER>() else {
        return Err(Malformed("an interface header that is cut off"));
    };
    let flags = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]);
    let mut link = Link {
        ifindex: u32::from_ne_bytes([header[4], header[5], header[6], header[7]]),
        up: flags & libc::IFF_UP.cast_unsigned() != 0,
        ..Link::default()
    };
    for attribute in AttributeIter::new(attributes) {
        let attribute = attribute?;
        match attribute.kind() {
            libc::IFLA_IFNAME => link.name = attribute.string(),
            libc::IFLA_MTU => link.mtu = attribute.u32()?,
            libc::IFLA_ADDRESS => link.address = attribute.payload().to_vec(),
            libc::IFLA_PERM_ADDRESS => link.permanent_address = Some(attribute.payload().to_vec()),
            libc::IFLA_PARENT_DEV_BUS_NAME => link.parent_bus = Some(attribute.string()),
            libc::IFLA_PARENT_DEV_NAME => link.parent_name = Some(attribute.string()),
            libc::IFLA_PROP_LIST => {
                for property in attribute.nested() {
                    let property = property?;
                    if property.kind() == libc::IFLA_ALT_IFNAME {
                        link.alternative_names.push(property.string());
                    }
                }
            }
            libc::IFLA_XDP => {
                for part in attribute.nested() {
                    let part = part?;
                    if part.kind() == XDP_ATTACHED {
                        link.xdp_attached = part.u8()? != XDP_ATTACHED_NONE;
                    }
                }
            }
            _ => {}
        }
    }
    Ok(link)
}

/// The address of one `RTM_NEWADDR` message; `None` for families other than IP.
fn decode_address(payload: &[u8]) -> Result<Option<LocalAddress>, Malformed> {
    let Some((header, attributes)) = payload.split_first_chunk::<ADDRESS_HEADER>() else {
        return Err(Malformed("an address header that is cut off"));
    };
    let family = i32::from(header[0]);
    let ifindex = u32::from_ne_bytes([header[4], header[5], header[6], header[7]]);
    let (mut address, mut local) = (None, None);
    let mut flags = u32::from(header[2]);
    for attribute in AttributeIter::new(attributes) {
        let attribute = attribute?;
        match attribute.kind() {
            libc::IFA_ADDRESS => address = decode_ip(family, &attribute)?,
            libc::IFA_LOCAL => local = decode_ip(family, &attribute)?,
            libc::IFA_FLAGS => flags = attribute.u32()?,
            _ => {}
        }
    }
    // On a point-to-point interface IFA_ADDRESS is the peer's.
    Ok(local.or(address).map(|address| LocalAddress {
        ifindex,
        address,
        prefix_length: header[1],
        scope: header[3],
        flags,
    }))
}

fn decode_ip(family: i32, attribute: &Attribute<'_>) -> Result<Option<IpAddr>, Malformed> {
    let wrong = |_| Malformed("an IP address of the wrong length");
    match family {
        libc::AF_INET => {
            let bytes: [u8; 4] = attribute.payload().try_into().map_err(wrong)?;
            Ok(Some(Ipv4Addr::from(bytes).into()))
        }
        libc::AF_INET6 => {
            let bytes: [u8; 16] = attribute.payload().try_into().map_err(wrong)?;
            Ok(Some(Ipv6Addr::from(bytes).into()))
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::errno::Errno;
    use proptest::prelude::*;

    #[test]
    fn finds_the_loopback_interface() {
        let mut route = Route::open().unwrap();
        let link = route.link_by_name("lo").unwrap();
        assert_eq!(link.name, "lo");
        assert_eq!(route.link(link.ifindex).unwrap().name, "lo");
        assert!(route.links().unwrap().iter().any(|other| other.ifindex == link.ifindex));
        assert!(!link.xdp_attached);
    }

    #[test]
    fn a_name_that_nobody_has_is_an_error() {
        let mut route = Route::open().unwrap();
        for name in ["nosuch0", "a-name-that-only-an-alternative-name-may-have"] {
            assert_eq!(route.link_by_name(name).unwrap_err().errno(), Some(Errno::ENODEV), "{name}");
        }
        assert_eq!(route.link(0x7fff_fff0).unwrap_err().errno(), Some(Errno::ENODEV));
    }

    #[test]
    fn finds_the_loopback_address() {
        let mut route = Route::open().unwrap();
        let lo = route.link_by_name("lo").unwrap();
        let addresses = route.addresses().unwrap();
        let found = addresses.iter().find(|address| address.address == Ipv4Addr::LOCALHOST);
        let found = found.map(|address| (address.ifindex, address.prefix_length, address.scope));
        assert_eq!(found, lo.up.then_some((lo.ifindex, 8, libc::RT_SCOPE_HOST)));
    }

    #[test]
    fn own_addresses_are_reached_by_the_loopback_interface() {
        let mut route = Route::open().unwrap();
        let lo = route.link_by_name("lo").unwrap();
        if !lo.up {
            println!("skipped: the loopback interface is down");
            return;
        }
        assert_eq!(route.interface_towards(Ipv4Addr::LOCALHOST.into()).unwrap(), lo.ifindex);
    }

    proptest! {
        #[test]
        fn any_reply_ends_without_panic(payload: Vec<u8>) {
            let _ = (decode_link(&payload), decode_address(&payload), decode_route(&payload));
        }

        #[test]
        fn any_attributes_end_without_panic(kind in 0u16..70, bytes: Vec<u8>, family in 0u8..12) {
            let attributes = Attributes::new().bytes(kind, &bytes).nest(kind, Attributes::new().bytes(2, &bytes));
            let mut payload = vec![0; LINK_HEADER];
            payload.extend_from_slice(attributes.as_bytes());
            let _ = decode_link(&payload);
            let mut payload = vec![family, 0, 0, 0, 0, 0, 0, 0];
            payload.extend_from_slice(attributes.as_bytes());
            let _ = decode_address(&payload);
        }
    }
}
