//! The side that starts, waits and gives up.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, pipe2};

use super::{ASSIGNMENT, Message};
use crate::verdict::{Outcome, Stop};

/// How long a process may take to die when it is killed. One that waits in the kernel for a driver never does.
const DEATH_LIMIT: Duration = Duration::from_secs(5);

/// How often is looked whether it has ended.
const INTERVAL: Duration = Duration::from_millis(5);

/// How much of what a check prints is kept, in bytes.
const OUTPUT_LIMIT: u64 = 16 << 10;

/// How a check in its own process ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) outcome: Outcome,
    pub(crate) duration: Duration,
    /// What it printed: the end of it, if it was much.
    pub(crate) output: String,
}

impl Ended {
    /// A check that did not have to run.
    pub(crate) fn at_once(outcome: Outcome) -> Self {
        Self { outcome, duration: Duration::ZERO, output: String::new() }
    }
}

/// What a process shall check.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'run> {
    /// The provider's name.
    pub(crate) provider: &'run str,
    /// The receive path's name; empty for a check of the provider alone.
    pub(crate) path: &'run str,
    /// The check's full name.
    pub(crate) check: &'run str,
}

/// Starts this program again with `arguments` to do one check of a provider, and waits for `limit` at most.
pub(crate) fn in_a_process_of_its_own(
    arguments: &[OsString],
    subject: Subject<'_>,
    limit: Duration,
) -> Ended {
    let started = Instant::now();
    let attempt = Process::start(arguments, subject);
    let (outcome, output) = match attempt {
        Ok(mut process) => (process.outcome(limit), process.output()),
        Err(error) => (Err(Stop::fail(format!("its process could not be started: {error}"))), String::new()),
    };
    Ended { outcome, duration: started.elapsed(), output }
}

struct Process {
    child: Child,
    result: File,
    printed: File,
}

impl Process {
    fn start(arguments: &[OsString], subject: Subject<'_>) -> std::io::Result<Self> {
        let (result, result_of_child) = pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        let printed =
            File::from(nix::sys::memfd::memfd_create(c"output", nix::sys::memfd::MFdFlags::MFD_CLOEXEC)?);
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(arguments)
            .env(ASSIGNMENT, format!("{}\n{}\n{}", subject.provider, subject.path, subject.check))
            // A check reads no input, so that this place serves for its result: it needs no agreement on a number.
            .stdin(result_of_child)
            .stdout(printed.try_clone()?)
            .stderr(printed.try_clone()?)
            .process_group(0);
        // Dropping the command closes this process's copy of the writing end, so that the reader sees its end.
        let child = command.spawn()?;
        drop(command);
        Ok(Self { child, result: result.into(), printed })
    }

    fn outcome(&mut self, limit: Duration) -> Outcome {
        let Some(status) = self.wait(limit) else {
            // The whole group, for a check may have started processes of its own.
            let group = Pid::from_raw(self.child.id() as i32);
            let _ = killpg(group, Signal::SIGKILL);
            let gone = self.wait(DEATH_LIMIT).is_some();
            let seconds = limit.as_secs();
            let state = if gone { "" } else { ", and cannot be killed: it waits in the kernel" };
            return Err(Stop::fail(format!("it hangs: no end after {seconds} s{state}")));
        };
        let _ = killpg(Pid::from_raw(self.child.id() as i32), Signal::SIGKILL);
        let mut text = Vec::new();
        match (&self.result).take(1 << 20).read_to_end(&mut text) {
            Ok(_) => {
                serde_json::from_slice::<Message>(&text).map_or_else(|_| Err(abrupt(status)), Outcome::from)
            }
            Err(error) => Err(Stop::fail(format!("its result cannot be read: {error}"))),
        }
    }

    fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            if Instant::now() >= deadline {
                return None;
            }
            std::thread::sleep(INTERVAL);
        }
    }

    fn output(&mut self) -> String {
        let mut text = Vec::new();
        let length = self.printed.metadata().map_or(0, |found| found.len());
        let start = length.saturating_sub(OUTPUT_LIMIT);
        let read =
            self.printed.seek(SeekFrom::Start(start)).and_then(|_| self.printed.read_to_end(&mut text));
        match read {
            Ok(_) => String::from_utf8_lossy(&text).trim_end().to_owned(),
            Err(error) => format!("its output cannot be read: {error}"),
        }
    }
}

/// A process that ended without a word.
fn abrupt(status: ExitStatus) -> Stop {
    match status.signal() {
        Some(number) => {
            let name =
                Signal::try_from(number).map_or_else(|_| number.to_string(), |signal| signal.to_string());
            Stop::fail(format!("its process was ended by {name}"))
        }
        None => Stop::fail(format!(
            "its process ended with {} before it got to the check: does the program, started again with the same \
             arguments, come to the same provider?",
            status.code().unwrap_or_default()
        )),
    }
}
