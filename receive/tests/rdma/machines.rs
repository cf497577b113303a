//! The machines, and what is tested in each.

use std::process::ExitCode;
use std::sync::OnceLock;

use devmem_lab::{Machine, Topology};
use libtest_mimic::Arguments;

use crate::harness::{self, Failure, Outcome, Test};
use crate::{ANY_PATH, SMALL_WINDOW, WITH_PATH, WITHOUT_PATH};

/// The argument that makes this program play its part in the guest. Behind it stand the machine's name and, if only some
/// tests are wanted, what the test harness takes.
pub(crate) const IN_GUEST: &str = "in-guest";

/// Zen, whose host bridges the kernel trusts, and AMD before Zen (`cpu_supports_p2pdma()` in `drivers/pci/p2pdma.c`).
const TRUSTED: &str = "EPYC";
const UNTRUSTED: &str = "max";

/// A GPU of each driver.
const ALL_GPUS: &[&str] = &["amdgpu", "xe:bmg,vram=256M", "i915:dg1", "nouveau:gp107", "virtio-gpu"];
/// Those whose drivers look for a way.
const PEERS: &[&str] = &["amdgpu", "xe:bmg,vram=256M"];

/// A machine of the lab.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    topology: Topology,
    processor: &'static str,
    pub(crate) iommu: bool,
    /// Whether the kernel finds a way between the RDMA device and the GPUs.
    pub(crate) has_path: bool,
    gpus: &'static [&'static str],
    tests: &'static [Test],
}

const fn case(name: &'static str, topology: Topology, processor: &'static str, has_path: bool) -> Case {
    Case { name, topology, processor, iommu: false, has_path, gpus: PEERS, tests: ANY_PATH }
}

/// The machine that this is, in its guest.
static THIS: OnceLock<&Case> = OnceLock::new();

/// The machine that this is.
pub(crate) fn this() -> Result<&'static Case, Failure> {
    Ok(THIS.get().copied().ok_or("this is no guest")?)
}

pub(crate) const MACHINES: &[Case] = &[
    Case { gpus: ALL_GPUS, tests: WITH_PATH, ..case("with_path", Topology::RootBus, TRUSTED, true) },
    Case { gpus: ALL_GPUS, tests: WITHOUT_PATH, ..case("without_path", Topology::RootBus, UNTRUSTED, false) },
    Case {
        gpus: &["amdgpu:vram=512M,window=64M"],
        tests: SMALL_WINDOW,
        ..case("small_window", Topology::RootBus, TRUSTED, true)
    },
    case("switch", Topology::Switch, UNTRUSTED, true),
    case("switch_acs_untrusted", Topology::SwitchWithAcs, UNTRUSTED, false),
    case("switch_acs_trusted", Topology::SwitchWithAcs, TRUSTED, true),
    case("root_ports_untrusted", Topology::RootPorts, UNTRUSTED, false),
    case("root_ports_trusted", Topology::RootPorts, TRUSTED, true),
    Case { iommu: true, ..case("iommu", Topology::RootBus, TRUSTED, true) },
    Case { iommu: true, ..case("iommu_switch", Topology::Switch, UNTRUSTED, true) },
];

impl Case {
    /// Boots it, and runs its tests in the guest.
    pub(crate) fn boot(&self) -> Outcome {
        let program = std::env::current_exe()?.to_string_lossy().into_owned();
        let machine = Machine::new()
            .kernel_of_environment()?
            .timeout(std::time::Duration::from_secs(900))
            .nic("gve:queues=4")
            .rdma("efa")
            .rdma("efa:rdma-read=off,rdma-write=off")
            .topology(self.topology)
            .cpu(self.processor)
            .module("rdma_rxe")
            .module("vgem");
        let machine = self.gpus.iter().fold(machine, |machine, gpu| machine.gpu(gpu));
        let machine = if self.iommu { machine.iommu() } else { machine };
        let outcome = machine.command([program.as_str(), IN_GUEST, self.name]).run()?;
        if !outcome.is_success() {
            return Err(outcome.report().into());
        }
        println!("{}", outcome.stdout_text().trim_end());
        Ok(())
    }
}

/// Runs the tests of the machine that the first argument names.
pub(crate) fn in_guest(arguments: &[String]) -> ExitCode {
    match named(arguments) {
        Ok(case) => {
            let arguments = Arguments::from_iter(arguments.iter().cloned());
            THIS.get_or_init(|| case);
            harness::run(arguments, case.tests, None)
        }
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn named(arguments: &[String]) -> Result<&'static Case, Failure> {
    let name = arguments.first().ok_or("which machine is this?")?;
    Ok(MACHINES.iter().find(|case| case.name == name).ok_or("there is no such machine")?)
}
