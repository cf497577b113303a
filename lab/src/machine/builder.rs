//! Describes a machine.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signalfd::SignalFd;

use super::accelerator::Accelerator;
use super::guest_files::GuestFile;
use super::session::Target;
use super::topology::Topology;
use crate::error::Result;
use crate::fetch::Lab;
use crate::kernel::names::Flavour;
use crate::packages::{LinesOnStandardError, Progress};

/// They choose the kernel of tests, as `--kernel` and `--flavour` do for `cargo lab`.
const KERNEL_VARIABLE: &str = "DEVMEM_LAB_KERNEL";
const FLAVOUR_VARIABLE: &str = "DEVMEM_LAB_FLAVOUR";

/// Where the command's standard input comes from.
#[derive(Debug, Default)]
pub enum Input {
    /// It is at its end from the beginning.
    #[default]
    Nothing,
    /// Whatever can be read from this descriptor.
    Descriptor(OwnedFd),
    /// A terminal in raw mode; the command runs on a terminal in the guest.
    Terminal(OwnedFd),
}

/// Where a run's input comes from and its output goes, while it runs.
pub struct Streams<'a> {
    /// Standard input.
    pub input: Input,
    /// Standard output; with [`Input::Terminal`], everything.
    pub output: &'a mut dyn Write,
    /// Standard error.
    pub error_output: &'a mut dyn Write,
    /// Signals that end the run, and SIGWINCH, which changes the terminal's size. They must be blocked.
    pub signals: Option<SignalFd>,
}

impl std::fmt::Debug for Streams<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Streams").field("input", &self.input).finish_non_exhaustive()
    }
}

/// A virtual machine that runs one command.
///
/// ```no_run
/// use devmem_lab::Machine;
///
/// let outcome = Machine::new().nic("gve").nic("gve").command(["ping", "-c1", "10.77.0.2"]).run()?;
/// assert!(outcome.is_success(), "{}", outcome.report());
/// # Ok::<(), devmem_lab::Error>(())
/// ```
#[derive(Clone)]
pub struct Machine {
    pub(super) lab: Option<Lab>,
    pub(super) nics: Vec<String>,
    pub(super) gpus: Vec<String>,
    pub(super) rdma: Vec<String>,
    pub(super) vulkan: bool,
    pub(super) topology: Topology,
    pub(super) iommu: bool,
    pub(super) switch: Option<String>,
    pub(super) trace: bool,
    pub(super) kernel: Option<String>,
    pub(super) flavour: Option<Flavour>,
    pub(super) own_modules: Option<PathBuf>,
    pub(super) qemu: Option<PathBuf>,
    pub(super) accelerator: Accelerator,
    pub(super) cpu: Option<String>,
    pub(super) cpus: u32,
    pub(super) one_thread: bool,
    pub(super) memory: Option<u64>,
    pub(super) kernel_arguments: Vec<String>,
    pub(super) modules: Vec<String>,
    pub(super) files: Vec<GuestFile>,
    pub(super) bring_back: Vec<(String, Target)>,
    pub(super) environment: Vec<(String, String)>,
    pub(super) allowed_warnings: Vec<String>,
    pub(super) kernel_log: Option<PathBuf>,
    pub(super) timeout: Duration,
    pub(super) command: Vec<String>,
    pub(super) progress: Arc<dyn Progress + Send + Sync>,
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Machine")
            .field("nics", &self.nics)
            .field("command", &self.command)
            .finish_non_exhaustive()
    }
}

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}

