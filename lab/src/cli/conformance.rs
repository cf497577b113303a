//! `conformance`: every provider with the receive paths, each on its real driver.

use std::collections::VecDeque;
use std::io::{IsTerminal, stderr};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use clap::Args;
use devmem_lab::{Error, Flavour, Machine, Outcome};
use tempfile::TempDir;

use super::options::MachineOptions;
use super::processors::TRUSTED;
use super::{run, tool};

const PACKAGE: &str = "devmem-conformance";
const GUEST_PROGRAM: &str = "/usr/bin/devmem-conformance";
const GUEST_FOLDER: &str = "/tmp/report";

/// How long each machine may take if nothing else is said.
const TIMEOUT: Duration = Duration::from_secs(1200);

/// The NIC that is checked is restarted several times in each check, which takes the longer the larger its rings are.
const NICS: [&str; 2] = ["gve:queues=4,max-ring=256", "gve"];

/// What one machine checks.
#[derive(Debug)]
struct Part {
    gpus: &'static [&'static str],
    modules: &'static [&'static str],
    vulkan: bool,
    providers: &'static [&'static str],
}

/// The machines. One driver has one GPU in each, so that its name means that one; those that take longest come first.
const PARTS: [Part; 6] = [
    Part {
        gpus: &["i915:tgl", "virtio-gpu"],
        modules: &["vgem"],
        vulkan: false,
        providers: &["i915", "virtio-gpu", "vgem"],
    },
    Part { gpus: &["xe:dg2"], modules: &[], vulkan: false, providers: &["xe", "dma-heap", "udmabuf"] },
    Part { gpus: &["amdgpu", "xe"], modules: &[], vulkan: false, providers: &["amdgpu", "xe"] },
    Part { gpus: &["i915:dg1", "nouveau"], modules: &[], vulkan: false, providers: &["i915", "nouveau"] },
    Part { gpus: &["amdgpu"], modules: &[], vulkan: true, providers: &["vulkan:radv"] },
    Part { gpus: &[], modules: &[], vulkan: true, providers: &["vulkan:llvmpipe"] },
];

/// Checks every provider with a receive path or with several, on machines with every emulated GPU, and writes one report.
///
/// The report is written as text, KTAP, JUnit XML, JSON and one HTML page. With --gpu, --module or --vulkan one machine
/// with these is taken, and every provider of it checked. Exits as `devmem-conformance run` does.
#[derive(Debug, Args)]
pub(crate) struct Conformance {
    #[command(flatten)]
    machine: MachineOptions,
    /// Only this provider; may be repeated
    #[arg(long = "provider", value_name = "PROVIDER")]
    providers: Vec<String>,
    /// The receive path: devmem-tcp, zcrx; may be repeated. Both take about twice as long as one
    #[arg(long = "path", value_name = "PATH", default_value = "devmem-tcp", value_parser = ["devmem-tcp", "zcrx"])]
    paths: Vec<String>,
    /// Only checks whose name contains this; may be repeated. With `=` before it, the check of exactly that name
    #[arg(long = "filter", value_name = "TEXT")]
    filters: Vec<String>,
    /// Also take NICs, RDMA devices and GPUs away from the machines and bring them back
    #[arg(long)]
    disruptive: bool,
    /// The folder of the report
    #[arg(long, value_name = "FOLDER", default_value = "conformance-report")]
    out: PathBuf,
    /// How many machines run at the same time [default: as many as there are processors, up to 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16))]
    jobs: Option<u32>,
}

/// A machine that is to run, and what it checks.
struct Job {
    machine: Machine,
    what: String,
    report: PathBuf,
}

impl Conformance {
    pub(crate) fn execute(&self) -> Result<i32> {
        let program = tool::build(PACKAGE)?;
        let folder = TempDir::new().context("cannot create a temporary folder")?;
        let mut jobs = self.jobs(&program, folder.path(), true)?;
        match prepare(&jobs) {
            // An older kernel's source may be gone from the mirror. Without the device the suite says what it cannot check.
            Err(error @ Error::NoDriver { .. }) if !self.machine.has_parts() => {
                eprintln!("devmem-lab: the machines are without an RDMA device: {error}");
                jobs = self.jobs(&program, folder.path(), false)?;
                prepare(&jobs)?;
            }
            prepared => prepared?,
        }
        let reports: Vec<PathBuf> = jobs.iter().map(|job| job.report.clone()).collect();
        let codes = self.run_all(jobs)?;
        let found: Vec<&PathBuf> = reports.iter().filter(|report| report.is_file()).collect();
        let mut code = codes.into_iter().max().unwrap_or_default();
        if !found.is_empty() {
            let mut merge = Command::new(&program);
            merge.arg("merge").args(found).arg("--out").arg(&self.out);
            let status = merge.status().with_context(|| format!("cannot start {}", program.display()))?;
            code = code.max(status.code().unwrap_or(1));
            eprintln!("the report is in {}", self.out.display());
        }
        Ok(code)
    }

