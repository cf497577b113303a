//! Puts a described machine together and runs it.

use std::fs::File;
use std::path::{Path, PathBuf};

use devmem_lab_hardware::{Driver, HardwareConfig};

use super::builder::{Input, Machine, Streams};
use super::emulator::{Configuration, Program};
use super::guest_files::{Content, resolve_command};
use super::hardware;
use super::outcome::Outcome;
use super::session::Session;
use super::workspace::Workspace;
use crate::driver::EFA;
use crate::error::{Context, Error, Result};
use crate::fetch::{Lab, RDMA, Source, TOOLS, Unpacked, VULKAN, own_kernel};
use crate::initramfs::base::base;
use crate::initramfs::cached::CachedArchive;
use crate::initramfs::{rdma, vulkan};
use crate::kernel::Kernel;
use crate::kernel::modules::{Module, Modules};
use crate::kernel::names::Flavour;
use crate::packages::Progress;
use crate::protocol::description::{KernelModule, Run, WindowSize};

const MEBIBYTE: u64 = 1 << 20;

/// Kernel modules with the drivers of the emulated NICs.
const NIC_DRIVERS: [&str; 1] = ["gve"];

/// Kernel modules with the driver of emulated RDMA devices, and with what programs use them by.
const RDMA_DRIVERS: [&str; 2] = [EFA.module, "ib_uverbs"];

/// Lets the guest's root hold large files in huge pages, which makes unpacking Vulkan a quarter faster. Kernels that
/// do not know it take it for a variable of the first process.
const HUGE_PAGES: &str = "transparent_hugepage_tmpfs=within_size";

impl Machine {
    pub(super) fn progress(&self) -> &dyn Progress {
        self.progress.as_ref()
    }

    /// The same machine without cards, with a command that does nothing.
    pub(super) fn trial(&self) -> Self {
        let kept = self.clone();
        Self {
            nics: Vec::new(),
            gpus: Vec::new(),
            rdma: Vec::new(),
            vulkan: false,
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
        self.configure()?;
        let lab = self.find_lab()?;
        match &self.qemu {
            Some(path) => Program::Own(path.clone()).check()?,
            None => drop(lab.packages(&TOOLS, self.progress())?),
        }
        if self.vulkan {
            drop(lab.packages(&VULKAN, self.progress())?);
        }
        if !self.rdma.is_empty() {
            drop(lab.packages(&RDMA, self.progress())?);
        }
        let kernel = self.find_kernel(&lab)?;
        self.rdma_driver(&lab, &kernel)?;
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
            None => Program::Unpacked(lab.packages(&TOOLS, self.progress())?.root.clone()).path(),
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
        let devices = self.configure()?;
        let lab = self.find_lab()?;
        let tools = if self.qemu.is_some() { None } else { Some(lab.packages(&TOOLS, self.progress())?) };
        let qemu = match (&self.qemu, &tools) {
            (Some(path), _) => Program::Own(path.clone()),
            (None, Some(tools)) => Program::Unpacked(tools.root.clone()),
            (None, None) => return Err(Error::Machine("there is no QEMU".into())),
        };
        let vulkan = if self.vulkan { Some(lab.packages(&VULKAN, self.progress())?) } else { None };
        let has_rdma = !self.rdma.is_empty();
        let rdma = if has_rdma { Some(lab.packages(&RDMA, self.progress())?) } else { None };
        let kernel = self.find_kernel(&lab)?;
        let accelerator = self.accelerator.decide(self, lab.cache())?;

        let (program, command_file) = resolve_command(program)?;
        let mut files = self.files.clone();
        files.extend(command_file);
        let drivers = hardware::gpu_drivers(&devices)?;
        let modules = self.find_modules(&lab, &kernel, &drivers)?;
        let run = Run {
            modules: modules.iter().map(|module| kernel_module(module, &drivers)).collect(),
            network_cards: self.nics.len(),
            command: std::iter::once(program).chain(arguments.iter().cloned()).collect(),
            environment: self.environment.clone(),
            terminal: terminal_size(&streams.input),
            bring_back: self.bring_back.iter().map(|(path, _)| path.clone()).collect(),
        };
        let archives = archives(&lab, tools.as_ref(), (vulkan.as_ref(), rdma.as_ref()), &drivers)?;
        let agent = std::env::current_exe().context(|| "find this program's own file".into())?;
        let content = Content {
            archives: &archives,
            run: &run,
            agent: &agent,
            files: &files,
            modules: &modules,
            drivers: &drivers,
        };
        let initramfs = content.write()?;
        let mut kernel_arguments = self.kernel_arguments.clone();
        kernel_arguments.extend(arguments_of_built_in(&drivers, &modules));
        if self.vulkan {
            kernel_arguments.push(HUGE_PAGES.to_owned());
        }
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
            one_thread: self.one_thread,
            memory,
            kernel: &kernel.image,
            kernel_arguments: &kernel_arguments.join(" "),
            initramfs: &initramfs,
            functions: &functions,
            topology: self.topology,
            iommu: self.iommu,
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
            wish => lab.kernel(wish, self.needed_flavour(), self.progress()),
        }
    }