impl Machine {
    /// A machine with two processors, 1 GiB of memory, no cards, the newest kernel of the cache, and two
    /// minutes of time.
    #[must_use]
    pub fn new() -> Self {
        Self {
            lab: None,
            nics: Vec::new(),
            gpus: Vec::new(),
            rdma: Vec::new(),
            vulkan: false,
            topology: Topology::default(),
            iommu: false,
            switch: None,
            trace: false,
            kernel: None,
            flavour: None,
            own_modules: None,
            qemu: None,
            accelerator: Accelerator::default(),
            cpu: None,
            cpus: 2,
            one_thread: false,
            memory: None,
            kernel_arguments: Vec::new(),
            modules: Vec::new(),
            files: Vec::new(),
            bring_back: Vec::new(),
            environment: Vec::new(),
            allowed_warnings: Vec::new(),
            kernel_log: None,
            timeout: Duration::from_secs(120),
            command: Vec::new(),
            progress: Arc::new(LinesOnStandardError),
        }
    }

    /// Uses this lab instead of the default one.
    #[must_use]
    pub fn lab(mut self, lab: Lab) -> Self {
        self.lab = Some(lab);
        self
    }

    /// Adds an emulated NIC: `gve`, or with settings `gve:queues=8`. The first is `eth0`; see the crate's
    /// documentation for the rest.
    #[must_use]
    pub fn nic(mut self, specification: &str) -> Self {
        self.nics.push(specification.to_owned());
        self
    }

    /// Adds an emulated GPU: the driver that shall bind to it, and the part, such as `amdgpu` or `i915:dg1`.
    #[must_use]
    pub fn gpu(mut self, specification: &str) -> Self {
        self.gpus.push(specification.to_owned());
        self
    }

    /// Adds an emulated RDMA device: `efa`, or with settings `efa:mtu=4096`. The first is `efa_0`. Its driver is built from
    /// the distribution's source when a machine first needs it, and rdma-core's user libraries are put into the guest.
    #[must_use]
    pub fn rdma(mut self, specification: &str) -> Self {
        self.rdma.push(specification.to_owned());
        self
    }

    /// Puts Vulkan into the guest: the loader, the driver that computes on the processor (lavapipe), those of the
    /// emulated GPUs, the validation layer, which is off unless it is asked for, and `vulkaninfo`. They are fetched when
    /// a machine first needs them.
    #[must_use]
    pub fn vulkan(mut self) -> Self {
        self.vulkan = true;
        self
    }

    /// Where the cards sit on PCI Express.
    #[must_use]
    pub fn topology(mut self, topology: Topology) -> Self {
        self.topology = topology;
        self
    }

    /// Puts an IOMMU between the cards and memory, which the kernel lets translate what the cards address. What a card
    /// writes to another one's window by such an address, the lab cannot follow.
    #[must_use]
    pub fn iommu(mut self) -> Self {
        self.iommu = true;
        self
    }

    /// Faults of the switch between the NICs, such as `drop=0.01,seed=7`.
    #[must_use]
    pub fn switch(mut self, faults: &str) -> Self {
        self.switch = Some(faults.to_owned());
        self
    }

    /// Lets the emulated hardware tell what it does, on standard error.
    #[must_use]
    pub fn trace(mut self, trace: bool) -> Self {
        self.trace = trace;
        self
    }

    /// Chooses the kernel: a version (`6.12`), a release, or the path of an own build.
    #[must_use]
    pub fn kernel(mut self, kernel: &str) -> Self {
        self.kernel = Some(kernel.to_owned());
        self
    }

    /// Chooses which of the distribution's configurations the kernel is built with. By default the small one,
    /// and the one with all drivers if there is an emulated GPU or Vulkan.
    #[must_use]
    pub fn flavour(mut self, flavour: Flavour) -> Self {
        self.flavour = Some(flavour);
        self
    }

    /// Chooses the kernel by the environment variables `DEVMEM_LAB_KERNEL` and `DEVMEM_LAB_FLAVOUR`, where they are
    /// set: how all tests in the lab are run on another one.
    ///
    /// # Errors
    /// If there is no such flavour.
    pub fn kernel_of_environment(mut self) -> Result<Self> {
        if let Ok(kernel) = std::env::var(KERNEL_VARIABLE) {
            self.kernel = Some(kernel);
        }
        if let Ok(flavour) = std::env::var(FLAVOUR_VARIABLE) {
            self.flavour = Some(flavour.parse()?);
        }
        Ok(self)
    }

