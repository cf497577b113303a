//! The side that connects and sends.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, SockaddrStorage, bind, connect, send, setsockopt, socket,
    sockopt,
};

use super::protocol::{Request, Response, read, write};
use super::script::{Failure, Script, Step, Told, fill};
use crate::isolation::Link;

/// No more scripts are done at the same time.
const SCRIPTS: usize = 64;

/// How long a connection is tried again: the receiver may still be setting its NIC up, whose link goes down meanwhile.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);
const CONNECT_INTERVAL: Duration = Duration::from_millis(20);

/// How long a read or write may take. A script of a check that has failed would wait for ever.
const STEP_LIMIT: Duration = Duration::from_secs(60);

/// The most that is written in one call, in bytes.
const LARGEST_CHUNK: usize = 1 << 20;

/// A script that is being done.
struct Work {
    proceed: Sender<()>,
    ended: Receiver<Told>,
    /// There once it is connected.
    connection: Receiver<Weak<TcpStream>>,
}

/// Does what a check asks for, until it closes its end.
pub(crate) fn serve(link: &Link) -> Result<()> {
    let mut scripts = BTreeMap::new();
    loop {
        let request = match read(link) {
            Ok(request) => request,
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        };
        let response = answer(&mut scripts, request).unwrap_or_else(|error| Response::Refused {
            errno: error.raw_os_error(),
            text: error.to_string(),
        });
        write(link, &response)?;
    }
}

fn answer(scripts: &mut BTreeMap<u32, Work>, request: Request) -> Result<Response> {
    match request {
        Request::Enter { namespace } => enter(&namespace)?,
        Request::Start { number, script } => {
            if scripts.len() >= SCRIPTS {
                return Err(Error::other(format!("{SCRIPTS} scripts are being done already")));
            }
            scripts.insert(number, start(script)?);
        }
        // A script that has ended waits at no barrier.
        Request::Proceed { number } => drop(find(scripts, number)?.proceed.send(())),
        Request::Finish { number, milliseconds } => {
            let told = find(scripts, number)?.ended.recv_timeout(Duration::from_millis(milliseconds));
            let Ok(told) = told else { return Ok(Response::Late) };
            scripts.remove(&number);
            return Ok(Response::Ended { told });
        }
        Request::Abort { number } => {
            if let Some(work) = scripts.remove(&number) {
                // What has ended meanwhile has nothing to shut down.
                let alive = work.connection.try_iter().filter_map(|connection| connection.upgrade());
                alive.for_each(|connection| drop(connection.shutdown(Shutdown::Both)));
            }
        }
    }
    Ok(Response::Done)
}

fn find(scripts: &mut BTreeMap<u32, Work>, number: u32) -> Result<&mut Work> {
    scripts.get_mut(&number).ok_or_else(|| Error::other(format!("there is no script {number}")))
}

/// The threads of scripts are started by this one, and so in the same namespace.
fn enter(namespace: &Path) -> Result<()> {
    let file = File::open(namespace)?;
    Ok(setns(file, CloneFlags::CLONE_NEWNET)?)
}

fn start(script: Script) -> Result<Work> {
    let (proceed, barrier) = channel();
    let (end, ended) = channel();
    let (tell, connection) = channel();
    std::thread::Builder::new().name("script".to_owned()).spawn(move || {
        // Nobody listens to a script that was aborted.
        let _ = end.send(perform(&script, &barrier, &tell));
    })?;
    Ok(Work { proceed, ended, connection })
}

fn perform(script: &Script, barrier: &Receiver<()>, tell: &Sender<Weak<TcpStream>>) -> Told {
    let mut told = Told::default();
    let failed =
        |step, error: Error| Some(Failure { step, errno: error.raw_os_error(), text: error.to_string() });
    let connected = connected(script).map(|connection| {
        let connection = Arc::new(connection);
        // Nobody looks at the connection of a script that was aborted before it was there.
        let _ = tell.send(Arc::downgrade(&connection));
        connection
    });
    let connection = match connected {
        Ok(connection) => connection,
        Err(error) => {
            told.failure = failed(None, error);
            return told;
        }
    };
    for (index, step) in script.steps.iter().enumerate() {
        if let Err(error) = take(step, &connection, barrier, &mut told) {
            told.failure = failed(Some(index), error);
            break;
        }
    }
    told
}

