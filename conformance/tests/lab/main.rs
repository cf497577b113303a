//! The checks on providers that are right, and on providers that are wrong on purpose.
//!
//! Started on the host, this program boots the lab and runs itself in the guest, where the tests are. In the guest it is
//! started again for each check, with the provider and the fault among its arguments.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use devmem_backends::discover;
use devmem_conformance::checks::CHECKS;
use devmem_conformance::faults::{FaultyPath, FaultyProvider, FaultyRdmaDevice};
use devmem_conformance::path::DevmemTcp;
use devmem_conformance::peer::PeerChoice;
use devmem_conformance::rdma_device::RdmaDevice;
use devmem_conformance::{Check, Environment, Fault, NicUnderTest, Report, Verdict, run};
use devmem_provider::Provider;
use devmem_receive::rdma::Device;
use libtest_mimic::{Arguments, Failed, Trial};

/// The providers that stand for the others: one without a device and one with memory of its own.
const PROVIDERS: [&str; 2] = ["udmabuf", "virtio-gpu"];

/// Checks that say nothing on the lab's machine, so that their faults cannot be tried: its NIC has no threshold of
/// header split, and of its providers one has no device, and the driver of the other does not survive that it goes.
const NOT_HERE: [&str; 3] = [
    "bind::header_split_threshold",
    "lifetime::header_split_threshold_stays_zero",
    "lifetime::device_unplugged",
];

/// Begins the argument that tells what to check: `--provider=NAME`, or `--provider=NAME,FAULT`.
const SUBJECT: &str = "--provider=";

/// The provider, with its fault, that this process was started for.
fn subject() -> Option<(Arc<dyn Provider>, Option<Fault>)> {
    let argument = std::env::args().find_map(|argument| argument.strip_prefix(SUBJECT).map(str::to_owned))?;
    let (name, fault) = argument.split_once(',').unwrap_or((&argument, ""));
    let provider = discover().find(name).ok()?;
    match Fault::ALL.into_iter().find(|known| format!("{known:?}") == fault) {
        Some(fault) => Some((Arc::new(FaultyProvider::new(provider, fault)), Some(fault))),
        None => Some((provider, None)),
    }
}

/// The guest's NICs: the first is checked, and the second one's machine sends.
fn environment(fault: Option<Fault>) -> Environment {
    let mut environment = Environment::default();
    environment.nic = Some(NicUnderTest::new("eth0"));
    environment.peer = Some(PeerChoice::Namespace("/run/netns/peer".into()));
    environment.disruptive = true;
    let device: Option<Arc<dyn RdmaDevice>> =
        Device::find("efa_0").ok().map(|device| -> Arc<dyn RdmaDevice> { Arc::new(device) });
    environment.rdma = match (device, fault) {
        (Some(device), Some(fault)) => Some(Arc::new(FaultyRdmaDevice::new(device, fault))),
        (device, _) => device,
    };
    environment.paths = vec![match fault {
        Some(fault) => Arc::new(FaultyPath::new(Arc::new(DevmemTcp), fault)),
        None => Arc::new(DevmemTcp),
    }];
    environment
}

/// Checks a provider in processes that are started with its name and fault.
fn check(name: &str, fault: Option<Fault>, filters: Vec<String>) -> Result<Report, Failed> {
    let provider = discover().find(name).map_err(|error| error.to_string())?;
    let argument = match fault {
        Some(fault) => format!("{SUBJECT}{name},{fault:?}"),
        None => format!("{SUBJECT}{name}"),
    };
    let mut environment = environment(None);
    environment.arguments = vec![argument.into()];
    environment.filters = filters;
    environment.limit =
        matches!(fault, Some(Fault::Hangs | Fault::ReceiveHangs)).then_some(Duration::from_secs(3));
    Ok(run(&*provider, &environment))
}

/// What the honest providers came to, so that each is checked once.
static HONEST: Mutex<BTreeMap<&str, Report>> = Mutex::new(BTreeMap::new());

