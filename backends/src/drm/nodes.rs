//! The DRM devices of this machine and their nodes, as sysfs lists them.

use std::path::{Path, PathBuf};

use devmem_provider::{Error, ErrorKind, PciAddress, Result};
use nix::sys::stat::{major, minor};

use super::pci_function::PciFunction;

const CLASS: &str = "/sys/class/drm";
const DEVICES: &str = "/dev/dri";

/// A DRM device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Nodes {
    /// The kernel driver bound to it; the device's own name where the kernel made it up (`vgem`).
    pub(crate) driver: String,
    /// `/dev/dri/cardN`, which display and dumb buffers take.
    pub(crate) primary: Option<PathBuf>,
    /// `/dev/dri/renderDN`, which is for everybody who computes or draws.
    pub(crate) render: Option<PathBuf>,
    /// The PCI function, if it is one.
    pub(crate) pci: Option<PciFunction>,
}

impl Nodes {
    /// Whether a user's `selector` means this device: a node or a PCI address.
    pub(crate) fn matches(&self, selector: &str) -> bool {
        let is = |node: &Option<PathBuf>| node.as_ref().is_some_and(|node| node.as_os_str() == selector);
        let at = |pci: &PciFunction| selector.parse().is_ok_and(|wanted| pci.address == wanted);
        is(&self.primary) || is(&self.render) || self.pci.as_ref().is_some_and(at)
    }
}

/// The device that has a node of this device number, major and minor.
pub(crate) fn find_by_number(number: (u64, u64)) -> Option<Nodes> {
    let is = |node: &Option<PathBuf>| {
        let status = node.as_ref().and_then(|node| nix::sys::stat::stat(node).ok());
        status.is_some_and(|status| (major(status.st_rdev), minor(status.st_rdev)) == number)
    };
    list().ok()?.into_iter().find(|nodes| is(&nodes.render) || is(&nodes.primary))
}

/// The device that is, or lies inside of, a PCI function.
pub(crate) fn find_by_pci(address: PciAddress) -> Option<Nodes> {
    let at = |nodes: &Nodes| nodes.pci.as_ref().is_some_and(|pci| pci.address == address);
    list().ok()?.into_iter().find(at)
}

/// Lists the DRM devices, by PCI address; those without one come first.
///
/// # Errors
///
/// [`ErrorKind::Unsupported`] if there is none.
pub(crate) fn list() -> Result<Vec<Nodes>> {
    list_in(Path::new(CLASS), Path::new(DEVICES))
}

fn list_in(class: &Path, devices: &Path) -> Result<Vec<Nodes>> {
    let none = || {
        Error::new(ErrorKind::Unsupported, "find a GPU")
            .on(class.display())
            .because("this machine has no DRM device")
            .remedy("load the GPU's kernel driver")
    };
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => none(),
        _ => Error::from_io(error, "list the DRM devices").on(class.display()),
    };
    let mut found: Vec<(PathBuf, Nodes)> = Vec::new();
    for entry in std::fs::read_dir(class).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let Some(name) = name.to_str() else { continue };
        let Some(kind) = NodeKind::of(name) else { continue };
        // A device that is being removed may vanish meanwhile.
        let Ok(device) = class.join(name).join("device").canonicalize() else { continue };
        let index = found.iter().position(|(known, _)| *known == device).unwrap_or_else(|| {
            let nodes = Nodes {
                driver: driver_of(&device),
                primary: None,
                render: None,
                pci: PciFunction::of(&device),
            };
            found.push((device, nodes));
            found.len() - 1
        });
        let node = Some(devices.join(name));
        match (kind, found.get_mut(index)) {
            (NodeKind::Primary, Some((_, nodes))) => nodes.primary = node,
            (NodeKind::Render, Some((_, nodes))) => nodes.render = node,
            (_, None) => {}
        }
    }
    if found.is_empty() {
        return Err(none());
    }
    let mut all: Vec<Nodes> = found.into_iter().map(|(_, nodes)| nodes).collect();
    all.sort_by_key(|nodes| (nodes.pci.as_ref().map(|pci| pci.address), nodes.primary.clone()));
    Ok(all)
}

enum NodeKind {
    Primary,
    Render,
}