    /// The folder `lib/modules/RELEASE` of an own kernel.
    #[must_use]
    pub fn own_modules(mut self, folder: &Path) -> Self {
        self.own_modules = Some(folder.to_owned());
        self
    }

    /// Uses this QEMU instead of the fetched one.
    #[must_use]
    pub fn qemu(mut self, program: &Path) -> Self {
        self.qemu = Some(program.to_owned());
        self
    }

    /// Chooses what runs the guest's processor.
    #[must_use]
    pub fn accelerator(mut self, accelerator: Accelerator) -> Self {
        self.accelerator = accelerator;
        self
    }

    /// QEMU's model of the processor; by default the host's, or all that the emulation can do.
    #[must_use]
    pub fn cpu(mut self, model: &str) -> Self {
        self.cpu = Some(model.to_owned());
        self
    }

    /// The number of processors.
    #[must_use]
    pub fn cpus(mut self, cpus: u32) -> Self {
        self.cpus = cpus;
        self
    }

    /// Without KVM, emulates the guest's processors in turn on one thread of the host instead of each on its own. Where
    /// machines run side by side and have more processors than the host, that is faster: a processor of the guest that
    /// waits for another one does not keep the host from running it.
    #[must_use]
    pub fn on_one_thread(mut self) -> Self {
        self.one_thread = true;
        self
    }

    /// The guest's memory in bytes. By default 1 GiB, and more if large files are put into the guest.
    #[must_use]
    pub fn memory(mut self, bytes: u64) -> Self {
        self.memory = Some(bytes);
        self
    }

    /// A further argument for the kernel.
    #[must_use]
    pub fn kernel_argument(mut self, argument: &str) -> Self {
        self.kernel_arguments.push(argument.to_owned());
        self
    }

    /// A kernel module to load before the command starts, with what it depends on.
    #[must_use]
    pub fn module(mut self, name: &str) -> Self {
        self.modules.push(name.to_owned());
        self
    }

    /// Puts a file or a folder of the host into the guest. A place that is not absolute is meant from
    /// `/root`, where the command runs. Programs get the libraries that they need.
    #[must_use]
    pub fn file(mut self, host: &Path, guest: &str) -> Self {
        self.files.push(GuestFile::new(host, Some(guest)));
        self
    }

    /// Brings a file of the guest back into [`Outcome::files`](super::Outcome::files) when the command has ended.
    #[must_use]
    pub fn bring_back(mut self, guest: &str) -> Self {
        self.bring_back.push((guest.to_owned(), Target::Memory));
        self
    }

    /// Brings a file of the guest back to a path of the host when the command has ended.
    #[must_use]
    pub fn bring_back_to(mut self, guest: &str, host: &Path) -> Self {
        self.bring_back.push((guest.to_owned(), Target::File(host.to_owned())));
        self
    }

    /// Sets an environment variable of the command.
    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Does not take a finding of the kernel for a failure whose text contains this.
    #[must_use]
    pub fn allow_warning(mut self, part: &str) -> Self {
        self.allowed_warnings.push(part.to_owned());
        self
    }

    /// Writes the kernel's log to this file while the machine runs.
    #[must_use]
    pub fn kernel_log(mut self, path: &Path) -> Self {
        self.kernel_log = Some(path.to_owned());
        self
    }

    /// The longest that the run may take, from the start of QEMU on.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Told what is fetched, if something is; by default lines on standard error.
    #[must_use]
    pub fn watched_by(mut self, progress: Arc<dyn Progress + Send + Sync>) -> Self {
        self.progress = progress;
        self
    }

    /// The command and its arguments. A path to an executable file of the host is put into the guest;
    /// anything else is a program of the guest.
    #[must_use]
    pub fn command(mut self, command: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.command = command.into_iter().map(Into::into).collect();
        self
    }
}