fn honest(name: &'static str) -> Result<Report, Failed> {
    let mut known = HONEST.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(report) = known.get(name) {
        return Ok(report.clone());
    }
    Ok(known.entry(name).or_insert(check(name, None, Vec::new())?).clone())
}

fn nothing_fails(name: &'static str) -> Result<(), Failed> {
    let report = honest(name)?;
    print!("{}", devmem_conformance::report::text::write(std::slice::from_ref(&report)));
    if report.entries.len() != CHECKS.len() {
        return Err(format!("{} of {} checks ran", report.entries.len(), CHECKS.len()).into());
    }
    if !report.is_success() {
        return Err(format!("{} checks fail", report.count(Verdict::Fail)).into());
    }
    Ok(())
}

/// Every fault that a check names is caught by it, on a provider for which it is one: one that has huge pages does not
/// lie when it says so.
fn faults_are_caught(check_to_try: &Check) -> Result<(), Failed> {
    let full_name = check_to_try.full_name();
    let says_something = |name: &'static str| {
        honest(name).is_ok_and(|report| {
            let entry = report.entries.iter().find(|entry| entry.check == full_name);
            entry.is_some_and(|entry| entry.verdict == Verdict::Pass)
        })
    };
    let providers: Vec<&str> = PROVIDERS.into_iter().filter(|&name| says_something(name)).collect();
    if NOT_HERE.contains(&full_name.as_str()) {
        println!("{full_name} cannot be tried here");
        let is_here = !providers.is_empty();
        return if is_here { Err(format!("{full_name} can be tried here after all").into()) } else { Ok(()) };
    }
    for &fault in check_to_try.catches {
        let mut entries = Vec::new();
        for &provider in &providers {
            entries.extend(check(provider, Some(fault), vec![format!("={full_name}")])?.entries);
            if let Some(entry) = entries.last().filter(|entry| entry.verdict == Verdict::Fail) {
                println!("{full_name} catches {fault:?}: {}", entry.reason.as_deref().unwrap_or_default());
                break;
            }
        }
        if entries.last().is_none_or(|entry| entry.verdict != Verdict::Fail) {
            return Err(format!("{fault:?} is not caught on {providers:?}: {entries:?}").into());
        }
    }
    Ok(())
}

fn every_fault_is_caught_by_a_check() -> Result<(), Failed> {
    let is_caught = |fault: &&Fault| CHECKS.iter().any(|check| check.catches.contains(fault));
    let missed: Vec<&Fault> = Fault::ALL.iter().filter(|fault| !is_caught(fault)).collect();
    if missed.is_empty() { Ok(()) } else { Err(format!("no check catches {missed:?}").into()) }
}

fn main() -> ExitCode {
    let machine = devmem_lab::test_program()
        // Restarting a NIC takes the longer the larger its rings are.
        .nic("gve:queues=4,max-ring=256")
        .nic("gve")
        .gpu("virtio-gpu")
        .rdma("efa")
        // Kinds of interfaces that are refused.
        .module("dummy")
        .module("veth")
        // Impairs what the peer sends.
        .module("sch_netem")
        // What the kernel says to an attempt to bind gve's queue 0.
        .allow_warning("page_pool_disable_direct_recycling");
    machine.main(|| {
        if let Some((provider, fault)) = subject() {
            // Does its check and ends the process.
            run(&*provider, &environment(fault));
            return ExitCode::FAILURE;
        }
        let mut arguments = Arguments::from_args();
        // Checks that count memory are disturbed by others.
        arguments.test_threads = Some(1);
        let mut trials: Vec<Trial> = Vec::new();
        for name in PROVIDERS {
            trials.push(Trial::test(format!("{name}::nothing_fails"), move || nothing_fails(name)));
        }
        trials.push(Trial::test("every_fault_is_caught_by_a_check", every_fault_is_caught_by_a_check));
        for check in CHECKS {
            let name = format!("{}::faults_are_caught", check.full_name());
            trials.push(Trial::test(name, move || faults_are_caught(check)));
        }
        libtest_mimic::run(&arguments, trials).exit_code()
    })
}
