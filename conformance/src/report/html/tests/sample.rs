//! Reports of machines that do not exist, with every verdict, for looking at the page.

use crate::checks::CHECKS;
use crate::report::machine::{AddressRegister, Class, IommuKind, Link, PciFunction};
use crate::report::{Checked, Entry, Machine, Report, SCHEMA};
use crate::verdict::{Figure, Verdict};

/// Name, description, driver, address, where memory goes when a NIC attaches.
type Provider = (&'static str, &'static str, &'static str, Option<&'static str>, Option<&'static str>);

const PROVIDERS: [Provider; 9] = [
    (
        "amdgpu",
        "AMD Radeon Pro W6800",
        "amdgpu",
        Some("0000:05:00.0"),
        Some("device-local (vram) -> system (gtt)"),
    ),
    ("i915", "Intel UHD Graphics 770", "i915", Some("0000:00:02.0"), None),
    ("xe", "Intel Arc B580", "xe", Some("0000:08:00.0"), Some("device-local (vram0) -> system (gtt)")),
    (
        "nouveau",
        "GP107 [GeForce GTX 1050 Ti]",
        "nouveau",
        Some("0000:09:00.0"),
        Some("device-local (vram) -> system (gart)"),
    ),
    ("virtio-gpu", "host-visible memory of a virtio GPU", "virtio_gpu", Some("0000:0a:00.0"), None),
    (
        "vulkan:0000:05:00.0",
        "AMD Radeon Pro W6800 (RADV NAVI21)",
        "radv",
        Some("0000:05:00.0"),
        Some("device-local (vram) -> system (gtt)"),
    ),
    ("udmabuf", "memory of this process", "udmabuf", None, None),
    ("vgem", "virtual GEM device", "vgem", None, None),
    ("dma-heap:system", "the heap of system memory", "dma_heap", None, None),
];

/// All providers on one machine, and one of them on another with another kernel.
pub(in crate::report::html) fn reports() -> Vec<Report> {
    let here = machine("7.3.4+deb13-amd64", IommuKind::Translated);
    let mut reports: Vec<Report> = (0..PROVIDERS.len()).map(|index| report(index, &here)).collect();
    let there = machine("6.18.21-amd64", IommuKind::None);
    reports.push(report(0, &there));
    reports
}

fn machine(kernel: &str, iommu_kind: IommuKind) -> Machine {
    let mut machine = Machine::stand_in();
    machine.kernel = kernel.to_owned();
    machine.processor = Some("AMD EPYC 9354 32-Core Processor".to_owned());
    machine.iommu_kind = iommu_kind;
    let nic = PciFunction {
        address: "0000:06:00.0".to_owned(),
        class: Class::Nic,
        identifiers: "15b3:101d".to_owned(),
        driver: Some("mlx5_core".to_owned()),
        driver_version: None,
        firmware: [("device".to_owned(), "22.43.2566".to_owned())].into(),
        address_registers: vec![AddressRegister {
            register: 0,
            bytes: 32 << 20,
            address_bits: 64,
            prefetchable: true,
            assigned: true,
        }],
        memory_bytes: None,
        link: Some(Link {
            speed: "16.0 GT/s PCIe".to_owned(),
            width: "16".to_owned(),
            maximum_speed: Some("16.0 GT/s PCIe".to_owned()),
            maximum_width: Some("16".to_owned()),
        }),
        ..machine.functions[0].clone()
    };
    machine.functions.push(nic);
    machine
}

fn report(index: usize, machine: &Machine) -> Report {
    let (name, description, driver, pci, moved) = PROVIDERS[index];
    let mut entries = Vec::new();
    for (number, check) in CHECKS.iter().filter(|check| !check.is_about_a_path()).enumerate() {
        entries.push(alone(name, &check.full_name(), index, number));
    }
    for path in ["devmem-tcp", "zcrx"] {
        if path == "zcrx" && name.starts_with("vulkan") {
            continue;
        }
        for (number, check) in CHECKS.iter().filter(|check| check.is_about_a_path()).enumerate() {
            let mut entry = on_path(name, &check.full_name(), number, moved);
            entry.path = Some(path.to_owned());
            entries.push(entry);
        }
    }
    let provider = Checked {
        name: name.to_owned(),
        description: description.to_owned(),
        driver: driver.to_owned(),
        driver_version: pci.is_some().then(|| "7.3.4".to_owned()),
        pci: pci.map(str::to_owned),
    };
    Report { schema: SCHEMA, suite: "0.1.0".to_owned(), machine: machine.clone(), provider, entries }
}

fn alone(provider: &str, check: &str, index: usize, number: usize) -> Entry {
    let mut entry = Entry::stand_in(check, Verdict::Pass);
    entry.seconds = 0.003 * (number * number % 40) as f64;
    if (number + index * 3).is_multiple_of(13) {
        entry.verdict = Verdict::Skip;
        entry.reason = Some("the provider does not offer RESIDENCY".to_owned());
        entry.found_by = Some(format!("capabilities of {provider}"));
    } else if (number * 7 + index).is_multiple_of(29) {
        entry.verdict = Verdict::Skip;
        entry.reason = Some("export the fences of DMA-buf 12: EACCES: permission denied".to_owned());
        entry.found_by = Some("an export of the fences of a new buffer".to_owned());
        entry.remedy = Some("run this as root".to_owned());
    }
    match (provider, check) {
        ("nouveau", "export::same_object_again" | "export::size") => {
            entry.verdict = Verdict::Fail;
            entry.reason = Some(
                "export again: the second file has inode 4127, and the first has 4126; importers would take them \
                 for two buffers"
                    .to_owned(),
            );
            entry.output = "exported as descriptor 9\nexported as descriptor 10\n".to_owned();
            entry.kernel_log = vec![
                "nouveau 0000:09:00.0: gr: TRAP ch 2 [007fa53000 devmem-conforma[412]]".to_owned(),
                "nouveau 0000:09:00.0: fifo: SCHED_ERROR 0a [CTXSW_TIMEOUT] client 13, engine 00 on a line that is \
                 longer than most windows are wide"
                    .to_owned(),
            ];
        }
        ("vgem", "cpu-access::guards") | ("xe", "allocate::zeroed") => {
            entry.verdict = Verdict::Known;
            entry.reason =
                Some("drivers/gpu/drm/vgem/vgem_drv.c has no guards: the end was not refused".to_owned());
        }
        _ => {}
    }
    entry
}

fn on_path(provider: &str, check: &str, number: usize, moved: Option<&str>) -> Entry {
    let mut entry = Entry::stand_in(check, Verdict::Pass);
    entry.seconds = 0.41;
    match (moved, number) {
        (Some(moved), 0 | 3) => {
            entry.verdict = Verdict::Degraded;
            entry.reason = Some(format!(
                "{moved}: {provider} moved it when devmem TCP on eth1 attached, because that attaches without \
                 peer-to-peer"
            ));
        }
        (_, 20) => {
            entry.verdict = Verdict::Skip;
            entry.reason = Some("user namespaces are turned off".to_owned());
            entry.found_by = Some("unshare(CLONE_NEWUSER)".to_owned());
            entry.remedy = Some("sysctl user.max_user_namespaces=100".to_owned());
        }
        (_, 30) if provider == "nouveau" => {
            entry.verdict = Verdict::Fail;
            entry.reason = Some("a queue is still bound 10 s after the process was killed".to_owned());
        }
        _ if provider == "dma-heap:system" => {
            entry.verdict = Verdict::Skip;
            entry.reason = Some("no NIC of this machine has header split".to_owned());
        }
        _ => {}
    }
    if check == "performance::rate" && entry.verdict == Verdict::Pass {
        entry.figures =
            vec![Figure::new("received", 31.4, "MiB/s"), Figure::new("of ordinary TCP", 1.07, "times")];
    }
    entry
}
