//! Connecting to the NIC under test, whose link may be down for a while.

use std::io::{Error, Result};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, getsockopt, setsockopt, socket,
    sockopt,
};

use super::control::Control;
use super::script::Script;

/// How long a connection is tried: the receiver may still be setting its NIC up, whose link goes down meanwhile.
const LIMIT: Duration = Duration::from_secs(20);
const INTERVAL: Duration = Duration::from_millis(20);

/// How often a script that waits for its connection looks whether it was aborted.
const LOOK_INTERVAL_MILLISECONDS: u8 = 20;

/// Connects as a script says, until it is aborted.
pub(super) fn connected(script: &Script, control: &Control) -> Result<TcpStream> {
    let deadline = Instant::now() + LIMIT;
    loop {
        match attempt(script, control, deadline) {
            Err(error) if may_heal(&error) && Instant::now() < deadline => control.pause(INTERVAL)?,
            result => return result,
        }
    }
}

/// Whether the next attempt may succeed: nobody listens yet, or the link comes back.
fn may_heal(error: &Error) -> bool {
    let Some(number) = error.raw_os_error() else { return false };
    matches!(
        Errno::from_raw(number),
        Errno::ECONNREFUSED
            | Errno::ECONNRESET
            | Errno::EHOSTUNREACH
            | Errno::EHOSTDOWN
            | Errno::ENETUNREACH
            | Errno::ENETDOWN
            | Errno::ETIMEDOUT
            // An address of IPv6 is looked for duplicates after the link has come back, and is not to be had meanwhile.
            | Errno::EADDRNOTAVAIL
    )
}

fn attempt(script: &Script, control: &Control, deadline: Instant) -> Result<TcpStream> {
    let family = match script.to {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket: OwnedFd = socket(family, SockType::Stream, flags, None)?;
    if let Some(bytes) = script.maximum_segment {
        setsockopt(&socket, sockopt::TcpMaxSeg, &bytes.into())?;
    }
    if let Some(port) = script.from_port {
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
        let any: IpAddr = match script.to {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(any, port)))?;
    }
    match connect(socket.as_raw_fd(), &SockaddrStorage::from(script.to)) {
        Err(Errno::EINPROGRESS) => wait(&socket, control, deadline)?,
        result => result?,
    }
    let connection = TcpStream::from(socket);
    connection.set_nonblocking(false)?;
    connection.set_nodelay(script.no_delay)?;
    Ok(connection)
}

/// Waits until the socket is connected.
fn wait(socket: &OwnedFd, control: &Control, deadline: Instant) -> Result<()> {
    loop {
        control.check()?;
        let mut ready = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
        match poll(&mut ready, PollTimeout::from(LOOK_INTERVAL_MILLISECONDS)) {
            Ok(0) if Instant::now() >= deadline => return Err(Errno::ETIMEDOUT.into()),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => {
                return match getsockopt(socket, sockopt::SocketError)? {
                    0 => Ok(()),
                    number => Err(Error::from_raw_os_error(number)),
                };
            }
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(address: &str) -> Script {
        Script {
            to: address.parse().unwrap(),
            from_port: None,
            no_delay: false,
            maximum_segment: None,
            steps: Vec::new(),
        }
    }

    #[test]
    fn what_cannot_heal_is_not_tried_again() {
        // Somebody listens on the port that it is to come from.
        let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let taken = listener.local_addr().unwrap().port();
        let script = Script { from_port: Some(taken), ..to("127.0.0.1:9") };
        let started = Instant::now();
        let error = connected(&script, &Control::default()).unwrap_err();
        drop(listener);
        assert_eq!(error.raw_os_error(), Some(Errno::EADDRINUSE as i32), "{error}");
        // The limit is the only thing that ends attempts which are repeated.
        assert!(started.elapsed() < LIMIT, "{error}");
    }

    #[test]
    fn an_aborted_script_gives_up() {
        // A port on which nobody listens: it is tried again.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let control = Control::default();
        std::thread::scope(|scope| {
            let attempt = scope.spawn(|| connected(&to(&free.to_string()), &control));
            control.abort();
            let error = attempt.join().unwrap().unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::Interrupted);
        });
    }
}
