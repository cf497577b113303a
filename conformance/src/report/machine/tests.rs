use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;

impl Machine {
    /// One with a GPU below a switch.
    pub(crate) fn stand_in() -> Self {
        let bridge = |address: &str, redirects| Bridge {
            address: address.to_owned(),
            identifiers: "10b5:8747".to_owned(),
            redirects,
        };
        let function = PciFunction {
            address: "0000:05:00.0".to_owned(),
            class: Class::Gpu,
            identifiers: "1002:73a3".to_owned(),
            driver: Some("amdgpu".to_owned()),
            driver_version: None,
            firmware: [("smc".to_owned(), "0x003a5800".to_owned())].into(),
            address_registers: vec![AddressRegister {
                register: 0,
                bytes: 32 << 30,
                address_bits: 64,
                prefetchable: true,
                assigned: true,
            }],
            memory_bytes: Some(32 << 30),
            link: Some(Link {
                speed: "8.0 GT/s PCIe".to_owned(),
                width: "16".to_owned(),
                maximum_speed: Some("16.0 GT/s PCIe".to_owned()),
                maximum_width: Some("16".to_owned()),
            }),
            numa_node: Some(0),
            iommu_group: Some(IommuGroup { number: 7, kind: IommuKind::Translated }),
            bridges: vec![bridge("0000:02:08.0", Some(false)), bridge("0000:00:01.0", None)],
            host_bridge: "host bridge pci0000:00".to_owned(),
        };
        Self {
            kernel: "7.3.4".to_owned(),
            architecture: Some("x86_64".to_owned()),
            processor: Some("a processor".to_owned()),
            virtual_machine: Some(false),
            memory_bytes: Some(64 << 30),
            iommu: true,
            iommu_kind: IommuKind::Translated,
            privileged: true,
            functions: vec![function],
        }
    }
}

/// A GPU below a root port, with all that sysfs shows of it, secrets among them.
fn lay_out(root: &Path) {
    let write = |path: &str, content: &str| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    write("proc/sys/kernel/osrelease", "7.2.12-amd64\n");
    write("proc/sys/kernel/arch", "x86_64\n");
    write("proc/sys/kernel/hostname", "SECRET-host\n");
    write(
        "proc/cpuinfo",
        "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel name\t: AMD EPYC\nflags\t\t: fpu hypervisor sse\n\n",
    );
    write("proc/meminfo", "MemTotal:       65536 kB\nMemFree:            0 kB\n");
    write("sys/kernel/iommu_groups/3/type", "DMA-FQ\n");
    write("sys/kernel/iommu_groups/4/type", "identity\n");
    let port = "sys/devices/pci0000:00/0000:00:01.0";
    let gpu = "sys/devices/pci0000:00/0000:00:01.0/0000:01:00.0";
    let resource = "0x0000001000000000 0x00000010ffffffff 0x000000000014220c\n\
                    0x0000000000000000 0x0000000000000000 0x0000000000000000\n\
                    0x00000000f0000000 0x00000000f00fffff 0x0000000000040200\n";
    for (folder, vendor, device, class) in [(port, "1022", "1483", "060400"), (gpu, "1002", "73a3", "030000")]
    {
        write(&format!("{folder}/vendor"), &format!("0x{vendor}\n"));
        write(&format!("{folder}/device"), &format!("0x{device}\n"));
        write(&format!("{folder}/class"), &format!("0x{class}\n"));
        write(&format!("{folder}/current_link_speed"), "16.0 GT/s PCIe\n");
        write(&format!("{folder}/current_link_width"), "8\n");
    }
    for (name, content) in [
        ("resource", resource),
        ("max_link_speed", "16.0 GT/s PCIe\n"),
        ("max_link_width", "16\n"),
        ("numa_node", "-1\n"),
        ("mem_info_vram_total", "4294967296\n"),
        ("fw_version/smc_fw_version", "0x003a5800\n"),
        ("fw_version/vce_fw_version", "0x00000000\n"),
        ("vbios_version", "113-D4120900-100\n"),
        ("unique_id", "SECRET-id\n"),
        ("serial_number", "SECRET-serial\n"),
    ] {
        write(&format!("{gpu}/{name}"), content);
    }
    write("sys/bus/pci/drivers/amdgpu/bind", "");
    symlink("../../../../bus/pci/drivers/amdgpu", root.join(gpu).join("driver")).unwrap();
    symlink("../../../../kernel/iommu_groups/3", root.join(gpu).join("iommu_group")).unwrap();
    fs::create_dir_all(root.join("sys/bus/pci/devices")).unwrap();
    for folder in [port, gpu] {
        let name = Path::new(folder).file_name().unwrap();
        symlink(root.join(folder), root.join("sys/bus/pci/devices").join(name)).unwrap();
    }
}

