//! A process that writes marks into a buffer and takes them away again.
//!
//! Its standard input is the DMA-buf. On its standard output, a socket, it says `marked`, waits for the end of what
//! it can read there, and says `erased`; or says what went wrong.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;

use nix::unistd::{Whence, lseek};

use super::sys::SharedMapping;
use super::{Context, Result};

pub(super) const PAGE: usize = 4096;
const MARK: usize = 32;

pub(super) const MARKED: &str = "marked";
pub(super) const ERASED: &str = "erased";

/// The last 8 bytes of a mark: the page's index, disguised so that no ordinary data looks like it.
const DISGUISE: u64 = 0x9e37_79b9_7f4a_7c15;

/// Runs the process; its argument is the nonce in hexadecimal digits.
pub(super) fn run(arguments: &[std::ffi::OsString]) -> i32 {
    let outcome = mark_and_wait(arguments.first().and_then(|nonce| nonce.to_str()).unwrap_or_default());
    match outcome {
        Ok(()) => 0,
        Err(reason) => {
            println!("{reason}");
            1
        }
    }
}

fn mark_and_wait(nonce: &str) -> Result<()> {
    let nonce = u128::from_str_radix(nonce, 16).context(|| "understand the nonce".into())?.to_be_bytes();
    let buffer = std::io::stdin().as_fd().try_clone_to_owned().context(|| "take the buffer".into())?;
    let mut connection = std::io::stdout().as_fd().try_clone_to_owned().map(File::from);
    let connection = connection.as_mut().map_err(|error| format!("cannot take the connection: {error}"))?;
    let size = lseek(&buffer, 0, Whence::SeekEnd).context(|| "measure the buffer".into())?;
    let size = usize::try_from(size).unwrap_or_default();
    let mapping = SharedMapping::new(&buffer, size).context(|| format!("map {size} bytes of the buffer"))?;
    let mut saved = vec![[0; MARK]; size / PAGE];
    for (page, saved) in saved.iter_mut().enumerate() {
        mapping.read(page * PAGE, saved);
        mapping.write(page * PAGE, &mark(&nonce, page as u64));
    }
    writeln!(connection, "{MARKED}").context(|| "answer".into())?;
    // Whatever happens to the agent, the content is put back.
    let _ = connection.read(&mut [0]);
    for (page, saved) in saved.iter().enumerate() {
        mapping.write(page * PAGE, saved);
    }
    writeln!(connection, "{ERASED}").context(|| "answer".into())
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
