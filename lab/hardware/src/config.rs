//! What hardware to build.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ethernet::MacAddress;
use crate::gpu::{Driver, GpuConfig, drivers};

/// The PCI functions of a machine and the network between them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HardwareConfig {
    /// The NICs, in the order of their functions.
    pub nics: Vec<NicConfig>,
    /// The GPUs, in the order of their functions, which come after those of the NICs.
    pub gpus: Vec<GpuConfig>,
    /// The RDMA devices, in the order of their functions, which come last.
    pub rdma: Vec<RdmaConfig>,
    /// What the switch between them does wrong from the start.
    pub faults: SwitchFaults,
    /// Tell standard error about commands, resets and misuse as they happen.
    pub trace: bool,
}

impl HardwareConfig {
    /// The kernel drivers that the GPUs need, each once.
    ///
    /// # Errors
    /// [`ConfigError`] when two GPUs need the same driver with different parameters.
    pub fn gpu_drivers(&self) -> Result<Vec<Driver>, ConfigError> {
        drivers(&self.gpus)
    }
}

/// An emulated gve NIC.
///
/// As text: `gve`, or `gve:` and settings divided by commas, for example
/// `gve:queues=8,mtu=4096,header-split=off`. The settings are named in the fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NicConfig {
    /// `queues`: pairs of a transmit and a receive queue, 1 to 64.
    pub queue_pairs: u16,
    /// `mtu`: the largest that the driver may set, 1280 to 9216. Linux 7.2 also starts with it; drivers that
    /// do not know jumbo frames start with 1500.
    pub mtu: u16,
    /// `mac`: the station address; by default `02:64:6d:00:00:` and the number of the NIC.
    pub mac: Option<MacAddress>,
    /// `header-split=on|off`: whether header split is offered.
    pub header_split: bool,
    /// `header-buffer`: bytes of a header buffer, 64 to 1023.
    pub header_buffer_size: u16,
    /// `min-ring`: the smallest ring, a power of two from 32 on.
    pub minimum_ring_size: u16,
    /// `max-ring`: the largest ring, a power of two up to 4096.
    pub maximum_ring_size: u16,
    /// `flow-rules`: how many flow rules fit; with 0 flow steering is not offered.
    pub flow_rules: u32,
    /// `rss=on|off`: whether the device tells its hash key and table. When off the driver keeps its own
    /// copy of them; it configures them either way.
    pub rss: bool,
    /// `backlog`: KiB of packets that each receive queue holds back while it has no buffers.
    pub backlog_kib: u32,
}

impl Default for NicConfig {
    fn default() -> NicConfig {
        NicConfig {
            queue_pairs: 4,
            mtu: 9000,
            mac: None,
            header_split: true,
            header_buffer_size: 128,
            minimum_ring_size: 64,
            maximum_ring_size: 4096,
            flow_rules: 64,
            rss: true,
            backlog_kib: 16 * 1024,
        }
    }
}

/// An emulated EFA, an RDMA device.
///
/// As text: `efa`, or `efa:` and settings divided by commas, for example `efa:mtu=4096,rdma-write=off`. The settings are
/// named in the fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RdmaConfig {
    /// `mtu`: bytes of a message that is sent, at most, 256 to 9216. RDMA reads and writes are not bound by it.
    pub mtu: u16,
    /// `rdma-read=on|off`: whether RDMA reads are offered, which first devices did not.
    pub rdma_read: bool,
    /// `rdma-write=on|off`: whether RDMA writes are.
    pub rdma_write: bool,
}

impl Default for RdmaConfig {
    fn default() -> RdmaConfig {
        RdmaConfig { mtu: 8928, rdma_read: true, rdma_write: true }
    }
}

/// What the switch does to packets of TCP and UDP.
///
/// Probabilities are from 0 to 1 and hold for each segment on its own: with any fault on, packets
/// handed over for segmentation are segmented before. All other packets (ARP, neighbour discovery,
/// ICMP) pass untouched. The n-th segment from one NIC to another meets the same fate whenever the
/// seed is the same.
///
/// As text: `drop=0.01,reorder=0.01,duplicate=0.001,delay-us=200,seed=7`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SwitchFaults {
    /// `drop`: how probable it is that a segment is lost.
    pub drop: f64,
    /// `reorder`: how probable it is that a segment comes after the one that follows it.
    pub reorder: f64,
    /// `duplicate`: how probable it is that a segment comes twice.
    pub duplicate: f64,
    /// `delay-us`: microseconds that every segment takes, at most one second.
    pub delay_us: u64,
    /// `seed`: of the random decisions.
    pub seed: u64,
}

