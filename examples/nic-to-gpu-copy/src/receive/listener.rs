//! The listening socket: its port is taken before anything is changed, and opened when all is ready.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket, sockopt,
};

/// A port that is reserved, and refuses connections so far.
#[derive(Debug)]
pub(crate) struct ReservedPort {
    socket: OwnedFd,
    address: SocketAddr,
}

impl ReservedPort {
    /// Reserves the port.
    pub(crate) fn reserve(address: SocketAddr) -> Result<Self> {
        let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let refused = |errno: Errno| {
            let remedy = match errno {
                Errno::EADDRINUSE => "another program listens there; stop it or choose another port",
                Errno::EADDRNOTAVAIL => "no interface of this machine has that address",
                Errno::EACCES => "ports below 1024 take privilege; choose a higher one",
                _ => "look at the address",
            };
            anyhow::anyhow!("cannot listen on {address}: {}; {remedy}", errno.desc())
        };
        let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).map_err(refused)?;
        setsockopt(&socket, sockopt::ReuseAddr, &true).map_err(refused)?;
        bind(socket.as_raw_fd(), &SockaddrStorage::from(address)).map_err(refused)?;
        Ok(Self { socket, address })
    }

    /// Lets peers connect.
    pub(crate) fn listen(self) -> Result<Listener> {
        // `SO_REUSEADDR` lets two sockets bind one port as long as neither listens: the second is told here.
        listen(&self.socket, Backlog::MAXCONN)
            .map_err(|errno| anyhow::anyhow!("cannot listen on {}: {}", self.address, errno.desc()))?;
        Ok(Listener(TcpListener::from(self.socket)))
    }
}

/// A port that takes connections.
#[derive(Debug)]
pub(crate) struct Listener(TcpListener);

impl Listener {
    /// The next connection; an error if none comes within `limit`.
    pub(crate) fn accept(&self, limit: Duration) -> Result<TcpStream> {
        let milliseconds = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let timeout = PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX);
        loop {
            let mut watched = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            match poll(&mut watched, timeout) {
                Ok(0) => bail!("nobody connected within {} s; see --timeout", limit.as_secs()),
                Ok(_) => return Ok(self.0.accept().context("cannot accept a connection")?.0),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno).context("cannot wait for a connection"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_refused_with_a_remedy() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = ReservedPort::reserve(taken.local_addr().unwrap()).unwrap_err();
        assert!(error.to_string().contains("another program"), "{error}");
    }

    #[test]
    fn an_address_of_nobody_is_refused_with_a_remedy() {
        let error = ReservedPort::reserve("192.0.2.1:5201".parse().unwrap()).unwrap_err();
        assert!(error.to_string().contains("no interface"), "{error}");
    }

    #[test]
    fn a_reserved_port_opens_on_demand() {
        let port = ReservedPort::reserve("[::1]:0".parse().unwrap()).unwrap();
        let listener = port.listen().unwrap();
        let _peer = TcpStream::connect(listener.0.local_addr().unwrap()).unwrap();
        listener.accept(Duration::from_secs(10)).unwrap();
        assert!(listener.accept(Duration::ZERO).is_err());
    }
}
