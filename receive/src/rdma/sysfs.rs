//! What sysfs says of RDMA devices (`Documentation/ABI/stable/sysfs-class-infiniband`,
//! `drivers/infiniband/core/sysfs.c`, `uverbs_main.c`).

use std::fs;
use std::io;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};

use devmem_provider::{Error, PciAddress, Result};

use super::device::{Device, Gid, Port};

/// The devices of a machine whose `sys` lies in the folder `root`.
pub(super) fn devices(root: &Path) -> Result<Vec<Device>> {
    let folder = root.join("sys/class/infiniband");
    let nodes = nodes(root)?;
    let mut devices: Vec<_> = entries(&folder)?
        .into_iter()
        .map(|name| {
            let node = nodes.iter().find(|(device, _)| *device == name);
            device(&folder.join(&name), name, node.map(|(_, node)| node.clone()))
        })
        .collect();
    devices.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(devices)
}

/// The devices that have a node, with it. Its name is that of the entry: the kernel's own file system for nodes makes it
/// so, and udev's rules keep it.
fn nodes(root: &Path) -> Result<Vec<(String, PathBuf)>> {
    let folder = root.join("sys/class/infiniband_verbs");
    let node = |entry: String| {
        let device = text(&folder.join(&entry).join("ibdev"))?;
        Some((device, Path::new("/dev/infiniband").join(entry)))
    };
    Ok(entries(&folder)?.into_iter().filter_map(node).collect())
}

fn device(folder: &Path, name: String, node: Option<PathBuf>) -> Device {
    // A link to the function; devices of software have none.
    let function = folder.join("device");
    let name_of_target = |link: &Path| {
        let target = fs::canonicalize(link).ok()?;
        Some(target.file_name()?.to_str()?.to_owned())
    };
    Device {
        name,
        node,
        pci: pci_function(&function),
        driver: name_of_target(&function.join("driver")),
        firmware: text(&folder.join("fw_ver")).filter(|version| !version.is_empty()),
        numa_node: text(&function.join("numa_node")).and_then(|node| node.parse().ok()),
        ports: ports(&folder.join("ports")),
    }
}

/// The PCI function that a device is, or belongs to: some drivers put an auxiliary device between.
fn pci_function(link: &Path) -> Option<PciAddress> {
    let target = fs::canonicalize(link).ok()?;
    target.ancestors().find_map(|folder| folder.file_name()?.to_str()?.parse().ok())
}

fn ports(folder: &Path) -> Vec<Port> {
    let numbers = entries(folder).unwrap_or_default().into_iter().filter_map(|name| name.parse().ok());
    let mut ports: Vec<_> =
        numbers.map(|number: u8| port(&folder.join(format!("{number}")), number)).collect();
    ports.sort_by_key(|port| port.number);
    ports
}

fn port(folder: &Path, number: u8) -> Port {
    // "4: ACTIVE"
    let state = text(&folder.join("state")).unwrap_or_default();
    let (code, word) = state.split_once(": ").unwrap_or(("", &state));
    Port {
        number,
        is_active: code == "4",
        state: word.to_owned(),
        link_layer: text(&folder.join("link_layer")).unwrap_or_default(),
        gids: gids(&folder.join("gids")),
    }
}

fn gids(folder: &Path) -> Vec<Gid> {
    let indices = entries(folder).unwrap_or_default().into_iter().filter_map(|name| name.parse().ok());
    let gid = |index: u32| {
        // Entries that are not in use cannot be read, or are zero.
        let address: Ipv6Addr = text(&folder.join(index.to_string()))?.parse().ok()?;
        (!address.is_unspecified()).then_some(Gid { index, address })
    };
    let mut gids: Vec<_> = indices.filter_map(gid).collect();
    gids.sort_by_key(|gid| gid.index);
    gids
}

