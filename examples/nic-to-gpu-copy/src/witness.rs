//! An independent witness of where bytes went: the lab's, where the tool runs in its guest.
//!
//! The lab tells a program in the guest by the environment variable `DEVMEM_LAB_SOCKET` where it can be asked.
//! It finds the buffer's pages itself, by marks that it writes through the DMA-buf, before the bind and after it,
//! and it counts every byte that an emulated NIC writes. On real hardware there is no such witness.

use std::io::{BufRead, BufReader, IoSlice, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result, bail};
use devmem_provider::{DmaBuf, Heap, Placement, Provider, Residency};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde_json::{Value, json};

const SOCKET: &str = "DEVMEM_LAB_SOCKET";

/// What the lab is told the buffer is.
const BUFFER: &str = "receive buffer";

/// What the lab is told the buffer of the gathered file is.
const GATHERED: &str = "gathered file";

/// Which bytes the lab shall count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Watched {
    /// Payload of TCP to this port.
    TcpPort(u16),
    /// What RDMA devices write.
    Rdma,
}

/// A connection to the lab.
#[derive(Debug)]
pub(crate) struct Witness {
    connection: BufReader<UnixStream>,
    before: Value,
    after: Value,
}

impl Witness {
    /// Calls the lab, if the tool runs in one.
    pub(crate) fn call() -> Result<Option<Self>> {
        let Some(path) = std::env::var_os(SOCKET) else { return Ok(None) };
        let connection = UnixStream::connect(&path).with_context(|| {
            format!("cannot connect to the lab at {}, which {SOCKET} names", path.display())
        })?;
        Ok(Some(Self { connection: BufReader::new(connection), before: Value::Null, after: Value::Null }))
    }

    /// Lets the lab look where the buffer is before anything is attached to it. That its pages cannot be found is
    /// no failure: some memory is out of the CPU's reach until it is moved.
    pub(crate) fn look_before(&mut self, dma_buf: &DmaBuf) {
        self.before = self.locate(dma_buf, BUFFER).unwrap_or_default();
    }

    /// Shows the lab which memory is meant, and lets it count from now on.
    ///
    /// No byte may arrive before this returns: the lab writes into the buffer to find it.
    pub(crate) fn watch(&mut self, dma_buf: &DmaBuf, watched: Watched) -> Result<()> {
        let start = match watched {
            Watched::TcpPort(port) => json!({ "op": "ground_truth_start", "tcp_destination_port": port }),
            Watched::Rdma => json!({ "op": "ground_truth_start", "rdma_only": true }),
        };
        self.ask(&start, None)?;
        self.after = self.locate(dma_buf, BUFFER)?;
        Ok(())
    }

    /// Where the lab finds the pages of the receive buffer.
    pub(crate) fn locate_receive_buffer(&mut self, dma_buf: &DmaBuf) -> Result<Value> {
        self.locate(dma_buf, BUFFER)
    }

    fn locate(&mut self, dma_buf: &DmaBuf, name: &str) -> Result<Value> {
        let located = self.ask(&json!({ "op": "locate", "name": name }), Some(dma_buf))?;
        let pages = dma_buf.size() / devmem_provider::base_page_size();
        if located["found"].as_u64() != Some(pages) {
            bail!("the lab found {} of the buffer's {pages} pages", located["found"]);
        }
        Ok(located)
    }

    /// Where the payload went, where the buffer was before the bind and after it, and where the gathered file is.
    pub(crate) fn ground_truth(&mut self, gathered: Option<&DmaBuf>) -> Result<Value> {
        let mut truth = self.ask(&json!({ "op": "ground_truth" }), None)?;
        // As before the bind, some memory is out of reach.
        truth["gathered_pages"] =
            gathered.map(|gathered| self.locate(gathered, GATHERED).unwrap_or_default()).unwrap_or_default();
        truth["pages_before"] = self.before.take();
        truth["pages_after"] = self.after.take();
        Ok(truth)
    }

    fn ask(&mut self, question: &Value, dma_buf: Option<&DmaBuf>) -> Result<Value> {
        let lost = "the connection to the lab is lost";
        let line = format!("{question}\n");
        let socket = self.connection.get_mut();
        let descriptors = dma_buf.map(|dma_buf| [dma_buf.as_fd().as_raw_fd()]);
        match &descriptors {
            Some(descriptors) => {
                let rights = [ControlMessage::ScmRights(descriptors)];
                let line = [IoSlice::new(line.as_bytes())];
                sendmsg::<()>(socket.as_raw_fd(), &line, &rights, MsgFlags::empty(), None).context(lost)?;
            }
            None => socket.write_all(line.as_bytes()).context(lost)?,
        }
        let mut answer = String::new();
        self.connection.read_line(&mut answer).context(lost)?;
        let answer: Value = serde_json::from_str(&answer).context("the lab's answer is no JSON")?;
        match answer.get("error") {
            Some(error) => bail!("the lab refuses {}: {error}", question["op"]),
            None => Ok(answer),
        }
    }
}

/// Whether the CPU can touch a buffer without moving it. A driver may bring a buffer that lies outside of the window
/// into it when the CPU touches it, or to system memory.
pub(crate) fn can_be_touched(provider: &dyn Provider, placement: Option<Placement>) -> bool {
    let has_hidden_memory = |heap: &Heap| heap.cpu_visible < heap.size;
    placement != Some(Placement::DeviceLocal)
        || provider.heaps().is_ok_and(|heaps| !heaps.iter().any(has_hidden_memory))
}

/// Where the lab found the pages of a buffer; `None` if it did not find them, or in both places.
pub(crate) fn residency(pages: &Value) -> Option<Residency> {
    let count = |name: &str| pages[name].as_u64();
    match (count("device_window_pages")?, count("guest_ram_pages")?) {
        (0, 0) => None,
        (_, 0) => Some(Residency::DeviceLocal),
        (0, _) => Some(Residency::System),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_all_pages_is_the_residency() {
        let found = |device: u64, guest: u64| {
            residency(&json!({ "device_window_pages": device, "guest_ram_pages": guest }))
        };
        assert_eq!(found(4, 0), Some(Residency::DeviceLocal));
        assert_eq!(found(0, 4), Some(Residency::System));
        assert_eq!(found(2, 2), None);
        assert_eq!(residency(&Value::Null), None);
    }
}
