//! The peer's end: it listens for runners of other machines, and serves those that have the key.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::Scope;
use std::time::{Duration, Instant};

use devmem_provider::{Error, ErrorKind, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::authentication::{Refusal, VERSION, as_peer};
use super::key::Key;
use super::paced::Paced;
use super::sealed::Sealed;
use super::server::{Rights, Service};

/// How long a stranger may take to prove that it has the key.
const AUTHENTICATION: Duration = Duration::from_secs(5);
/// How long a runner may have nothing to ask.
const IDLE: Duration = Duration::from_secs(300);

/// No more strangers are heard at the same time, in all and from one place, so that nobody keeps others out.
const STRANGERS: usize = 32;
const STRANGERS_OF_ONE_PLACE: usize = 4;
/// No more runners are served at the same time.
const SESSIONS: usize = 16;

/// Refusals are told once in a while alone: anybody may cause them.
const REFUSALS_INTERVAL: Duration = Duration::from_secs(1);

/// A peer that serves runners of other machines.
///
/// A runner must have the key. Its checks may then have the peer connect to the address that the runner came from, and
/// to addresses that were named for it, and to nothing else. It starts no program and reads no file.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    key: Key,
    to: Vec<IpAddr>,
}

impl Listener {
    /// Listens on an address and port, for runners that have `key`. Besides where they came from, scripts may connect
    /// to the addresses of `to`.
    ///
    /// # Errors
    ///
    /// There is no such address here, or somebody else listens there.
    pub fn bind(address: &str, key: Key, to: &[IpAddr]) -> Result<Self> {
        let failed = |error| {
            Error::from_io(error, "listen")
                .on(address)
                .remedy("name an address of this machine and a free port: `--listen 192.0.2.2:5300`")
        };
        let addresses: Vec<SocketAddr> = address.to_socket_addrs().map_err(failed)?.collect();
        let socket = TcpListener::bind(&*addresses).map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        let to: Vec<IpAddr> = to.iter().map(IpAddr::to_canonical).collect();
        if let Some(none) = to.iter().find(|address| address.is_unspecified() || address.is_multicast()) {
            return Err(Error::new(ErrorKind::InvalidInput, "send to an address")
                .on(none)
                .because("it is no machine's")
                .remedy("name the address of the NIC under test"));
        }
        Ok(Self { socket, address, key, to })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves runners until `stop` can be read from; sessions end then. Each is told when it has ended, in a line.
    ///
    /// # Errors
    ///
    /// The kernel cannot be waited for.
    pub fn serve(&self, stop: BorrowedFd<'_>, tell: &(dyn Fn(&str) + Sync)) -> Result<()> {
        let failed = |error| Error::from_io(error, "wait for runners").on(self.address);
        self.socket.set_nonblocking(true).map_err(failed)?;
        let visitors = Visitors { tell, known: Mutex::default() };
        std::thread::scope(|scope| {
            let served = self.receive_all(scope, &visitors, stop);
            visitors.end();
            served.map_err(failed)
        })
    }

    fn receive_all<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        visitors: &'scope Visitors<'_>,
        stop: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let mut next = 0;
        while accepting(&self.socket, stop)? {
            // Somebody who has gone again, or no descriptors for the moment.
            let Ok((stream, from)) = self.socket.accept() else {
                std::thread::sleep(Duration::from_millis(10));
                continue;
            };
            next += 1;
            let Some(visit) = visitors.arrived(next, from.ip().to_canonical(), &stream) else { continue };
            // Without a thread for it, the visitor is gone with the closure.
            let _ = std::thread::Builder::new()
                .name("session".to_owned())
                .spawn_scoped(scope, move || self.receive(visit, stream));
        }
        Ok(())
    }

