//! Options that describe a machine, and where its parts come from.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{ArgAction, Args};
use devmem_lab::{Accelerator, Flavour, Lab, Machine, Result, Source, Topology};

use super::progress::Bars;

/// Where packages come from and where they are kept.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Packages")]
pub(crate) struct SourceOptions {
    /// Address of a Debian mirror [default: the one that this machine's own apt uses]
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// Keys that sign the mirror's archive [default: those of the package debian-archive-keyring]
    #[arg(long, value_name = "FILE")]
    keyring: Option<PathBuf>,
    /// Suite to take packages from; may be repeated, later ones are preferred [default: trixie,
    /// trixie-backports]
    #[arg(long = "suite", value_name = "NAME")]
    suites: Vec<String>,
    /// Folder for what is fetched [default: $DEVMEM_LAB_CACHE, $XDG_CACHE_HOME/devmem-lab or
    /// ~/.cache/devmem-lab]
    #[arg(long, value_name = "FOLDER")]
    cache: Option<PathBuf>,
}

impl SourceOptions {
    pub(crate) fn lab(&self) -> Result<Lab> {
        let source = Source {
            mirror: self.mirror.clone(),
            keyring: self.keyring.clone(),
            suites: self.suites.clone(),
        };
        Lab::open(self.cache.as_deref(), source)
    }
}

/// Which kernel.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Kernel")]
pub(crate) struct KernelOptions {
    /// A version (6.12, 7.2.12), a release as `cargo lab kernels` lists it, or the path of an own image
    /// [default: the newest in the cache of at least 7.2, else the newest on offer]
    #[arg(long, value_name = "KERNEL")]
    pub(crate) kernel: Option<String>,
    /// cloud (small) or generic (all drivers) [default: cloud; generic if there is an emulated GPU or Vulkan]
    #[arg(long, value_name = "NAME")]
    pub(crate) flavour: Option<Flavour>,
}

/// A machine.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Machine")]
pub(crate) struct MachineOptions {
    /// Adds an emulated NIC: gve, or with settings gve:queues=8,mtu=9000. The first is eth0 with
    /// 10.77.0.1 and fd77::1; the second is eth1 in the network namespace "peer" with 10.77.0.2 and fd77::2
    /// [default: two gve]
    #[arg(long = "nic", value_name = "CARD")]
    nics: Vec<String>,
    /// No network cards at all
    #[arg(long, conflicts_with = "nics")]
    no_nic: bool,
    /// Adds an emulated GPU, named by the kernel driver that binds to it, and its part: amdgpu, i915 (tgl), i915:dg1,
    /// i915:dg2, xe (bmg), xe:dg1, xe:dg2, nouveau (gp107), nouveau:gm107, nouveau:nv44, nouveau:tu117, virtio-gpu; with
    /// settings amdgpu:vram=512M,window=128M. May be repeated
    #[arg(long = "gpu", value_name = "GPU")]
    gpus: Vec<String>,
    /// Adds an emulated RDMA device: efa, or with settings efa:mtu=4096,rdma-write=off. Its driver, which the distribution
    /// has as source only, is built once for each kernel. May be repeated
    #[arg(long = "rdma", value_name = "CARD")]
    rdma: Vec<String>,
    /// Puts Vulkan into the guest: the loader, lavapipe, Mesa's drivers of the emulated GPUs, the validation layer, which
    /// is off unless it is asked for, and vulkaninfo
    #[arg(long)]
    vulkan: bool,
    /// Where the cards sit on PCI Express: root-bus, root-ports (each behind its own), switch or switch-acs (all
    /// behind one, whose ports pass requests between them or redirect them to the root)
    #[arg(long, value_name = "NAME", default_value = "root-bus")]
    topology: Topology,
    /// Puts an IOMMU between the cards and memory
    #[arg(long)]
    iommu: bool,
    /// Faults of the switch between the NICs, such as drop=0.01,reorder=0.01,seed=7
    #[arg(long, value_name = "FAULTS")]
    switch: Option<String>,
    /// The guest's memory, such as 2G or 768M [default: 1G, more if large files are put into the guest]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    memory: Option<u64>,
    /// Number of processors
    #[arg(long, value_name = "N", default_value_t = 2)]
    cpus: u32,
    /// QEMU's model of the processor [default: host with KVM, max without]
    #[arg(long, value_name = "MODEL")]
    cpu: Option<String>,
    /// auto, kvm or tcg; auto tries once whether KVM works here
    #[arg(long, value_name = "NAME", default_value = "auto")]
    accelerator: Accelerator,
    /// A QEMU of your own (10.1 or newer) instead of the fetched one
    #[arg(long, value_name = "PATH")]
    qemu: Option<PathBuf>,
    /// The folder lib/modules/RELEASE of an own kernel
    #[arg(long, value_name = "FOLDER")]
    modules: Option<PathBuf>,
    /// Kernel module to load, with those that it depends on; may be repeated
    #[arg(long = "module", value_name = "NAME")]
    extra_modules: Vec<String>,
    /// A further argument for the kernel; may be repeated
    #[arg(long = "kernel-argument", value_name = "TEXT")]
    kernel_arguments: Vec<String>,
    /// Seconds after which the run is ended as a failure
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=86400))]
    timeout: Option<u64>,
    /// Puts a file or folder of this host into the guest; relative places are in /root, where the command
    /// runs; may be repeated
    #[arg(long = "file", value_name = "HOST[:GUEST]")]
    files: Vec<String>,
    /// Brings a file back when the command has ended; may be repeated
    #[arg(long = "bring-back", value_name = "GUEST[:HOST]")]
    bring_back: Vec<String>,
    /// Sets an environment variable of the command; may be repeated
    #[arg(long = "env", value_name = "NAME=VALUE")]
    environment: Vec<String>,
    /// Does not take a kernel message for a failure that contains this text; may be repeated
    #[arg(long = "allow-warnings", value_name = "TEXT", action = ArgAction::Append)]
    allowed_warnings: Vec<String>,
    /// Writes the kernel's log to a file
    #[arg(long, value_name = "FILE")]
    kernel_log: Option<PathBuf>,
    /// Lets the emulated hardware tell what it does, on standard error
    #[arg(long)]
    trace: bool,
    #[command(flatten)]
    kernel: KernelOptions,
    #[command(flatten)]
    source: SourceOptions,
}

