//! A peer that listens, and runners, over the loopback interface.

use std::fs::{Permissions, set_permissions};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Mutex, mpsc::channel};
use std::time::{Duration, Instant};

use devmem_provider::ErrorKind;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
use proptest::prelude::*;

use super::line::Line;
use super::protocol::{Request, Response};
use super::remote::Remote;
use super::session::Session;
use super::{Key, Listener, PeerChoice, Script, Step};
use crate::verdict::Stop;

/// Longer than anything takes that nobody holds up.
const PATIENCE: Duration = Duration::from_secs(20);

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A peer that listens, seen from its runners.
struct Peer {
    address: String,
    folder: tempfile::TempDir,
    stop: OwnedFd,
    /// The lines that it has told.
    lines: Mutex<mpsc::Receiver<String>>,
}

use std::sync::mpsc;

impl Peer {
    /// A file with a key of this byte.
    fn key(&self, byte: u8) -> PathBuf {
        let path = self.folder.path().join(format!("key-{byte}"));
        std::fs::write(&path, [byte; 32]).unwrap();
        set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        path
    }

    fn reached(&self) -> Remote {
        Remote::connect(&self.address, &Key::of_test(1)).unwrap()
    }

    fn session(&self) -> Session {
        Session::over(Line::There(self.reached()))
    }

    /// The next line that has this in it.
    fn told(&self, part: &str) -> String {
        let lines = self.lines.lock().unwrap();
        loop {
            let line = lines.recv_timeout(PATIENCE).unwrap();
            if line.contains(part) {
                return line;
            }
        }
    }

    fn end(&self) {
        nix::unistd::write(&self.stop, &[0]).unwrap();
    }
}

/// Runs `test` with a peer, whose scripts may connect to this machine and to `to`.
fn with_a_peer(to: &[IpAddr], test: impl FnOnce(&Peer)) {
    let folder = tempfile::tempdir().unwrap();
    let (stopped, stop) = nix::unistd::pipe().unwrap();
    let (tell, lines) = channel();
    let listener = Listener::bind("127.0.0.1:0", Key::of_test(1), to).unwrap();
    let address = listener.address().to_string();
    let peer = Peer { address, folder, stop, lines: Mutex::new(lines) };
    let tell = Mutex::new(tell);
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| {
            // A test that has failed listens no more.
            listener.serve(stopped.as_fd(), &|line| drop(tell.lock().unwrap().send(line.to_owned())))
        });
        let tested = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(&peer)));
        peer.end();
        serving.join().unwrap().unwrap();
        tested.unwrap_or_else(|failure| std::panic::resume_unwind(failure));
    });
}

fn script(to: SocketAddr, steps: Vec<Step>) -> Script {
    Script { to, from_port: None, no_delay: false, maximum_segment: None, steps }
}

/// A connection from another address of this machine.
fn from(last: u8, to: &str) -> TcpStream {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    use std::os::fd::AsRawFd;
    bind(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, last, 0)).unwrap();
    let SocketAddr::V4(to) = to.parse().unwrap() else { panic!() };
    connect(socket.as_raw_fd(), &SockaddrIn::from(to)).unwrap();
    socket.into()
}

#[test]
fn a_script_of_a_runner_is_done() {
    with_a_peer(&[], |peer| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut session = peer.session();
        let steps = vec![Step::Write { bytes: 100_000, chunk: 999 }, Step::FinishWriting, Step::AwaitEnd];
        let running = session.start(&script(listener.local_addr().unwrap(), steps)).unwrap();
        let (mut connection, _) = listener.accept().unwrap();
        let mut bytes = Vec::new();
        connection.read_to_end(&mut bytes).unwrap();
        drop(connection);
        let told = running.finish(PATIENCE).unwrap();
        assert_eq!((told.written, told.failure), (100_000, None));
        let mut expected = vec![0; 100_000];
        super::fill(0, &mut expected);
        assert_eq!(bytes, expected);
        drop(session);
        let line = peer.told("session");
        assert!(line.contains("127.0.0.1") && line.contains("1 scripts, 100000 bytes"), "{line}");
    });
}

#[test]
fn while_one_script_is_waited_for_another_goes_on() {
    with_a_peer(&[], |peer| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let mut session = peer.session();
        let late = session.start(&script(to, vec![Step::Barrier, Step::Barrier])).unwrap();
        let other = session.start(&script(to, vec![Step::Barrier])).unwrap();
        late.proceed().unwrap();
        let aborted = session.start(&script(to, vec![Step::Barrier])).unwrap();
        std::thread::scope(|scope| {
            let (begin, begun) = channel();
            scope.spawn(move || {
                begin.send(()).unwrap();
                late.finish(Duration::from_secs(600)).unwrap_err();
            });
            begun.recv().unwrap();
            other.proceed().unwrap();
            assert_eq!(other.finish(PATIENCE).unwrap().failure, None);
            drop(aborted);
            // The one that is waited for would wait for ever.
            peer.end();
        });
    });
}

#[test]
fn a_script_that_is_late_is_told_from_one_whose_peer_is_gone() {
    with_a_peer(&[], |peer| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut session = peer.session();
        let steps = vec![Step::Barrier];
        let late = session.start(&script(listener.local_addr().unwrap(), steps.clone())).unwrap();
        let error = late.finish(Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().contains("has not ended"), "{error}");
        let gone = session.start(&script(listener.local_addr().unwrap(), steps)).unwrap();
        peer.end();
        let error = gone.finish(PATIENCE).unwrap_err();
        assert!(!error.to_string().contains("has not ended"), "{error}");
    });
}

