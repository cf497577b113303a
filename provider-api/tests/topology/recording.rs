//! Machines from compact descriptions, laid out as the kernel lays out sysfs and procfs.
//!
//! A description has a comment that says what it stands for, then lines of facts:
//!
//! - `processor VENDOR FAMILY`, or `processor none` for an architecture without such fields;
//! - `release RELEASE` of the kernel;
//! - `group NUMBER TYPE`: an IOMMU group;
//! - `ADDRESS VENDOR:DEVICE CLASS ATTRIBUTES`: a function, indented below its bridge, with the attributes
//!   `express` or `root-port` (else it is of conventional PCI), `acs=CONTROL`, `barN=SIZE[,prefetchable]`,
//!   `memory=SIZE`, `group=NUMBER`, `runtime=STATUS`, `numa=NODE`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use devmem_provider::PciAddress;
use devmem_provider::topology::{Machine, Topology};
use tempfile::TempDir;

/// A machine that lies in a folder of its own while this lives.
pub(crate) struct Recording {
    root: TempDir,
}

/// What differs from the machine as it is described.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum View {
    /// As root sees it.
    Root,
    /// As everybody sees it: 64 bytes of each configuration space.
    Unprivileged,
}

impl Recording {
    /// Lays out a description.
    pub(crate) fn new(description: &str, view: View) -> Self {
        let recording = Self { root: TempDir::new().unwrap() };
        recording.write("proc/sys/kernel/osrelease", "7.2.12-amd64\n");
        recording.write(
            "proc/kallsyms",
            "0000000000000000 T pci_p2pdma_distance_many\n0000000000000000 T pci_dev_get\n",
        );
        let mut ways: Vec<PathBuf> = Vec::new();
        for line in description.lines().filter(|line| !line.starts_with('#')) {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["processor", "none"] => recording.write("proc/cpuinfo", "CPU implementer\t: 0x41\n"),
                ["processor", vendor, family] => recording.write(
                    "proc/cpuinfo",
                    format!("processor\t: 0\nvendor_id\t: {vendor}\ncpu family\t: {family}\n"),
                ),
                ["release", release] => recording.write("proc/sys/kernel/osrelease", release),
                ["group", number, kind] => {
                    recording.write(&format!("sys/kernel/iommu_groups/{number}/type"), kind);
                }
                [address, identifiers, class, ref attributes @ ..] => {
                    ways.truncate((line.len() - line.trim_start().len()) / 2);
                    let bridge = ways.last().cloned();
                    let way = bridge.unwrap_or_else(|| host_bridge(address)).join(address);
                    recording.function(&way, identifiers, class, attributes, view);
                    ways.push(way);
                }
                _ => panic!("{line:?} is no fact"),
            }
        }
        recording
    }

    /// Replaces a file, or adds one.
    pub(crate) fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Removes a file.
    pub(crate) fn remove(&self, path: &str) {
        fs::remove_file(self.root.path().join(path)).unwrap();
    }

    pub(crate) fn machine(&self) -> Machine {
        Machine::recorded(self.root.path())
    }

    /// What is foretold of two functions.
    pub(crate) fn topology(&self, exporter: &str, importer: &str) -> Topology {
        self.machine().topology(address(exporter), address(importer)).unwrap()
    }

    fn function(&self, way: &Path, identifiers: &str, class: &str, attributes: &[&str], view: View) {
        let (vendor, device) = identifiers.split_once(':').unwrap();
        let file = |name: &str| format!("sys/{}", way.join(name).display());
        self.write(&file("vendor"), format!("0x{vendor}\n"));
        self.write(&file("device"), format!("0x{device}\n"));
        self.write(&file("class"), format!("0x{class}\n"));
        let mut space = vec![0; 256];
        let mut resources = [const { String::new() }; 6];
        for attribute in attributes {
            match attribute.split_once('=').unwrap_or((attribute, "")) {
                (kind @ ("express" | "root-port"), "") => {
                    space = express(kind == "root-port");
                    self.write(&file("current_link_speed"), "16.0 GT/s PCIe\n");
                }
                ("acs", control) => {
                    space[0x100..0x104].copy_from_slice(&0x2a01_0001_u32.to_le_bytes());
                    space[0x2a0..0x2a4].copy_from_slice(&0x0001_000d_u32.to_le_bytes());
                    let control = u16::from_str_radix(control, 16).unwrap();
                    space[0x2a6..0x2a8].copy_from_slice(&control.to_le_bytes());
                }
                ("memory", size) => self.write(&file("mem_info_vram_total"), format!("{}\n", bytes(size))),
                ("runtime", status) => self.write(&file("power/runtime_status"), status),
                ("numa", node) => self.write(&file("numa_node"), node),
                ("group", number) => {
                    symlink(
                        format!("/sys/kernel/iommu_groups/{number}"),
                        self.root.path().join(file("iommu_group")),
                    )
                    .unwrap();
                }
                (bar, size) => {
                    let register: usize = bar.strip_prefix("bar").unwrap().parse().unwrap();
                    let (size, prefetch) = match size.split_once(',') {
                        Some((size, "prefetchable")) => (size, 0x2000),
                        _ => (size, 0),
                    };
                    let first = 0x10_0000_0000_u64;
                    let (last, flags) = (first + bytes(size) - 1, 0x4_0200 | prefetch);
                    resources[register] = format!("{first:#018x} {last:#018x} {flags:#018x}");
                }
            }
        }
        for resource in &mut resources {
            if resource.is_empty() {
                *resource = format!("{0:#018x} {0:#018x} {0:#018x}", 0);
            }
        }
        self.write(&file("resource"), resources.join("\n"));
        if view == View::Unprivileged {
            space.truncate(64);
        }
        self.write(&file("config"), space);
        let links = self.root.path().join("sys/bus/pci/devices");
        fs::create_dir_all(&links).unwrap();
        symlink(Path::new("../../..").join(way), links.join(way.file_name().unwrap())).unwrap();
    }
}

/// The address that a test names.
pub(crate) fn address(text: &str) -> PciAddress {
    text.parse().unwrap()
}

/// The folder of the host bridge above a function on a root bus.
fn host_bridge(address: &str) -> PathBuf {
    let (bus, _) = address.rsplit_once(':').unwrap();
    Path::new("devices").join(format!("pci{bus}"))
}

/// The configuration space of a PCI Express function: its capability at 0x50, and no extended ones.
fn express(root_port: bool) -> Vec<u8> {
    let mut space = vec![0; 4096];
    space[0x06] = 0x10;
    space[0x34] = 0x50;
    space[0x50..0x54].copy_from_slice(&[0x10, 0, if root_port { 0x42 } else { 0x02 }, 0]);
    space
}

fn bytes(text: &str) -> u64 {
    let (number, unit) = text.split_at(text.len() - 1);
    let shift = match unit {
        "K" => 10,
        "M" => 20,
        "G" => 30,
        _ => panic!("{text:?} is no size"),
    };
    number.parse::<u64>().unwrap() << shift
}