impl MachineOptions {
    /// Whether emulated GPUs were asked for.
    pub(crate) fn has_gpus(&self) -> bool {
        !self.gpus.is_empty()
    }

    /// How many emulated RDMA devices were asked for.
    pub(crate) fn rdma_devices(&self) -> usize {
        self.rdma.len()
    }

    /// Whether it was said what decides of ways between cards: a processor, or places.
    pub(crate) fn has_ways(&self) -> bool {
        self.cpu.is_some() || self.topology != Topology::default()
    }

    /// Whether a machine of its own was described: with GPUs, RDMA devices, Vulkan or kernel modules.
    pub(crate) fn has_parts(&self) -> bool {
        self.has_gpus() || !self.rdma.is_empty() || self.vulkan || !self.extra_modules.is_empty()
    }

    /// Whether a model of the processor was asked for.
    pub(crate) fn has_cpu(&self) -> bool {
        self.cpu.is_some()
    }

    /// Whether RDMA devices were asked for.
    pub(crate) fn has_rdma(&self) -> bool {
        !self.rdma.is_empty()
    }

    /// Whether a flavour of the kernel was asked for.
    pub(crate) fn has_flavour(&self) -> bool {
        self.kernel.flavour.is_some()
    }

    /// The emulated GPUs that were asked for.
    pub(crate) fn gpus(&self) -> impl Iterator<Item = &str> {
        self.gpus.iter().map(String::as_str)
    }

    /// The machine without a command; the time that it may take if nothing else is said is `timeout`.
    pub(crate) fn machine(&self, timeout: Duration) -> Result<Machine> {
        self.machine_with(&["gve", "gve"], timeout)
    }

    /// How many processors the machine has.
    pub(crate) fn cpus(&self) -> u32 {
        self.cpus
    }

