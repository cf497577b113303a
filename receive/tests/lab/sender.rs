//! The sending machine: this program again, in the peer's network namespace.

use std::io::Write;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::harness::{Failure, Outcome, Role};

/// Sends the pattern to the address, and of the length, that are its arguments.
pub(crate) const SEND: Role = Role { name: "role-send", play: send };

/// The byte at `position` of every stream: does not repeat with the page size.
pub(crate) fn pattern(position: u64) -> u8 {
    (position % 251) as u8 ^ (position >> 12) as u8
}

/// Starts a sender of `bytes` bytes to `address`.
pub(crate) fn start(address: &str, bytes: u64) -> Result<Child, Failure> {
    let program = std::env::current_exe()?;
    Ok(Command::new("in-peer")
        .arg(program)
        .args([SEND.name, address, &bytes.to_string()])
        .stdin(Stdio::null())
        .spawn()?)
}

fn send() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(2).collect();
    let [address, bytes] = arguments.as_slice() else { return Err("usage: ADDRESS BYTES".into()) };
    let bytes: u64 = bytes.parse()?;
    let mut socket = loop {
        match TcpStream::connect(address) {
            Ok(socket) => break socket,
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let mut position = 0;
    while position < bytes {
        let chunk: Vec<u8> = (position..bytes.min(position + (64 << 10))).map(pattern).collect();
        socket.write_all(&chunk)?;
        position += chunk.len() as u64;
    }
    Ok(())
}
