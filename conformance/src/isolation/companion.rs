//! Another process that a check works with: one that a DMA-buf is passed to, say.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{APART, ASSIGNMENT, COMPANION, Message, descriptor_passing, sys};
use crate::context::Context;
use crate::path::ReceivePath;
use crate::verdict::{Finding, Outcome, Stop};

/// What a companion does, with what the check works with; its socket leads to the check.
pub(crate) type Role = fn(&Context<'_>, &Link) -> Result<(), Stop>;

/// No outcome of a companion is longer, in bytes.
const LONGEST_OUTCOME: u64 = 1 << 20;

/// One end of what connects a check and its companion.
#[derive(Debug)]
pub(crate) struct Link(UnixStream);

impl Link {
    pub(super) fn new(socket: UnixStream) -> Self {
        Self(socket)
    }

    pub(crate) fn send_descriptor(&self, descriptor: BorrowedFd<'_>) -> std::io::Result<()> {
        descriptor_passing::send(&self.0, descriptor)
    }

    pub(crate) fn receive_descriptor(&self) -> std::io::Result<OwnedFd> {
        descriptor_passing::receive(&self.0)
    }

    pub(crate) fn send(&self, bytes: &[u8]) -> std::io::Result<()> {
        (&self.0).write_all(bytes)
    }

    pub(crate) fn receive(&self, bytes: &mut [u8]) -> std::io::Result<()> {
        (&self.0).read_exact(bytes)
    }

    /// Tells the check what the companion's part came to, as its last word.
    pub(crate) fn send_outcome(&self, outcome: Result<(), Stop>) -> std::io::Result<()> {
        let text = serde_json::to_vec(&Message::from(outcome.map(|()| Finding::Pass)))?;
        self.send(&text)?;
        self.0.shutdown(Shutdown::Write)
    }

    /// What the companion's part came to.
    pub(crate) fn receive_outcome(&self) -> Result<(), Stop> {
        let mut text = Vec::new();
        (&self.0).take(LONGEST_OUTCOME).read_to_end(&mut text)?;
        let message: Message = serde_json::from_slice(&text).map_err(|_| {
            Stop::fail("the process that the check works with ended without a word; see its output")
        })?;
        Outcome::from(message).map(drop)
    }

    /// Closes it in both directions.
    pub(crate) fn close(&self) -> std::io::Result<()> {
        self.0.shutdown(Shutdown::Both)
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Read for &Link {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        (&self.0).read(bytes)
    }
}

impl Write for &Link {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        (&self.0).write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// How long a companion that ends by itself may take for that.
const END_LIMIT: Duration = Duration::from_secs(5);
const END_INTERVAL: Duration = Duration::from_millis(1);

/// A process in a role. It is killed on drop, or ends by itself then.
#[derive(Debug)]
pub(crate) struct Companion {
    child: Child,
    link: Link,
    is_apart: bool,
}

impl Companion {
    /// Starts this program again in the role of this name.
    pub(crate) fn start(context: &Context<'_>, role: &str) -> std::io::Result<Self> {
        Self::spawn(context, role, false, |_| {})
    }

    /// As [`start`](Self::start), for a role that has something to put back: what ends the check, be it a signal to all of
    /// its processes, leaves the companion alone, which ends by itself when the check's end of the link is closed.
    pub(crate) fn start_apart(context: &Context<'_>, role: &str) -> std::io::Result<Self> {
        Self::spawn(context, role, true, |_| {})
    }

    /// Starts this program again in the role of this name, without any capability but in a user namespace of its own.
    ///
    /// # Errors
    ///
    /// Among others that no user namespace is to be had.
    pub(crate) fn start_in_a_user_namespace(context: &Context<'_>, role: &str) -> std::io::Result<Self> {
        Self::spawn(context, role, false, sys::in_a_user_namespace)
    }

    fn spawn(
        context: &Context<'_>,
        role: &str,
        is_apart: bool,
        prepare: impl FnOnce(&mut Command),
    ) -> std::io::Result<Self> {
        let (here, there) = UnixStream::pair()?;
        let provider = &context.provider().identity().name;
        let path = context.path().map(ReceivePath::name).unwrap_or_default();
        let kind = if is_apart { APART } else { COMPANION };
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(&context.environment().arguments)
            .env(ASSIGNMENT, format!("{provider}\n{path}\n{kind}{role}"))
            .stdin(OwnedFd::from(there))
            .stdout(Stdio::inherit());
        if is_apart {
            command.process_group(0);
        }
        prepare(&mut command);
        let child = command.spawn()?;
        // This process's copy of the other end goes, so that the end of the companion is seen.
        drop(command);
        here.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Self { child, link: Link::new(here), is_apart })
    }

    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    /// Kills it now.
    pub(crate) fn kill(&mut self) -> std::io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }
}

impl Companion {
    /// Closes this end of the link, and waits for the end of the process.
    fn has_ended_by_itself(&mut self) -> bool {
        let deadline = Instant::now() + END_LIMIT;
        // The other end may be closed already.
        let _ = self.link.close();
        loop {
            match self.child.try_wait() {
                Ok(Some(_)) => return true,
                Ok(None) if Instant::now() < deadline => std::thread::sleep(END_INTERVAL),
                _ => return false,
            }
        }
    }
}

impl Drop for Companion {
    fn drop(&mut self) {
        // It may have ended by itself.
        if !(self.is_apart && self.has_ended_by_itself()) {
            let _ = self.kill();
        }
    }
}