impl SwitchFaults {
    /// Whether packets may simply pass.
    pub fn none(&self) -> bool {
        self.drop == 0.0 && self.reorder == 0.0 && self.duplicate == 0.0 && self.delay_us == 0
    }

    /// Checks the ranges of the values.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first value that is out of its range.
    pub fn check(&self) -> Result<(), ConfigError> {
        for (name, value) in [("drop", self.drop), ("reorder", self.reorder), ("duplicate", self.duplicate)] {
            check(name, (0.0..=1.0).contains(&value), value, "a probability from 0 to 1")?;
        }
        check("delay-us", self.delay_us <= 1_000_000, self.delay_us, "at most 1000000")
    }
}

impl NicConfig {
    /// Checks the ranges of the values.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first value that is out of its range.
    pub fn check(&self) -> Result<(), ConfigError> {
        let (minimum, maximum) = (self.minimum_ring_size, self.maximum_ring_size);
        check("queues", (1..=64).contains(&self.queue_pairs), self.queue_pairs, "1 to 64")?;
        check("mtu", (1280..=9216).contains(&self.mtu), self.mtu, "1280 to 9216")?;
        let header_range = (64..=1023).contains(&self.header_buffer_size);
        check("header-buffer", header_range, self.header_buffer_size, "64 to 1023")?;
        let ring = |size: u16| size.is_power_of_two() && (32..=4096).contains(&size);
        check("min-ring", ring(minimum), minimum, "a power of two from 32 to 4096")?;
        check("max-ring", ring(maximum), maximum, "a power of two from 32 to 4096")?;
        check("max-ring", maximum >= minimum, maximum, "not less than min-ring")?;
        check("flow-rules", self.flow_rules <= 4096, self.flow_rules, "at most 4096")?;
        let unicast = self.mac.is_none_or(|mac| mac[0] & 1 == 0 && mac != [0; 6]);
        check("mac", unicast, "the given one", "the address of one station")?;
        check("backlog", self.backlog_kib <= 1 << 20, self.backlog_kib, "at most 1048576")
    }
}

/// A configuration that cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {found} is not valid, expected {expected}")]
pub struct ConfigError {
    setting: String,
    found: String,
    expected: String,
}

pub(crate) fn check(
    setting: &str,
    good: bool,
    found: impl fmt::Display,
    expected: &str,
) -> Result<(), ConfigError> {
    if good { Ok(()) } else { Err(error(setting, found, expected)) }
}

pub(crate) fn error(setting: &str, found: impl fmt::Display, expected: &str) -> ConfigError {
    ConfigError { setting: setting.into(), found: format!("\"{found}\""), expected: expected.into() }
}

impl FromStr for NicConfig {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<NicConfig, ConfigError> {
        let (kind, settings) = text.split_once(':').unwrap_or((text, ""));
        check("nic", kind == "gve", kind, "gve, the only kind there is")?;
        let mut config = NicConfig::default();
        for_each_setting(settings, |name, value| {
            match name {
                "queues" => config.queue_pairs = number(name, value)?,
                "mtu" => config.mtu = number(name, value)?,
                "mac" => config.mac = Some(mac_address(value)?),
                "header-split" => config.header_split = switch(name, value)?,
                "header-buffer" => config.header_buffer_size = number(name, value)?,
                "min-ring" => config.minimum_ring_size = number(name, value)?,
                "max-ring" => config.maximum_ring_size = number(name, value)?,
                "flow-rules" => config.flow_rules = number(name, value)?,
                "rss" => config.rss = switch(name, value)?,
                "backlog" => config.backlog_kib = number(name, value)?,
                _ => {
                    let known = "queues, mtu, mac, header-split, header-buffer, min-ring, max-ring, \
                                 flow-rules, rss or backlog";
                    return Err(error("setting of a NIC", name, known));
                }
            }
            Ok(())
        })?;
        config.check()?;
        Ok(config)
    }
}

impl RdmaConfig {
    /// Checks the ranges of the values.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first value that is out of its range.
    pub fn check(&self) -> Result<(), ConfigError> {
        check("mtu", (256..=9216).contains(&self.mtu), self.mtu, "256 to 9216")
    }
}

