//! What NICs tell by ethtool: the versions of their drivers and of their firmware.

use devmem_receive::ethtool::Ethtool;
use devmem_receive::netlink::Route;

use super::Machine;

/// Adds it, for the NICs that have an interface in this network namespace.
pub(super) fn complete(machine: &mut Machine) {
    let (Ok(mut route), Ok(ethtool)) = (Route::open(), Ethtool::open()) else { return };
    for link in route.links().unwrap_or_default() {
        let on_pci = link.parent_bus.as_deref() == Some("pci");
        let functions = machine.functions.iter_mut();
        let mut here =
            functions.filter(|function| on_pci && link.parent_name.as_ref() == Some(&function.address));
        let (Some(function), Ok(driver)) = (here.next(), ethtool.driver(link.ifindex)) else { continue };
        // The kernel puts its own release where a driver says nothing (`ethtool_get_drvinfo()`).
        if !driver.version.is_empty() && driver.version != machine.kernel {
            function.driver_version = Some(driver.version);
        }
        if !driver.firmware.is_empty() && driver.firmware != "N/A" {
            function.firmware.insert("device".to_owned(), driver.firmware);
        }
    }
}
