//! AF_XDP sockets (`Documentation/networking/af_xdp.rst`), which take whole queues of a NIC for themselves.

mod sys;

use std::os::fd::OwnedFd;

use devmem_provider::{Error, Result};
use nix::errno::Errno;

use sys::Area;

/// How packets get from the queue to the socket's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The kernel copies them; every driver can do that.
    Copy,
    /// The NIC writes there.
    ZeroCopy,
}

/// A socket with memory and rings, ready to be bound to one queue.
#[derive(Debug)]
pub(crate) struct AfXdpSocket {
    socket: OwnedFd,
    /// What the kernel pins as the socket's memory. It goes after the socket.
    _area: Area,
}

impl AfXdpSocket {
    /// Makes a socket with 256 KiB of memory.
    ///
    /// # Errors
    ///
    /// `EAFNOSUPPORT`: the kernel has no AF_XDP. `EPERM`: without `CAP_NET_RAW`.
    pub(crate) fn new() -> Result<Self> {
        let attempt = || -> nix::Result<Self> {
            let socket = sys::socket()?;
            let area = Area::new()?;
            sys::register(&socket, &area)?;
            sys::make_rings(&socket)?;
            Ok(Self { socket, _area: area })
        };
        attempt().map_err(|errno| {
            Error::from_errno(errno, "make an AF_XDP socket")
                .remedy("run as root on a kernel with CONFIG_XDP_SOCKETS")
        })
    }

    /// Binds it to a receive queue, which is free again once the socket is closed.
    ///
    /// # Errors
    ///
    /// `EBUSY`: the queue, or with [`Mode::ZeroCopy`] a queue of the NIC, is taken. `EOPNOTSUPP`: the driver has no
    /// such mode.
    pub(crate) fn bind(&self, ifindex: u32, queue: u32, mode: Mode) -> std::result::Result<(), Errno> {
        sys::bind(&self.socket, ifindex, queue, mode)
    }
}
