//! The machines, as far as verdicts depend on them.

use super::markup::{Page, bytes, text};
use super::model::{Model, Site};
use crate::report::machine::{Bridge, Class, Machine, PciFunction};

/// A machine in a line, with its GPUs, by which those of a virtual lab differ.
pub(super) fn title(site: &Site<'_>) -> String {
    let machine = site.machine;
    let mut title = format!("Machine {}: Linux {}", site.number, machine.kernel);
    for part in [&machine.architecture, &machine.processor].into_iter().flatten() {
        title.push_str(", ");
        title.push_str(part);
    }
    let mut gpus: Vec<&str> = Vec::new();
    for gpu in machine.functions.iter().filter(|function| function.class == Class::Gpu) {
        let name = gpu.driver.as_deref().unwrap_or(&gpu.identifiers);
        if !gpus.contains(&name) {
            gpus.push(name);
        }
    }
    if !gpus.is_empty() {
        title.push_str(", with ");
        title.push_str(&gpus.join(" and "));
    }
    title
}

/// Writes all.
pub(super) fn write(page: &mut Page, model: &Model<'_>) {
    let heading = if model.machines.len() == 1 { "Machine" } else { "Machines" };
    page.add(format_args!("<section aria-labelledby=\"machines\">\n<h2 id=\"machines\">{heading}</h2>\n"));
    for site in &model.machines {
        page.add(format_args!("<article id=\"m{}\">\n", site.number));
        if model.machines.len() > 1 {
            page.add(format_args!("<header><h3>{}</h3></header>\n", text(&title(site))));
        }
        facts(page, &whole(site.machine));
        if !site.machine.functions.is_empty() {
            page.add(format_args!("<div class=\"functions\">\n"));
            for function in &site.machine.functions {
                self::function(page, function);
            }
            page.add(format_args!("</div>\n"));
        }
        page.add(format_args!("</article>\n"));
    }
    page.add(format_args!("</section>\n"));
}

fn function(page: &mut Page, function: &PciFunction) {
    let class = match function.class {
        Class::Gpu => "GPU",
        Class::Nic => "NIC",
        Class::Other => "device",
    };
    page.add(format_args!(
        "<section class=\"function\"><h4>{class} <code>{}</code></h4>\n",
        text(&function.address)
    ));
    facts(page, &of_function(function));
    page.add(format_args!("</section>\n"));
}

fn facts(page: &mut Page, facts: &[(&str, String)]) {
    page.add(format_args!("<dl class=\"facts\">\n"));
    for (name, value) in facts.iter().filter(|(_, value)| !value.is_empty()) {
        page.add(format_args!("<dt>{name}</dt><dd>{}</dd>\n", text(value)));
    }
    page.add(format_args!("</dl>\n"));
}

fn whole(machine: &Machine) -> Vec<(&'static str, String)> {
    let virtual_machine = match machine.virtual_machine {
        Some(true) => "yes: the processor tells of a hypervisor",
        Some(false) => "no",
        None => "",
    };
    let privileged = if machine.privileged { "as root" } else { "without root's privileges" };
    vec![
        ("kernel", machine.kernel.clone()),
        ("architecture", machine.architecture.clone().unwrap_or_default()),
        ("processor", machine.processor.clone().unwrap_or_default()),
        ("virtual machine", virtual_machine.to_owned()),
        ("memory", machine.memory_bytes.map(bytes).unwrap_or_default()),
        ("IOMMU", machine.iommu_kind.describe().to_owned()),
        ("checked", privileged.to_owned()),
    ]
}

fn of_function(function: &PciFunction) -> Vec<(&'static str, String)> {
    let driver = match (&function.driver, &function.driver_version) {
        (Some(driver), Some(version)) => format!("{driver} {version}"),
        (Some(driver), None) => driver.clone(),
        (None, _) => "none is bound".to_owned(),
    };
    let firmware: Vec<_> =
        function.firmware.iter().map(|(name, version)| format!("{name} {version}")).collect();
    let windows = function.address_registers.iter().map(|window| {
        let kind = if window.prefetchable { ", prefetchable" } else { "" };
        let room = if window.assigned { "" } else { ", without address" };
        format!("{}: {}, {} bits{kind}{room}", window.register, bytes(window.bytes), window.address_bits)
    });
    let link = function.link.as_ref().map(|link| {
        let maximum = match (&link.maximum_speed, &link.maximum_width) {
            (Some(speed), Some(width)) if (speed, width) != (&link.speed, &link.width) => {
                format!(" (up to {speed}, {width} lanes)")
            }
            _ => String::new(),
        };
        format!("{}, {} lanes{maximum}", link.speed, link.width)
    });
    let group = function.iommu_group.as_ref();
    vec![
        ("device", function.identifiers.clone()),
        ("driver", driver),
        ("firmware", firmware.join("\n")),
        ("own memory", function.memory_bytes.map(bytes).unwrap_or_default()),
        ("windows", windows.collect::<Vec<_>>().join("\n")),
        ("link", link.unwrap_or_default()),
        ("NUMA node", function.numa_node.map(|node| node.to_string()).unwrap_or_default()),
        (
            "IOMMU",
            group
                .map(|group| format!("group {}, {}", group.number, group.kind.describe()))
                .unwrap_or_default(),
        ),
        ("below", way(&function.bridges, &function.host_bridge)),
    ]
}

/// The bridges from a function to its root, a line each.
fn way(bridges: &[Bridge], host_bridge: &str) -> String {
    let mut lines: Vec<String> = bridges
        .iter()
        .map(|bridge| {
            let redirects = match bridge.redirects {
                Some(true) => ", redirects by ACS",
                Some(false) => "",
                None => ", ACS could not be read",
            };
            format!("{} ({}){redirects}", bridge.address, bridge.identifiers)
        })
        .collect();
    lines.push(host_bridge.to_owned());
    lines.join("\n")
}
