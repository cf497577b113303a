//! A vfio-user client.

use std::io::{IoSlice, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

pub(crate) const VERSION: u16 = 1;
pub(crate) const DMA_MAP: u16 = 2;
pub(crate) const DMA_UNMAP: u16 = 3;
pub(crate) const GET_INFO: u16 = 4;
pub(crate) const GET_REGION_INFO: u16 = 5;
pub(crate) const GET_IRQ_INFO: u16 = 7;
pub(crate) const SET_IRQS: u16 = 8;
pub(crate) const REGION_READ: u16 = 9;
pub(crate) const REGION_WRITE: u16 = 10;
pub(crate) const RESET: u16 = 13;
const MSIX: u32 = 2;

pub(crate) struct Client {
    pub(crate) stream: UnixStream,
    next_id: u16,
}

/// Numbers in the byte order of the machine, one after the other.
pub(crate) fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

impl Client {
    pub(crate) fn connect(path: &Path) -> Client {
        let mut client = Client { stream: UnixStream::connect(path).unwrap(), next_id: 0 };
        let hello = [&[0, 0, 0, 0][..], br#"{"capabilities":{"max_msg_fds":8}}"#, &[0]].concat();
        let reply = client.call(VERSION, &hello, &[]).unwrap();
        assert_eq!(reply[..4], [0; 4], "protocol version 0.0");
        let text = std::str::from_utf8(&reply[4..reply.len() - 1]).unwrap();
        let capabilities: serde_json::Value = serde_json::from_str(text).unwrap();
        assert!(capabilities["capabilities"]["max_msg_fds"].as_u64().unwrap() >= 1);
        client
    }

    /// Sends a command and waits for the payload of its reply, or the error number in it.
    pub(crate) fn call(&mut self, command: u16, payload: &[u8], fds: &[RawFd]) -> Result<Vec<u8>, u32> {
        self.next_id += 1;
        let mut header = Vec::new();
        header.extend(self.next_id.to_ne_bytes());
        header.extend(command.to_ne_bytes());
        header.extend(words(&[16 + payload.len() as u32, 0, 0]));
        let parts = [IoSlice::new(&header)];
        let rights = [ControlMessage::ScmRights(fds)];
        let control = if fds.is_empty() { &[][..] } else { &rights[..] };
        sendmsg::<()>(self.stream.as_raw_fd(), &parts, control, MsgFlags::empty(), None).unwrap();
        self.stream.write_all(payload).unwrap();
        let mut reply = [0; 16];
        self.stream.read_exact(&mut reply).unwrap();
        assert_eq!(reply[..2], self.next_id.to_ne_bytes());
        assert_eq!(reply[2..4], command.to_ne_bytes());
        let word = |at: usize| u32::from_ne_bytes(reply[at..at + 4].try_into().unwrap());
        let mut payload = vec![0; word(4) as usize - 16];
        self.stream.read_exact(&mut payload).unwrap();
        assert_eq!(word(8) & 0xf, 1, "a reply");
        if word(8) & 1 << 5 != 0 { Err(word(12)) } else { Ok(payload) }
    }

    pub(crate) fn map(
        &mut self,
        address: u64,
        size: u64,
        file: Option<(RawFd, u64)>,
        writable: bool,
    ) -> Result<(), u32> {
        let mut payload = words(&[32, if writable { 3 } else { 1 }]);
        for field in [file.map_or(0, |(_, offset)| offset), address, size] {
            payload.extend(field.to_ne_bytes());
        }
        let fds: Vec<RawFd> = file.iter().map(|(fd, _)| *fd).collect();
        self.call(DMA_MAP, &payload, &fds).map(|_| ())
    }

    pub(crate) fn unmap(&mut self, address: u64, size: u64) {
        let mut payload = words(&[24, 0]);
        payload.extend(address.to_ne_bytes());
        payload.extend(size.to_ne_bytes());
        self.call(DMA_UNMAP, &payload, &[]).unwrap();
    }

    pub(crate) fn read(&mut self, region: u32, offset: u64, count: u32) -> Result<Vec<u8>, u32> {
        let payload = [&offset.to_ne_bytes()[..], &words(&[region, count])].concat();
        self.call(REGION_READ, &payload, &[]).map(|reply| reply[16..].to_vec())
    }

    pub(crate) fn write(&mut self, region: u32, offset: u64, data: &[u8]) -> Result<(), u32> {
        let access = words(&[region, data.len() as u32]);
        let payload = [&offset.to_ne_bytes()[..], &access, data].concat();
        self.call(REGION_WRITE, &payload, &[]).map(|_| ())
    }

    /// Connects a vector to an event descriptor; disconnects it without one.
    pub(crate) fn set_vector(&mut self, vector: u32, event: Option<RawFd>) -> Result<(), u32> {
        let (eventfd, trigger) = (1 << 2, 1 << 5);
        let payload = words(&[20, eventfd | trigger, MSIX, vector, 1]);
        self.call(SET_IRQS, &payload, event.as_slice()).map(|_| ())
    }
}
