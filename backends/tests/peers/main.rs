//! The verdict of `devmem_provider::topology`, held against what the kernel does.
//!
//! Two GPUs with the driver `amdgpu` are in one guest. The first exports a buffer that lies in its memory; the second
//! imports it, with peer-to-peer allowed, and copies from it. The kernel calls `pci_p2pdma_distance()` for that, and
//! leaves the buffer where it is if it finds a way, or moves it to system memory if not. So the buffer must still be
//! in the first GPU's memory exactly if the verdict is that the second one reaches it.
//!
//! Started on the host, this program boots the lab once for each topology and processor, with itself as the command.

mod engine;
mod guest;
#[path = "../../src/drm/headers.rs"]
mod headers;
mod uapi;
mod witness;

use std::process::ExitCode;

use devmem_lab::{Machine, Topology};
use libtest_mimic::{Arguments, Trial};
use serde_json::{Value, json};

/// What went wrong.
pub(crate) type Failure = Box<dyn std::error::Error>;
pub(crate) type Outcome = Result<(), Failure>;

/// The argument that makes this program play its part in the guest.
const IN_GUEST: &str = "in-guest";

/// AMD before Zen, which QEMU emulates by default, and Zen (`cpu_supports_p2pdma()` in `drivers/pci/p2pdma.c`).
const UNTRUSTED: &str = "max";
const TRUSTED: &str = "EPYC";

/// A machine, and the way that its kernel finds between the GPUs.
#[derive(Debug, Clone, Copy)]
struct Case {
    topology: Topology,
    processor: &'static str,
    route: Option<&'static str>,
}

const fn case(topology: Topology, processor: &'static str, route: Option<&'static str>) -> Case {
    Case { topology, processor, route }
}

const CASES: &[Case] = &[
    case(Topology::RootBus, UNTRUSTED, None),
    case(Topology::RootBus, TRUSTED, Some("host bridge")),
    case(Topology::RootPorts, UNTRUSTED, None),
    case(Topology::RootPorts, TRUSTED, Some("host bridge")),
    case(Topology::Switch, UNTRUSTED, Some("bus addresses")),
    case(Topology::SwitchWithAcs, UNTRUSTED, None),
    case(Topology::SwitchWithAcs, TRUSTED, Some("host bridge")),
];

fn kernel_agrees(case: Case) -> Outcome {
    let program = std::env::current_exe()?.to_string_lossy().into_owned();
    let machine = Machine::new()
        .kernel_of_environment()?
        .gpu("amdgpu")
        .gpu("amdgpu")
        .topology(case.topology)
        .cpu(case.processor)
        .command([program, IN_GUEST.to_owned()]);
    let outcome = machine.run()?;
    if !outcome.is_success() {
        return Err(outcome.report().into());
    }
    let seen: Value = serde_json::from_str(&outcome.stdout_text())?;
    judge(case, &seen).map_err(|failure| format!("{failure}\n{seen:#}").into())
}

/// Whether what was seen in the guest is what the verdict says, and the verdict what it should be.
fn judge(case: Case, seen: &Value) -> Outcome {
    let expect = |what: &str, value: &Value, expected: Value| -> Outcome {
        if *value == expected { Ok(()) } else { Err(format!("{what}: {value} instead of {expected}").into()) }
    };
    let place = |driver: &str, lab: &str| json!([driver, lab]);
    let observed = |look: &Value| json!([look["driver"], look["lab"]]);
    let device_local = place("device-local", "gpu0");
    expect("where the buffer is before the import", &observed(&seen["before"]), device_local.clone())?;
    expect("the copied bytes", &seen["copied_right"], json!(true))?;
    let after = match seen["verdict"].as_str() {
        Some("reachable") => device_local,
        Some("not reachable") => place("system", "guest memory"),
        verdict => return Err(format!("root should be told, not {verdict:?}").into()),
    };
    expect("where the kernel leaves the buffer after this verdict", &observed(&seen["after"]), after)?;
    expect("the route", &seen["route"], json!(case.route))
}

fn trials() -> Vec<Trial> {
    let headers = Trial::test("uapi::the_kernel_headers_agree", || {
        uapi::header().assert();
        Ok(())
    });
    let cases = CASES.iter().map(|&case| {
        let name = format!("kernel_agrees::{}::{}", case.topology, case.processor);
        Trial::test(name, move || kernel_agrees(case).map_err(|failure| failure.to_string().into()))
    });
    std::iter::once(headers).chain(cases).collect()
}

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(IN_GUEST) {
        return match guest::observe() {
            Ok(seen) => {
                println!("{seen}");
                ExitCode::SUCCESS
            }
            Err(failure) => {
                eprintln!("{failure}");
                ExitCode::FAILURE
            }
        };
    }
    let mut arguments = Arguments::from_args();
    // One machine at a time.
    arguments.test_threads = Some(1);
    libtest_mimic::run(&arguments, trials()).exit_code()
}
