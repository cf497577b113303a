//! Finds out which memory of the machine a DMA-buf consists of.
//!
//! No interface of the kernel tells it. So the agent writes a mark into every page of the buffer, and
//! the host, which has the machine's whole memory before it, looks where the marks are.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;

use nix::unistd::{Whence, lseek};
use serde_json::{Value, json};

use super::port::Port;
use super::sys::{SharedMapping, synchronize};
use super::{Context, Result};

const PAGE: usize = 4096;
const MARK: usize = 32;

/// The last 8 bytes of a mark: the page's index, disguised so that no ordinary data looks like it.
const DISGUISE: u64 = 0x9e37_79b9_7f4a_7c15;

/// Asks the host where the pages of `buffer` are, and puts the buffer's content back.
pub(super) fn locate(buffer: &OwnedFd, name: &str, port: &Port) -> Result<Value> {
    let size = lseek(buffer, 0, Whence::SeekEnd).context(|| "measure the buffer: is it a DMA-buf?".into())?;
    let size = usize::try_from(size).unwrap_or_default();
    let mapping = SharedMapping::new(buffer, size).context(|| format!("map {size} bytes of the buffer"))?;
    let mut nonce = [0; 16];
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut nonce))
        .context(|| "read random numbers".into())?;

    let pages = size / PAGE;
    let mut saved = vec![[0; MARK]; pages];
    access(buffer, || {
        for (page, saved) in saved.iter_mut().enumerate() {
            mapping.read(page * PAGE, saved);
            mapping.write(page * PAGE, &mark(&nonce, page as u64));
        }
    })?;
    let nonce: String = nonce.iter().map(|byte| format!("{byte:02x}")).collect();
    let answer = port.ask(json!({ "op": "locate", "name": name, "nonce": nonce, "pages": pages }));
    access(buffer, || {
        for (page, saved) in saved.iter().enumerate() {
            mapping.write(page * PAGE, saved);
        }
    })?;
    answer
}

/// Touches the buffer between the beginning and the end of an access by the CPU.
fn access(buffer: &OwnedFd, touch: impl FnOnce()) -> Result<()> {
    synchronize(buffer, false).context(|| "begin to access the buffer: is it a DMA-buf?".into())?;
    touch();
    synchronize(buffer, true).context(|| "end to access the buffer".into())
}

fn mark(nonce: &[u8; 16], page: u64) -> [u8; MARK] {
    let mut mark = [0; MARK];
    mark[..16].copy_from_slice(nonce);
    mark[16..24].copy_from_slice(&page.to_le_bytes());
    mark[24..].copy_from_slice(&(page ^ DISGUISE).to_le_bytes());
    mark
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_the_nonce_the_page_and_the_page_disguised() {
        let mark = mark(&[7; 16], 0x0102);
        assert_eq!(mark[..16], [7; 16]);
        assert_eq!(mark[16..24], [2, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(mark[24..], [0x17, 0x7d, 0x4a, 0x7f, 0xb9, 0x79, 0x37, 0x9e]);
    }
}
