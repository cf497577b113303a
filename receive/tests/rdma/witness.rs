//! What the lab says, which asks neither the kernel nor a driver.

use std::io::{BufRead, BufReader, IoSlice};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;

use devmem_provider::{DmaBuf, Residency, base_page_size};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde_json::{Value, json};

use crate::harness::{Failure, Outcome, ensure};

/// A region of an RDMA device, by the pages that its driver gave the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SeenRegion {
    pub(crate) key: u64,
    pub(crate) address: u64,
    pub(crate) length: u64,
    pub(crate) first_page: u64,
    /// Bytes in guest memory, in devices' windows, and where the lab cannot follow (behind an IOMMU).
    pub(crate) guest_memory: u64,
    pub(crate) windows: u64,
    pub(crate) unreachable: u64,
}

impl SeenRegion {
    /// Where all of it is.
    pub(crate) fn is_in(&self, residency: Residency) -> Outcome {
        let expected = match residency {
            Residency::DeviceLocal => (0, self.length),
            _ => (self.length, 0),
        };
        ensure!((self.guest_memory, self.windows) == expected, "{self:?}");
        Ok(())
    }
}

/// The regions that a device has, by their number.
pub(crate) fn regions(device: usize) -> Result<Vec<SeenRegion>, Failure> {
    let answer = ask(&json!({ "op": "rdma_regions", "rdma": device }), None)?;
    let regions = answer["regions"].as_array().ok_or_else(|| format!("the lab says {answer}"))?;
    regions
        .iter()
        .map(|region| {
            let number = |name: &str| region[name].as_u64().ok_or_else(|| format!("no {name} in {region}"));
            Ok(SeenRegion {
                key: number("key")?,
                address: number("address")?,
                length: number("length")?,
                first_page: number("first_page")?,
                guest_memory: number("guest_ram_bytes")?,
                windows: number("device_window_bytes")?,
                unreachable: number("unreachable_bytes")?,
            })
        })
        .collect()
}

/// The only region that a device has.
pub(crate) fn region(device: usize) -> Result<SeenRegion, Failure> {
    match regions(device)?.as_slice() {
        [region] => Ok(region.clone()),
        others => Err(format!("the device has {} regions", others.len()).into()),
    }
}

/// Where the lab finds all pages of a buffer, by marks that its agent writes without telling the exporter.
pub(crate) fn locate(buffer: &DmaBuf) -> Result<Residency, Failure> {
    let answer = ask(&json!({ "op": "locate", "name": "buffer" }), Some(buffer))?;
    let pages = buffer.size() / base_page_size();
    match (answer["guest_ram_pages"].as_u64(), answer["device_window_pages"].as_u64()) {
        (Some(0), Some(found)) if found == pages => Ok(Residency::DeviceLocal),
        (Some(found), Some(0)) if found == pages => Ok(Residency::System),
        _ => Err(format!("the lab found not all of {pages} pages in one place: {answer}").into()),
    }
}

fn ask(question: &Value, buffer: Option<&DmaBuf>) -> Result<Value, Failure> {
    let lab = UnixStream::connect(std::env::var("DEVMEM_LAB_SOCKET")?)?;
    let question = format!("{question}\n");
    let descriptors: Vec<_> = buffer.iter().map(|buffer| buffer.as_fd().as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let rights: &[ControlMessage<'_>] = if descriptors.is_empty() { &[] } else { &rights };
    let line = [IoSlice::new(question.as_bytes())];
    sendmsg::<()>(lab.as_raw_fd(), &line, rights, MsgFlags::empty(), None)?;
    let mut answer = String::new();
    BufReader::new(lab).read_line(&mut answer)?;
    let answer: Value = serde_json::from_str(&answer)?;
    match answer.get("error") {
        Some(error) => Err(format!("the lab refuses {question}: {error}").into()),
        None => Ok(answer),
    }
}
