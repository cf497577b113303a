//! What the kernel logs while a check runs.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;

/// More lines than these are not kept of one check.
const LINES: usize = 200;

/// The kernel's log from a moment on. Nothing where this user may not read it.
#[derive(Debug)]
pub(crate) struct KernelLog(Option<File>);

impl KernelLog {
    /// From now on.
    pub(crate) fn from_now() -> Self {
        let open = || -> std::io::Result<File> {
            let flags = nix::fcntl::OFlag::O_NONBLOCK.bits();
            let mut log = OpenOptions::new().read(true).custom_flags(flags).open("/dev/kmsg")?;
            log.seek(SeekFrom::End(0))?;
            Ok(log)
        };
        Self(open().ok())
    }

    /// The lines that came since the last call, without their prefixes.
    pub(crate) fn new_lines(&mut self) -> Vec<String> {
        let Some(log) = &mut self.0 else { return Vec::new() };
        let mut lines = Vec::new();
        // One record a read (`Documentation/ABI/testing/dev-kmsg`), of 8 KiB at most.
        let mut record = [0; 8192];
        loop {
            match log.read(&mut record) {
                Ok(0) => break,
                Ok(length) if lines.len() < LINES => lines.extend(message(&record[..length])),
                Ok(_) => {}
                // Records were overwritten before they were read; the next read goes on behind them.
                Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EPIPE as i32) => {}
                Err(_) => break,
            }
        }
        lines
    }
}

/// The text of a record: `6,339,5140900,-;text`, and lines of properties that begin with a space.
fn message(record: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(record);
    let (_, text) = text.split_once(';')?;
    text.lines().next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_its_text() {
        let record =
            b"6,339,5140900,-;gve 0000:00:04.0: link up\n SUBSYSTEM=pci\n DEVICE=+pci:0000:00:04.0\n";
        assert_eq!(message(record).as_deref(), Some("gve 0000:00:04.0: link up"));
        assert_eq!(message(b"no record"), None);
    }
}
