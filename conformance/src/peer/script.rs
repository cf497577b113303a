//! What the sending side of one connection does.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// What the sending side of one connection does, step after step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Script {
    /// Where it connects to.
    pub(crate) to: SocketAddr,
    /// The port that it connects from; any if none is named.
    pub(crate) from_port: Option<u16>,
    /// Every write leaves at once (`TCP_NODELAY`).
    pub(crate) no_delay: bool,
    /// The largest segment, in bytes (`TCP_MAXSEG`).
    pub(crate) maximum_segment: Option<u16>,
    /// What it does once it is connected. At the end it closes the connection.
    pub(crate) steps: Vec<Step>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub(crate) enum Step {
    /// Writes the next `bytes` bytes of the pattern, `chunk` bytes at a time.
    Write { bytes: u64, chunk: u32 },
    /// Sends the next byte of the pattern as urgent data.
    Urgent,
    /// Does nothing for a while.
    Pause { milliseconds: u32 },
    /// Writes no more: the other side sees the end.
    FinishWriting,
    /// Reads `bytes` bytes of the pattern and compares them.
    Read { bytes: u64 },
    /// Reads until the other side writes no more.
    AwaitEnd,
    /// Has the connection closed at the end of the script so that the other side sees a reset.
    Reset,
    /// Waits for [`Running::proceed`](super::Running::proceed).
    Barrier,
}

/// What became of a script.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Told {
    /// How many bytes it has written.
    pub(crate) written: u64,
    /// How many it has read.
    pub(crate) read: u64,
    /// What went wrong.
    pub(crate) failure: Option<Failure>,
}

/// What went wrong in a script.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// In which step; `None` is connecting.
    pub(crate) step: Option<usize>,
    /// The kernel's error number, if it has one.
    pub(crate) errno: Option<i32>,
    /// The error in words.
    pub(crate) text: String,
}

/// The byte at `position` of every stream. It repeats neither with the page size nor with a power of two.
fn pattern(position: u64) -> u8 {
    (position % 251) as u8 ^ (position >> 12) as u8
}

/// The bytes of every stream from `position` on.
pub(crate) fn fill(position: u64, bytes: &mut [u8]) {
    for (byte, position) in bytes.iter_mut().zip(position..) {
        *byte = pattern(position);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_a_stream_differ() {
        let page = |number: u64| {
            let mut bytes = [0; 4096];
            fill(number * 4096, &mut bytes);
            bytes
        };
        for (first, second) in [(0, 1), (1, 2), (0, 251), (7, 256 + 7)] {
            assert_ne!(page(first), page(second), "pages {first} and {second}");
        }
    }
}
