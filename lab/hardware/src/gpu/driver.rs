//! What a guest needs so that the kernel's driver binds to an emulated GPU.

use super::{GpuConfig, Part, amd, intel, nvidia, virtio};
use crate::config::{ConfigError, error};

/// A driver, as a module of the guest's kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Driver {
    /// The module's name.
    pub module: &'static str,
    /// Its parameters: name and value.
    pub parameters: Vec<(&'static str, String)>,
    /// Files that it loads from `/lib/firmware`.
    pub firmware: Vec<Firmware>,
}

/// A file that a driver insists on, though the emulated part executes nothing of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Firmware {
    /// Its path below `/lib/firmware`.
    pub path: String,
    /// What is in it.
    pub content: Vec<u8>,
}

/// Parameters that take several values, divided by commas.
const LISTS: [&str; 1] = ["force_probe"];

/// The drivers that these GPUs need, each module once, in the order of the GPUs.
///
/// # Errors
/// [`ConfigError`] when two GPUs want the same parameter with different values.
pub(crate) fn drivers(gpus: &[GpuConfig]) -> Result<Vec<Driver>, ConfigError> {
    let mut merged: Vec<Driver> = Vec::new();
    for gpu in gpus {
        for driver in of(gpu) {
            match merged.iter_mut().find(|known| known.module == driver.module) {
                Some(known) => known.add(driver, gpu)?,
                None => merged.push(driver),
            }
        }
    }
    for gpu in gpus {
        if let Some((module, name, value)) = rival(gpu)
            && let Some(known) = merged.iter_mut().find(|known| known.module == module)
        {
            known.add(Driver { module, parameters: vec![(name, value)], firmware: Vec::new() }, gpu)?;
        }
    }
    Ok(merged)
}

/// What one GPU needs.
fn of(gpu: &GpuConfig) -> Vec<Driver> {
    match gpu.part {
        Part::Hainan => amd::drivers(gpu),
        Part::TigerLake | Part::Dg1 | Part::Dg2 | Part::Battlemage => intel::drivers(gpu),
        Part::Nv44 | Part::Gm107 | Part::Gp107 | Part::Tu117 => nvidia::drivers(gpu),
        Part::VirtioGpu => virtio::drivers(gpu),
    }
}

/// A module that would take a GPU from its own driver, if another GPU has it loaded, and the parameter that
/// keeps it away.
fn rival(gpu: &GpuConfig) -> Option<(&'static str, &'static str, String)> {
    match gpu.part {
        Part::TigerLake | Part::Dg1 | Part::Dg2 | Part::Battlemage => intel::rival(gpu),
        _ => None,
    }
}

impl Driver {
    fn add(&mut self, other: Driver, gpu: &GpuConfig) -> Result<(), ConfigError> {
        for (name, value) in other.parameters {
            match self.parameters.iter_mut().find(|(known, _)| *known == name) {
                None => self.parameters.push((name, value)),
                Some((_, known)) if *known == value => {}
                Some((_, known)) if LISTS.contains(&name) => {
                    if !known.split(',').any(|one| one == value) {
                        *known = format!("{known},{value}");
                    }
                }
                Some((_, known)) => {
                    let setting = format!("{gpu}: parameter {name} of {}", self.module);
                    return Err(error(&setting, value, &format!("{known}, which another GPU needs")));
                }
            }
        }
        for file in other.firmware {
            if !self.firmware.contains(&file) {
                self.firmware.push(file);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn driver(parameters: &[(&'static str, &str)]) -> Driver {
        let parameters = parameters.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Driver { module: "xe", parameters, firmware: Vec::new() }
    }

    #[test]
    fn parameters_of_several_gpus_are_merged() {
        let gpu: GpuConfig = "xe:dg2".parse().unwrap();
        let mut merged = driver(&[("force_probe", "56a0"), ("force_execlist", "1")]);
        merged.add(driver(&[("force_execlist", "1"), ("force_probe", "4905")]), &gpu).unwrap();
        merged.add(driver(&[("force_probe", "4905")]), &gpu).unwrap();
        assert_eq!(merged, driver(&[("force_probe", "56a0,4905"), ("force_execlist", "1")]));
        let error = merged.add(driver(&[("force_execlist", "0")]), &gpu).unwrap_err().to_string();
        assert!(error.starts_with("xe:dg2: parameter force_execlist of xe"), "{error}");
    }

    #[test]
    fn a_driver_is_kept_away_only_where_it_is_loaded() {
        let of = |gpus: &[&str]| {
            drivers(&gpus.iter().map(|gpu| gpu.parse().unwrap()).collect::<Vec<_>>()).unwrap()
        };
        let alone = of(&["xe:dg2"]);
        assert_eq!(alone.iter().map(|driver| driver.module).collect::<Vec<_>>(), ["xe"]);
        let both = of(&["xe:dg2", "i915:tgl", "xe:dg1"]);
        assert_eq!(both[0].parameters[0], ("force_probe", "56a0,4905".to_owned()));
        assert_eq!(both[1].parameters, [("force_probe", "!56a0,!4905".to_owned())]);
    }
}
