//! Receiving descriptors from a socket, and sending them.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

use super::messages::MAXIMUM_DESCRIPTORS;

/// Receives bytes and the descriptors that come with the first of them. No bytes: the client hung up.
///
/// # Errors
/// What `recvmsg(2)` said; `ENOBUFS` when there were more descriptors than a message may bring.
pub(super) fn receive(stream: &UnixStream, into: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = cmsg_space!([RawFd; MAXIMUM_DESCRIPTORS]);
    loop {
        let mut parts = [IoSliceMut::new(&mut *into)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = match recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut space), flags) {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        let mut descriptors = Vec::new();
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(numbers) = control {
                // SAFETY: the kernel installed these descriptors for this message just now; nothing
                // else knows their numbers.
                descriptors.extend(numbers.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        return Ok((message.bytes, descriptors));
    }
}

/// Sends bytes, and a descriptor with the first of them. Returns how many bytes were sent.
///
/// # Errors
/// What `sendmsg(2)` said.
pub(super) fn send(
    stream: &UnixStream,
    parts: &[&[u8]; 2],
    descriptor: Option<BorrowedFd<'_>>,
) -> io::Result<usize> {
    let parts = parts.map(IoSlice::new);
    let numbers: Vec<RawFd> = descriptor.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let control = if numbers.is_empty() { &[][..] } else { &rights[..] };
    loop {
        match sendmsg::<()>(stream.as_raw_fd(), &parts, control, MsgFlags::MSG_NOSIGNAL, None) {
            Err(Errno::EINTR) => {}
            other => return Ok(other?),
        }
    }
}
