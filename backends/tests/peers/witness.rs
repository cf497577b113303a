//! Where a buffer is according to the lab, which asks neither the kernel nor a driver.

use std::io::{BufRead, BufReader, IoSlice};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;

use devmem_provider::{DmaBuf, base_page_size};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde_json::{Value, json};

use crate::Failure;

/// The one place where the lab finds all pages of a buffer: a GPU, by its name in the lab, or guest memory.
///
/// It looks without telling the exporter of the access, which may answer by moving the buffer.
pub(crate) fn locate(buffer: &DmaBuf) -> Result<Value, Failure> {
    let lab = UnixStream::connect(std::env::var("DEVMEM_LAB_SOCKET")?)?;
    let question = format!("{}\n", json!({ "op": "locate", "name": "buffer" }));
    let descriptors = [buffer.as_fd().as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let line = [IoSlice::new(question.as_bytes())];
    sendmsg::<()>(lab.as_raw_fd(), &line, &rights, MsgFlags::empty(), None)?;
    let mut answer = String::new();
    BufReader::new(lab).read_line(&mut answer)?;
    let answer: Value = serde_json::from_str(&answer)?;
    let pages = buffer.size() / base_page_size();
    if answer["guest_ram_pages"] == pages {
        return Ok(json!("guest memory"));
    }
    let devices = answer["devices"].as_object().ok_or_else(|| format!("the lab says {answer}"))?;
    match devices.iter().find(|(_, found)| **found == pages) {
        Some((device, _)) => Ok(json!(device)),
        None => Err(format!("the lab found not all of {pages} pages in one place: {answer}").into()),
    }
}
