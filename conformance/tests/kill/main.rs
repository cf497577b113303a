//! A run that is killed at any moment leaves a NIC that can be put back, and is.
//!
//! Started on the host, this program boots the lab and runs itself in the guest. There it starts itself again as a run of
//! checks, kills that, and looks what is left.

use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use devmem_conformance::path::DevmemTcp;
use devmem_conformance::peer::PeerChoice;
use devmem_conformance::{Environment, NicUnderTest, run};
use devmem_provider::ErrorKind;
use devmem_receive::nic::{self, Nic, Snapshot};
use libtest_mimic::{Arguments, Failed, Trial};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const NIC: &str = "eth0";

/// The argument that makes this program a run of checks.
const RUN: &str = "--run";

/// What ends the run, and at how many moments. SIGTERM takes the same way as SIGINT.
const ENDS: [(Signal, u32); 2] = [(Signal::SIGKILL, 20), (Signal::SIGINT, 8)];

/// How long the processes of a killed run may take to end and to put the NIC back.
const PATIENCE: Duration = Duration::from_secs(20);

/// Checks udmabuf with the NIC; and in the process of one check, does it.
fn check() -> Result<(), Failed> {
    let provider = devmem_backends::find("udmabuf").map_err(|error| error.to_string())?;
    let mut environment = Environment::default();
    environment.filters = ["pin::", "=receive::one_mebibyte"].map(str::to_owned).to_vec();
    environment.nic = Some(NicUnderTest::new(NIC));
    environment.peer = Some(PeerChoice::Namespace("/run/netns/peer".into()));
    environment.paths = vec![Arc::new(DevmemTcp)];
    let report = run(&*provider, &environment);
    if report.is_success() { Ok(()) } else { Err(format!("{report:?}").into()) }
}

fn start() -> Result<Child, Failed> {
    Ok(Command::new(std::env::current_exe()?).arg(RUN).stdin(Stdio::null()).spawn()?)
}

fn settings() -> Result<Snapshot, Failed> {
    Ok(Nic::open(NIC)?.snapshot()?)
}

/// Puts the NIC back, as soon as the processes of the run are gone.
fn put_back() -> Result<(), Failed> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match nic::restore(NIC) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Busy && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error) => return Err(error.to_string().into()),
        }
    }
}

fn at_any_moment(signal: Signal, moments: u32) -> Result<(), Failed> {
    let before = settings()?;
    let started = Instant::now();
    let status = start()?.wait()?;
    if !status.success() {
        return Err(format!("the run that is not killed ends with {status}").into());
    }
    let whole = started.elapsed();
    let (mut moment, mut changed) = (0, 0);
    // More than were asked for, until one meets a NIC that is changed.
    while moment < moments || (changed == 0 && moment < 5 * moments) {
        moment += 1;
        let mut child = start()?;
        // Moments that are spread over the whole run, and not in step with its checks.
        std::thread::sleep(whole.mul_f64(f64::from(moment * 7 % moments) / f64::from(moments)));
        let pid = Pid::from_raw(child.id().cast_signed());
        kill(pid, signal)?;
        child.wait()?;
        changed += usize::from(settings()? != before);
        put_back()?;
        let differences = before.diff(&settings()?);
        if !differences.is_empty() {
            return Err(format!("{signal} at moment {moment} left {differences:?}").into());
        }
    }
    println!("the NIC was changed at {changed} of {moment} moments");
    if changed == 0 { Err("no moment met a NIC that was changed: nothing is proven".into()) } else { Ok(()) }
}

fn main() -> ExitCode {
    let machine = devmem_lab::test_program().nic("gve:queues=4").nic("gve:queues=4");
    machine.main(|| {
        if std::env::args().any(|argument| argument == RUN) {
            return match check() {
                Ok(()) => ExitCode::SUCCESS,
                Err(failed) => {
                    eprintln!("{}", failed.message().unwrap_or_default());
                    ExitCode::FAILURE
                }
            };
        }
        let mut arguments = Arguments::from_args();
        arguments.test_threads = Some(1);
        let trials = ENDS.map(|(signal, moments)| {
            Trial::test(format!("{signal}::at_any_moment"), move || at_any_moment(signal, moments))
        });
        libtest_mimic::run(&arguments, trials.into()).exit_code()
    })
}