    fn needed_flavour(&self) -> Flavour {
        let needs_all_drivers = self.vulkan || !self.gpus.is_empty();
        let needed = if needs_all_drivers { Flavour::Generic } else { Flavour::default() };
        self.flavour.unwrap_or(needed)
    }

    fn configure(&self) -> Result<HardwareConfig> {
        hardware::configure(&self.nics, &self.gpus, &self.rdma, self.switch.as_deref(), self.trace)
    }

    /// The driver of emulated RDMA devices, if there are any and the kernel does not come with it.
    fn rdma_driver(&self, lab: &Lab, kernel: &Kernel) -> Result<Option<PathBuf>> {
        if self.rdma.is_empty() || kernel.modules.is_none() || kernel.has_module(EFA.module)? {
            return Ok(None);
        }
        lab.driver(&EFA, kernel, self.progress()).map(Some)
    }

    fn find_modules(&self, lab: &Lab, kernel: &Kernel, drivers: &[Driver]) -> Result<Vec<Module>> {
        let mut names = self.modules.clone();
        let is_own = kernel.modules.is_none();
        if !self.nics.is_empty() && !is_own {
            names.extend(NIC_DRIVERS.map(str::to_owned));
        }
        if !self.rdma.is_empty() && !is_own {
            names.extend(RDMA_DRIVERS.map(str::to_owned));
        }
        if !is_own {
            names.extend(drivers.iter().map(|driver| driver.module.to_owned()));
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
        let mut modules = Modules::find(folder, decompressed)?;
        if let Some(driver) = self.rdma_driver(lab, kernel)? {
            modules.add(driver);
        }
        modules.in_order(&names)
    }

    /// The archive lies in memory once as it is and once unpacked, where it may take half of the rest: the kernel unpacks
    /// into a tmpfs (`init/do_mounts.c`) with that limit (`shmem_default_max_blocks()`).
    fn memory_for(&self, initramfs: &File) -> Result<u64> {
        let files = initramfs.metadata().context(|| "measure the guest's files".into())?.len();
        let needed = 3 * files + 256 * MEBIBYTE;
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

/// The parts of the guest's file system that change rarely, in order.
fn archives(
    lab: &Lab,
    tools: Option<&Unpacked>,
    (vulkan, rdma): (Option<&Unpacked>, Option<&Unpacked>),
    drivers: &[Driver],
) -> Result<Vec<CachedArchive>> {
    let tools = tools.map(|tools| tools.root.as_path());
    let vulkan = vulkan.map(|vulkan| vulkan.root.as_path());
    let base = base(lab.cache(), tools, vulkan)?;
    let kernel_drivers: Vec<&str> = drivers.iter().map(|driver| driver.module).collect();
    let mut added = match vulkan {
        Some(packages) => vulkan::archives(packages, &base, &kernel_drivers)?,
        None => Vec::new(),
    };
    if let Some(packages) = rdma {
        added.push(rdma::archive(&packages.root, &base)?);
    }
    Ok(std::iter::once(base).chain(added).collect())
}

/// The size of the terminal that the input comes from, if it comes from one.
pub(super) fn terminal_size(input: &Input) -> Option<WindowSize> {
    let Input::Terminal(terminal) = input else { return None };
    Some(super::sys::window_size(terminal).unwrap_or(WindowSize { rows: 24, columns: 80 }))
}

/// A module with the parameters that an emulated GPU needs.
fn kernel_module(module: &Module, drivers: &[Driver]) -> KernelModule {
    let driver = drivers.iter().find(|driver| driver.module == module.name);
    let parameters = driver.map_or(&[][..], |driver| &driver.parameters);
    let parameters: Vec<String> = parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
    KernelModule { name: module.name.clone(), parameters: parameters.join(" ") }
}

/// Parameters of drivers that are built into the kernel, as arguments of the kernel.
fn arguments_of_built_in(drivers: &[Driver], modules: &[Module]) -> Vec<String> {
    let built_in = drivers.iter().filter(|driver| modules.iter().all(|module| module.name != driver.module));
    let arguments = |driver: &Driver| -> Vec<String> {
        let parameters = driver.parameters.iter();
        parameters.map(|(name, value)| format!("{}.{name}={value}", driver.module)).collect()
    };
    built_in.flat_map(arguments).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_get_their_parameters_built_in_or_not() {
        let parameters = vec![("dpm", "0".to_owned()), ("runpm", "0".to_owned())];
        let drivers = [Driver { module: "amdgpu", parameters, firmware: Vec::new() }];
        let module = |name: &str| Module { name: name.to_owned(), path: PathBuf::new() };
        assert_eq!(kernel_module(&module("amdgpu"), &drivers).parameters, "dpm=0 runpm=0");
        assert_eq!(kernel_module(&module("drm"), &drivers).parameters, "");
        assert_eq!(arguments_of_built_in(&drivers, &[module("drm")]), ["amdgpu.dpm=0", "amdgpu.runpm=0"]);
        assert!(arguments_of_built_in(&drivers, &[module("amdgpu")]).is_empty());
    }
}
