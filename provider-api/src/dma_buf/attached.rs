//! Who is attached to a DMA-buf, where the kernel shows it (`dma_buf_debug_show()` in `drivers/dma-buf/dma-buf.c`).

use std::fmt;
use std::fs;

/// The kernel's list of all DMA-bufs, for those who may read debugfs.
const LIST: &str = "/sys/kernel/debug/dma_buf/bufinfo";

/// Who is attached to a DMA-buf.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Attached {
    /// The devices of the attachments, by the kernel's names: PCI addresses, or names such as `vgem`. One that has
    /// attached twice is there twice.
    Devices(Vec<String>),
    /// It could not be seen, and why.
    Unknown(String),
}

impl Attached {
    /// Asks the kernel about the DMA-buf with this inode.
    pub(super) fn to(inode: u64) -> Self {
        match fs::read_to_string(LIST) {
            Ok(text) => match parse(&text, inode) {
                Some(devices) => Self::Devices(devices),
                None => Self::Unknown(format!("{LIST} does not list it")),
            },
            Err(error) => Self::Unknown(format!("{LIST} cannot be read: {error}")),
        }
    }

    /// The devices, where they are known.
    #[must_use]
    pub fn devices(&self) -> Option<&[String]> {
        match self {
            Self::Devices(devices) => Some(devices),
            Self::Unknown(_) => None,
        }
    }

    /// The same without one attachment of this device.
    #[must_use]
    pub fn without(mut self, device: &str) -> Self {
        if let Self::Devices(devices) = &mut self
            && let Some(own) = devices.iter().position(|name| name == device)
        {
            devices.remove(own);
        }
        self
    }
}

impl fmt::Display for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Devices(devices) if devices.is_empty() => f.write_str("nobody"),
            Self::Devices(devices) => f.write_str(&devices.join(", ")),
            Self::Unknown(reason) => write!(f, "unknown: {reason}"),
        }
    }
}

/// The devices below a DMA-buf's line. That line is `size flags mode count exporter inode name`; the list begins behind
/// "Attached Devices:", a name on each line, and ends with "Total".
fn parse(text: &str, inode: u64) -> Option<Vec<String>> {
    let mut lines = text.lines();
    lines.find(|line| is_line_of(line, inode))?;
    let below = lines.skip_while(|line| line.trim() != "Attached Devices:").skip(1);
    Some(below.take_while(|line| line.starts_with('\t')).map(|line| line.trim().to_owned()).collect())
}

fn is_line_of(line: &str, inode: u64) -> bool {
    let mut fields = line.split('\t').map(str::trim);
    let is_size = |field: &str| !field.is_empty() && field.bytes().all(|digit| digit.is_ascii_digit());
    fields.next().is_some_and(is_size) && fields.nth(4).and_then(|field| field.parse().ok()) == Some(inode)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SAMPLE: &str = "\nDma-buf Objects:\n\
        size    \tflags   \tmode    \tcount   \texp_name\tino     \tname\n\
        04194304\t00000002\t0008000f\t00000004\tdrm\t00000037\treceive ring\n\
        \tkernel fence:amdgpu sdma0 seq 3 signalled\n\
        \tAttached Devices:\n\
        \t0000:00:11.0\n\
        \tvgem\n\
        Total 2 devices attached\n\n\
        00065536\t00000002\t0008000f\t00000001\tudmabuf\t00000038\t<none>\n\
        \tAttached Devices:\n\
        Total 0 devices attached\n\n\n\
        Total 2 objects, 4259840 bytes\n";

    #[test]
    fn devices_are_those_below_the_line_of_the_buffer() {
        let devices = |inode| parse(SAMPLE, inode);
        assert_eq!(devices(37), Some(vec!["0000:00:11.0".to_owned(), "vgem".to_owned()]));
        assert_eq!(devices(38), Some(Vec::new()));
        assert_eq!(devices(2), None);
    }

    #[test]
    fn ones_own_attachment_is_left_out_once() {
        let name = |name: &str| name.to_owned();
        let attached = || Attached::Devices(vec![name("vgem"), name("efa"), name("efa")]);
        assert_eq!(attached().without("efa"), Attached::Devices(vec![name("vgem"), name("efa")]));
        assert_eq!(attached().without("gve"), attached());
        assert_eq!(attached().without("vgem").to_string(), "efa, efa");
        assert_eq!(Attached::Devices(Vec::new()).to_string(), "nobody");
    }

    proptest! {
        #[test]
        fn never_panics(text in "([0-9]{0,8}\t?|\tAttached Devices:|\n|\t[a-z]{0,4}){0,20}", inode in 0u64..99) {
            let _ = parse(&text, inode);
        }
    }
}
