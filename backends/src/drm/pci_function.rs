//! The PCI function behind a DRM device, as sysfs describes it (`Documentation/ABI/testing/sysfs-bus-pci`).

use std::path::{Path, PathBuf};

use devmem_provider::PciAddress;

/// `IORESOURCE_MEM` and `IORESOURCE_PREFETCH` in the third column of `resource` (`include/linux/ioport.h`).
const MEMORY: u64 = 0x200;
const PREFETCHABLE: u64 = 0x2000;

/// The BARs of a function, not its expansion ROM.
const BARS: usize = 6;

/// A PCI function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PciFunction {
    pub(crate) address: PciAddress,
    pub(crate) vendor: u16,
    pub(crate) device: u16,
    /// The NUMA node that it is closest to, where the machine has several.
    pub(crate) numa_node: Option<u32>,
    /// Its folder in sysfs.
    pub(crate) folder: PathBuf,
}

impl PciFunction {
    /// The function that a device's folder in sysfs is, or lies inside of, as a virtio device does.
    pub(crate) fn of(device: &Path) -> Option<Self> {
        device.ancestors().find_map(Self::read)
    }

    fn read(folder: &Path) -> Option<Self> {
        let address = folder.file_name()?.to_str()?.parse().ok()?;
        let number = |name: &str| {
            let text = std::fs::read_to_string(folder.join(name)).ok()?;
            u16::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok()
        };
        let numa_node = std::fs::read_to_string(folder.join("numa_node")).ok();
        Some(Self {
            address,
            vendor: number("vendor")?,
            device: number("device")?,
            // -1 where there is none.
            numa_node: numa_node.and_then(|text| text.trim().parse().ok()),
            folder: folder.to_owned(),
        })
    }

    /// The size of the largest prefetchable memory BAR: where device memory is seen by the CPU.
    pub(crate) fn memory_window(&self) -> Option<u64> {
        largest_window(&std::fs::read_to_string(self.folder.join("resource")).ok()?)
    }
}

/// A line for each resource: start, end and flags.
fn largest_window(resource: &str) -> Option<u64> {
    let sizes = resource.lines().take(BARS).filter_map(|line| {
        let mut numbers =
            line.split_whitespace().map(|word| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok());
        let (start, end, flags) = (numbers.next()??, numbers.next()??, numbers.next()??);
        let window = flags & MEMORY != 0 && flags & PREFETCHABLE != 0;
        window.then(|| end.checked_sub(start)?.checked_add(1)).flatten()
    });
    sizes.max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_function_and_finds_it_from_a_device_inside() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("0000:03:00.0");
        let virtio = folder.join("virtio3");
        std::fs::create_dir_all(&virtio).unwrap();
        for (name, text) in [("vendor", "0x1af4\n"), ("device", "0x1050\n"), ("numa_node", "-1\n")] {
            std::fs::write(folder.join(name), text).unwrap();
        }
        let function = PciFunction::of(&virtio).unwrap();
        assert_eq!(function.address, "0000:03:00.0".parse().unwrap());
        assert_eq!((function.vendor, function.device, function.numa_node), (0x1af4, 0x1050, None));
        assert_eq!(PciFunction::of(&folder), Some(function));
        std::fs::write(folder.join("numa_node"), "1\n").unwrap();
        assert_eq!(PciFunction::of(&folder).unwrap().numa_node, Some(1));
        assert_eq!(PciFunction::of(root.path()), None);
    }

    #[test]
    fn the_window_is_the_largest_prefetchable_bar() {
        let resource = "0x00000000fe000000 0x00000000fe0fffff 0x0000000000040200\n\
            0x0000000000000000 0x0000000000000000 0x0000000000000000\n\
            0x0000380000000000 0x00003800ffffffff 0x000000000014220c\n\
            0x0000000000000000 0x0000000000000000 0x0000000000000000\n\
            0x0000000000000000 0x0000000000000000 0x0000000000000000\n\
            0x0000000000000000 0x0000000000000000 0x0000000000000000\n\
            0x00003a0000000000 0x00003bffffffffff 0x000000000014220c\n";
        assert_eq!(largest_window(resource), Some(1 << 32));
        assert_eq!(largest_window(""), None);
    }
}
