//! What the devices are called.

use std::collections::BTreeMap;
use std::path::PathBuf;

use devmem_provider::{DeviceKind, Identity, PciAddress};

use super::NAME;
use super::sys::physical_device::Description;
use crate::drm::Nodes;

/// The names of the providers of some devices, by the PCI address or the name of each. What several would share is
/// numbered.
pub(crate) fn names<'a>(devices: impl Iterator<Item = (Option<PciAddress>, &'a str)>) -> Vec<String> {
    let plain: Vec<String> = devices
        .map(|(pci, name)| match pci {
            Some(address) => format!("{NAME}:{address}"),
            None => format!("{NAME}:{}", first_word(name)),
        })
        .collect();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let numbered = plain.iter().map(|name| {
        let count = counts.entry(name).or_default();
        *count += 1;
        let alone = plain.iter().filter(|other| *other == name).count() == 1;
        if alone { name.clone() } else { format!("{name}:{}", *count - 1) }
    });
    numbered.collect()
}

/// The first word of a device's name in lower case, without what a command line could misread.
fn first_word(name: &str) -> String {
    let words = name.split(|letter: char| !letter.is_ascii_alphanumeric() && !"-_.".contains(letter));
    let first = words.into_iter().find(|word| !word.is_empty());
    first.unwrap_or("device").to_ascii_lowercase()
}

/// Who a device is. `loader` stands for the node of a device without one.
pub(crate) fn identity(
    name: String,
    described: &Description,
    nodes: Option<&Nodes>,
    loader: PathBuf,
) -> Identity {
    let function = nodes.and_then(|nodes| nodes.pci.as_ref());
    let node = nodes.and_then(|nodes| nodes.render.clone().or_else(|| nodes.primary.clone()));
    let description = match described.kind {
        DeviceKind::Software => format!("{}: the CPU executes it, in system memory", described.name),
        _ => described.name.clone(),
    };
    Identity {
        name,
        backend: NAME,
        description,
        kind: described.kind,
        driver: described.driver.clone(),
        driver_version: Some(described.driver_version.clone()).filter(|version| !version.is_empty()),
        node: node.unwrap_or(loader),
        pci: described.pci.or_else(|| function.map(|function| function.address)),
        numa_node: function.and_then(|function| function.numa_node),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_unique_and_stable() {
        let pci: PciAddress = "0000:03:00.0".parse().unwrap();
        let of = |devices: &[(Option<PciAddress>, &'static str)]| names(devices.iter().copied());
        let radeon = (Some(pci), "AMD Radeon RX 6800 (RADV NAVI21)");
        let llvmpipe = (None, "llvmpipe (LLVM 19.1.7, 256 bits)");
        assert_eq!(of(&[radeon, llvmpipe]), ["vulkan:0000:03:00.0", "vulkan:llvmpipe"]);
        // Two drivers of one GPU, and two devices of one name.
        assert_eq!(of(&[radeon, radeon]), ["vulkan:0000:03:00.0:0", "vulkan:0000:03:00.0:1"]);
        assert_eq!(of(&[llvmpipe, radeon, llvmpipe])[2], "vulkan:llvmpipe:1");
        assert_eq!(of(&[(None, ""), (None, "Über (x)")]), ["vulkan:device", "vulkan:ber"]);
    }

    fn described(kind: DeviceKind) -> Description {
        Description {
            name: "llvmpipe (LLVM 19.1.7, 256 bits)".to_owned(),
            kind,
            driver: "llvmpipe".to_owned(),
            driver_version: "Mesa 26.2.0 (LLVM 19.1.7)".to_owned(),
            pci: None,
            primary_node: None,
            render_node: None,
            maximum_allocation: 1 << 31,
            timeline_semaphores: true,
        }
    }

    #[test]
    fn a_device_that_the_cpu_executes_says_so() {
        let loader = PathBuf::from("/usr/lib/libvulkan.so.1.4.309");
        let who =
            identity("vulkan:llvmpipe".to_owned(), &described(DeviceKind::Software), None, loader.clone());
        assert_eq!((who.kind, &who.node, who.pci), (DeviceKind::Software, &loader, None));
        assert!(who.description.contains("CPU executes"), "{who:?}");
        assert_eq!(who.driver_version.as_deref(), Some("Mesa 26.2.0 (LLVM 19.1.7)"));
    }

    #[test]
    fn a_part_of_the_device_name_selects_it() {
        let who =
            identity("vulkan:llvmpipe".to_owned(), &described(DeviceKind::Software), None, PathBuf::new());
        for selector in ["vulkan", "vulkan:llvmpipe", "vulkan:LLVM 19", "vulkan:LLVMpipe"] {
            assert!(who.matches(selector), "{selector}");
        }
        for selector in ["vulkan:radv", "vulkan:", "llvmpipe", "vulkan:19.1.7"] {
            assert!(!who.matches(selector), "{selector}");
        }
    }
}
