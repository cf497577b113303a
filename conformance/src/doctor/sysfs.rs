//! Small files of sysfs and procfs.

use std::path::{Path, PathBuf};

use devmem_provider::PciAddress;

/// The text of a file, without its last line end. `None` if it is not there or may not be read.
pub(super) fn text(path: impl AsRef<Path>) -> Option<String> {
    Some(std::fs::read_to_string(path).ok()?.trim_end().to_owned())
}

/// The folder of a PCI function.
pub(super) fn function(address: PciAddress) -> PathBuf {
    Path::new("/sys/bus/pci/devices").join(address.to_string())
}

/// The kernel driver that is bound to a PCI function.
pub(super) fn driver(address: PciAddress) -> Option<String> {
    let link = std::fs::read_link(function(address).join("driver")).ok()?;
    Some(link.file_name()?.to_string_lossy().into_owned())
}

/// The NUMA node that a PCI function is closest to; the kernel writes -1 where it knows none.
pub(super) fn numa_node(address: PciAddress) -> Option<u32> {
    text(function(address).join("numa_node"))?.parse().ok()
}

/// A size in the largest unit that keeps it whole.
pub(super) fn bytes(size: u64) -> String {
    for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if size != 0 && size.is_multiple_of(1 << shift) {
            return format!("{} {unit}", size >> shift);
        }
    }
    format!("{size} bytes")
}