/// The names in a folder; none if there is no such folder.
fn entries(folder: &Path) -> Result<Vec<String>> {
    let failed = |error| Error::from_io(error, "list RDMA devices").on(folder.display());
    let listed = match fs::read_dir(folder) {
        Ok(listed) => listed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in listed {
        // A name that is no UTF-8 is none that the kernel gives.
        names.extend(entry.map_err(failed)?.file_name().into_string());
    }
    Ok(names)
}

fn text(file: &Path) -> Option<String> {
    Some(fs::read_to_string(file).ok()?.trim_end().to_owned())
}

#[cfg(test)]
pub(super) mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    /// A machine's `sys`, as the kernel shows it with the driver `efa`.
    pub(in crate::rdma) struct Recording(TempDir);

    impl Recording {
        pub(in crate::rdma) fn empty() -> Self {
            Self(TempDir::new().unwrap())
        }

        pub(in crate::rdma) fn with_efa() -> Self {
            let recording = Self::empty();
            let way = "devices/pci0000:00/0000:00:11.0";
            let function = format!("sys/{way}");
            let device = format!("{function}/infiniband/efa_0");
            for (file, content) in [
                ("fw_ver", "0.0.0.1"),
                ("ports/1/state", "4: ACTIVE"),
                ("ports/1/link_layer", "Unspecified"),
                ("ports/1/gids/0", "fe80:0000:0000:0000:0000:00ff:fe00:0001"),
                ("ports/1/gids/1", "0000:0000:0000:0000:0000:0000:0000:0000"),
            ] {
                recording.write(&format!("{device}/{file}"), content);
            }
            recording.write(&format!("{function}/numa_node"), "-1");
            recording.write(&format!("{function}/infiniband_verbs/uverbs0/ibdev"), "efa_0");
            recording.write("sys/bus/pci/drivers/efa/bind", "");
            recording.link(&format!("{function}/driver"), "../../../bus/pci/drivers/efa");
            recording.link(&format!("{device}/device"), "../../../0000:00:11.0");
            let class = |name: &str, entry: &str| {
                let target = format!("../../{way}/{name}/{entry}");
                recording.link(&format!("sys/class/{name}/{entry}"), &target);
            };
            class("infiniband", "efa_0");
            class("infiniband_verbs", "uverbs0");
            recording
        }

        pub(in crate::rdma) fn root(&self) -> &Path {
            self.0.path()
        }

        fn write(&self, path: &str, content: &str) {
            let path = self.root().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{content}\n")).unwrap();
        }

        fn link(&self, path: &str, target: &str) {
            let path = self.root().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            symlink(target, path).unwrap();
        }
    }

    #[test]
    fn everything_is_read_as_the_kernel_shows_it() {
        let recording = Recording::with_efa();
        let [device] = devices(recording.root()).unwrap().try_into().unwrap();
        let gid = Gid { index: 0, address: "fe80::ff:fe00:1".parse().unwrap() };
        let port = Port {
            number: 1,
            is_active: true,
            state: "ACTIVE".to_owned(),
            link_layer: "Unspecified".to_owned(),
            gids: vec![gid],
        };
        let expected = Device {
            name: "efa_0".to_owned(),
            node: Some("/dev/infiniband/uverbs0".into()),
            pci: Some("0000:00:11.0".parse().unwrap()),
            driver: Some("efa".to_owned()),
            firmware: Some("0.0.0.1".to_owned()),
            numa_node: None,
            ports: vec![port],
        };
        assert_eq!(device, expected);
    }

    #[test]
    fn a_device_of_software_has_no_function() {
        let recording = Recording::empty();
        recording.write("sys/class/infiniband/rxe0/ports/1/state", "1: DOWN");
        recording.write("sys/class/infiniband/rxe0/fw_ver", "");
        let [device] = devices(recording.root()).unwrap().try_into().unwrap();
        assert_eq!((device.pci, device.driver, device.node), (None, None, None));
        assert_eq!(device.firmware, None);
        assert!(!device.ports[0].is_active);
        assert_eq!(device.ports[0].state, "DOWN");
    }

    #[test]
    fn an_auxiliary_device_belongs_to_a_function() {
        let recording = Recording::empty();
        let auxiliary = "sys/devices/pci0000:17/0000:18:00.1/ice.roce.0";
        recording.write(&format!("{auxiliary}/infiniband/irdma0/fw_ver"), "1.2");
        recording.link(&format!("{auxiliary}/infiniband/irdma0/device"), "../../../ice.roce.0");
        recording.link(
            "sys/class/infiniband/irdma0",
            "../../devices/pci0000:17/0000:18:00.1/ice.roce.0/infiniband/irdma0",
        );
        let [device] = devices(recording.root()).unwrap().try_into().unwrap();
        assert_eq!(device.pci, Some("0000:18:00.1".parse().unwrap()));
    }
}
