//! `fetch`, `kernels` and `headers`: what comes from the distribution.

use std::io::{Write, stdout};

use anyhow::Result;
use clap::Args;
use devmem_lab::Flavour;

use super::options::{KernelOptions, SourceOptions};
use super::progress::Bars;

/// Fetches QEMU, a kernel and the guest's tools into the cache, or brings them up to date.
///
/// They are packages of the distribution, verified with its keys by apt itself, and unpacked in the cache
/// folder; nothing is installed. What was fetched before is used again, an interrupted fetch goes on
/// where it was, damage is repaired. `run` and `shell` fetch by themselves what is missing.
#[derive(Debug, Args)]
pub(crate) struct Fetch {
    /// Vulkan for the guest too, and the kernel with all drivers
    #[arg(long)]
    vulkan: bool,
    /// The driver of emulated RDMA devices too, built for the kernel from the distribution's source, and rdma-core's
    /// user libraries
    #[arg(long)]
    rdma: bool,
    #[command(flatten)]
    kernel: KernelOptions,
    #[command(flatten)]
    source: SourceOptions,
}

/// Lists the kernels in the cache and on the mirror.
#[derive(Debug, Args)]
pub(crate) struct Kernels {
    /// Only those in the cache, without asking the mirror
    #[arg(long)]
    cached: bool,
    #[command(flatten)]
    source: SourceOptions,
}

/// Fetches the newest kernel's headers for programs, and rdma-core's, and prints the folder that they are in.
///
/// Tests compare the layouts of kernel interfaces with the headers in the folder that UAPI_HEADERS names:
/// UAPI_HEADERS=$(cargo lab headers) cargo test
#[derive(Debug, Args)]
pub(crate) struct Headers {
    #[command(flatten)]
    source: SourceOptions,
}

impl Headers {
    pub(crate) fn execute(&self) -> Result<i32> {
        let folder = self.source.lab()?.headers(&Bars::new())?;
        writeln!(stdout().lock(), "{}", folder.display())?;
        Ok(0)
    }
}

impl Fetch {
    pub(crate) fn execute(&self) -> Result<i32> {
        let lab = self.source.lab()?;
        let needed = if self.vulkan { Flavour::Generic } else { Flavour::default() };
        let flavour = self.kernel.flavour.unwrap_or(needed);
        let wish = self.kernel.kernel.as_deref();
        let kernel = lab.fetch(wish, flavour, self.vulkan, self.rdma, &Bars::new())?;
        let mut out = stdout().lock();
        writeln!(out, "kernel {}", kernel.release())?;
        writeln!(out, "cache  {}", lab.cache().root().display())?;
        Ok(0)
    }
}

impl Kernels {
    pub(crate) fn execute(&self) -> Result<i32> {
        let lab = self.source.lab()?;
        let kernels = lab.kernels(!self.cached, &Bars::new())?;
        let mut out = stdout().lock();
        for kernel in kernels {
            let place = match (kernel.is_cached, kernel.is_offered) {
                (true, Some(true)) => "cached, on offer",
                (true, Some(false)) => "cached, no longer on offer",
                (true, None) => "cached",
                (false, _) => "on offer",
            };
            writeln!(out, "{:<40} {place}", kernel.release)?;
        }
        Ok(0)
    }
}
