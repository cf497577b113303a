//! The system calls below a connection, one for each call.

use std::fmt;
use std::os::fd::AsFd;

use devmem_receive::devmem::{ControlMessage, DevmemSocket, MESSAGE_SPACE, RawErrno, TokenRange};
use nix::libc;

use super::{Piece, Place};

/// The socket of a connection, without what [`Incoming`](super::Incoming) makes of it.
pub trait RawSocket: fmt::Debug {
    /// One `recvmsg()`. The fragments that it hands out are given back by
    /// [`Incoming::release`](super::Incoming::release).
    ///
    /// # Errors
    ///
    /// The kernel's error number; `EPROTO` if what the kernel wrote cannot be read.
    fn receive(&self, request: RawReceive) -> Result<RawReceived, RawErrno>;

    /// Gives fragments back with one `SO_DEVMEM_DONTNEED`. Returns how many the kernel took.
    ///
    /// # Errors
    ///
    /// The kernel's error number.
    fn release(&self, ranges: &[TokenRange]) -> Result<usize, RawErrno>;

    /// As [`release`](Self::release), with the option's value as bytes, which need not be whole ranges.
    ///
    /// # Errors
    ///
    /// The kernel's error number.
    fn release_bytes(&self, value: &[u8]) -> Result<usize, RawErrno>;
}

/// What is asked of one `recvmsg()`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawReceive {
    /// Whether device memory is asked for.
    pub device_memory: bool,
    /// The most bytes, wherever they are.
    pub length: usize,
    /// How many fragments there is room for in the control buffer.
    pub fragments: usize,
    /// Flags such as `MSG_PEEK`.
    pub flags: libc::c_int,
}

impl RawReceive {
    /// At most so many bytes, with room for whatever they are in.
    #[must_use]
    pub fn bytes(length: usize) -> Self {
        Self { device_memory: true, length, fragments: 1024, flags: 0 }
    }

    /// With room for so many fragments.
    #[must_use]
    pub fn fragments(self, fragments: usize) -> Self {
        Self { fragments, ..self }
    }

    /// With these flags.
    #[must_use]
    pub fn flags(self, flags: libc::c_int) -> Self {
        Self { flags, ..self }
    }

    /// As a program asks that knows nothing of device memory.
    #[must_use]
    pub fn ordinary(self) -> Self {
        Self { device_memory: false, ..self }
    }
}

/// What one `recvmsg()` returned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RawReceived {
    /// How many bytes; 0 is the end of the stream.
    pub bytes: usize,
    /// Where they are. Nothing is said of bytes that were thrown away (`MSG_TRUNC`).
    pub pieces: Vec<Piece>,
    /// How many control messages were about something else, such as a timestamp.
    pub others: usize,
}

impl<S: AsFd + fmt::Debug> RawSocket for DevmemSocket<S> {
    fn release(&self, ranges: &[TokenRange]) -> Result<usize, RawErrno> {
        DevmemSocket::release(self, ranges)
    }

    fn release_bytes(&self, value: &[u8]) -> Result<usize, RawErrno> {
        DevmemSocket::release_bytes(self, value)
    }

    fn receive(&self, request: RawReceive) -> Result<RawReceived, RawErrno> {
        let mut linear = vec![0; request.length];
        let mut control = vec![0; request.fragments * MESSAGE_SPACE.div_ceil(size_of::<u64>())];
        let received = match request.device_memory {
            true => DevmemSocket::receive(self, &mut linear, &mut control, request.flags)?,
            false => self.receive_ordinary(&mut linear, &mut control, request.flags)?,
        };
        let mut told = RawReceived { bytes: received.bytes(), ..RawReceived::default() };
        let mut rest = linear.as_slice();
        for message in received.messages() {
            match message.map_err(|_| RawErrno(libc::EPROTO))? {
                ControlMessage::Fragment(message) => {
                    told.pieces
                        .push(Piece::Fragment(Place::from(devmem_receive::stream::Fragment::from(message))));
                }
                ControlMessage::Linear(length) => {
                    let split = rest.split_at_checked(length as usize);
                    let (bytes, behind) = split.ok_or(RawErrno(libc::EPROTO))?;
                    told.pieces.push(Piece::Linear(bytes.to_vec()));
                    rest = behind;
                }
                ControlMessage::Other { .. } => told.others += 1,
            }
        }
        // Bytes that never saw a bound queue come without a message about them.
        if told.pieces.is_empty() && told.bytes > 0 && request.flags & libc::MSG_TRUNC == 0 {
            let bytes = linear.get(..told.bytes).ok_or(RawErrno(libc::EPROTO))?;
            told.pieces.push(Piece::Linear(bytes.to_vec()));
        }
        Ok(told)
    }
}
