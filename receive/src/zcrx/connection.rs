//! A connection that a ring receives.

use std::net::TcpStream;
use std::sync::Arc;

use devmem_provider::{Error, ErrorKind, Result};
use nix::errno::Errno;

use super::held::Held;
use super::queue::Area;
use crate::stream::Fragment;

/// A connection that a ring receives.
#[derive(Debug)]
pub(crate) struct Connection {
    /// What its completions and fragments carry. Never given twice.
    pub(crate) number: u32,
    pub(crate) socket: Arc<TcpStream>,
    /// Which of the ring's queues its packets arrive on.
    pub(crate) queue: usize,
    pub(crate) held: Held,
    pub(crate) state: State,
    /// Nobody wants its bytes any more; what still arrives goes back at once.
    pub(crate) abandoned: bool,
}

/// What the kernel does for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing: the next thing to do is to ask it to receive.
    Idle,
    /// It receives.
    Receiving,
    /// It has stopped, with the end of the stream, or with an error.
    Ended(End),
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The peer sent everything.
    Complete,
    /// The kernel's error number.
    Failed(i32),
    /// It reported something that cannot be.
    Outside { offset: u64, length: i32 },
}

impl Connection {
    /// Takes what the kernel reports as received. `None` if it cannot be.
    pub(crate) fn take(&mut self, offset: u64, length: i32, area_bytes: u64) -> Option<Fragment> {
        let length = u32::try_from(length).ok()?;
        let end = offset.checked_add(length.into())?;
        let fragment = Fragment { offset, length, token: self.number };
        (end <= area_bytes && self.held.take(fragment)).then_some(fragment)
    }

    /// What the final completion of a request says: whether to ask again, or how the connection ended.
    pub(crate) fn stopped(&mut self, result: i32) {
        self.state = match -result {
            0 => State::Ended(End::Complete),
            // The completion queue was full. What was not told is still in the socket.
            libc::ENOSPC => State::Idle,
            number => State::Ended(End::Failed(number)),
        };
    }
}

impl End {
    /// The end as the result of a stream.
    ///
    /// # Errors
    ///
    /// Everything but the peer's own end.
    pub(crate) fn result(self, area: &Area) -> Result<()> {
        match self {
            Self::Complete => Ok(()),
            Self::Failed(number) => Err(failed(number, area)),
            Self::Outside { offset, length } => {
                Err(Error::new(ErrorKind::Protocol, OPERATION).because(format!(
                    "the kernel reports {length} bytes at offset {offset} of an area of {} bytes",
                    area.size()
                )))
            }
        }
    }
}

const OPERATION: &str = "receive into device memory";

/// Payload arrived in host memory, which ends a connection that is received into a DMA-buf: the kernel has no way
/// to put it there.
///
/// Found as the source of an error; see [`LinearData::is_source_of`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("payload arrived in host memory, and the kernel cannot put it into a DMA-buf")]
pub struct LinearData;

impl LinearData {
    /// Whether a connection ended for this reason.
    #[must_use]
    pub fn is_source_of(error: &Error) -> bool {
        std::error::Error::source(error).is_some_and(|source| source.is::<Self>())
    }
}

/// The errors of `io_recvzc()` in `io_uring/net.c` and of what it calls.
fn failed(number: i32, area: &Area) -> Error {
    let errno = Errno::from_raw(number);
    let error = Error::from_errno(errno, OPERATION);
    match (errno, area) {
        (Errno::ENOMEM, Area::DmaBuf(_)) => error
            .with_kind(ErrorKind::Protocol)
            .with_source(LinearData)
            .remedy(
                "see that the NIC splits every packet of the connection and steers all of them to the queue; devmem \
                 TCP goes on with such data",
            ),
        (Errno::ENOMEM, Area::Host(_)) => error
            .because("payload arrived elsewhere, and there was no receive buffer to copy it to")
            .remedy("give fragments back earlier, or receive into more memory"),
        (Errno::EFAULT, _) => error
            .with_kind(ErrorKind::Protocol)
            .because("data came through another queue or memory provider than this connection is received with")
            .remedy("steer this connection's packets to the queue that it is received with"),
        (Errno::EPROTONOSUPPORT, _) => error
            .with_kind(ErrorKind::InvalidInput)
            .because("the connection is not plain TCP: another protocol, or one on top of TCP in the kernel"),
        (Errno::ENOTSOCK, _) => error.with_kind(ErrorKind::InvalidInput),
        (Errno::EINVAL | Errno::EOPNOTSUPP, _) => error
            .with_kind(ErrorKind::Unsupported)
            .because("the kernel does not take the request"),
        (
            Errno::ECONNRESET | Errno::ETIMEDOUT | Errno::EHOSTUNREACH | Errno::ENETDOWN | Errno::ENOTCONN
            | Errno::EPIPE,
            _,
        ) => error.with_kind(ErrorKind::Gone),
        (Errno::ECANCELED | Errno::EINTR, _) => error
            .with_kind(ErrorKind::WrongState)
            .because("the request was cancelled: the thread that made it has ended, or the ring is being closed"),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::super::host_memory::HostMemory;
    use super::*;
    use std::net::TcpListener;

    fn connection() -> Connection {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = Arc::new(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        let held = Held::new(8192, 4096);
        Connection { number: 3, socket, queue: 0, held, state: State::Receiving, abandoned: false }
    }

    #[test]
    fn what_lies_outside_of_the_area_is_no_fragment() {
        let mut connection = connection();
        let fragment = connection.take(4096, 4096, 8192).unwrap();
        assert_eq!((fragment.range(), fragment.token()), (4096..8192, 3));
        for (offset, length) in [(4097, 4096), (8192, 1), (u64::MAX, 1), (0, -1), (1 << 48, 1)] {
            assert_eq!(connection.take(offset, length, 8192), None, "{length} at {offset}");
        }
        assert_eq!(connection.held.total(), 1);
    }

    #[test]
    fn a_full_completion_queue_is_no_end() {
        let mut connection = connection();
        connection.stopped(-libc::ENOSPC);
        assert_eq!(connection.state, State::Idle);
        connection.stopped(0);
        assert_eq!(connection.state, State::Ended(End::Complete));
        connection.stopped(-libc::ECONNRESET);
        assert_eq!(connection.state, State::Ended(End::Failed(libc::ECONNRESET)));
    }

    #[test]
    fn errors_are_told_apart_by_what_is_received_into() {
        let host = Area::Host(Arc::new(HostMemory::allocate(4096).unwrap()));
        let error = End::Failed(libc::ENOMEM).result(&host).unwrap_err();
        assert!(error.kind() == ErrorKind::OutOfMemory && !LinearData::is_source_of(&error), "{error}");
        for (number, kind) in [
            (libc::EFAULT, ErrorKind::Protocol),
            (libc::ECONNRESET, ErrorKind::Gone),
            (libc::EPROTONOSUPPORT, ErrorKind::InvalidInput),
            (libc::ECANCELED, ErrorKind::WrongState),
        ] {
            let error = End::Failed(number).result(&host).unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
        }
        let error = End::Outside { offset: 4096, length: 1 }.result(&host).unwrap_err();
        assert!(error.to_string().contains("1 bytes at offset 4096 of an area of 4096"), "{error}");
        assert!(End::Complete.result(&host).is_ok());
    }
}
