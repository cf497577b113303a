//! Who a provider says that it is, and what memory it has.

use devmem_provider::{Capabilities, DeviceKind, Placement, base_page_size};

use crate::check::{Check, Group, LIMIT};
use crate::context::Context;
use crate::ensure;
use crate::faults::Fault;
use crate::verdict::{Finding, Outcome};

const fn check(
    name: &'static str,
    proves: &'static str,
    catches: &'static [Fault],
    run: fn(&Context<'_>) -> Outcome,
) -> Check {
    Check { group: Group::Identity, name, proves, needs: &[], after: &[], limit: LIMIT, catches, run }
}

pub(super) const CHECKS: &[Check] = &[
    check(
        "answers_to_its_name",
        "The provider has a name and is found by it, by its backend's name, its PCI address and its device node.",
        &[Fault::Nameless],
        answers_to_its_name,
    ),
    check(
        "kind_fits_the_device",
        "A provider on PCI is a GPU, and one without a device is software.",
        &[Fault::WrongKind],
        kind_fits_the_device,
    ),
    check(
        "has_a_heap",
        "The provider has at least one heap, and each has a name of its own.",
        &[Fault::NoHeaps],
        has_a_heap,
    ),
    check(
        "heaps_are_possible",
        "Granularities are powers of two of at least a page, and no more is used or visible than there is.",
        &[Fault::AbsurdHeaps],
        heaps_are_possible,
    ),
    check(
        "capabilities_fit_the_heaps",
        "Device-local memory is promised if and only if a heap has it.",
        &[Fault::CapabilityWithoutHeap, Fault::FalseCapability],
        capabilities_fit_the_heaps,
    ),
];

fn answers_to_its_name(context: &Context<'_>) -> Outcome {
    let identity = context.provider().identity();
    ensure!(!identity.name.is_empty(), "it has no name");
    ensure!(!identity.backend.is_empty() && !identity.description.is_empty(), "{identity:?}");
    let node = identity.node.display().to_string();
    let pci = identity.pci.map(|pci| pci.to_string());
    for selector in [&identity.name, identity.backend, &node].into_iter().map(String::from).chain(pci) {
        ensure!(identity.matches(&selector), "it does not answer to {selector:?}");
    }
    ensure!(!identity.matches("no such provider"), "it answers to anything");
    Ok(Finding::Pass)
}

fn kind_fits_the_device(context: &Context<'_>) -> Outcome {
    let identity = context.provider().identity();
    let is_gpu = identity.kind != DeviceKind::Software;
    ensure!(is_gpu || identity.pci.is_none(), "it says {}, and sits on PCI", identity.kind);
    let heaps = context.provider().heaps()?;
    let has_memory = heaps.iter().any(|heap| heap.placement != Placement::System);
    let needs_memory = identity.kind == DeviceKind::Discrete;
    ensure!(!needs_memory || has_memory, "it says {}, and has no memory of its own", identity.kind);
    ensure!(is_gpu || !has_memory, "it says {}, and has device memory", identity.kind);
    Ok(Finding::Pass)
}

fn has_a_heap(context: &Context<'_>) -> Outcome {
    let heaps = context.provider().heaps()?;
    ensure!(!heaps.is_empty(), "it has none");
    let mut names: Vec<&str> = heaps.iter().map(|heap| heap.name.as_str()).collect();
    ensure!(names.iter().all(|name| !name.is_empty()), "a heap has no name: {heaps:?}");
    names.sort_unstable();
    names.dedup();
    ensure!(names.len() == heaps.len(), "two heaps have one name: {heaps:?}");
    Ok(Finding::Pass)
}

fn heaps_are_possible(context: &Context<'_>) -> Outcome {
    for heap in context.provider().heaps()? {
        ensure!(heap.granularity >= base_page_size(), "granularity below a page: {heap:?}");
        ensure!(heap.granularity.is_power_of_two(), "granularity is no power of two: {heap:?}");
        ensure!(heap.size.is_none() || heap.used <= heap.size, "more is used than there is: {heap:?}");
        ensure!(
            heap.size.is_none() || heap.cpu_visible <= heap.size,
            "more is visible than there is: {heap:?}"
        );
        ensure!(heap.maximum_allocation != Some(0), "nothing can be allocated: {heap:?}");
    }
    Ok(Finding::Pass)
}

fn capabilities_fit_the_heaps(context: &Context<'_>) -> Outcome {
    let heaps = context.provider().heaps()?;
    let has_memory = heaps.iter().any(|heap| heap.placement != Placement::System);
    let told = context.provider().capabilities();
    let promised = told.contains(Capabilities::DEVICE_LOCAL);
    ensure!(
        promised == has_memory,
        "device-local memory: promised {promised}, and heaps have it: {has_memory}"
    );
    Ok(Finding::Pass)
}