    /// The machines that are to run, with an RDMA device in each if it `has_rdma`.
    fn jobs(&self, program: &Path, folder: &Path, has_rdma: bool) -> Result<Vec<Job>> {
        let own = self.machine.has_parts();
        let parts: Vec<Option<&Part>> = if own { vec![None] } else { PARTS.iter().map(Some).collect() };
        let side_by_side = self.side_by_side().min(parts.len());
        let mut jobs = Vec::new();
        for part in parts {
            let providers: Vec<&str> = match part {
                None => self.providers.iter().map(String::as_str).collect(),
                Some(part) => {
                    let is_wanted = |name: &&&str| {
                        self.providers.is_empty() || self.providers.iter().any(|wanted| wanted == **name)
                    };
                    part.providers.iter().filter(is_wanted).copied().collect()
                }
            };
            if part.is_some() && providers.is_empty() {
                continue;
            }
            let report = folder.join(format!("{}.json", jobs.len()));
            let machine = self.machine(part, program, &report, &providers, side_by_side)?;
            let machine = if part.is_some() && has_rdma { machine.rdma("efa") } else { machine };
            let gpus: Vec<&str> = match part {
                Some(part) => part.gpus.to_vec(),
                None => self.machine.gpus().collect(),
            };
            let what = if providers.is_empty() { "every provider".to_owned() } else { providers.join(", ") };
            let with = if gpus.is_empty() { String::new() } else { format!(" on {}", gpus.join(", ")) };
            jobs.push(Job { machine, what: format!("{what}{with}"), report });
        }
        if jobs.is_empty() {
            let known: Vec<&str> = PARTS.iter().flat_map(|part| part.providers).copied().collect();
            return Err(anyhow!("no machine of the lab has that provider; it has {}", known.join(", ")));
        }
        Ok(jobs)
    }

    fn machine(
        &self,
        part: Option<&Part>,
        program: &Path,
        report: &Path,
        providers: &[&str],
        side_by_side: usize,
    ) -> Result<Machine> {
        let mut machine = self.machine.machine_with(&NICS, TIMEOUT)?.file(program, GUEST_PROGRAM);
        if side_by_side * self.machine.cpus() as usize > processors() {
            machine = machine.on_one_thread();
        }
        if let Some(part) = part {
            machine = part.gpus.iter().fold(machine, |machine, gpu| machine.gpu(gpu));
            machine = part.modules.iter().fold(machine, |machine, module| machine.module(module));
            if part.vulkan {
                machine = machine.vulkan();
            }
            // So that memory regions may be of a GPU's memory.
            if !self.machine.has_cpu() {
                machine = machine.cpu(TRUSTED);
            }
        }
        if !self.machine.has_flavour() {
            machine = machine.flavour(Flavour::Generic);
        }
        machine = machine
            // Impairs what the peer sends.
            .module("sch_netem")
            // Kinds of interfaces that cannot be bound.
            .module("dummy")
            .module("veth")
            // What the kernel says to an attempt to bind gve's queue 0.
            .allow_warning("page_pool_disable_direct_recycling")
            .bring_back_to(&format!("{GUEST_FOLDER}/report.json"), report);
        let mut command = vec![GUEST_PROGRAM, "run", "--nic", "eth0", "--peer-namespace", "/run/netns/peer"];
        for provider in providers {
            command.extend(["--provider", provider]);
        }
        for path in &self.paths {
            command.extend(["--path", path]);
        }
        for filter in &self.filters {
            command.extend(["--filter", filter]);
        }
        if self.disruptive {
            command.push("--disruptive");
            // What i915 makes the kernel say when the last holder of a buffer lets go after the removal.
            machine = machine.allow_warning("i915/intel_runtime_pm.c");
        }
        command.extend(["--out", GUEST_FOLDER]);
        Ok(machine.command(command))
    }

    /// How many machines may run at the same time.
    fn side_by_side(&self) -> usize {
        self.jobs.map_or(processors().min(4), |jobs| jobs as usize)
    }

    /// Runs the machines, some at the same time. Returns their exit codes.
    fn run_all(&self, jobs: Vec<Job>) -> Result<Vec<i32>> {
        let count = self.side_by_side().min(jobs.len());
        let (total, started) = (jobs.len(), Instant::now());
        let queue = Mutex::new(VecDeque::from(jobs));
        let ended = Mutex::new(Vec::new());
        let work = || {
            loop {
                let Some(job) = locked(&queue).pop_front() else { return };
                let result = job.machine.run();
                let mut ended = locked(&ended);
                ended.push(result.map(|outcome| told(&job.what, &outcome)));
                if stderr().is_terminal() {
                    eprintln!(
                        "{} of {total} machines after {} s: {}",
                        ended.len(),
                        started.elapsed().as_secs(),
                        job.what
                    );
                }
            }
        };
        std::thread::scope(|scope| (0..count).for_each(|_| drop(scope.spawn(work))));
        let ended = ended.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(ended.into_iter().collect::<devmem_lab::Result<Vec<i32>>>()?)
    }
}

/// Prepares the machines one after the other: they fetch into the same cache.
fn prepare(jobs: &[Job]) -> devmem_lab::Result<()> {
    jobs.iter().try_for_each(|job| job.machine.prepare())
}

/// How many processors this host has.
fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says what went wrong besides checks that failed, which the report tells.
fn told(what: &str, outcome: &Outcome) -> i32 {
    let code = outcome.exit_code();
    if code > 1 {
        eprint!("{what}:\n{}", outcome.stderr_text());
        return run::report(outcome);
    }
    code
}