impl FromStr for RdmaConfig {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<RdmaConfig, ConfigError> {
        let (kind, settings) = text.split_once(':').unwrap_or((text, ""));
        check("rdma", kind == "efa", kind, "efa, the only kind there is")?;
        let mut config = RdmaConfig::default();
        for_each_setting(settings, |name, value| {
            match name {
                "mtu" => config.mtu = number(name, value)?,
                "rdma-read" => config.rdma_read = switch(name, value)?,
                "rdma-write" => config.rdma_write = switch(name, value)?,
                _ => {
                    return Err(error("setting of an RDMA device", name, "mtu, rdma-read or rdma-write"));
                }
            }
            Ok(())
        })?;
        config.check()?;
        Ok(config)
    }
}

impl FromStr for SwitchFaults {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<SwitchFaults, ConfigError> {
        let mut faults = SwitchFaults::default();
        for_each_setting(text, |name, value| {
            match name {
                "drop" => faults.drop = number(name, value)?,
                "reorder" => faults.reorder = number(name, value)?,
                "duplicate" => faults.duplicate = number(name, value)?,
                "delay-us" => faults.delay_us = number(name, value)?,
                "seed" => faults.seed = number(name, value)?,
                _ => return Err(error("fault", name, "drop, reorder, duplicate, delay-us or seed")),
            }
            Ok(())
        })?;
        faults.check()?;
        Ok(faults)
    }
}

pub(crate) fn for_each_setting(
    text: &str,
    mut set: impl FnMut(&str, &str) -> Result<(), ConfigError>,
) -> Result<(), ConfigError> {
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').ok_or_else(|| error("setting", part, "name=value"))?;
        set(name.trim(), value.trim())?;
    }
    Ok(())
}

fn number<T: FromStr>(name: &str, value: &str) -> Result<T, ConfigError> {
    value.parse().map_err(|_| error(name, value, "a number in its range"))
}

fn switch(name: &str, value: &str) -> Result<bool, ConfigError> {
    match value {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(error(name, value, "on or off")),
    }
}

fn mac_address(value: &str) -> Result<MacAddress, ConfigError> {
    let bytes: Option<Vec<u8>> =
        value.split(':').map(|part| u8::from_str_radix(part, 16).ok().filter(|_| part.len() == 2)).collect();
    bytes
        .and_then(|bytes| MacAddress::try_from(bytes).ok())
        .ok_or_else(|| error("mac", value, "six pairs of hexadecimal digits divided by colons"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nics_from_text() {
        assert_eq!("gve".parse(), Ok(NicConfig::default()));
        let nic: NicConfig =
            "gve:queues=8,mtu=4096,header-split=off,mac=02:00:00:00:00:07,rss=off".parse().unwrap();
        assert_eq!((nic.queue_pairs, nic.mtu, nic.header_split, nic.rss), (8, 4096, false, false));
        assert_eq!(nic.mac, Some([2, 0, 0, 0, 0, 7]));
        for wrong in [
            "e1000",
            "gve:queues=0",
            "gve:queues=65",
            "gve:min-ring=100",
            "gve:min-ring=512,max-ring=256",
            "gve:header-split=maybe",
            "gve:mac=02:00",
            "gve:mac=01:00:00:00:00:00",
            "gve:colour=red",
            "gve:mtu",
        ] {
            assert!(wrong.parse::<NicConfig>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn rdma_devices_from_text() {
        assert_eq!("efa".parse(), Ok(RdmaConfig::default()));
        let config: RdmaConfig = "efa:mtu=1024,rdma-write=off".parse().unwrap();
        assert_eq!(config, RdmaConfig { mtu: 1024, rdma_read: true, rdma_write: false });
        for wrong in ["gve", "efa:mtu=100", "efa:queues=1", "efa:rdma-read"] {
            assert!(wrong.parse::<RdmaConfig>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn faults_from_text() {
        let faults: SwitchFaults =
            "drop=0.01,reorder=0.02,duplicate=0.001,delay-us=200,seed=7".parse().unwrap();
        let expected = SwitchFaults { drop: 0.01, reorder: 0.02, duplicate: 0.001, delay_us: 200, seed: 7 };
        assert_eq!(faults, expected);
        assert!(!faults.none());
        assert!("".parse::<SwitchFaults>().unwrap().none());
        for wrong in ["drop=1.5", "drop=NaN", "drop", "delay-us=-1", "delay-us=2000000", "loss=1"] {
            assert!(wrong.parse::<SwitchFaults>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn errors_say_what_to_write() {
        let error = "gve:mtu=100".parse::<NicConfig>().unwrap_err();
        assert_eq!(error.to_string(), "mtu: \"100\" is not valid, expected 1280 to 9216");
    }
}