fn connected(script: &Script) -> Result<TcpStream> {
    let deadline = Instant::now() + CONNECT_LIMIT;
    loop {
        match attempt(script) {
            Ok(connection) => return Ok(connection),
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => std::thread::sleep(CONNECT_INTERVAL),
        }
    }
}

fn attempt(script: &Script) -> Result<TcpStream> {
    let family = match script.to {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let socket: OwnedFd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    if let Some(bytes) = script.maximum_segment {
        setsockopt(&socket, sockopt::TcpMaxSeg, &bytes.into())?;
    }
    if let Some(port) = script.from_port {
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
        let mut any = script.to;
        any.set_port(port);
        match &mut any {
            SocketAddr::V4(address) => address.set_ip(std::net::Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(address) => address.set_ip(std::net::Ipv6Addr::UNSPECIFIED),
        }
        bind(socket.as_raw_fd(), &SockaddrStorage::from(any))?;
    }
    connect(socket.as_raw_fd(), &SockaddrStorage::from(script.to))?;
    let connection = TcpStream::from(socket);
    connection.set_nodelay(script.no_delay)?;
    connection.set_read_timeout(Some(STEP_LIMIT))?;
    connection.set_write_timeout(Some(STEP_LIMIT))?;
    Ok(connection)
}

fn take(step: &Step, mut connection: &TcpStream, barrier: &Receiver<()>, told: &mut Told) -> Result<()> {
    match *step {
        Step::Write { bytes, chunk } => {
            let mut buffer = vec![0; (chunk as usize).clamp(1, LARGEST_CHUNK)];
            let mut left = bytes;
            while left > 0 {
                let length = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                fill(told.written, &mut buffer[..length]);
                connection.write_all(&buffer[..length])?;
                told.written += length as u64;
                left -= length as u64;
            }
            Ok(())
        }
        Step::Urgent => {
            let mut byte = [0];
            fill(told.written, &mut byte);
            send(connection.as_fd().as_raw_fd(), &byte, MsgFlags::MSG_OOB)?;
            told.written += 1;
            Ok(())
        }
        Step::Pause { milliseconds } => {
            std::thread::sleep(Duration::from_millis(milliseconds.into()));
            Ok(())
        }
        Step::FinishWriting => connection.shutdown(Shutdown::Write),
        Step::Read { bytes } => compare(connection, bytes, told),
        Step::AwaitEnd => {
            let mut buffer = [0; 4096];
            loop {
                let length = connection.read(&mut buffer)?;
                if length == 0 {
                    return Ok(());
                }
                told.read += length as u64;
            }
        }
        Step::Reset => {
            let linger = libc::linger { l_onoff: 1, l_linger: 0 };
            // It takes effect when the connection is closed, which is at the end of the script.
            Ok(setsockopt(&connection, sockopt::Linger, &linger)?)
        }
        Step::Barrier => barrier
            .recv_timeout(STEP_LIMIT)
            .map_err(|_| Error::new(ErrorKind::TimedOut, "nobody said to go on")),
    }
}

fn compare(mut connection: &TcpStream, bytes: u64, told: &mut Told) -> Result<()> {
    let (mut found, mut expected) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let mut left = bytes;
    while left > 0 {
        let length = found.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let (found, expected) = (&mut found[..length], &mut expected[..length]);
        connection.read_exact(found)?;
        fill(told.read, expected);
        if let Some(wrong) = found.iter().zip(&*expected).position(|(found, expected)| found != expected) {
            let place = told.read + wrong as u64;
            return Err(Error::new(ErrorKind::InvalidData, format!("byte {place} is not what was to come")));
        }
        told.read += length as u64;
        left -= length as u64;
    }
    Ok(())
}