#[test]
fn a_recorded_machine_is_read() {
    let root = tempfile::tempdir().unwrap();
    lay_out(root.path());
    let machine = Machine::recorded(root.path());
    assert_eq!(machine.kernel, "7.2.12-amd64");
    assert_eq!(machine.architecture.as_deref(), Some("x86_64"));
    assert_eq!(machine.processor.as_deref(), Some("AMD EPYC"));
    assert_eq!((machine.virtual_machine, machine.memory_bytes), (Some(true), Some(64 << 20)));
    assert_eq!((machine.iommu, machine.iommu_kind), (true, IommuKind::Mixed));
    let [gpu] = &machine.functions[..] else { panic!("{:?}", machine.functions) };
    assert_eq!((gpu.address.as_str(), gpu.identifiers.as_str()), ("0000:01:00.0", "1002:73a3"));
    assert_eq!((gpu.class, gpu.driver.as_deref()), (Class::Gpu, Some("amdgpu")));
    let firmware: Vec<_> =
        gpu.firmware.iter().map(|(name, version)| (name.as_str(), version.as_str())).collect();
    assert_eq!(firmware, [("smc", "0x003a5800"), ("vbios", "113-D4120900-100")]);
    let windows: Vec<_> =
        gpu.address_registers.iter().map(|r| (r.register, r.bytes, r.address_bits, r.prefetchable)).collect();
    assert_eq!(windows, [(0, 4 << 30, 64, true), (2, 1 << 20, 32, false)]);
    let link = gpu.link.as_ref().unwrap();
    assert_eq!((link.width.as_str(), link.maximum_width.as_deref()), ("8", Some("16")));
    assert_eq!((gpu.memory_bytes, gpu.numa_node), (Some(4 << 30), None));
    assert_eq!(gpu.iommu_group, Some(IommuGroup { number: 3, kind: IommuKind::Translated }));
    assert_eq!(gpu.bridges[0].address, "0000:00:01.0");
    assert!(gpu.host_bridge.contains("pci0000:00"), "{}", gpu.host_bridge);
}

#[test]
fn nothing_secret_is_told() {
    let root = tempfile::tempdir().unwrap();
    lay_out(root.path());
    let told = serde_json::to_string(&Machine::recorded(root.path())).unwrap();
    assert!(!told.contains("SECRET"), "{told}");
    let told = serde_json::to_string(&Machine::this()).unwrap();
    let mut secrets = Vec::from_iter(text(Path::new("/proc/sys/kernel/hostname")));
    for interface in fs::read_dir("/sys/class/net").into_iter().flatten().flatten() {
        secrets.extend(text(&interface.path().join("address")));
    }
    for secret in secrets.iter().filter(|secret| secret.len() > 3) {
        assert!(!told.contains(secret.as_str()), "{secret} in {told}");
    }
}

#[test]
fn a_machine_that_shows_nothing_is_told_as_such() {
    let root = tempfile::tempdir().unwrap();
    let machine = Machine::recorded(root.path());
    let expected =
        Machine { kernel: "unknown".to_owned(), iommu_kind: IommuKind::None, ..Machine::default() };
    assert_eq!(machine, expected);
}

#[test]
fn a_report_of_the_first_version_is_still_read() {
    let text = r#"{ "kernel": "7.2", "processor": null, "iommu": true, "privileged": false }"#;
    let machine: Machine = serde_json::from_str(text).unwrap();
    assert_eq!((machine.iommu, machine.iommu_kind, machine.functions.len()), (true, IommuKind::Unknown, 0));
}

#[test]
fn groups_of_one_type_are_of_one_kind() {
    assert_eq!(IommuKind::of_types([]), IommuKind::None);
    assert_eq!(IommuKind::of_types(["identity", "identity"]), IommuKind::Identity);
    assert_eq!(IommuKind::of_types(["DMA", "DMA-FQ"]), IommuKind::Translated);
    assert_eq!(IommuKind::of_types(["DMA", "identity"]), IommuKind::Mixed);
    assert_eq!(IommuKind::of_types(["", ""]), IommuKind::Unknown);
}
