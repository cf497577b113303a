//! The socket interface of devmem TCP as it is: one system call for each call.

use std::fmt;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::socket::MsgFlags;

use super::control_messages::ControlMessages;
use super::uapi::{self, TokenRange};

/// A TCP socket that is received from into device memory, without any of what [`Stream`](super::Stream) does:
/// nothing is checked, gathered, repeated or given back by itself.
///
/// It owns the socket (`DevmemSocket::new(connection)`) or borrows it (`DevmemSocket::new(&connection)`).
/// Fragments that are not released stay away from the NIC until the socket is closed; tokens are numbers of this
/// socket alone (`sk_user_frags`, `net/core/sock.c`).
#[derive(Debug, Clone)]
pub struct DevmemSocket<S> {
    socket: S,
}

impl<S: AsFd> DevmemSocket<S> {
    /// Receives from `socket`.
    pub fn new(socket: S) -> Self {
        Self { socket }
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &S {
        &self.socket
    }

    /// Gives the socket up. What was not released can still be released later.
    #[must_use]
    pub fn into_socket(self) -> S {
        self.socket
    }

    /// One `recvmsg()` that asks for device memory (`MSG_SOCK_DEVMEM`), with `flags` added, such as
    /// `libc::MSG_DONTWAIT`.
    ///
    /// Payload that is in host memory is copied to `linear`, whose length limits the bytes in device memory as
    /// well. Each fragment takes [`MESSAGE_SPACE`](super::MESSAGE_SPACE) bytes of `control`; what finds no room
    /// stays in the socket. Payload that never saw a bound queue comes without a message about it, and never in
    /// one call with fragments. (`tcp_recvmsg_dmabuf()`, `net/ipv4/tcp.c`.)
    ///
    /// # Errors
    /// [`ETOOSMALL`](super::ETOOSMALL): `control` has no room for a single message. `EFAULT`: the data came
    /// through another memory provider. Otherwise as of any `recvmsg()`, `EINTR` and `EAGAIN` among them.
    pub fn receive<'control>(
        &self,
        linear: &mut [u8],
        control: &'control mut [u64],
        flags: libc::c_int,
    ) -> Result<Received<'control>, RawErrno> {
        self.receive_with(linear, control, flags | uapi::MSG_SOCK_DEVMEM)
    }

    /// One `recvmsg()` as of a program that knows nothing of device memory.
    ///
    /// # Errors
    /// `EFAULT`: the next bytes are in device memory; they stay in the socket. Otherwise as of any `recvmsg()`.
    pub fn receive_ordinary<'control>(
        &self,
        linear: &mut [u8],
        control: &'control mut [u64],
        flags: libc::c_int,
    ) -> Result<Received<'control>, RawErrno> {
        self.receive_with(linear, control, flags & !uapi::MSG_SOCK_DEVMEM)
    }

    fn receive_with<'control>(
        &self,
        linear: &mut [u8],
        control: &'control mut [u64],
        flags: libc::c_int,
    ) -> Result<Received<'control>, RawErrno> {
        let received =
            uapi::receive_message(self.socket.as_fd(), linear, control, flags).map_err(RawErrno)?;
        let control = uapi::control_bytes(control, received.control_length);
        Ok(Received { bytes: received.bytes, flags: received.flags, control })
    }

    /// Gives fragments back to the NIC (`SO_DEVMEM_DONTNEED`). Returns how many the kernel released.
    ///
    /// Tokens that the socket does not have are passed over, and so is, without an error, everything after the
    /// first [`RELEASE_FRAGMENTS`](super::RELEASE_FRAGMENTS) tokens (`sock_devmem_dontneed()`,
    /// `net/core/sock.c`).
    ///
    /// # Errors
    /// `EINVAL`: more than [`RELEASE_RANGES`](super::RELEASE_RANGES) ranges. `EBADF`: not a TCP socket.
    /// `ENOPROTOOPT`: the kernel has no devmem TCP.
    pub fn release(&self, ranges: &[TokenRange]) -> Result<usize, RawErrno> {
        uapi::release_tokens(self.socket.as_fd(), ranges).map_err(RawErrno)
    }

    /// As [`release`](Self::release), with the option's value as bytes, which need not be whole ranges.
    ///
    /// # Errors
    /// Also `EINVAL`: the length is no multiple of a [`TokenRange`]'s.
    pub fn release_bytes(&self, value: &[u8]) -> Result<usize, RawErrno> {
        uapi::release_bytes(self.socket.as_fd(), value).map_err(RawErrno)
    }
}

/// What one `recvmsg()` returned.
#[derive(Debug, Clone)]
#[must_use = "the fragments in it are lost to the NIC until they are released or the socket is closed"]
pub struct Received<'control> {
    bytes: usize,
    flags: MsgFlags,
    control: &'control [u8],
}

impl<'control> Received<'control> {
    /// Payload bytes, in device memory and in host memory together. 0 at the end of the stream.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What the kernel says of the call (`msg_flags`).
    #[must_use]
    pub fn flags(&self) -> MsgFlags {
        self.flags
    }

    /// Whether control messages were cut off (`MSG_CTRUNC`). devmem TCP cuts none of its own off; timestamps and
    /// others that found no room are lost.
    #[must_use]
    pub fn is_control_truncated(&self) -> bool {
        self.flags.contains(MsgFlags::MSG_CTRUNC)
    }

