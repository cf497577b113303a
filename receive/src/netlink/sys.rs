//! Socket options that only netlink sockets have.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

/// `NETLINK_ADD_MEMBERSHIP` (include/uapi/linux/netlink.h): join a multicast group.
pub(super) const ADD_MEMBERSHIP: libc::c_int = libc::NETLINK_ADD_MEMBERSHIP;
/// `NETLINK_DROP_MEMBERSHIP`: leave a multicast group.
pub(super) const DROP_MEMBERSHIP: libc::c_int = libc::NETLINK_DROP_MEMBERSHIP;
/// `NETLINK_CAP_ACK`: error replies do not repeat the request.
pub(super) const CAP_ACK: libc::c_int = libc::NETLINK_CAP_ACK;
/// `NETLINK_EXT_ACK`: replies carry the extended acknowledgement.
pub(super) const EXT_ACK: libc::c_int = libc::NETLINK_EXT_ACK;
/// `NETLINK_GET_STRICT_CHK`: the kernel checks the headers of dump requests and applies their filters.
pub(super) const GET_STRICT_CHK: libc::c_int = libc::NETLINK_GET_STRICT_CHK;

/// Sets an integer option at level `SOL_NETLINK`.
pub(super) fn set_option(socket: BorrowedFd<'_>, option: libc::c_int, value: libc::c_int) -> nix::Result<()> {
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the pointer and the length describe `value`, which lives through the call; the kernel only
    // reads it.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_NETLINK, option, (&raw const value).cast(), length)
    };
    Errno::result(result).map(drop)
}

/// The cookie of the network namespace that a socket belongs to (`SO_NETNS_COOKIE`): unique while the
/// machine runs, never used again. `None` before Linux 5.14.
pub(super) fn namespace_cookie(socket: BorrowedFd<'_>) -> Option<u64> {
    let mut cookie = 0u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the pointer and the length describe `cookie`, which lives through the call; the kernel writes
    // at most `length` bytes, and any 8 bytes are a valid u64.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    (result == 0 && length as usize == size_of::<u64>()).then_some(cookie)
}
