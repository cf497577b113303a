//! The sending machine: this program again, in the peer's network namespace.

use std::io::Write;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::Failure;

/// The argument that makes this program a sender.
pub(crate) const ROLE: &str = "--send-pattern";

/// The byte at `position` of every stream: does not repeat with the page size.
pub(crate) fn pattern(position: u64) -> u8 {
    (position % 251) as u8 ^ (position >> 12) as u8
}

/// Starts a sender of `bytes` bytes to `address`.
pub(crate) fn start(address: &str, bytes: u64) -> Result<Child, Failure> {
    let program = std::env::current_exe()?;
    Ok(Command::new("in-peer")
        .arg(program)
        .args([ROLE, address, &bytes.to_string()])
        .stdin(Stdio::null())
        .spawn()?)
}

/// What the sender does.
pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let [address, bytes] = arguments else { return Err("usage: ADDRESS BYTES".into()) };
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
