//! What the sending side of one connection does.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::counts::Counts;

/// No script has more steps.
const STEPS: usize = 4096;
/// No script writes or reads more, in bytes.
const BYTES: u64 = 64 << 30;
/// No pause is longer.
const PAUSE: Duration = Duration::from_secs(60);

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

impl Script {
    /// What it has too much of for a peer that does not trust it.
    pub(super) fn excess(&self) -> Option<String> {
        if self.steps.len() > STEPS {
            return Some(format!("a script has {STEPS} steps at most, and not {}", self.steps.len()));
        }
        let sum = |bytes_of: fn(&Step) -> u64| {
            self.steps.iter().fold(0_u64, |sum, step| sum.saturating_add(bytes_of(step)))
        };
        let written = sum(|step| if let Step::Write { bytes, .. } = step { *bytes } else { 0 });
        let read = sum(|step| if let Step::Read { bytes } = step { *bytes } else { 0 });
        if written.max(read) > BYTES {
            return Some(format!(
                "a script sends and reads {BYTES} bytes at most, and not {}",
                written.max(read)
            ));
        }
        let is_long = |step: &Step| matches!(step, Step::Pause { milliseconds } if Duration::from_millis((*milliseconds).into()) > PAUSE);
        self.steps.iter().any(is_long).then(|| format!("a pause takes {} s at most", PAUSE.as_secs()))
    }
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub(crate) enum Step {
    /// Writes the next `bytes` bytes of the pattern, `chunk` bytes at a time.
    Write { bytes: u64, chunk: u32 },
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
    /// What the kernel counted on the connection until its end.
    pub(crate) counts: Counts,
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

/// No more is read while a script waits for the end of the other side's stream, in bytes.
pub(super) const READ_LIMIT: u64 = BYTES;

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
    fn what_no_check_needs_is_too_much() {
        let script = |steps: Vec<Step>| Script {
            to: "192.0.2.1:5201".parse().unwrap(),
            from_port: None,
            no_delay: false,
            maximum_segment: None,
            steps,
        };
        let write = Step::Write { bytes: BYTES / 2, chunk: 1 };
        let pause = |milliseconds| Step::Pause { milliseconds };
        assert_eq!(script(vec![write.clone(), Step::Barrier, write.clone(), pause(60_000)]).excess(), None);
        for steps in [
            vec![write; 3],
            vec![Step::Write { bytes: u64::MAX, chunk: 1 }; 2],
            vec![Step::Read { bytes: BYTES + 1 }],
            vec![Step::Barrier; STEPS + 1],
            vec![pause(60_001)],
        ] {
            assert!(script(steps.clone()).excess().is_some(), "{:?}", steps.first());
        }
    }

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
