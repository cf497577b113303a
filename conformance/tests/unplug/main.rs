//! NICs, RDMA devices and GPUs that are unplugged while a GPU's buffer is bound or registered, on kernel drivers that
//! survive it.
//!
//! Started on the host, this program boots the lab and runs itself in the guest, where the tests are. In the guest it is
//! started again for each check, with the provider and the fault among its arguments.

use std::process::ExitCode;
use std::sync::Arc;

use devmem_backends::find;
use devmem_conformance::checks::CHECKS;
use devmem_conformance::faults::{FaultyPath, FaultyRdmaDevice};
use devmem_conformance::path::DevmemTcp;
use devmem_conformance::peer::PeerChoice;
use devmem_conformance::rdma_device::RdmaDevice;
use devmem_conformance::{Environment, Fault, NicUnderTest, Report, Verdict, run};
use devmem_receive::rdma::Device;
use libtest_mimic::{Arguments, Failed, Trial};

/// The providers, the first of which is tried with the faults as well.
const PROVIDERS: [&str; 3] = ["amdgpu", "i915", "xe"];

/// What their checks' names contain.
const UNPLUGGED: &str = "unplugged";

/// How many of them there are.
const COUNT: usize = 3;

/// Begins the argument that tells what to check: `--provider=NAME`, or `--provider=NAME,FAULT`.
const SUBJECT: &str = "--provider=";

/// Checks a provider, with a fault of the path and of the RDMA device if one is named; in a process that was started for a
/// check, does that.
fn check(name: &str, fault: Option<Fault>) -> Result<Report, Failed> {
    let provider = find(name).map_err(|error| error.to_string())?;
    let mut environment = Environment::default();
    environment.arguments = vec![match fault {
        Some(fault) => format!("{SUBJECT}{name},{fault:?}").into(),
        None => format!("{SUBJECT}{name}").into(),
    }];
    environment.filters = vec![UNPLUGGED.to_owned()];
    environment.nic = Some(NicUnderTest::new("eth0"));
    environment.peer = Some(PeerChoice::Namespace("/run/netns/peer".into()));
    environment.disruptive = true;
    environment.paths = vec![match fault {
        Some(fault) => Arc::new(FaultyPath::new(Arc::new(DevmemTcp), fault)),
        None => Arc::new(DevmemTcp),
    }];
    let rdma: Option<Arc<dyn RdmaDevice>> = match Device::find("efa_0") {
        Ok(device) => Some(Arc::new(device)),
        Err(_) => None,
    };
    environment.rdma = match (rdma, fault) {
        (Some(device), Some(fault)) => Some(Arc::new(FaultyRdmaDevice::new(device, fault))),
        (device, _) => device,
    };
    Ok(run(&*provider, &environment))
}

fn comes_back(name: &str) -> Result<(), Failed> {
    let report = check(name, None)?;
    print!("{}", devmem_conformance::report::text::write(std::slice::from_ref(&report)));
    match report.count(Verdict::Pass) {
        COUNT => Ok(()),
        passed => Err(format!("{passed} of {COUNT} checks pass: {report:?}").into()),
    }
}

fn is_caught(fault: Fault) -> Result<(), Failed> {
    let report = check(PROVIDERS[0], Some(fault))?;
    let checks = CHECKS.iter().filter(|check| check.name.contains(UNPLUGGED));
    for check in checks.filter(|check| check.catches.contains(&fault)) {
        let entry = report.entries.iter().find(|entry| entry.check == check.full_name());
        let entry = entry.ok_or_else(|| format!("{} did not run", check.full_name()))?;
        if entry.verdict != Verdict::Fail {
            return Err(format!("{fault:?} is not caught: {entry:?}").into());
        }
        println!("{} catches {fault:?}: {}", entry.check, entry.reason.as_deref().unwrap_or_default());
    }
    Ok(())
}

fn main() -> ExitCode {
    let machine = devmem_lab::test_program()
        .nic("gve:queues=4")
        .nic("gve:queues=4")
        .gpu("amdgpu")
        .gpu("i915:dg1")
        .gpu("xe")
        .rdma("efa")
        .memory(2 << 30)
        // What i915 makes the kernel say when the last holder of a buffer lets go after the removal.
        .allow_warning("i915/intel_runtime_pm.c");
    machine.main(|| {
        let subject = std::env::args().find_map(|argument| argument.strip_prefix(SUBJECT).map(str::to_owned));
        if let Some(subject) = subject {
            let (name, fault) = subject.split_once(',').unwrap_or((&subject, ""));
            let fault = Fault::ALL.into_iter().find(|known| format!("{known:?}") == fault);
            // Does its check and ends the process.
            return match check(name, fault) {
                Ok(_) => ExitCode::FAILURE,
                Err(failed) => {
                    eprintln!("{}", failed.message().unwrap_or_default());
                    ExitCode::FAILURE
                }
            };
        }
        let mut arguments = Arguments::from_args();
        arguments.test_threads = Some(1);
        let mut faults: Vec<Fault> = CHECKS
            .iter()
            .filter(|check| check.name.contains(UNPLUGGED))
            .flat_map(|check| check.catches.iter().copied())
            .collect();
        faults.sort_unstable_by_key(|fault| format!("{fault:?}"));
        faults.dedup();
        let mut trials: Vec<Trial> =
            PROVIDERS.map(|name| Trial::test(format!("{name}::comes_back"), move || comes_back(name))).into();
        trials.extend(
            faults
                .into_iter()
                .map(|fault| Trial::test(format!("{fault:?}::is_caught"), move || is_caught(fault))),
        );
        libtest_mimic::run(&arguments, trials).exit_code()
    })
}
