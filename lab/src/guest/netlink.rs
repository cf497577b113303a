//! The few requests to the kernel's routing netlink that set up addresses and devices
//! (`Documentation/userspace-api/netlink/specs/rt-link.yaml`, `rt-addr.yaml`).

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

const REQUEST_ACKNOWLEDGE: u16 = 0x5;
const REQUEST_CREATE_EXCLUSIVE: u16 = 0x600;
const REQUEST: u16 = 0x1;
const ERROR: u16 = 2;
const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const LINK_NAME: u16 = 3;
const LINK_NAMESPACE: u16 = 28;
const ADDRESS_ADDRESS: u16 = 1;
const ADDRESS_LOCAL: u16 = 2;
const ADDRESS_FLAGS: u16 = 8;
/// The address is used at once, without asking whether anybody else has it.
const NO_DUPLICATE_DETECTION: u32 = 0x02;
const INTERFACE_UP: u32 = 1;
const INTERFACE_RUNNING: u32 = 0x40;

/// A socket that acts on the network namespace of the thread that made it.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: OwnedFd,
}

impl Netlink {
    pub(super) fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
        Ok(Self { socket })
    }

    /// Gives a device another name; it must be down.
    pub(super) fn rename(&self, index: u32, name: &str) -> io::Result<()> {
        let mut body = link(index, 0);
        attribute(&mut body, LINK_NAME, format!("{name}\0").as_bytes());
        self.request(NEW_LINK, 0, &body)
    }

    pub(super) fn bring_up(&self, index: u32) -> io::Result<()> {
        self.request(NEW_LINK, 0, &link(index, INTERFACE_UP))
    }

    /// Whether the device is up and has a link.
    pub(super) fn is_running(&self, index: u32) -> io::Result<bool> {
        let reply = self.exchange(&message(GET_LINK, REQUEST, &link(index, 0)))?;
        link_flags(&reply).map(|flags| flags & INTERFACE_RUNNING != 0)
    }

    pub(super) fn move_to(&self, index: u32, namespace: BorrowedFd<'_>) -> io::Result<()> {
        let mut body = link(index, 0);
        attribute(&mut body, LINK_NAMESPACE, &namespace.as_raw_fd().cast_unsigned().to_ne_bytes());
        self.request(NEW_LINK, 0, &body)
    }

    pub(super) fn add_address(&self, index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
        self.request(NEW_ADDRESS, REQUEST_CREATE_EXCLUSIVE, &address_message(index, address, prefix))
    }

    fn request(&self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        outcome(&self.exchange(&message(kind, REQUEST_ACKNOWLEDGE | flags, body))?)
    }

    fn exchange(&self, message: &[u8]) -> io::Result<Vec<u8>> {
        send(self.socket.as_raw_fd(), message, MsgFlags::empty())?;
        let mut reply = vec![0; 1 << 14];
        loop {
            match recv(self.socket.as_raw_fd(), &mut reply, MsgFlags::empty()) {
                Ok(count) => {
                    reply.truncate(count);
                    return Ok(reply);
                }
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Reads a device's flags from `struct ifinfomsg` behind the header, or the error that came instead.
fn link_flags(reply: &[u8]) -> io::Result<u32> {
    let kind = reply.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    let flags = reply.get(24..28).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes);
    match (kind, flags) {
        (Some(NEW_LINK), Some(flags)) => Ok(flags),
        _ => {
            outcome(reply)?;
            Err(io::Error::new(io::ErrorKind::InvalidData, "the kernel described no device"))
        }
    }
}

/// Reads an acknowledgement: a message of the kind "error" whose error may be none.
fn outcome(reply: &[u8]) -> io::Result<()> {
    let kind = reply.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    let error = reply.get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match (kind, error) {
        (Some(ERROR), Some(0)) => Ok(()),
        (Some(ERROR), Some(error)) => Err(io::Error::from_raw_os_error(error.saturating_neg())),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the kernel sent no acknowledgement")),
    }
}

fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(16 + body.len()).unwrap_or(u32::MAX);
    let mut message = Vec::new();
    message.extend_from_slice(&length.to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(&flags.to_ne_bytes());
    // Sequence number and sender: one request at a time needs neither.
    message.extend_from_slice(&[0; 8]);
    message.extend_from_slice(body);
    message
}

/// `struct ifinfomsg`: which device, and which of its flags to set.
fn link(index: u32, flags: u32) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend_from_slice(&index.to_ne_bytes());
    body.extend_from_slice(&flags.to_ne_bytes());
    body.extend_from_slice(&flags.to_ne_bytes());
    body
}

/// `struct ifaddrmsg` and its attributes.
fn address_message(index: u32, address: IpAddr, prefix: u8) -> Vec<u8> {
    let (family, bytes) = match address {
        IpAddr::V4(address) => (libc::AF_INET, address.octets().to_vec()),
        IpAddr::V6(address) => (libc::AF_INET6, address.octets().to_vec()),
    };
    let mut body = vec![u8::try_from(family).unwrap_or_default(), prefix, 0, 0];
    body.extend_from_slice(&index.to_ne_bytes());
    attribute(&mut body, ADDRESS_LOCAL, &bytes);
    attribute(&mut body, ADDRESS_ADDRESS, &bytes);
    if address.is_ipv6() {
        attribute(&mut body, ADDRESS_FLAGS, &NO_DUPLICATE_DETECTION.to_ne_bytes());
    }
    body
}

fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    body.extend_from_slice(&length.to_ne_bytes());
    body.extend_from_slice(&kind.to_ne_bytes());
    body.extend_from_slice(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_to_four_bytes() {
        let mut body = Vec::new();
        attribute(&mut body, LINK_NAME, b"eth0\0");
        assert_eq!(body, [9, 0, 3, 0, b'e', b't', b'h', b'0', 0, 0, 0, 0]);
    }

    #[test]
    fn an_address_is_sent_as_the_kernel_reads_it() {
        let body = address_message(2, "10.77.0.1".parse().unwrap(), 24);
        assert_eq!(body, [2, 24, 0, 0, 2, 0, 0, 0, 8, 0, 2, 0, 10, 77, 0, 1, 8, 0, 1, 0, 10, 77, 0, 1]);
        let body = address_message(2, "fd77::1".parse().unwrap(), 64);
        assert_eq!(body.len(), 8 + 20 + 20 + 8);
        assert_eq!(body[48..], [8, 0, 8, 0, 2, 0, 0, 0]);
    }

    #[test]
    fn replies_are_understood_or_refused() {
        let reply = |error: i32| message(ERROR, 0, &error.to_ne_bytes());
        assert!(outcome(&reply(0)).is_ok());
        assert_eq!(outcome(&reply(-17)).unwrap_err().raw_os_error(), Some(17));
        assert!(outcome(&reply(i32::MIN)).is_err());
        assert!(outcome(&[]).is_err());
        assert!(outcome(&reply(0)[..18]).is_err());
        assert!(outcome(&message(NEW_LINK, 0, &[0; 8])).is_err());
    }

    #[test]
    fn the_loopback_device_is_described() {
        let netlink = Netlink::open().unwrap();
        assert!(netlink.is_running(1).is_ok());
        assert!(netlink.is_running(u32::MAX >> 1).is_err());
        assert!(link_flags(&[]).is_err());
        assert!(link_flags(&message(NEW_LINK, 0, &[0; 8])).is_err());
    }

    #[test]
    fn the_kernel_takes_and_refuses_requests() {
        // Any process may ask; without privilege the kernel says so.
        let netlink = Netlink::open().unwrap();
        assert!(netlink.bring_up(u32::MAX >> 1).is_err());
    }
}