    /// Hears a stranger, and serves it if it has the key.
    fn receive(&self, mut visit: Visit<'_, '_>, stream: TcpStream) {
        let agree = || {
            let mut paced = Paced::within(stream, AUTHENTICATION)?;
            let (keys, ()) = as_peer(&mut paced, &self.key, || visit.becomes_a_session())?;
            Ok(Sealed::of_peer(paced.with_messages_within(IDLE), &keys))
        };
        let mut messages = match agree() {
            Ok(messages) => messages,
            Err(refusal) => return visit.refused(&refusal),
        };
        let mut allowed = vec![visit.from];
        allowed.extend(self.to.iter().filter(|&&address| address != visit.from));
        let started = Instant::now();
        let mut service = Service::new(Rights::Addresses(allowed));
        let served = service.serve(&mut messages);
        let how = served.err().map(|error| format!(", until {error}")).unwrap_or_default();
        visit.tell(&format!(
            "session of {:.1} s: {} scripts, {} bytes sent{how}",
            started.elapsed().as_secs_f64(),
            service.scripts.started,
            service.scripts.written
        ));
    }
}

/// Waits until somebody arrives. Returns `false` once it is to stop.
fn accepting(socket: &TcpListener, stop: BorrowedFd<'_>) -> io::Result<bool> {
    let mut ready = [PollFd::new(socket.as_fd(), PollFlags::POLLIN), PollFd::new(stop, PollFlags::POLLIN)];
    loop {
        match poll(&mut ready, PollTimeout::NONE) {
            Ok(_) => return Ok(!ready[1].any().unwrap_or(true)),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Everybody who is connected.
struct Visitors<'peer> {
    tell: &'peer (dyn Fn(&str) + Sync),
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    connections: BTreeMap<u64, TcpStream>,
    /// From where.
    strangers: BTreeMap<u64, IpAddr>,
    sessions: usize,
    /// When a refusal was told, and how many were not since.
    refusal_told: Option<Instant>,
    refusals: u64,
}

/// A visitor, from its arrival to its end.
struct Visit<'visitors, 'peer> {
    visitors: &'visitors Visitors<'peer>,
    number: u64,
    from: IpAddr,
    is_session: bool,
}

impl<'peer> Visitors<'peer> {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hears another stranger, if there are not too many.
    fn arrived(&self, number: u64, from: IpAddr, stream: &TcpStream) -> Option<Visit<'_, 'peer>> {
        let mut known = self.known();
        let neighbours = known.strangers.values().filter(|&&other| place(other) == place(from)).count();
        if known.strangers.len() >= STRANGERS || neighbours >= STRANGERS_OF_ONE_PLACE {
            return None;
        }
        known.connections.insert(number, stream.try_clone().ok()?);
        known.strangers.insert(number, from);
        Some(Visit { visitors: self, number, from, is_session: false })
    }

    /// Ends every conversation.
    fn end(&self) {
        for connection in self.known().connections.values() {
            // The other side may have ended it.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

impl Visit<'_, '_> {
    /// The stranger has the key. `None` if there are too many sessions.
    fn becomes_a_session(&mut self) -> Option<()> {
        let mut known = self.visitors.known();
        if known.sessions >= SESSIONS {
            return None;
        }
        known.sessions += 1;
        known.strangers.remove(&self.number);
        self.is_session = true;
        Some(())
    }

    fn tell(&self, what: &str) {
        (self.visitors.tell)(&format!("{}: {what}", self.from));
    }

    fn refused(&self, refusal: &Refusal) {
        let mut known = self.visitors.known();
        if known.refusal_told.is_some_and(|told| told.elapsed() < REFUSALS_INTERVAL) {
            known.refusals += 1;
            return;
        }
        known.refusal_told = Some(Instant::now());
        let others = match std::mem::take(&mut known.refusals) {
            0 => String::new(),
            count => format!(" ({count} others before were not told)"),
        };
        drop(known);
        let why = match refusal {
            Refusal::Stranger => "it speaks something else".to_owned(),
            Refusal::Version(version) => {
                format!("it speaks version {version} of the protocol, and this program version {VERSION}")
            }
            Refusal::WrongKey => "it has another key".to_owned(),
            Refusal::Full => format!("there are {SESSIONS} sessions already"),
            Refusal::Io(error) => error.to_string(),
        };
        self.tell(&format!("refused: {why}{others}"));
    }
}

impl Drop for Visit<'_, '_> {
    fn drop(&mut self) {
        let mut known = self.visitors.known();
        known.connections.remove(&self.number);
        known.strangers.remove(&self.number);
        known.sessions -= usize::from(self.is_session);
    }
}

/// What one owner has: an address of IPv4, or a network of IPv6, in which everybody has as many as it likes.
fn place(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}
