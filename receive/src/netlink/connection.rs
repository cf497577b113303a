//! A socket to the kernel, and the exchange of a request for its replies.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, connect, getsockname, recv,
    send, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::attribute::Attributes;
use super::error::{Error, Malformed, Result};
use super::extended_ack::{self, Sent};
use super::message::{self, Message, MessageIter};
use super::names::AttributeTable;
use super::sys;

/// The kernel answers while the request is being sent; a reply that takes longer than this is lost.
const REPLY_TIMEOUT_SECONDS: i64 = 30;
/// The kernel sizes the datagrams of a dump by the buffers it has seen: start with a generous one.
const FIRST_BUFFER: usize = 32 << 10;
/// How often a disturbed dump is taken again before giving up.
const DUMP_ATTEMPTS: usize = 32;

/// One request, before it gets its sequence number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    /// The message type: a command of rtnetlink, the family's number in generic netlink.
    pub(super) kind: u16,
    /// The family's own header, a multiple of 4 bytes.
    pub(super) header: &'a [u8],
    pub(super) attributes: &'a Attributes,
    pub(super) names: &'a AttributeTable,
}

/// The replies to one request.
#[derive(Debug, Default)]
pub(super) struct Replies {
    /// The payloads, each beginning with the family's own header.
    pub(super) payloads: Vec<Vec<u8>>,
}

/// A netlink socket. Its descriptor is closed when it is dropped, and on `exec`.
#[derive(Debug)]
pub(super) struct Connection {
    socket: OwnedFd,
    /// Our address; the kernel puts it into every reply, and 0 into multicast messages.
    port: u32,
    sequence: u32,
    buffer: Vec<u8>,
    /// Payloads of multicast messages that arrived, when the connection joined a group.
    notifications: Option<Vec<Vec<u8>>>,
}

