//! Another process that a check works with: one that a DMA-buf is passed to, say.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{APART, ASSIGNMENT, COMPANION, descriptor_passing};
use crate::context::Context;
use crate::path::ReceivePath;
use crate::verdict::Stop;

/// What a companion does, with what the check works with; its socket leads to the check.
pub(crate) type Role = fn(&Context<'_>, &Link) -> Result<(), Stop>;

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

    /// Closes it in both directions.
    pub(crate) fn close(&self) -> std::io::Result<()> {
        self.0.shutdown(Shutdown::Both)
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
        Self::spawn(context, role, false)
    }

    /// As [`start`](Self::start), for a role that has something to put back: what ends the check, be it a signal to all of
    /// its processes, leaves the companion alone, which ends by itself when the check's end of the link is closed.
    pub(crate) fn start_apart(context: &Context<'_>, role: &str) -> std::io::Result<Self> {
        Self::spawn(context, role, true)
    }

    fn spawn(context: &Context<'_>, role: &str, is_apart: bool) -> std::io::Result<Self> {
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
        let child = command.spawn()?;
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