impl NodeKind {
    /// Connectors lie beside the nodes (`card0-DP-1`), and have none.
    fn of(name: &str) -> Option<Self> {
        let number = |text: &str| !text.is_empty() && text.bytes().all(|letter| letter.is_ascii_digit());
        if name.strip_prefix("card").is_some_and(number) {
            return Some(Self::Primary);
        }
        name.strip_prefix("renderD").is_some_and(number).then_some(Self::Render)
    }
}

fn driver_of(device: &Path) -> String {
    match bound_driver(device).as_deref() {
        // Devices that drivers make up themselves (`drivers/base/faux.c`) carry the driver's name.
        None | Some("faux_driver") => file_name(device).unwrap_or_default(),
        // The PCI function of a virtio device has a driver of its own, and the device on it another.
        Some(transport @ "virtio-pci") => driver_on(device).unwrap_or_else(|| transport.to_owned()),
        Some(driver) => driver.to_owned(),
    }
}

fn bound_driver(device: &Path) -> Option<String> {
    std::fs::read_link(device.join("driver")).ok().and_then(|link| file_name(&link))
}

/// The driver of the virtio device that a PCI function carries.
fn driver_on(function: &Path) -> Option<String> {
    let entries = std::fs::read_dir(function).ok()?;
    let mut devices = entries.filter_map(|entry| Some(entry.ok()?.path()));
    devices.find_map(|path| {
        file_name(&path).filter(|name| name.starts_with("virtio"))?;
        bound_driver(&path)
    })
}

fn file_name(path: &Path) -> Option<String> {
    path.file_name().map(|name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn device(root: &Path, path: &str, driver: Option<&str>, nodes: &[&str]) {
        let folder = root.join("devices").join(path);
        std::fs::create_dir_all(&folder).unwrap();
        if let Some(driver) = driver {
            symlink(root.join("drivers").join(driver), folder.join("driver")).unwrap();
        }
        for node in nodes {
            let entry = root.join("class").join(node);
            std::fs::create_dir_all(&entry).unwrap();
            symlink(&folder, entry.join("device")).unwrap();
        }
    }

    #[test]
    fn nodes_of_one_device_belong_together() {
        let root = tempfile::tempdir().unwrap();
        let pci = "pci0000:00/0000:03:00.0";
        device(root.path(), pci, Some("amdgpu"), &["card1", "renderD128", "card1-DP-1"]);
        device(root.path(), "faux/vgem", Some("faux_driver"), &["card0", "renderD129"]);
        let carrier = "pci0000:00/0000:04:00.0";
        device(root.path(), carrier, Some("virtio-pci"), &["card2"]);
        device(root.path(), &format!("{carrier}/virtio3"), Some("virtio_gpu"), &[]);
        for (name, text) in [("vendor", "0x1002"), ("device", "0x6660")] {
            for function in [pci, carrier] {
                std::fs::write(root.path().join("devices").join(function).join(name), text).unwrap();
            }
        }
        std::fs::write(root.path().join("class/version"), "drm 1.1.0").unwrap();
        let all = list_in(&root.path().join("class"), Path::new("/dev/dri")).unwrap();
        let summary: Vec<_> = all
            .iter()
            .map(|nodes| (nodes.driver.as_str(), nodes.primary.as_deref(), nodes.render.as_deref()))
            .collect();
        let node = |name| Some(Path::new(name));
        assert_eq!(
            summary,
            [
                ("vgem", node("/dev/dri/card0"), node("/dev/dri/renderD129")),
                ("amdgpu", node("/dev/dri/card1"), node("/dev/dri/renderD128")),
                ("virtio_gpu", node("/dev/dri/card2"), None),
            ]
        );
        for selector in ["/dev/dri/card1", "/dev/dri/renderD128", "03:00.0", "0000:03:00.0"] {
            assert!(all[1].matches(selector) && !all[0].matches(selector), "{selector}");
        }
    }

    #[test]
    fn a_machine_without_a_gpu_says_so() {
        let root = tempfile::tempdir().unwrap();
        for class in [root.path().to_owned(), root.path().join("missing")] {
            let error = list_in(&class, Path::new("/dev/dri")).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(error.to_string().contains("no DRM device"), "{error}");
        }
    }
}
