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
use devmem_conformance::path::{self, ReceivePath};
use devmem_conformance::peer::PeerChoice;
use devmem_conformance::rdma_device::RdmaDevice;
use devmem_conformance::{Check, Environment, Fault, Need, NicUnderTest, Report, Verdict, run};
use devmem_provider::Provider;
use devmem_receive::rdma::Device;
use libtest_mimic::{Arguments, Failed, Trial};

/// The providers that stand for the others: one without a device and one with memory of its own.
const PROVIDERS: [&str; 2] = ["udmabuf", "virtio-gpu"];

/// The receive paths.
const PATHS: [&str; 2] = ["devmem-tcp", "zcrx"];

/// Checks that say nothing on the lab's machine, so that their faults cannot be tried: its NIC has no threshold of
/// header split, and of its providers one has no device, and the driver of the other does not survive that it goes.
const NOT_HERE: [&str; 3] = [
    "bind::header_split_threshold",
    "lifetime::header_split_threshold_stays_zero",
    "lifetime::device_unplugged",
];

/// Begins the argument that tells what to check: `--subject=PROVIDER,PATH`, or `--subject=PROVIDER,PATH,FAULT`.
const SUBJECT: &str = "--subject=";

/// A provider that is checked with a receive path, or with a fault of one of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Subject<'name> {
    provider: &'name str,
    path: &'name str,
    fault: &'name str,
}

impl<'name> Subject<'name> {
    /// The one that this process was started for.
    fn read(argument: &'name str) -> Option<Self> {
        let mut parts = argument.strip_prefix(SUBJECT)?.split(',');
        Some(Self { provider: parts.next()?, path: parts.next()?, fault: parts.next().unwrap_or_default() })
    }

    fn argument(self) -> String {
        format!("{SUBJECT}{},{},{}", self.provider, self.path, self.fault)
    }

    fn fault(self) -> Option<Fault> {
        Fault::ALL.into_iter().find(|known| format!("{known:?}") == self.fault)
    }

    fn provider(self) -> Option<Arc<dyn Provider>> {
        let provider = discover().find(self.provider).ok()?;
        Some(match self.fault() {
            Some(fault) => Arc::new(FaultyProvider::new(provider, fault)),
            None => provider,
        })
    }

    fn path(self) -> Arc<dyn ReceivePath> {
        let path = named(self.path);
        match self.fault() {
            Some(fault) => Arc::new(FaultyPath::new(path, fault)),
            None => path,
        }
    }

    /// The guest's NICs: the first is checked, and the second one's machine sends.
    fn environment(self) -> Environment {
        let mut environment = Environment::default();
        environment.arguments = vec![self.argument().into()];
        environment.nic = Some(NicUnderTest::new("eth0"));
        environment.peer = Some(PeerChoice::Namespace("/run/netns/peer".into()));
        environment.disruptive = true;
        environment.paths = vec![self.path()];
        environment.rdma = self.rdma();
        environment
    }

    fn rdma(self) -> Option<Arc<dyn RdmaDevice>> {
        let device: Arc<dyn RdmaDevice> = Arc::new(Device::find("efa_0").ok()?);
        Some(match self.fault() {
            Some(fault) => Arc::new(FaultyRdmaDevice::new(device, fault)),
            None => device,
        })
    }

    /// Checks it, in processes that are started with the subject among their arguments.
    fn check(self, filters: Vec<String>) -> Result<Report, Failed> {
        let provider = discover().find(self.provider).map_err(|error| error.to_string())?;
        let mut environment = self.environment();
        environment.filters = filters;
        environment.limit = matches!(self.fault(), Some(Fault::Hangs | Fault::ReceiveHangs))
            .then_some(Duration::from_secs(3));
        Ok(run(&*provider, &environment))
    }
}

/// The receive path of a name.
fn named(name: &str) -> Arc<dyn ReceivePath> {
    let known = path::all().into_iter().find(|path| path.name() == name);
    known.unwrap_or_else(|| panic!("no receive path is called {name}"))
}

/// What the honest ones came to, so that each is checked once.
static HONEST: Mutex<BTreeMap<Subject<'static>, Report>> = Mutex::new(BTreeMap::new());

