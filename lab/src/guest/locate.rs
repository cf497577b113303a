//! Finds out which memory of the machine a DMA-buf consists of.
//!
//! No interface of the kernel tells it. So marks are written into every page of the buffer, through the
//! buffer's CPU mapping, and the host, which has the machine's whole memory before it, looks where they are.
//!
//! Two things that a look must not do: move the buffer, so the exporter is not told of the access (amdgpu
//! and xe answer `DMA_BUF_IOCTL_SYNC` by moving a buffer to system memory); and end the agent, so a process of its
//! own writes the marks, which the kernel may kill where a page cannot be reached.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::statfs::fstatfs;
use nix::unistd::{Whence, lseek};
use serde_json::{Value, json};

use super::mark::{ERASED, MARKED, PAGE};
use super::port::Port;
use super::{Context, Result};
use crate::protocol::AGENT;

/// The name under which the agent writes marks.
pub(super) const LAB_MARK: &str = "lab-mark";

/// `DMA_BUF_MAGIC` of `include/uapi/linux/magic.h`.
const DMA_BUF_MAGIC: i64 = 0x444d_4142;

/// Asks the host where the pages of `buffer` are, and puts the buffer's content back.
pub(super) fn locate(buffer: &OwnedFd, name: &str, port: &Port) -> Result<Value> {
    let system = fstatfs(buffer).context(|| "look at the buffer".into())?;
    if system.filesystem_type().0 as i64 != DMA_BUF_MAGIC {
        return Err("cannot locate the buffer: it is no DMA-buf".into());
    }
    let size = lseek(buffer, 0, Whence::SeekEnd).context(|| "measure the buffer".into())?;
    let pages = usize::try_from(size).unwrap_or_default() / PAGE;
    let mut nonce = [0; 16];
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut nonce))
        .context(|| "read random numbers".into())?;
    let nonce: String = nonce.iter().map(|byte| format!("{byte:02x}")).collect();

    let marks = Marks::write(buffer, &nonce)?;
    let answer = port.ask(json!({ "op": "locate", "name": name, "nonce": nonce, "pages": pages }));
    marks.erase()?;
    answer
}

/// A process that has written marks and waits to take them away. The agent reaps it as it reaps every process,
/// so its own words tell how it fared.
struct Marks {
    connection: BufReader<UnixStream>,
}

impl Marks {
    fn write(buffer: &OwnedFd, nonce: &str) -> Result<Self> {
        let (ours, theirs) = UnixStream::pair().context(|| "create a pair of sockets".into())?;
        let standard_input = buffer.try_clone().context(|| "pass the buffer on".into())?;
        let mut command = Command::new(AGENT);
        command.arg0(LAB_MARK).arg(nonce).stdin(standard_input).stdout(OwnedFd::from(theirs));
        command.spawn().context(|| format!("start {LAB_MARK}"))?;
        // The command holds the other end too, whose closing tells that the process has ended.
        drop(command);
        let mut marks = Self { connection: BufReader::new(ours) };
        marks.expect(MARKED)?;
        Ok(marks)
    }

    fn erase(mut self) -> Result<()> {
        let _ = self.connection.get_ref().shutdown(Shutdown::Write);
        self.expect(ERASED)
    }

    fn expect(&mut self, word: &str) -> Result<()> {
        let mut said = String::new();
        self.connection.read_line(&mut said).context(|| "read what was marked".into())?;
        match said.trim_end() {
            said if said == word => Ok(()),
            "" => {
                Err("cannot locate the buffer: not all of it can be reached through its CPU mapping".into())
            }
            reason => Err(format!("cannot locate the buffer: {reason}")),
        }
    }
}
