//! The result, for programs and for people.

use std::fmt;

use devmem_provider::Identity;
use devmem_provider::device_copy::Worker;
use serde::Serialize;

use super::sweep::Sweep;
use super::ways::Spread;
use crate::arguments::GatherOptions;

/// Rates in MiB/s.
#[derive(Debug, Serialize)]
pub(super) struct Comparison {
    /// Fragments in random order, by the device.
    pub(super) gather: Spread,
    /// All bytes as one fragment, by the device.
    pub(super) contiguous: Spread,
    /// The same by the CPU.
    pub(super) cpu_gather: Spread,
    pub(super) cpu_contiguous: Spread,
}

/// The result, as `--json` prints it. It exists only if everything was verified.
///
/// Keys are only ever added.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    provider: String,
    description: String,
    driver: String,
    driver_version: Option<String>,
    /// Who copied and compared: device or CPU.
    worker: String,
    fragments: u32,
    fragment_bytes: u64,
    bytes: u64,
    seed: u64,
    rounds: u32,
    mib_per_second: Comparison,
    /// Of the medians: what a gather's rate is of a contiguous copy's on the same device, and of the CPU's gather.
    ratio_to_contiguous: f64,
    ratio_to_cpu: f64,
    sweep: Sweep,
    /// The dearest fragment of the sweep against the cheapest.
    sweep_largest_ratio: Option<f64>,
    /// Always true: wrong bytes are an error.
    verified: bool,
    kernel: String,
}

impl Report {
    pub(super) fn new(
        options: &GatherOptions,
        identity: &Identity,
        worker: Worker,
        comparison: Comparison,
        sweep: Sweep,
    ) -> Self {
        let ratio = |of: Spread, to: Spread| of.median / to.median.max(f64::MIN_POSITIVE);
        Self {
            provider: identity.name.clone(),
            description: identity.description.clone(),
            driver: identity.driver.clone(),
            driver_version: identity.driver_version.clone(),
            worker: worker.to_string(),
            fragments: options.fragments,
            fragment_bytes: options.fragment_bytes,
            bytes: u64::from(options.fragments) * options.fragment_bytes,
            seed: options.seed,
            rounds: options.rounds,
            ratio_to_contiguous: ratio(comparison.gather, comparison.contiguous),
            ratio_to_cpu: ratio(comparison.gather, comparison.cpu_gather),
            mib_per_second: comparison,
            sweep_largest_ratio: sweep.largest_ratio(),
            sweep,
            verified: true,
            kernel: crate::receive::kernel_release(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} fragments of {} bytes in random order, {} rounds, kernel {}",
            self.fragments, self.fragment_bytes, self.rounds, self.kernel
        )?;
        let version = self.driver_version.as_deref().unwrap_or_default();
        writeln!(
            f,
            "{}: {}, {} {version}; copies: {}",
            self.provider, self.description, self.driver, self.worker
        )?;
        writeln!(f, "{:<24}{:>30}", "", "MiB/s  min   median      max")?;
        let rates = &self.mib_per_second;
        for (name, rate) in [
            ("gather", rates.gather),
            ("contiguous copy", rates.contiguous),
            ("gather by the CPU", rates.cpu_gather),
            ("contiguous by the CPU", rates.cpu_contiguous),
        ] {
            writeln!(f, "{name:<24}{:>12.1}{:>9.1}{:>9.1}", rate.minimum, rate.median, rate.maximum)?;
        }
        writeln!(
            f,
            "gather / contiguous copy {:.2}, gather / gather by the CPU {:.2}",
            self.ratio_to_contiguous, self.ratio_to_cpu
        )?;
        writeln!(f, "{:<24}{:>30}", "fragments in a batch", "ns/fragment, following   alone")?;
        for row in &self.sweep.rows {
            let (following, alone) = (row.nanoseconds_per_fragment, row.nanoseconds_per_fragment_alone);
            writeln!(f, "{:<24}{:>22.1}{:>8.1}", row.fragments, following.median, alone.median)?;
        }
        if let Some(ratio) = self.sweep_largest_ratio {
            writeln!(f, "the dearest fragment / the cheapest {ratio:.2}")?;
        }
        for left_out in &self.sweep.left_out {
            writeln!(f, "left out: {} fragments: {}", left_out.fragments, left_out.reason)?;
        }
        write!(f, "verified: every gather equals what the CPU computed, compared by the {}", self.worker)
    }
}
