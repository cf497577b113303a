//! Another process that a check works with: one that a DMA-buf is passed to, say.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{ASSIGNMENT, COMPANION, Message, descriptor_passing, sys};
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

/// A process in a role. It is killed on drop.
#[derive(Debug)]
pub(crate) struct Companion {
    child: Child,
    link: Link,
}

impl Companion {
    /// Starts this program again in the role of this name.
    pub(crate) fn start(context: &Context<'_>, role: &str) -> std::io::Result<Self> {
        Self::start_with(context, role, |_| {})
    }

    /// Starts this program again in the role of this name, without any capability but in a user namespace of its own.
    ///
    /// # Errors
    ///
    /// Among others that no user namespace is to be had.
    pub(crate) fn start_in_a_user_namespace(context: &Context<'_>, role: &str) -> std::io::Result<Self> {
        Self::start_with(context, role, sys::in_a_user_namespace)
    }

    fn start_with(
        context: &Context<'_>,
        role: &str,
        prepare: impl FnOnce(&mut Command),
    ) -> std::io::Result<Self> {
        let (here, there) = UnixStream::pair()?;
        let provider = &context.provider().identity().name;
        let path = context.path().map(ReceivePath::name).unwrap_or_default();
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(&context.environment().arguments)
            .env(ASSIGNMENT, format!("{provider}\n{path}\n{COMPANION}{role}"))
            .stdin(OwnedFd::from(there))
            .stdout(Stdio::inherit());
        prepare(&mut command);
        let child = command.spawn()?;
        // This process's copy of the other end goes, so that the end of the companion is seen.
        drop(command);
        here.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Self { child, link: Link::new(here) })
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

impl Drop for Companion {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.kill();
    }
}