impl Connection {
    pub(super) fn open(protocol: SockProtocol) -> Result<Self> {
        let failed = |operation| move |errno| Error::System { operation, errno };
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)
            .map_err(failed("open a netlink socket"))?;
        for option in [sys::EXT_ACK, sys::CAP_ACK, sys::GET_STRICT_CHK] {
            sys::set_option(socket.as_fd(), option, 1)
                .map_err(failed("set an option of a netlink socket"))?;
        }
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(REPLY_TIMEOUT_SECONDS))
            .map_err(failed("set the timeout of a netlink socket"))?;
        let kernel = NetlinkAddr::new(0, 0);
        bind(socket.as_raw_fd(), &kernel).map_err(failed("bind a netlink socket"))?;
        // A connected netlink socket takes unicast messages from its peer alone: from the kernel.
        connect(socket.as_raw_fd(), &kernel).map_err(failed("connect a netlink socket"))?;
        let own: NetlinkAddr =
            getsockname(socket.as_raw_fd()).map_err(failed("get the address of a netlink socket"))?;
        Ok(Self { socket, port: own.pid(), sequence: 0, buffer: vec![0; FIRST_BUFFER], notifications: None })
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Joins a multicast group, whose messages are kept until [`leave`](Self::leave).
    pub(super) fn join(&mut self, group: u32) -> Result<()> {
        self.membership(sys::ADD_MEMBERSHIP, group)?;
        self.notifications = Some(Vec::new());
        Ok(())
    }

    /// Leaves a multicast group, so that messages do not pile up, and returns those that arrived.
    pub(super) fn leave(&mut self, group: u32) -> Vec<Vec<u8>> {
        // Leaving a group that we are in cannot fail; at worst its messages are skipped one by one.
        let _ = self.membership(sys::DROP_MEMBERSHIP, group);
        self.notifications.take().unwrap_or_default()
    }

    fn membership(&self, change: libc::c_int, group: u32) -> Result<()> {
        let number =
            libc::c_int::try_from(group).map_err(|_| Malformed("a multicast group beyond 31 bits"))?;
        sys::set_option(self.descriptor(), change, number)
            .map_err(|errno| Error::System { operation: "join or leave a netlink multicast group", errno })
    }

    /// Sends a request and collects its replies up to the acknowledgement.
    pub(super) fn exchange(&mut self, request: Request<'_>) -> Result<Replies> {
        self.acknowledged(request, 0)
    }

    /// As [`exchange`](Self::exchange), of a request that makes something new and changes nothing that exists.
    pub(super) fn create(&mut self, request: Request<'_>) -> Result<()> {
        self.acknowledged(request, message::CREATE | message::EXCLUSIVE).map(drop)
    }

    fn acknowledged(&mut self, request: Request<'_>, flags: u16) -> Result<Replies> {
        let sequence = self.send(request, message::ACK | flags)?;
        match self.collect(request, sequence)? {
            Collected::Whole(replies) => Ok(replies),
            Collected::Disturbed => Err(Malformed("a single reply that says it is a disturbed dump").into()),
        }
    }

    /// Lists every object. A list that changed while the kernel wrote it is taken again.
    pub(super) fn dump(&mut self, request: Request<'_>) -> Result<Replies> {
        for _ in 0..DUMP_ATTEMPTS {
            let sequence = self.send(request, message::DUMP)?;
            if let Collected::Whole(replies) = self.collect(request, sequence)? {
                return Ok(replies);
            }
        }
        Err(Error::System { operation: "list objects that keep changing", errno: Errno::EAGAIN })
    }

    fn send(&mut self, request: Request<'_>, flags: u16) -> Result<u32> {
        self.sequence = self.sequence.wrapping_add(1);
        let attributes = request.attributes.encoded()?;
        let parts = [request.header, attributes];
        let bytes = message::encode(request.kind, message::REQUEST | flags, self.sequence, &parts);
        let sent = retry(|| send(self.socket.as_raw_fd(), &bytes, MsgFlags::empty()))
            .map_err(|errno| Error::System { operation: "send a netlink request", errno })?;
        if sent != bytes.len() {
            return Err(Error::System { operation: "send a whole netlink request", errno: Errno::EMSGSIZE });
        }
        Ok(self.sequence)
    }

    fn collect(&mut self, request: Request<'_>, sequence: u32) -> Result<Collected> {
        let attributes = request.attributes.encoded()?;
        let sent = Sent { header: message::HEADER + request.header.len(), attributes, names: request.names };
        let mut replies = Replies::default();
        let mut disturbed = false;
        loop {
            let length = self.receive()?;
            for message in MessageIter::new(&self.buffer[..length]) {
                let message = message?;
                if message.port != self.port {
                    // Multicast messages are numbered on their own: their sequence may equal ours by chance.
                    if let Some(notifications) = &mut self.notifications {
                        notifications.push(message.payload.to_vec());
                    }
                    continue;
                }
                if message.sequence != sequence {
                    // What was left of an exchange that ended early.
                    continue;
                }
                disturbed |= message.flags & message::DUMP_INTERRUPTED != 0;
                match message.kind {
                    message::ERROR => {
                        finished(&message, sent)?;
                        return Ok(Collected::Whole(replies));
                    }
                    message::DONE if disturbed => return Ok(Collected::Disturbed),
                    message::DONE => {
                        finished(&message, sent)?;
                        return Ok(Collected::Whole(replies));
                    }
                    kind if kind < message::DONE => {}
                    _ => replies.payloads.push(message.payload.to_vec()),
                }
            }
        }
    }

    /// Receives one datagram, whatever its size, into the buffer; returns its length.
    fn receive(&mut self) -> Result<usize> {
        let failed = |errno| match errno {
            Errno::EAGAIN => {
                Error::System { operation: "get a netlink reply in time", errno: Errno::ETIMEDOUT }
            }
            errno => Error::System { operation: "receive a netlink reply", errno },
        };
        let peek = MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC;
        let descriptor = self.socket.as_raw_fd();
        let length = retry(|| recv(descriptor, &mut [], peek)).map_err(failed)?;
        if length > self.buffer.len() {
            self.buffer.resize(length, 0);
        }
        let received = retry(|| recv(descriptor, &mut self.buffer, MsgFlags::MSG_TRUNC)).map_err(failed)?;
        if received > self.buffer.len() {
            return Err(Malformed("a datagram that grew after it was measured").into());
        }
        Ok(received)
    }
}

enum Collected {
    Whole(Replies),
    Disturbed,
}

fn finished(message: &Message<'_>, sent: Sent<'_>) -> Result<()> {
    extended_ack::decode(message, sent)??;
    Ok(())
}

/// Repeats a system call that a signal interrupted.
fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}
