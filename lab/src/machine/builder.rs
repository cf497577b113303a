//! Describes a machine and runs it.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signalfd::SignalFd;

use super::accelerator::Accelerator;
use super::emulator::{Configuration, Program};
use super::guest_files::{Content, GuestFile, resolve_command};
use super::hardware;
use super::outcome::Outcome;
use super::session::{Session, Target};
use super::workspace::Workspace;
use crate::error::{Context, Error, Result};
use crate::fetch::{Lab, Source, own_kernel};
use crate::initramfs::base::base;
use crate::kernel::Kernel;
use crate::kernel::modules::Modules;
use crate::kernel::names::Flavour;
use crate::packages::{LinesOnStandardError, Progress};
use crate::protocol::description::{Run, WindowSize};

const MEBIBYTE: u64 = 1 << 20;

/// Kernel modules with the drivers of the emulated cards.
const CARD_DRIVERS: [&str; 1] = ["gve"];

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
    lab: Option<Lab>,
    nics: Vec<String>,
    switch: Option<String>,
    trace: bool,
    kernel: Option<String>,
    flavour: Flavour,
    own_modules: Option<PathBuf>,
    qemu: Option<PathBuf>,
    accelerator: Accelerator,
    cpu: Option<String>,
    cpus: u32,
    memory: Option<u64>,
    kernel_arguments: Vec<String>,
    modules: Vec<String>,
    files: Vec<GuestFile>,
    bring_back: Vec<(String, Target)>,
    environment: Vec<(String, String)>,
    allowed_warnings: Vec<String>,
    kernel_log: Option<PathBuf>,
    timeout: Duration,
    command: Vec<String>,
    progress: Arc<dyn Progress + Send + Sync>,
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
            switch: None,
            trace: false,
            kernel: None,
            flavour: Flavour::default(),
            own_modules: None,
            qemu: None,
            accelerator: Accelerator::default(),
            cpu: None,
            cpus: 2,
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

    /// Adds an emulated card: `gve`, or with settings `gve:queues=8`. The first is `eth0`; see the crate's
    /// documentation for the rest.
    #[must_use]
    pub fn nic(mut self, specification: &str) -> Self {
        self.nics.push(specification.to_owned());
        self
    }

    /// Faults of the switch between the cards, such as `drop=0.01,seed=7`.
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

    /// Chooses which of the distribution's configurations the kernel is built with.
    #[must_use]
    pub fn flavour(mut self, flavour: Flavour) -> Self {
        self.flavour = flavour;
        self
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

    /// Brings a file of the guest back into [`Outcome::files`] when the command has ended.
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

    pub(super) fn progress(&self) -> &dyn Progress {
        self.progress.as_ref()
    }

    /// The same machine without cards, with a command that does nothing.
    pub(super) fn trial(&self) -> Self {
        let kept = self.clone();
        Self {
            nics: Vec::new(),
            switch: None,
            files: Vec::new(),
            bring_back: Vec::new(),
            kernel_log: None,
            command: vec!["true".into()],
            ..kept
        }
    }

    /// Fetches what is missing and finds out what this host can do, so that a run begins at once.
    ///
    /// # Errors
    /// When something is missing and cannot be fetched.
    pub fn prepare(&self) -> Result<()> {
        hardware::configure(&self.nics, self.switch.as_deref(), self.trace)?;
        let lab = self.find_lab()?;
        match &self.qemu {
            Some(path) => Program::Own(path.clone()).check()?,
            None => drop(lab.tools(self.progress())?),
        }
        self.find_kernel(&lab)?;
        self.accelerator.decide(self, lab.cache())?;
        Ok(())
    }

    /// The files of this host that the machine is made of: its kernel and its emulator.
    ///
    /// # Errors
    /// When one is missing and cannot be fetched.
    pub fn parts(&self) -> Result<Vec<PathBuf>> {
        let lab = self.find_lab()?;
        let kernel = self.find_kernel(&lab)?.image().to_owned();
        let emulator = match &self.qemu {
            Some(program) => program.clone(),
            None => Program::Unpacked(lab.tools(self.progress())?.root.clone()).path(),
        };
        Ok(vec![kernel, emulator])
    }

    /// Runs the command with no input, and captures its output.
    ///
    /// # Errors
    /// When the machine cannot be put together or started. That the command failed, or the guest's
    /// kernel died, is an [`Outcome`].
    pub fn run(&self) -> Result<Outcome> {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let streams =
            Streams { input: Input::Nothing, output: &mut stdout, error_output: &mut stderr, signals: None };
        let mut outcome = self.run_with(streams)?;
        (outcome.stdout, outcome.stderr) = (stdout, stderr);
        Ok(outcome)
    }

    /// Runs the command with these streams.
    ///
    /// # Errors
    /// As [`Machine::run`], and when a stream cannot be read or written, or a signal ended the run.
    pub fn run_with(&self, streams: Streams<'_>) -> Result<Outcome> {
        let Some((program, arguments)) = self.command.split_first() else {
            return Err(Error::option("COMMAND", "none was given"));
        };
        if self.cpus == 0 {
            return Err(Error::option("--cpus 0", "a machine needs a processor"));
        }
        let devices = hardware::configure(&self.nics, self.switch.as_deref(), self.trace)?;
        let lab = self.find_lab()?;
        let tools = if self.qemu.is_some() { None } else { Some(lab.tools(self.progress())?) };
        let qemu = match (&self.qemu, &tools) {
            (Some(path), _) => Program::Own(path.clone()),
            (None, Some(tools)) => Program::Unpacked(tools.root.clone()),
            (None, None) => return Err(Error::Machine("there is no QEMU".into())),
        };
        let kernel = self.find_kernel(&lab)?;
        let accelerator = self.accelerator.decide(self, lab.cache())?;

        let (program, command_file) = resolve_command(program)?;
        let mut files = self.files.clone();
        files.extend(command_file);
        let modules = self.find_modules(&lab, &kernel)?;
        let run = Run {
            modules: modules.iter().map(|module| module.name.clone()).collect(),
            network_cards: self.nics.len(),
            command: std::iter::once(program).chain(arguments.iter().cloned()).collect(),
            environment: self.environment.clone(),
            terminal: terminal_size(&streams.input),
            bring_back: self.bring_back.iter().map(|(path, _)| path.clone()).collect(),
        };
        let base = base(lab.cache(), tools.as_ref().map(|tools| tools.root.as_path()))?;
        let agent = std::env::current_exe().context(|| "find this program's own file".into())?;
        let content = Content { base: &base, run: &run, agent: &agent, files: &files, modules: &modules };
        let initramfs = content.write()?;
        let memory = self.memory_for(&initramfs)?;

        let log = match &self.kernel_log {
            Some(path) => Some(File::create(path).context(|| format!("create {}", path.display()))?),
            None => None,
        };
        let workspace = Workspace::create()?;
        let (hardware, functions) = hardware::start(&devices, workspace.path())?;
        let configuration = Configuration {
            program: &qemu,
            accelerator,
            cpu: self.cpu.as_deref(),
            cpus: self.cpus,
            memory,
            kernel: &kernel.image,
            kernel_arguments: &self.kernel_arguments.join(" "),
            initramfs: &initramfs,
            functions: &functions,
        };
        let emulator = configuration.start()?;
        drop(initramfs);
        let session = Session::new(emulator, &hardware, streams, self.timeout, &self.bring_back, log);
        let outcome = session.run(kernel.release(), &self.allowed_warnings);
        hardware::stop(hardware);
        outcome
    }

    fn find_lab(&self) -> Result<Lab> {
        match &self.lab {
            Some(lab) => Ok(lab.clone()),
            None => Lab::open(None, Source::default()),
        }
    }

    fn find_kernel(&self, lab: &Lab) -> Result<Kernel> {
        match self.kernel.as_deref() {
            Some(path) if path.contains('/') => own_kernel(Path::new(path), self.own_modules.as_deref()),
            wish => lab.kernel(wish, self.flavour, self.progress()),
        }
    }

    fn find_modules(&self, lab: &Lab, kernel: &Kernel) -> Result<Vec<crate::kernel::modules::Module>> {
        let mut names = self.modules.clone();
        let is_own = kernel.modules.is_none();
        if !self.nics.is_empty() && !is_own {
            names.extend(CARD_DRIVERS.map(str::to_owned));
        }
        // An own kernel without modules has what it needs built in.
        let Some(folder) = kernel.modules.as_ref().filter(|_| !names.is_empty()) else {
            return match names.first() {
                None => Ok(Vec::new()),
                Some(name) => Err(Error::option(
                    format!("kernel module '{name}'"),
                    "this kernel has no modules (--modules)",
                )),
            };
        };
        let decompressed = lab.cache().kernels().join(&kernel.release).join("decompressed");
        Modules::find(folder, decompressed)?.in_order(&names)
    }

    /// The archive lies in memory once as it is and once unpacked.
    fn memory_for(&self, initramfs: &File) -> Result<u64> {
        let files = initramfs.metadata().context(|| "measure the guest's files".into())?.len();
        let needed = 2 * files + 256 * MEBIBYTE;
        match self.memory {
            None => Ok(needed.next_multiple_of(128 * MEBIBYTE).max(1024 * MEBIBYTE)),
            Some(memory) if memory % MEBIBYTE != 0 => {
                Err(Error::option(format!("--memory {memory}"), "must be a multiple of 1 MiB"))
            }
            Some(memory) if memory < needed => Err(Error::option(
                format!("--memory {}M", memory / MEBIBYTE),
                format!("with these files the guest needs at least {}M", needed.div_ceil(MEBIBYTE)),
            )),
            Some(memory) => Ok(memory),
        }
    }
}

/// The size of the terminal that the input comes from, if it comes from one.
pub(super) fn terminal_size(input: &Input) -> Option<WindowSize> {
    let Input::Terminal(terminal) = input else { return None };
    Some(super::sys::window_size(terminal).unwrap_or(WindowSize { rows: 24, columns: 80 }))
}
