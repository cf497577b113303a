//! Which RDMA devices there are.

use std::path::Path;

use devmem_provider::ErrorKind;
use devmem_receive::rdma::Device;

use crate::harness::{Outcome, ensure};
use crate::setup::{DEVICE, PLAIN_DEVICE};

pub(crate) fn they_are_listed() -> Outcome {
    let devices = Device::all()?;
    let names: Vec<_> = devices.iter().map(|device| device.name.as_str()).collect();
    ensure!(names.starts_with(&[DEVICE, PLAIN_DEVICE]), "{names:?}");
    for device in devices.iter().filter(|device| device.name.starts_with("efa")) {
        ensure!(device.driver.as_deref() == Some("efa") && device.pci.is_some(), "{device:?}");
        ensure!(device.node.as_deref().is_some_and(Path::exists), "{device:?}");
        let [port] = device.ports.as_slice() else { return Err(format!("{device:?}").into()) };
        ensure!(port.number == 1 && port.is_active && port.state == "ACTIVE", "{port:?}");
        let [gid] = port.gids.as_slice() else { return Err(format!("{port:?}").into()) };
        ensure!(gid.index == 0, "{gid:?}");
    }
    ensure!(devices[0].ports[0].gids != devices[1].ports[0].gids, "both have the same address");
    ensure!(Device::first()?.name == DEVICE, "{}", Device::first()?);
    Ok(())
}

pub(crate) fn they_are_found_by_any_name() -> Outcome {
    let device = Device::find(PLAIN_DEVICE)?;
    let address = device.pci.ok_or("no PCI address")?.to_string();
    let node = device.node.as_ref().ok_or("no node")?.display().to_string();
    for selector in [address.as_str(), address.trim_start_matches("0000:"), node.as_str()] {
        ensure!(Device::find(selector)? == device, "{selector}");
    }
    Ok(())
}

pub(crate) fn one_that_is_not_there_is_told() -> Outcome {
    let error = Device::find("mlx5_0").err().ok_or("it was found")?;
    ensure!(error.kind() == ErrorKind::NotFound && error.to_string().contains(DEVICE), "{error}");
    Ok(())
}
