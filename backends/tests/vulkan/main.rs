//! The Vulkan backend on Mesa's drivers: lavapipe, which the CPU executes, RADV on the lab's emulated AMD GPU, and ANV on
//! its Intel GPUs with i915 and xe.
//!
//! NVK is left out: it asks nouveau for something that crashes the kernel where a GPU has no engine for graphics
//! (`nouveau_abi16_ioctl_get_zcull_info()`, seen on 7.3).
//!
//! Started on the host, this program boots the lab and runs itself in the guest, where the tests are. The validation
//! layer watches every test, and what it says makes the test fail.

mod absence;
mod copies;
#[path = "../harness/every_copy/mod.rs"]
mod every_copy;
#[path = "../gpus/exhaustion.rs"]
mod exhaustion;
mod hardware;
#[path = "../harness/mod.rs"]
mod harness;
mod imports;
#[path = "../gpus/leftovers.rs"]
mod leftovers;
#[path = "../gpus/placement.rs"]
mod placement;
mod validation;

use std::process::ExitCode;

use devmem_backends::{find, vulkan};
use devmem_provider::{DeviceKind, Provider, Residency};
use libtest_mimic::{Arguments, Trial};

use hardware::GPUS;
use harness::every_provider::{PROVIDER_TESTS, ProviderTest};
use harness::{Failure, Outcome, trial};
use validation::Validation;

/// The guest's memory in bytes: that of its GPU, which is exhausted, must fit in it twice.
const MEMORY: u64 = 2 << 30;

/// The device that every guest has.
pub(crate) const SOFTWARE: &str = "vulkan:llvmpipe";

/// A device of Vulkan by its provider's name.
pub(crate) fn device(name: &str) -> Result<vulkan::Vulkan, Failure> {
    let found = vulkan::devices()?.into_iter().find(|device| device.identity().name == name);
    found.ok_or_else(|| format!("there is no {name}").into())
}

/// What GPUs must do beyond what every provider must, of which the kernel's drivers have the same tests.
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

fn a_device_that_the_cpu_executes_says_so() -> Outcome {
    let provider = find(SOFTWARE)?;
    let identity = provider.identity();
    ensure!(identity.kind == DeviceKind::Software && identity.pci.is_none(), "{identity:?}");
    ensure!(identity.description.contains("the CPU executes it"), "{identity:?}");
    ensure!(
        identity.node.file_name().is_some_and(|name| name.to_string_lossy().contains("libvulkan")),
        "{identity:?}"
    );
    ensure!(identity.driver_version.as_ref().is_some_and(|version| version.contains("Mesa")), "{identity:?}");
    let buffer = provider.allocate(&devmem_provider::Request::bytes(harness::SIZE))?;
    let seen = buffer.residency()?;
    ensure!(seen.residency == Residency::System && seen.evidence.contains("CPU"), "{seen:?}");
    ensure!(buffer.export()?.file_information()?.exporter == "udmabuf", "{:?}", buffer.export()?);
    for selector in ["vulkan:LLVM", "vulkan:llvmpipe"] {
        ensure!(find(selector)?.identity() == identity, "{selector}");
    }
    Ok(())
}

fn hardware_goes_before_software() -> Outcome {
    let devices = vulkan::devices()?;
    let kinds: Vec<DeviceKind> = devices.iter().map(|device| device.identity().kind).collect();
    ensure!(kinds.len() == GPUS.len() + 1, "{kinds:?}");
    ensure!(kinds.first() == Some(&DeviceKind::Discrete), "{kinds:?}");
    ensure!(kinds.last() == Some(&DeviceKind::Software), "{kinds:?}");
    ensure!(find("vulkan")?.identity() == devices[0].identity(), "{:?}", find("vulkan")?.identity());
    Ok(())
}

/// A test, during which the validation layer must be silent.
fn watched(name: String, validation: &Validation, test: impl FnOnce() -> Outcome + Send + 'static) -> Trial {
    let validation = validation.clone();
    trial(name, move || {
        let outcome = test();
        validation.was_silent()?;
        outcome
    })
}

fn trials(validation: &Validation) -> Vec<Trial> {
    type Test = (&'static str, fn() -> Outcome);
    let tests: &[Test] = &[
        ("absence::without_a_driver", absence::without_a_driver),
        ("absence::without_udmabuf", absence::without_udmabuf),
        ("a_device_that_the_cpu_executes_says_so", a_device_that_the_cpu_executes_says_so),
        ("copies::every_device_copies", copies::every_device_copies),
        ("copies::of_a_lost_device", copies::of_a_lost_device),
        ("imports::of_every_exporter", imports::of_every_exporter),
        ("imports::of_what_is_no_dma_buf", imports::of_what_is_no_dma_buf),
        ("imports::of_the_wrong_size", imports::of_the_wrong_size),
        ("imports::of_a_closed_descriptor", imports::of_a_closed_descriptor),
        ("imports::leave_nothing_behind", imports::leave_nothing_behind),
        ("hardware_goes_before_software", hardware_goes_before_software),
    ];
    let mut trials: Vec<Trial> =
        tests.iter().map(|&(name, test)| watched(name.to_owned(), validation, test)).collect();
    for &gpu in GPUS {
        for &(name, test) in hardware::TESTS {
            trials.push(watched(format!("{}::{name}", gpu.part), validation, move || test(gpu)));
        }
    }
    let hardware = GPUS.iter().map(|gpu| (gpu.part, gpu.selector));
    for (device, name) in [("llvmpipe", SOFTWARE)].into_iter().chain(hardware) {
        for &(test_name, test) in PROVIDER_TESTS.iter().chain(GPU_TESTS) {
            let run = move || test(&*find(name)?);
            trials.push(watched(format!("{device}::{test_name}"), validation, run));
        }
    }
    for (name, test) in copies::WAYS.iter().flat_map(copies::Way::tests) {
        trials.push(watched(name, validation, test));
    }
    // Takes the GPU away, so that it is the last.
    trials.push(trial("amdgpu::is_gone_when_it_is_removed".to_owned(), hardware::is_gone_when_it_is_removed));
    trials.push(watched("validation::is_on".to_owned(), validation, {
        let validation = validation.clone();
        move || validation.is_on()
    }));
    trials
}

fn main() -> ExitCode {
    if absence::is_child() {
        return absence::child();
    }
    let program = devmem_lab::test_program().memory(MEMORY).vulkan().module("vgem");
    let program = GPUS.iter().fold(program, |program, gpu| program.gpu(gpu.part));
    let program =
        Validation::SETTINGS.iter().fold(program, |program, (name, value)| program.environment(name, value));
    program.main(|| {
        let mut arguments = Arguments::from_args();
        // Tests that count memory are disturbed by others.
        arguments.test_threads = Some(1);
        let validation = match Validation::begin() {
            Ok(validation) => validation,
            Err(failure) => {
                eprintln!("the validation layer cannot be used: {failure}");
                return ExitCode::FAILURE;
            }
        };
        let conclusion = libtest_mimic::run(&arguments, trials(&validation));
        match validation.end() {
            Ok(()) => conclusion.exit_code(),
            Err(failure) => {
                eprintln!("{failure}");
                ExitCode::FAILURE
            }
        }
    })
}
