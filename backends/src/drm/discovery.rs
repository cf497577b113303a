//! Finding the devices of a backend.

use std::sync::Arc;

use devmem_provider::{Error, ErrorKind, Provider, Request, Result};

use super::gpu::{Driver, Gpu};
use super::nodes::{self, Nodes};

/// Finds every device of a driver and tries it: it has allocated and exported once.
///
/// One device bears the backend's name; several are numbered in the order of their PCI addresses.
pub(crate) fn discover<D: Driver>() -> Result<Vec<Arc<dyn Provider>>> {
    let devices: Vec<Nodes> = nodes::list()?.into_iter().filter(|nodes| nodes.driver == D::DRIVER).collect();
    let mut providers: Vec<Arc<dyn Provider>> = Vec::new();
    let mut first_failure = None;
    for (index, nodes) in devices.iter().enumerate() {
        let name = if devices.len() == 1 { D::BACKEND.to_owned() } else { format!("{}:{index}", D::BACKEND) };
        match try_out::<D>(nodes, name) {
            Ok(gpu) => providers.push(Arc::new(gpu)),
            Err(error) => {
                first_failure.get_or_insert(error);
            }
        }
    }
    if !providers.is_empty() {
        return Ok(providers);
    }
    Err(first_failure.unwrap_or_else(|| {
        Error::new(ErrorKind::Unsupported, format!("find a device of {}", D::DRIVER))
            .because("no device of this machine is bound to that kernel driver")
            .remedy(format!("load the module {}", D::DRIVER.replace('-', "_")))
    }))
}

fn try_out<D: Driver>(nodes: &Nodes, name: String) -> Result<Gpu<D>> {
    let gpu = Gpu::<D>::open(nodes, name)?;
    gpu.allocate(&Request::bytes(gpu.smallest()))?.export()?;
    Ok(gpu)
}

/// What a user's selector means if no backend serves it: the driver of a node or of a PCI address.
pub(crate) fn describe(selector: &str) -> Option<String> {
    let nodes = nodes::list().ok()?.into_iter().find(|nodes| nodes.matches(selector))?;
    Some(nodes.driver)
}
