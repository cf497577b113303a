//! Requests about network interfaces that the checks make beside those of the receive path (rtnetlink(7)).

use std::os::fd::{AsRawFd, OwnedFd};

use devmem_receive::netlink::Attributes;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

/// The bytes of `struct nlmsghdr` and of `struct ifinfomsg`.
const HEADERS: usize = 16 + 16;

/// Makes a virtual interface of a kind such as `dummy`, in the calling thread's network namespace.
///
/// # Errors
///
/// `EOPNOTSUPP`: the kernel has no such kind.
pub(crate) fn create(kind: &str, name: &str) -> nix::Result<()> {
    let information = Attributes::new().string(libc::IFLA_INFO_KIND, kind);
    let attributes = Attributes::new().string(libc::IFLA_IFNAME, name).nest(libc::IFLA_LINKINFO, information);
    let create = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
    request(libc::RTM_NEWLINK, create, 0, &attributes)
}

/// Gives an interface another name. Kernels before 6.2 refuse that while it is up.
///
/// # Errors
///
/// `EEXIST`: another interface has the name. `EBUSY`: the interface is up.
pub(crate) fn rename(ifindex: u32, name: &str) -> nix::Result<()> {
    request(libc::RTM_NEWLINK, 0, ifindex, &Attributes::new().string(libc::IFLA_IFNAME, name))
}

fn request(kind: u16, flags: u16, ifindex: u32, attributes: &Attributes) -> nix::Result<()> {
    let attributes = attributes.as_bytes();
    let length = u32::try_from(HEADERS + attributes.len()).map_err(|_| Errno::EMSGSIZE)?;
    let flags = flags | (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
    let mut message = Vec::new();
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    // Sequence and port, then family, type of device and padding: all zero.
    message.extend([0; 8 + 4]);
    message.extend(ifindex.to_ne_bytes());
    // The interface's flags and which of them shall change: none.
    message.extend([0; 8]);
    message.extend(attributes);
    let socket: OwnedFd =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    send(socket.as_raw_fd(), &message, MsgFlags::empty())?;
    let mut reply = [0; 4096];
    let received = recv(socket.as_raw_fd(), &mut reply, MsgFlags::empty())?;
    // `struct nlmsgerr` behind the header begins with the error number, negated.
    let errno = reply.get(16..20).filter(|_| received >= 20).and_then(|bytes| bytes.try_into().ok());
    match i32::from_ne_bytes(errno.ok_or(Errno::EBADMSG)?) {
        0 => Ok(()),
        errno => Err(Errno::from_raw(errno.saturating_neg())),
    }
}
