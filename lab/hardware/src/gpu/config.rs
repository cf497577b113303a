//! Which GPU to build.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::config::{ConfigError, check, error, for_each_setting};

const MEBIBYTE: u64 = 1 << 20;

/// The kernel driver that shall bind to a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KernelDriver {
    /// `drivers/gpu/drm/amd`
    Amdgpu,
    /// `drivers/gpu/drm/i915`
    I915,
    /// `drivers/gpu/drm/xe`
    Xe,
    /// `drivers/gpu/drm/nouveau`
    Nouveau,
    /// `drivers/gpu/drm/virtio`
    VirtioGpu,
}

/// The part that is emulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// AMD Southern Islands, discrete.
    Hainan,
    /// Intel Tiger Lake, integrated: no memory of its own.
    TigerLake,
    /// Intel DG1, discrete.
    Dg1,
    /// Intel DG2, discrete.
    Dg2,
    /// Intel Battlemage, discrete.
    Battlemage,
    /// NVIDIA NV44 (Curie).
    Nv44,
    /// NVIDIA GM107 (Maxwell).
    Gm107,
    /// NVIDIA GP107 (Pascal).
    Gp107,
    /// NVIDIA TU117 (Turing).
    Tu117,
    /// virtio-gpu with host-visible memory.
    VirtioGpu,
}

/// What can be asked for: driver, name of the part, part, and the MiB of memory it has by default. The first
/// of each driver is the one meant by the driver's name alone.
const PARTS: [(KernelDriver, &str, Part, u64); 12] = [
    (KernelDriver::Amdgpu, "hainan", Part::Hainan, 256),
    (KernelDriver::I915, "tgl", Part::TigerLake, 0),
    (KernelDriver::I915, "dg1", Part::Dg1, 256),
    (KernelDriver::I915, "dg2", Part::Dg2, 1024),
    (KernelDriver::Xe, "bmg", Part::Battlemage, 1024),
    (KernelDriver::Xe, "dg2", Part::Dg2, 1024),
    (KernelDriver::Xe, "dg1", Part::Dg1, 256),
    (KernelDriver::Nouveau, "gp107", Part::Gp107, 256),
    (KernelDriver::Nouveau, "gm107", Part::Gm107, 256),
    (KernelDriver::Nouveau, "tu117", Part::Tu117, 256),
    (KernelDriver::Nouveau, "nv44", Part::Nv44, 256),
    (KernelDriver::VirtioGpu, "host-visible", Part::VirtioGpu, 256),
];

const DRIVERS: [(KernelDriver, &str); 5] = [
    (KernelDriver::Amdgpu, "amdgpu"),
    (KernelDriver::I915, "i915"),
    (KernelDriver::Xe, "xe"),
    (KernelDriver::Nouveau, "nouveau"),
    (KernelDriver::VirtioGpu, "virtio-gpu"),
];

/// An emulated GPU.
///
/// As text: the driver, then after a colon and divided by commas the part and settings, for example `amdgpu`,
/// `i915:dg1`, `xe:bmg,vram=512M,window=256M`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GpuConfig {
    /// Which driver shall bind to it.
    pub driver: KernelDriver,
    /// Which part it is.
    pub part: Part,
    /// `vram`: bytes of memory on the device, a power of two from 64 MiB to 4 GiB; 0 for parts without.
    pub vram: u64,
    /// `window`: bytes of it that the CPU and peers reach, a power of two, at most all.
    pub window: u64,
}

impl KernelDriver {
    /// The driver's own name for itself.
    pub fn name(self) -> &'static str {
        DRIVERS.iter().find(|(driver, _)| *driver == self).map_or("", |(_, name)| name)
    }
}

impl fmt::Display for GpuConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_it = |(driver, _, part, _): &&(KernelDriver, &str, Part, u64)| {
            *driver == self.driver && *part == self.part
        };
        let part = PARTS.iter().find(is_it).map_or("", |(_, name, ..)| name);
        write!(f, "{}:{part}", self.driver.name())
    }
}