    /// The control messages, in the order of the payload.
    #[must_use]
    pub fn messages(&self) -> ControlMessages<'control> {
        ControlMessages::new(self.control)
    }
}

/// An error number of the kernel as it is, because [`ETOOSMALL`](super::ETOOSMALL) has no name in C libraries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RawErrno(pub i32);

impl fmt::Display for RawErrno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            uapi::ETOOSMALL => {
                write!(f, "ETOOSMALL: no room for a single control message (kernel error 525)")
            }
            number => match Errno::from_raw(number) {
                Errno::UnknownErrno => write!(f, "kernel error {number}"),
                errno => errno.fmt(f),
            },
        }
    }
}

impl std::error::Error for RawErrno {}

#[cfg(test)]
mod tests {
    use super::super::control_messages::ControlMessage;
    use super::*;
    use nix::sys::socket::{setsockopt, sockopt};
    use std::io::Write;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::time::Duration;

    fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (sender, listener.accept().unwrap().0)
    }

    #[test]
    fn bytes_that_never_saw_a_nic_come_with_no_message_either_way() {
        let (mut sender, receiver) = connection();
        let socket = DevmemSocket::new(&receiver);
        let (mut linear, mut control) = ([0; 8], [0; 16]);
        sender.write_all(b"firstnext").unwrap();
        let received = socket.receive(&mut linear[..5], &mut control, libc::MSG_WAITALL).unwrap();
        assert_eq!((received.bytes(), received.messages().count()), (5, 0));
        assert_eq!(&linear[..5], b"first");
        let received = socket.receive_ordinary(&mut linear[..4], &mut control, libc::MSG_WAITALL).unwrap();
        assert_eq!((received.bytes(), received.is_control_truncated()), (4, false));
        assert_eq!(&linear[..4], b"next");
        drop(sender);
        assert_eq!(DevmemSocket::new(receiver).receive(&mut linear, &mut control, 0).unwrap().bytes(), 0);
    }

    #[test]
    fn an_empty_socket_gives_its_error_number() {
        let (_sender, receiver) = connection();
        let error =
            DevmemSocket::new(&receiver).receive(&mut [0], &mut [0; 8], libc::MSG_DONTWAIT).unwrap_err();
        assert_eq!(error, RawErrno(libc::EAGAIN));
    }

    #[test]
    fn messages_of_other_kinds_and_their_loss_are_seen() {
        let (mut sender, receiver) = connection();
        setsockopt(&receiver, sockopt::ReceiveTimestampns, &true).unwrap();
        let socket = DevmemSocket::new(&receiver);
        let mut control = [0; 32];
        // The kernel begins to stamp packets a little after it was asked to.
        for _ in 0..1000 {
            sender.write_all(b"early").unwrap();
            if socket.receive(&mut [0; 5], &mut control, libc::MSG_WAITALL).unwrap().messages().count() > 0 {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        sender.write_all(b"twice").unwrap();
        let received = socket.receive(&mut [0; 8], &mut control, libc::MSG_PEEK).unwrap();
        assert!(!received.is_control_truncated());
        let kinds: Vec<_> = received.messages().map(Result::unwrap).collect();
        assert!(
            matches!(
                kinds[..],
                [ControlMessage::Other { level: libc::SOL_SOCKET, kind: libc::SCM_TIMESTAMPNS, payload }]
                    if payload.len() == size_of::<libc::timespec>()
            ),
            "{kinds:?}"
        );
        let received = socket.receive(&mut [0; 8], &mut [], 0).unwrap();
        assert_eq!((received.bytes(), received.messages().count()), (5, 0));
        assert!(received.is_control_truncated(), "{:?}", received.flags());
    }

    /// Tells whether this kernel has devmem TCP.
    fn knows_the_option(socket: &DevmemSocket<TcpStream>) -> bool {
        let known = socket.release(&[TokenRange { start: 0, count: 1 }]) != Err(RawErrno(libc::ENOPROTOOPT));
        if !known {
            println!("not tested: this kernel has no devmem TCP");
        }
        known
    }

    #[test]
    fn the_kernel_counts_what_it_releases_and_refuses_other_lengths() {
        let socket = DevmemSocket::new(connection().1);
        if !knows_the_option(&socket) {
            return;
        }
        let range = TokenRange { start: 0, count: 3 };
        assert_eq!(socket.release(&[range; 128]), Ok(0), "the socket has no token");
        let invalid = Err(RawErrno(libc::EINVAL));
        assert_eq!(socket.release(&[range; 129]), invalid);
        for length in [1, 7, 9] {
            assert_eq!(socket.release_bytes(&[0; 16][..length]), invalid, "{length} bytes");
        }
        assert_eq!(socket.release_bytes(&[0; 16]), Ok(0));
        let datagrams = DevmemSocket::new(UdpSocket::bind("127.0.0.1:0").unwrap());
        assert_eq!(datagrams.release(&[range]), Err(RawErrno(libc::EBADF)));
    }

    #[test]
    fn an_error_number_without_a_name_is_told() {
        assert!(RawErrno(525).to_string().contains("ETOOSMALL"));
        assert!(RawErrno(libc::EFAULT).to_string().contains("EFAULT"));
        assert!(RawErrno(526).to_string().contains("526"));
    }
}
