//! The emulated hardware, configured from the words of a command line.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::mpsc::channel;
use std::time::Duration;

use devmem_lab_hardware::{
    ConfigError, Driver, GpuConfig, Hardware, HardwareConfig, NicConfig, RdmaConfig, SwitchFaults,
};

use crate::error::{Error, Result};

const LONGEST_STOP: Duration = Duration::from_secs(10);

/// Reads what was asked for.
pub(super) fn configure(
    nics: &[String],
    gpus: &[String],
    rdma: &[String],
    faults: Option<&str>,
    trace: bool,
) -> Result<HardwareConfig> {
    let nics = parse_all::<NicConfig>("--nic", nics)?;
    let gpus = parse_all::<GpuConfig>("--gpu", gpus)?;
    let rdma = parse_all::<RdmaConfig>("--rdma", rdma)?;
    let faults = match faults {
        None => SwitchFaults::default(),
        Some(text) => {
            text.parse().map_err(|error| Error::option(format!("--switch {text}"), format!("{error}")))?
        }
    };
    let configuration = HardwareConfig { nics, gpus, rdma, faults, trace };
    gpu_drivers(&configuration)?;
    Ok(configuration)
}

fn parse_all<C: FromStr<Err = ConfigError>>(option: &str, texts: &[String]) -> Result<Vec<C>> {
    let parse = |text: &String| {
        text.parse()
            .map_err(|error: ConfigError| Error::option(format!("{option} {text}"), error.to_string()))
    };
    texts.iter().map(parse).collect()
}

/// The drivers that the emulated GPUs need.
pub(super) fn gpu_drivers(configuration: &HardwareConfig) -> Result<Vec<Driver>> {
    configuration.gpu_drivers().map_err(|error| Error::option("--gpu", error.to_string()))
}

/// Starts it, with its sockets in `folder`, and tells where they are.
pub(super) fn start(configuration: &HardwareConfig, folder: &Path) -> Result<(Hardware, Vec<PathBuf>)> {
    let hardware =
        Hardware::start(configuration, folder).map_err(|error| Error::Hardware(error.to_string()))?;
    let sockets = hardware.functions().iter().map(|function| function.socket.clone()).collect();
    Ok((hardware, sockets))
}

/// Ends it. A run always ends, so the threads of the hardware are not waited for without a limit.
pub(super) fn stop(hardware: Hardware) {
    let (sender, stopped) = channel();
    std::thread::spawn(move || {
        drop(hardware);
        // Nobody may be waiting any more.
        let _ = sender.send(());
    });
    if stopped.recv_timeout(LONGEST_STOP).is_err() {
        eprintln!("devmem-lab: the emulated hardware did not stop");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_setting_is_named_with_its_option() {
        let configuration = configure(
            &["gve:queues=8".into(), "gve".into()],
            &["amdgpu".into()],
            &["efa:mtu=1024".into()],
            Some("drop=0.5,seed=1"),
            false,
        )
        .unwrap();
        assert_eq!(configuration.nics[0].queue_pairs, 8);
        assert_eq!(configuration.rdma[0].mtu, 1024);
        assert!((configuration.faults.drop - 0.5).abs() < f64::EPSILON);
        let error = configure(&["e1000".into()], &[], &[], None, false).unwrap_err().to_string();
        assert!(error.starts_with("--nic e1000: "), "{error}");
        let error = configure(&[], &["radeon".into()], &[], None, false).unwrap_err().to_string();
        assert!(error.starts_with("--gpu radeon: "), "{error}");
        let error = configure(&[], &[], &["mlx5".into()], None, false).unwrap_err().to_string();
        assert!(error.starts_with("--rdma mlx5: "), "{error}");
        let error = configure(&[], &[], &[], Some("drop"), false).unwrap_err().to_string();
        assert!(error.starts_with("--switch drop: "), "{error}");
    }
}