impl GpuConfig {
    /// Checks the ranges of the values.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first value that is out of its range.
    pub fn check(&self) -> Result<(), ConfigError> {
        let (vram, window) = (self.vram, self.window);
        if self.part == Part::TigerLake {
            return check("vram", vram == 0 && window == 0, vram, "0: the part has no memory of its own");
        }
        let good = vram.is_power_of_two() && (64 * MEBIBYTE..=4096 * MEBIBYTE).contains(&vram);
        check("vram", good, vram, "a power of two from 64M to 4G")?;
        let good = window.is_power_of_two() && (32 * MEBIBYTE..=vram).contains(&window);
        check("window", good, window, "a power of two from 32M to the size of vram")
    }
}

impl FromStr for GpuConfig {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<GpuConfig, ConfigError> {
        let (driver_name, rest) = text.split_once(':').unwrap_or((text, ""));
        let known = DRIVERS.map(|(_, name)| name).join(", ");
        let driver = DRIVERS.iter().find(|(_, name)| *name == driver_name);
        let (driver, _) = driver.ok_or_else(|| error("driver of a GPU", driver_name, &known))?;
        let parts: Vec<_> = PARTS.iter().filter(|(of, ..)| of == driver).collect();
        let (first, settings) = rest.split_once(',').unwrap_or((rest, ""));
        let (name, settings) = if first.contains('=') { ("", rest) } else { (first, settings) };
        let found = parts.iter().find(|(_, part, ..)| name.is_empty() || *part == name);
        let known = || parts.iter().map(|(_, name, ..)| *name).collect::<Vec<_>>().join(", ");
        let (_, _, part, vram) = found.ok_or_else(|| error("part", name, &known()))?;
        let vram = vram * MEBIBYTE;
        let (mut config, mut window) = (GpuConfig { driver: *driver, part: *part, vram, window: 0 }, None);
        for_each_setting(settings, |name, value| {
            match name {
                "vram" => config.vram = size(name, value)?,
                "window" => window = Some(size(name, value)?),
                _ => return Err(error("setting of a GPU", name, "vram or window")),
            }
            Ok(())
        })?;
        config.window = window.unwrap_or(config.vram);
        config.check()?;
        Ok(config)
    }
}

/// Reads `256M` or `1G`.
fn size(name: &str, value: &str) -> Result<u64, ConfigError> {
    let unit = match value.as_bytes().last() {
        Some(b'M') => MEBIBYTE,
        Some(b'G') => 1024 * MEBIBYTE,
        _ => 0,
    };
    let number = value.get(..value.len().saturating_sub(1)).and_then(|digits| digits.parse::<u64>().ok());
    number
        .and_then(|number| number.checked_mul(unit))
        .filter(|size| *size > 0)
        .ok_or_else(|| error(name, value, "a size such as 256M or 1G"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_from_text() {
        let gpu = |text: &str| text.parse::<GpuConfig>().unwrap();
        assert_eq!(gpu("amdgpu").to_string(), "amdgpu:hainan");
        assert_eq!(gpu("i915").part, Part::TigerLake);
        assert_eq!((gpu("i915:dg1").part, gpu("xe:dg1").driver), (Part::Dg1, KernelDriver::Xe));
        let small = gpu("xe:dg2,vram=512M,window=256M");
        assert_eq!((small.vram, small.window), (512 << 20, 256 << 20));
        assert_eq!(gpu("amdgpu:vram=1G").window, 1 << 30);
        for wrong in [
            "",
            "radeon",
            "amdgpu:vega",
            "amdgpu:vram",
            "amdgpu:vram=100M",
            "amdgpu:window=512M",
            "amdgpu:vram=8G",
            "i915:tgl,vram=64M",
            "amdgpu:colour=red",
            "amdgpu:vram=é",
        ] {
            assert!(wrong.parse::<GpuConfig>().is_err(), "{wrong}");
        }
        let error = "amdgpu:vega".parse::<GpuConfig>().unwrap_err();
        assert_eq!(error.to_string(), "part: \"vega\" is not valid, expected hainan");
    }
}
