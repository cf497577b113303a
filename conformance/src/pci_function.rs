//! PCI functions that are taken away and found again (`Documentation/ABI/testing/sysfs-bus-pci` in the kernel).

use std::fs;
use std::path::{Path, PathBuf};

use devmem_provider::{Error, PciAddress, Result};

const DEVICES: &str = "/sys/bus/pci/devices";
const RESCAN: &str = "/sys/bus/pci/rescan";

/// A PCI function, whether it is there or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PciFunction(PciAddress);

impl PciFunction {
    pub(crate) fn at(address: PciAddress) -> Self {
        Self(address)
    }

    /// Whether the kernel has found it.
    pub(crate) fn is_there(self) -> bool {
        self.folder().exists()
    }

    /// The kernel driver that is bound to it.
    pub(crate) fn driver(self) -> Option<String> {
        let link = fs::read_link(self.folder().join("driver")).ok()?;
        link.file_name()?.to_str().map(str::to_owned)
    }

    /// The network interfaces that its driver has made of it.
    pub(crate) fn interfaces(self) -> Vec<String> {
        let entries = fs::read_dir(self.folder().join("net")).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    /// Whether no other function of the same card is there.
    pub(crate) fn is_alone(self) -> bool {
        let own = self.0.to_string();
        let card = own.rsplit_once('.').map_or(own.as_str(), |(card, _)| card);
        let names = fs::read_dir(DEVICES).into_iter().flatten().flatten();
        let mut functions = names.filter(|entry| entry.file_name().to_string_lossy().starts_with(card));
        functions.next().is_some() && functions.next().is_none()
    }

    /// Takes it away as if it was pulled out of its slot: its driver lets go of it, and the kernel forgets it. Dropping
    /// what this returns has the kernel look for it again.
    ///
    /// # Errors
    ///
    /// `/sys` cannot be written to.
    pub(crate) fn remove(self) -> Result<RemovedFunction> {
        let file = self.folder().join("remove");
        fs::write(&file, "1").map_err(|error| failed(error, "remove the PCI function", &file))?;
        Ok(RemovedFunction(self))
    }

    fn folder(self) -> PathBuf {
        Path::new(DEVICES).join(self.0.to_string())
    }
}

/// A PCI function that was taken away.
#[derive(Debug)]
pub(crate) struct RemovedFunction(PciFunction);

impl RemovedFunction {
    /// Has the kernel look for it again.
    ///
    /// # Errors
    ///
    /// As [`rescan`].
    pub(crate) fn find_again(self) -> Result<()> {
        rescan()
    }
}

impl Drop for RemovedFunction {
    fn drop(&mut self) {
        if !self.0.is_there() {
            // Whoever needs it sees that it is not there.
            let _ = rescan();
        }
    }
}

/// Has the kernel look for PCI functions that it does not know.
///
/// # Errors
///
/// `/sys` cannot be written to.
pub(crate) fn rescan() -> Result<()> {
    fs::write(RESCAN, "1").map_err(|error| failed(error, "look for PCI functions", Path::new(RESCAN)))
}

fn failed(error: std::io::Error, operation: &'static str, file: &Path) -> Error {
    Error::from_io(error, operation).on(file.display()).remedy("run as root where /sys can be written to")
}