    /// As [`machine`](Self::machine), with other cards if none are asked for.
    pub(crate) fn machine_with(&self, default_nics: &[&str], timeout: Duration) -> Result<Machine> {
        let mut machine = Machine::new()
            .lab(self.source.lab()?)
            .watched_by(Arc::new(Bars::new()))
            .accelerator(self.accelerator)
            .cpus(self.cpus)
            .topology(self.topology)
            .trace(self.trace)
            .timeout(self.timeout.map_or(timeout, Duration::from_secs));
        let asked: Vec<&str> = self.nics.iter().map(String::as_str).collect();
        let nics = if asked.is_empty() && !self.no_nic { default_nics } else { &asked };
        machine = nics.iter().fold(machine, |machine, nic| machine.nic(nic));
        machine = self.gpus.iter().fold(machine, |machine, gpu| machine.gpu(gpu));
        machine = self.rdma.iter().fold(machine, |machine, rdma| machine.rdma(rdma));
        if self.iommu {
            machine = machine.iommu();
        }
        if self.vulkan {
            machine = machine.vulkan();
        }
        if let Some(flavour) = self.kernel.flavour {
            machine = machine.flavour(flavour);
        }
        if let Some(faults) = &self.switch {
            machine = machine.switch(faults);
        }
        if let Some(kernel) = &self.kernel.kernel {
            machine = machine.kernel(kernel);
        }
        if let Some(memory) = self.memory {
            machine = machine.memory(memory);
        }
        if let Some(cpu) = &self.cpu {
            machine = machine.cpu(cpu);
        }
        if let Some(qemu) = &self.qemu {
            machine = machine.qemu(qemu);
        }
        if let Some(modules) = &self.modules {
            machine = machine.own_modules(modules);
        }
        if let Some(log) = &self.kernel_log {
            machine = machine.kernel_log(log);
        }
        machine = self.extra_modules.iter().fold(machine, |machine, name| machine.module(name));
        machine = self.kernel_arguments.iter().fold(machine, |machine, text| machine.kernel_argument(text));
        machine = self.allowed_warnings.iter().fold(machine, |machine, text| machine.allow_warning(text));
        for file in &self.files {
            let (host, guest) = file.split_once(':').unwrap_or((file, ""));
            machine = machine.file(Path::new(host), guest);
        }
        for file in &self.bring_back {
            let (guest, host) = file.split_once(':').unwrap_or((file, ""));
            machine = machine.bring_back_to(guest, &place_here(guest, host)?);
        }
        for variable in &self.environment {
            let (name, value) = variable.split_once('=').ok_or_else(|| devmem_lab::Error::Option {
                option: format!("--env {variable}"),
                reason: "must be NAME=VALUE".into(),
            })?;
            machine = machine.environment(name, value);
        }
        Ok(machine)
    }
}

/// Where a file from the guest goes on the host: by default here, under its own name.
fn place_here(guest: &str, host: &str) -> Result<PathBuf> {
    let name = Path::new(guest).file_name().ok_or_else(|| devmem_lab::Error::Option {
        option: format!("--bring-back {guest}"),
        reason: "names no file".into(),
    })?;
    let host = Path::new(if host.is_empty() { "." } else { host });
    Ok(if host.is_dir() { host.join(name) } else { host.to_owned() })
}

/// Reads `2G`, `768M`, or a number of MiB.
fn parse_size(text: &str) -> std::result::Result<u64, String> {
    let (number, unit) = match text.char_indices().last() {
        Some((at, 'G' | 'g')) => (&text[..at], 1 << 30),
        Some((at, 'M' | 'm')) => (&text[..at], 1 << 20),
        _ => (text, 1 << 20),
    };
    let number: u64 = number.parse().map_err(|_| "is no size such as 2G or 768M".to_owned())?;
    number.checked_mul(unit).ok_or_else(|| "is larger than any machine".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        assert_eq!(parse_size("2G"), Ok(2 << 30));
        assert_eq!(parse_size("768M"), Ok(768 << 20));
        assert_eq!(parse_size("512"), Ok(512 << 20));
        for wrong in ["", "G", "2T", "-1", "1.5G", "é", "99999999999999G"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn files_come_back_under_their_own_name_unless_told_otherwise() {
        assert_eq!(place_here("/tmp/result.json", "").unwrap(), Path::new("./result.json"));
        assert_eq!(place_here("result.json", "/tmp").unwrap(), Path::new("/tmp/result.json"));
        assert_eq!(place_here("result.json", "/tmp/other.json").unwrap(), Path::new("/tmp/other.json"));
        assert!(place_here("/", "").is_err());
    }
}
