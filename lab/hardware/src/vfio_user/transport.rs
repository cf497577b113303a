//! Messages and the descriptors that come with them, over a stream socket.

use std::io::{self, Read, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use super::messages::{HEADER_SIZE, Header};
use super::sys;

/// A message of the client.
pub(super) struct Message {
    pub(super) header: Header,
    pub(super) payload: Vec<u8>,
    pub(super) descriptors: Vec<OwnedFd>,
}

/// The connection to the client.
pub(super) struct Connection {
    stream: UnixStream,
    /// Memory of the last message, for the next one.
    spare: Vec<u8>,
}

impl Connection {
    pub(super) fn new(stream: UnixStream) -> Connection {
        Connection { stream, spare: Vec::new() }
    }

    /// Waits for a message. `None` when the client hung up between messages.
    ///
    /// # Errors
    /// `InvalidData` when the message has an impossible size: the stream cannot be followed further.
    /// Otherwise what the socket said.
    pub(super) fn receive(&mut self) -> io::Result<Option<Message>> {
        let mut bytes = [0; HEADER_SIZE];
        let (received, descriptors) = sys::receive(&self.stream, &mut bytes)?;
        if received == 0 {
            return Ok(None);
        }
        self.stream.read_exact(&mut bytes[received..])?;
        let header = Header::parse(&bytes);
        let size = header.and_then(|header| header.payload_size());
        let (Some(header), Some(size)) = (header, size) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let mut payload = std::mem::take(&mut self.spare);
        payload.resize(size, 0);
        self.stream.read_exact(&mut payload)?;
        Ok(Some(Message { header, payload, descriptors }))
    }

    /// Gives the memory of a message back for the next one.
    pub(super) fn recycle(&mut self, message: Message) {
        self.spare = message.payload;
    }

    /// Sends a message, and a descriptor with it.
    ///
    /// # Errors
    /// What the socket said.
    pub(super) fn send(
        &mut self,
        header: &Header,
        payload: &[u8],
        descriptor: Option<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        let header = header.encode();
        let mut sent = sys::send(&self.stream, &[&header, payload], descriptor)?;
        if sent < HEADER_SIZE {
            self.stream.write_all(&header[sent..])?;
            sent = HEADER_SIZE;
        }
        self.stream.write_all(&payload[sent - HEADER_SIZE..])
    }
}