#[test]
fn a_session_that_ends_closes_its_connections() {
    with_a_peer(&[], |peer| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let remote = peer.reached();
        let stream = remote.messages.stream().stream().try_clone().unwrap();
        let mut line = Line::There(remote);
        let script = script(listener.local_addr().unwrap(), vec![Step::Barrier]);
        assert!(matches!(line.ask(&Request::Start { number: 0, script }).unwrap(), Response::Done));
        let (mut connection, _) = listener.accept().unwrap();
        // As if the runner was killed.
        stream.shutdown(std::net::Shutdown::Both).unwrap();
        connection.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(connection.read(&mut [0]).unwrap(), 0);
    });
}

#[test]
fn another_key_is_refused_and_told_to_both() {
    with_a_peer(&[], |peer| {
        let choice = PeerChoice::remote(&peer.address, peer.key(2));
        let error = choice.verify(&[]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("copy the key file"), "{error}");
        let line = peer.told("refused");
        assert!(line.contains("127.0.0.1") && line.contains("another key"), "{line}");
        PeerChoice::remote(&peer.address, peer.key(1)).verify(&[HERE]).unwrap();
    });
}

#[test]
fn a_peer_that_is_not_there_is_told_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, [1; 32]).unwrap();
    set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let error = PeerChoice::remote(&free, &key).verify(&[]).unwrap_err();
    assert!(error.to_string().contains(&free), "{error}");
    assert!(error.to_string().contains("devmem-conformance peer --listen"), "{error}");
    // Somebody else, who says something else, or nothing.
    for says in
        [&b"SSH-2.0-OpenSSH_10.2 and more than a greeting of ours would have, to be sure of it\r\n"[..], b""]
    {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = other.local_addr().unwrap().to_string();
        let thread = std::thread::spawn(move || {
            let (mut connection, _) = other.accept().unwrap();
            connection.write_all(says).unwrap();
            connection.read_exact(&mut [0; 52]).unwrap();
        });
        let error = PeerChoice::remote(address, &key).verify(&[]).unwrap_err();
        assert!(error.to_string().contains("is no `devmem-conformance peer`"), "{error}");
        thread.join().unwrap();
    }
}

#[test]
fn a_runner_may_send_to_where_it_is_and_where_it_was_allowed_to() {
    let allowed: IpAddr = "192.0.2.1".parse().unwrap();
    with_a_peer(&[allowed], |peer| {
        let choice = PeerChoice::remote(&peer.address, peer.key(1));
        choice.verify(&[HERE, allowed]).unwrap();
        let error = choice.verify(&[HERE, "192.0.2.2".parse().unwrap()]).unwrap_err();
        assert!(error.to_string().contains("--to 192.0.2.2"), "{error}");
        match peer.session().start(&script("192.0.2.2:5201".parse().unwrap(), Vec::new())) {
            Err(Stop::Skip(skip)) => assert!(skip.remedy.unwrap().contains("--to")),
            other => panic!("{other:?}"),
        }
    });
    assert!(Listener::bind("127.0.0.1:0", Key::of_test(1), &["0.0.0.0".parse().unwrap()]).is_err());
}

#[test]
fn strangers_who_say_nothing_keep_nobody_out() {
    with_a_peer(&[], |peer| {
        let silent: Vec<TcpStream> = (0..40).map(|_| from(2, &peer.address)).collect();
        peer.session();
        // Those beyond what one place may have are gone already.
        let mut last = silent.last().unwrap();
        last.set_read_timeout(Some(PATIENCE)).unwrap();
        assert!(matches!(last.read(&mut [0]), Ok(0) | Err(_)));
    });
}

#[test]
fn there_are_only_so_many_sessions() {
    with_a_peer(&[], |peer| {
        let mut sessions: Vec<Remote> = Vec::new();
        let refusal = loop {
            match Remote::connect(&peer.address, &Key::of_test(1)) {
                Ok(session) => sessions.push(session),
                Err(error) => break error,
            }
        };
        assert_eq!((refusal.kind(), sessions.len()), (ErrorKind::Busy, 16), "{refusal}");
        sessions.pop();
        // The peer has ended it when the drop returns, and forgets it a moment later.
        let deadline = Instant::now() + PATIENCE;
        while Remote::connect(&peer.address, &Key::of_test(1)).is_err() {
            assert!(Instant::now() < deadline);
        }
    });
}

#[test]
fn whatever_strangers_and_runners_say_the_peer_goes_on() {
    with_a_peer(&[], |peer| {
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(100));
        let bytes = (proptest::collection::vec(any::<u8>(), 0..300), any::<bool>());
        runner
            .run(&bytes, |(bytes, has_the_key)| {
                if has_the_key {
                    let remote = peer.reached();
                    let _ = remote.messages.stream().stream().write_all(&bytes);
                } else {
                    let _ = from(3, &peer.address).write_all(&bytes);
                }
                Ok(())
            })
            .unwrap();
        let mut line = Line::There(peer.reached());
        assert!(matches!(line.ask(&Request::Reach { to: HERE }).unwrap(), Response::Done));
    });
}
