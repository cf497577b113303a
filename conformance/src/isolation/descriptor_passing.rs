//! Descriptors over a UNIX socket (`SCM_RIGHTS`, unix(7)).

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

/// Sends one descriptor, with a byte that carries it.
pub(crate) fn send(socket: &UnixStream, descriptor: BorrowedFd<'_>) -> std::io::Result<()> {
    let numbers = [descriptor.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&numbers)];
    sendmsg::<()>(socket.as_fd().as_raw_fd(), &[IoSlice::new(&[0])], &rights, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// Receives one descriptor.
pub(crate) fn receive(socket: &UnixStream) -> std::io::Result<OwnedFd> {
    loop {
        match receive_once(socket) {
            // A ring of io_uring that is being closed interrupts the threads that have used it, whose receive has a time limit.
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn receive_once(socket: &UnixStream) -> std::io::Result<OwnedFd> {
    let mut byte = [0];
    let mut buffers = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!([i32; 1]);
    let message = recvmsg::<()>(
        socket.as_fd().as_raw_fd(),
        &mut buffers,
        Some(&mut space),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    let numbers = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::ScmRights(numbers) => numbers.first().copied(),
        _ => None,
    });
    let number = numbers.ok_or(Errno::ENOMSG)?;
    // SAFETY: the kernel has just made this descriptor for this process, and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
