//! What the kernel counted on a connection (`TCP_INFO`, tcp(7)).

use std::mem::zeroed;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

/// `struct tcp_info`. What an old kernel does not count is zero.
pub(super) fn tcp_info(socket: BorrowedFd<'_>) -> nix::Result<libc::tcp_info> {
    // SAFETY: the structure has numbers alone, for which zero is a value.
    let mut info: libc::tcp_info = unsafe { zeroed() };
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the pointer and the length describe `info`, which lives through the call; the kernel writes at most
    // `length` bytes.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    Errno::result(result).map(|_| info)
}
