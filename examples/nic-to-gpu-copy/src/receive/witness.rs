//! An independent witness of where bytes went: the lab's, where the tool runs in its guest.
//!
//! The lab tells a program in the guest by the environment variable `DEVMEM_LAB_SOCKET` where it can be asked.
//! It finds the buffer's pages itself, by marks that it writes through the DMA-buf, and it counts every byte
//! that an emulated NIC writes. On real hardware there is no such witness.

use std::io::{BufRead, BufReader, IoSlice, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result, bail};
use devmem_provider::DmaBuf;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde_json::{Value, json};

const SOCKET: &str = "DEVMEM_LAB_SOCKET";

/// A connection to the lab.
#[derive(Debug)]
pub(crate) struct Witness {
    connection: BufReader<UnixStream>,
}

impl Witness {
    /// Calls the lab, if the tool runs in one.
    pub(crate) fn call() -> Result<Option<Self>> {
        let Some(path) = std::env::var_os(SOCKET) else { return Ok(None) };
        let connection = UnixStream::connect(&path).with_context(|| {
            format!("cannot connect to the lab at {}, which {SOCKET} names", path.display())
        })?;
        Ok(Some(Self { connection: BufReader::new(connection) }))
    }

    /// Shows the lab which memory is meant, and lets it count payload for `port` from now on.
    ///
    /// No byte may arrive before this returns: the lab writes into the buffer to find it.
    pub(crate) fn watch(&mut self, dma_buf: &DmaBuf, port: u16) -> Result<()> {
        self.ask(&json!({ "op": "ground_truth_start", "tcp_destination_port": port }), None)?;
        let located = self.ask(&json!({ "op": "locate", "name": "receive buffer" }), Some(dma_buf))?;
        let pages = dma_buf.size() / devmem_provider::base_page_size();
        if located["found"].as_u64() != Some(pages) {
            bail!("the lab found {} of the buffer's {pages} pages", located["found"]);
        }
        Ok(())
    }

    /// Where the payload went.
    pub(crate) fn ground_truth(&mut self) -> Result<Value> {
        self.ask(&json!({ "op": "ground_truth" }), None)
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