fn honest(subject: Subject<'static>) -> Result<Report, Failed> {
    let mut known = HONEST.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(report) = known.get(&subject) {
        return Ok(report.clone());
    }
    // A provider is checked by itself once, whatever number of paths there are.
    let filters = CHECKS.iter().filter(|check| check.is_about_a_path() || subject.path == PATHS[0]);
    let report = subject.check(filters.map(|check| format!("={}", check.full_name())).collect())?;
    Ok(known.entry(subject).or_insert(report).clone())
}

fn nothing_fails(subject: Subject<'static>) -> Result<(), Failed> {
    let report = honest(subject)?;
    print!("{}", devmem_conformance::report::text::write(std::slice::from_ref(&report)));
    let of_path = CHECKS.iter().filter(|check| check.is_about_a_path()).count();
    let expected = if subject.path == PATHS[0] { CHECKS.len() } else { of_path };
    if report.entries.len() != expected {
        return Err(format!("{} of {expected} checks ran", report.entries.len()).into());
    }
    if !report.is_success() {
        return Err(format!("{} checks fail", report.count(Verdict::Fail)).into());
    }
    Ok(())
}

/// Whether a path has what a check needs of paths.
fn is_about(check: &Check, path: &str) -> bool {
    let path = named(path);
    check.needs.iter().all(|need| match need {
        Need::Path(feature) => path.has(*feature),
        _ => true,
    })
}

/// Every fault that a check names is caught by it, on a provider for which it is one: one that has huge pages does not
/// lie when it says so.
fn faults_are_caught(check: &Check, path: &'static str) -> Result<(), Failed> {
    let full_name = check.full_name();
    let verdict = |provider: &'static str| {
        let entries = honest(Subject { provider, path, fault: "" }).ok()?.entries;
        Some(entries.iter().find(|entry| entry.check == full_name)?.verdict)
    };
    if !is_about(check, path) {
        let all_skip = PROVIDERS.iter().all(|&provider| verdict(provider) == Some(Verdict::Skip));
        return if all_skip { Ok(()) } else { Err(format!("{path} has what {full_name} needs").into()) };
    }
    let says_something = |provider: &&'static str| verdict(provider) == Some(Verdict::Pass);
    let providers: Vec<&str> = PROVIDERS.into_iter().filter(says_something).collect();
    if NOT_HERE.contains(&full_name.as_str()) {
        println!("{full_name} cannot be tried here");
        let is_here = !providers.is_empty();
        return if is_here { Err(format!("{full_name} can be tried here after all").into()) } else { Ok(()) };
    }
    for &fault in check.catches {
        let mut entries = Vec::new();
        for &provider in &providers {
            let fault = format!("{fault:?}");
            let subject = Subject { provider, path, fault: &fault };
            entries.extend(subject.check(vec![format!("={full_name}")])?.entries);
            if let Some(entry) = entries.last().filter(|entry| entry.verdict == Verdict::Fail) {
                println!("{full_name} catches {fault}: {}", entry.reason.as_deref().unwrap_or_default());
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
        let argument = std::env::args().find(|argument| argument.starts_with(SUBJECT));
        if let Some(subject) = argument.as_deref().and_then(Subject::read) {
            let Some(provider) = subject.provider() else { return ExitCode::FAILURE };
            // Does its check and ends the process.
            run(&*provider, &subject.environment());
            return ExitCode::FAILURE;
        }
        let mut arguments = Arguments::from_args();
        // Checks that count memory are disturbed by others.
        arguments.test_threads = Some(1);
        let mut trials: Vec<Trial> = Vec::new();
        for path in PATHS {
            for provider in PROVIDERS {
                let subject = Subject { provider, path, fault: "" };
                let name = format!("{provider}::{path}::nothing_fails");
                trials.push(Trial::test(name, move || nothing_fails(subject)));
            }
        }
        trials.push(Trial::test("every_fault_is_caught_by_a_check", every_fault_is_caught_by_a_check));
        for path in PATHS {
            for check in CHECKS.iter().filter(|check| check.is_about_a_path() || path == PATHS[0]) {
                let name = format!("{path}::{}::faults_are_caught", check.full_name());
                trials.push(Trial::test(name, move || faults_are_caught(check, path)));
            }
        }
        libtest_mimic::run(&arguments, trials).exit_code()
    })
}
