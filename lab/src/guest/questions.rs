//! Answers programs in the guest: a socket that takes lines of JSON and gives a line for each.

use std::collections::VecDeque;
use std::io::{IoSliceMut, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg};
use serde_json::{Value, json};

use super::port::Port;
use super::{Context, Result, locate, sys};
use crate::protocol::SOCKET;

/// The longest line. It must fit into a frame together with its number.
const LONGEST_LINE: usize = 1 << 19;

/// How many descriptors may come with one piece of a line.
const DESCRIPTORS: usize = 8;

/// Listens from now on.
pub(super) fn serve(port: Arc<Port>) -> Result<()> {
    let listener = UnixListener::bind(SOCKET).context(|| format!("listen at {SOCKET}"))?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let port = Arc::clone(&port);
            // One that disconnects in the middle of a line has nothing to be told.
            std::thread::spawn(move || converse(stream, &port).unwrap_or_default());
        }
    });
    Ok(())
}

fn converse(mut stream: UnixStream, port: &Port) -> std::io::Result<()> {
    let mut lines = Lines::default();
    let mut descriptors = VecDeque::new();
    loop {
        let mut piece = [0; 1 << 14];
        let count = receive(&stream, &mut piece, &mut descriptors)?;
        if count == 0 {
            return Ok(());
        }
        lines.push(&piece[..count])?;
        while let Some(line) = lines.next() {
            let reply = answer(&line, &mut descriptors, port);
            let mut text = reply.to_string();
            text.push('\n');
            stream.write_all(text.as_bytes())?;
        }
    }
}

fn receive(
    stream: &UnixStream,
    piece: &mut [u8],
    descriptors: &mut VecDeque<OwnedFd>,
) -> std::io::Result<usize> {
    let mut space = nix::cmsg_space!([std::os::fd::RawFd; DESCRIPTORS]);
    loop {
        let mut parts = [IoSliceMut::new(piece)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        match recvmsg::<UnixAddr>(stream.as_raw_fd(), &mut parts, Some(&mut space), flags) {
            Ok(message) => {
                for control in message.cmsgs()? {
                    if let ControlMessageOwned::ScmRights(received) = control {
                        descriptors.extend(received.into_iter().map(sys::own_received));
                    }
                }
                return Ok(message.bytes);
            }
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn answer(line: &[u8], descriptors: &mut VecDeque<OwnedFd>, port: &Port) -> Value {
    let question: Value = match serde_json::from_slice(line) {
        Ok(question) => question,
        Err(error) => return json!({ "error": format!("this line is no JSON: {error}") }),
    };
    let is_location = question.get("op").and_then(Value::as_str) == Some("locate");
    let result = match descriptors.pop_front() {
        Some(buffer) if is_location => {
            let name = question.get("name").and_then(Value::as_str).unwrap_or_default();
            locate::locate(&buffer, name, port)
        }
        _ => port.ask(question),
    };
    result.unwrap_or_else(|reason| json!({ "error": reason }))
}

/// Divides what arrives into lines.
#[derive(Debug, Default)]
struct Lines {
    waiting: Vec<u8>,
}

impl Lines {
    fn push(&mut self, piece: &[u8]) -> std::io::Result<()> {
        self.waiting.extend_from_slice(piece);
        let is_endless = self.waiting.len() > LONGEST_LINE && !self.waiting[..LONGEST_LINE].contains(&b'\n');
        if is_endless { Err(std::io::ErrorKind::InvalidData.into()) } else { Ok(()) }
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        let end = self.waiting.iter().position(|&byte| byte == b'\n')?;
        let rest = self.waiting.split_off(end + 1);
        let mut line = std::mem::replace(&mut self.waiting, rest);
        line.pop();
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_divided_wherever_the_pieces_end() {
        let mut lines = Lines::default();
        lines.push(b"{\"a\"").unwrap();
        assert_eq!(lines.next(), None);
        lines.push(b":1}\n\n{").unwrap();
        assert_eq!(lines.next().unwrap(), b"{\"a\":1}");
        assert_eq!(lines.next().unwrap(), b"");
        assert_eq!(lines.next(), None);
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let mut lines = Lines::default();
        let piece = vec![b'x'; LONGEST_LINE];
        lines.push(&piece).unwrap();
        assert!(lines.push(b"x").is_err());
    }
}
