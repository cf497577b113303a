//! A network namespace with a veth pair in it.

use std::os::fd::{AsRawFd, OwnedFd};

use devmem_receive::netlink::Attributes;
use devmem_receive::nic::Nic;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};
use nix::unistd::{Gid, Uid};

use crate::harness::Failure;

/// The NIC of the tests: 4 receive queues at most, 1 at first.
pub(crate) const NIC: &str = "nic0";
const PEER: &str = "peer0";
pub(crate) const QUEUES_MAX: u32 = 4;

/// `VETH_INFO_PEER` (include/uapi/linux/veth.h).
const VETH_INFO_PEER: u16 = 1;

/// Moves this process, which has one thread as yet, into a network namespace of its own; without root, into
/// a user namespace of its own as well.
pub(crate) fn enter() -> Result<(), Failure> {
    let (user, group) = (Uid::effective(), Gid::effective());
    if user.is_root() {
        return Ok(unshare(CloneFlags::CLONE_NEWNET)
            .map_err(|errno| format!("a network namespace is not to be had: {errno}"))?);
    }
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)
        .map_err(|errno| format!("a user namespace is not to be had: {errno}"))?;
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("0 {group} 1"))?;
    Ok(())
}

/// A veth pair, of which [`NIC`] is one end; removed when dropped.
#[derive(Debug)]
pub(crate) struct Veth;

impl Veth {
    pub(crate) fn new() -> Result<Self, Failure> {
        let mut peer = [0; 16].to_vec();
        peer.extend_from_slice(end(PEER).as_bytes());
        let information = Attributes::new()
            .string(libc::IFLA_INFO_KIND, "veth")
            .nest(libc::IFLA_INFO_DATA, Attributes::new().bytes(VETH_INFO_PEER, &peer));
        let attributes = end(NIC).nest(libc::IFLA_LINKINFO, information);
        let create = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
        route(libc::RTM_NEWLINK, create, 0, false, &attributes)?;
        let veth = Self;
        set_up(NIC, true)?;
        set_up(PEER, true)?;
        let nic = Nic::open(NIC)?;
        let mut counts = nic.ethtool().channels(nic.ifindex())?.current;
        (counts.rx, counts.tx) = (1, 1);
        nic.ethtool().set_channels(nic.ifindex(), &counts)?;
        Ok(veth)
    }

    pub(crate) fn remove(&self) -> Result<(), Failure> {
        let ifindex = Nic::open(NIC)?.ifindex();
        route(libc::RTM_DELLINK, 0, ifindex, false, &Attributes::new())
    }
}

impl Drop for Veth {
    fn drop(&mut self) {
        // A test may have removed it.
        let _ = self.remove();
    }
}

fn end(name: &str) -> Attributes {
    Attributes::new()
        .string(libc::IFLA_IFNAME, name)
        .u32(libc::IFLA_NUM_RX_QUEUES, QUEUES_MAX)
        .u32(libc::IFLA_NUM_TX_QUEUES, QUEUES_MAX)
}

pub(crate) fn set_up(name: &str, up: bool) -> Result<(), Failure> {
    route(libc::RTM_NEWLINK, 0, Nic::open(name)?.ifindex(), up, &Attributes::new())
}

/// Sends one rtnetlink request about a link. `up` is the state that it shall have.
fn route(kind: u16, flags: u16, ifindex: u32, up: bool, attributes: &Attributes) -> Result<(), Failure> {
    let up_flag = libc::IFF_UP.cast_unsigned();
    let flags = flags | (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
    let length = u32::try_from(32 + attributes.as_bytes().len())?;
    let mut request = Vec::new();
    request.extend(length.to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend(flags.to_ne_bytes());
    request.extend([0; 8]);
    request.extend([0; 4]);
    request.extend(ifindex.to_ne_bytes());
    request.extend(if up { up_flag } else { 0 }.to_ne_bytes());
    request.extend(if ifindex == 0 { 0 } else { up_flag }.to_ne_bytes());
    request.extend(attributes.as_bytes());
    let socket: OwnedFd =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    send(socket.as_raw_fd(), &request, MsgFlags::empty())?;
    let mut reply = [0; 4096];
    let received = recv(socket.as_raw_fd(), &mut reply, MsgFlags::empty())?;
    let errno = reply.get(16..20).filter(|_| received >= 20).ok_or("a short reply")?;
    match i32::from_ne_bytes(errno.try_into()?) {
        0 => Ok(()),
        errno => Err(format!("rtnetlink request {kind}: {}", nix::errno::Errno::from_raw(-errno)).into()),
    }
}
