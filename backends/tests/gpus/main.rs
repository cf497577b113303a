//! The GPU backends on the kernel's own graphics drivers, which drive the lab's emulated GPUs.
//!
//! Started on the host, this program boots the lab and runs itself in the guest, where the tests are. A GPU that the
//! guest lacks is skipped, with the reason; one whose driver is bound must be a provider.

mod access;
mod exhaustion;
#[path = "../harness/mod.rs"]
mod harness;
mod leftovers;
mod placement;
mod unplug;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use devmem_backends::discover;
use devmem_provider::{DeviceKind, Provider};
use libtest_mimic::{Arguments, Trial};

use harness::every_provider::{PROVIDER_TESTS, ProviderTest};
use harness::{Failure, Outcome, skip, trial};

/// A GPU of the guest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gpu {
    /// As the lab names it.
    pub(crate) part: &'static str,
    /// The provider's name.
    pub(crate) name: &'static str,
    pub(crate) kind: DeviceKind,
}

const fn gpu(part: &'static str, name: &'static str, kind: DeviceKind) -> Gpu {
    Gpu { part, name, kind }
}

const GPUS: &[Gpu] = &[
    gpu("amdgpu", "amdgpu", DeviceKind::Discrete),
    gpu("i915:dg1", "i915:0", DeviceKind::Discrete),
    gpu("i915:tgl", "i915:1", DeviceKind::Integrated),
    // Little enough memory to exhaust it, and to find room for its window when it comes back.
    gpu("xe:bmg,vram=256M", "xe", DeviceKind::Discrete),
    gpu("nouveau:gp107", "nouveau", DeviceKind::Discrete),
    gpu("virtio-gpu", "virtio-gpu", DeviceKind::Discrete),
];

/// What GPUs must do beyond what every provider must.
const GPU_TESTS: &[ProviderTest] = &[
    ("placement::is_kept_where_it_is_required", placement::is_kept_where_it_is_required),
    ("placement::memory_is_read_and_written", placement::memory_is_read_and_written),
    ("placement::what_is_not_offered_is_refused", placement::what_is_not_offered_is_refused),
    ("leftovers::of_a_thousand_exports", leftovers::of_a_thousand_exports),
    ("leftovers::of_many_threads", leftovers::of_many_threads),
    ("exhaustion::a_buffer_as_large_as_the_memory", exhaustion::a_buffer_as_large_as_the_memory),
    ("exhaustion::more_buffers_than_the_memory_holds", exhaustion::more_buffers_than_the_memory_holds),
    ("exhaustion::of_system_memory", exhaustion::of_system_memory),
];

/// A test that may give the provider up, by its name.
type UnplugTest = (&'static str, fn(Arc<dyn Provider>) -> Outcome);

/// Drivers that do not survive that a GPU goes while it has buffers, with what happens; tried on Linux 7.2 and 7.3.
const DIES_WITH_BUFFERS: &[(&str, &str)] = &[
    ("nouveau", "nouveau_ttm_fini() frees what buffers still use; the kernel dies when they are freed"),
    (
        "virtio-gpu",
        "virtio_gpu_release() finds the window's buffers and its commands still there; the kernel dies",
    ),
];

/// What takes a GPU away that has buffers, and brings it back; the last of all.
const UNPLUG_TESTS: &[UnplugTest] = &[
    ("unplug::before_export", unplug::before_export),
    ("unplug::while_exported", unplug::while_exported),
    ("unplug::the_driver_unbound", unplug::the_driver_unbound),
];

/// The provider of a name, or why the guest has none: its driver is not there, or bound to nothing.
fn find(name: &str) -> Result<Arc<dyn Provider>, Failure> {
    let backend = name.split(':').next().unwrap_or(name);
    // The function of a virtio device is bound to the transport's driver.
    let driver = if backend == "virtio-gpu" { "virtio-pci" } else { backend };
    let folder = Path::new("/sys/bus/pci/drivers").join(driver);
    let is_bound = || -> std::io::Result<bool> {
        for entry in std::fs::read_dir(&folder)? {
            if entry?.path().join("drm").exists() {
                return Ok(true);
            }
        }
        Ok(false)
    };
    match discover().find(name) {
        Ok(provider) => Ok(provider),
        Err(error) if is_bound().unwrap_or(false) => Err(error.into()),
        Err(error) => skip(error),
    }
}

fn says_what_it_is(gpu: Gpu) -> Outcome {
    let provider = find(gpu.name)?;
    let identity = provider.identity();
    ensure!(identity.kind == gpu.kind, "{identity:?}");
    ensure!(identity.pci.is_some() && identity.driver_version.is_some(), "{identity:?}");
    ensure!(identity.node.exists(), "{identity:?}");
    let address = identity.pci.map(|pci| pci.to_string()).unwrap_or_default();
    ensure!(discover().find(&address)?.identity() == identity, "found by {address}");
    ensure!(discover().find(&identity.node.display().to_string())?.identity() == identity, "{identity:?}");
    Ok(())
}

fn trials() -> Vec<Trial> {
    let mut trials = vec![
        trial("vgem::says_what_it_is".to_owned(), || {
            let identity = discover().find("vgem")?.identity().clone();
            ensure!(identity.kind == DeviceKind::Software && identity.pci.is_none(), "{identity:?}");
            Ok(())
        }),
        trial("access::without_permission".to_owned(), access::without_permission),
        trial("access::a_device_that_does_not_exist".to_owned(), access::a_device_that_does_not_exist),
    ];
    for &gpu in GPUS {
        trials.push(trial(format!("{}::says_what_it_is", gpu.name), move || says_what_it_is(gpu)));
    }
    let names = || GPUS.iter().map(|gpu| gpu.name);
    let mut add = |name: &'static str, tests: &'static [ProviderTest]| {
        for &(test_name, test) in tests {
            trials.push(trial(format!("{name}::{test_name}"), move || test(&*find(name)?)));
        }
    };
    for name in names().chain(["vgem"]) {
        add(name, PROVIDER_TESTS);
        add(name, GPU_TESTS);
    }
    for name in names() {
        trials.push(trial(format!("{name}::unplug::without_buffers"), move || {
            unplug::without_buffers(find(name)?)
        }));
    }
    for name in names() {
        for &(test_name, test) in UNPLUG_TESTS {
            let bug = DIES_WITH_BUFFERS.iter().find(|(driver, _)| *driver == name).map(|(_, bug)| *bug);
            trials.push(trial(format!("{name}::{test_name}"), move || match bug {
                Some(bug) => skip(bug),
                None => test(find(name)?),
            }));
        }
    }
    trials
}

fn main() -> ExitCode {
    if access::is_child() {
        return access::child();
    }
    // i915 asks for power when the last file of a device that is gone is closed (`intel_runtime_pm_get()`).
    let program = devmem_lab::test_program().module("vgem").allow_warning("i915/intel_runtime_pm.c");
    let program = GPUS.iter().fold(program, |program, gpu| program.gpu(gpu.part));
    program.main(|| {
        let mut arguments = Arguments::from_args();
        // Tests that count memory are disturbed by others.
        arguments.test_threads = Some(1);
        libtest_mimic::run(&arguments, trials()).exit_code()
    })
}
