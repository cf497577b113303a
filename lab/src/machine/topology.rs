//! Where the emulated cards sit in the machine's PCI Express hierarchy.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde_json::{Value, json};

use crate::error::Error;

/// Where the first card, or the first port that leads to one, is on the root bus; further ones follow in
/// order, so that the guest finds the cards in order.
const FIRST_SLOT: usize = 0x10;

/// Cards that a machine has room for: the slots that a root bus has from the first one on, less those that the
/// chipset uses.
pub(super) const SLOTS: usize = 12;

/// Where the cards sit. What the kernel allows between two of them follows from it
/// (`drivers/pci/p2pdma.c`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Topology {
    /// All on the root bus, beside the chipset.
    #[default]
    RootBus,
    /// Each behind a root port of its own.
    RootPorts,
    /// All behind one switch, whose ports have no access control services (ACS).
    Switch,
    /// All behind one switch, whose ports redirect requests between them to the root (ACS).
    SwitchWithAcs,
}

const NAMES: [(Topology, &str); 4] = [
    (Topology::RootBus, "root-bus"),
    (Topology::RootPorts, "root-ports"),
    (Topology::Switch, "switch"),
    (Topology::SwitchWithAcs, "switch-acs"),
];

impl FromStr for Topology {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let known = NAMES.iter().find(|(_, name)| *name == text);
        known.map(|(topology, _)| *topology).ok_or_else(|| {
            let names = NAMES.map(|(_, name)| name).join(", ");
            Error::option(format!("topology '{text}'"), format!("known are: {names}"))
        })
    }
}

impl fmt::Display for Topology {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(NAMES.iter().find(|(known, _)| known == self).map_or("", |(_, name)| name))
    }
}

impl Topology {
    /// What the kernel must be told so that it configures the ports as the topology says: by itself it lets a
    /// switch redirect only where there is an IOMMU.
    pub(super) fn kernel_argument(self) -> &'static str {
        match self {
            // P2P request redirect and P2P completion redirect of all QEMU's ports that have ACS.
            Self::SwitchWithAcs => "pci=config_acs=xxx11xx@pci:1b36:000c",
            _ => "",
        }
    }

    /// QEMU's devices for cards with these sockets, bridges before what is behind them.
    pub(super) fn devices(self, sockets: &[PathBuf]) -> Vec<Value> {
        if sockets.is_empty() {
            return Vec::new();
        }
        let slot = |index: usize| format!("{:02x}.0", FIRST_SLOT + index);
        let mut devices = Vec::new();
        if matches!(self, Self::Switch | Self::SwitchWithAcs) {
            devices.push(port("pcie-root-port", "root0", "pcie.0", &slot(0), 1));
            devices.push(json!({ "driver": "x3130-upstream", "id": "switch", "bus": "root0" }));
        }
        for (index, socket) in sockets.iter().enumerate() {
            let name = format!("port{index}");
            let chassis = index + 2;
            let (bus, address) = match self {
                Self::RootBus => ("pcie.0", slot(index)),
                Self::RootPorts => {
                    devices.push(port("pcie-root-port", &name, "pcie.0", &slot(index), chassis));
                    (name.as_str(), "00.0".to_owned())
                }
                Self::Switch | Self::SwitchWithAcs => {
                    // QEMU's model of a switch has no ACS, that of a root port does; where it sits does not
                    // matter to it.
                    let driver = if self == Self::Switch { "xio3130-downstream" } else { "pcie-root-port" };
                    devices.push(port(driver, &name, "switch", &format!("{index:02x}.0"), chassis));
                    (name.as_str(), "00.0".to_owned())
                }
            };
            devices.push(json!({
                "driver": "vfio-user-pci",
                "socket": { "type": "unix", "path": socket },
                "bus": bus,
                "addr": address,
            }));
        }
        devices
    }
}

fn port(driver: &str, name: &str, bus: &str, address: &str, chassis: usize) -> Value {
    json!({ "driver": driver, "id": name, "bus": bus, "addr": address, "chassis": chassis, "slot": chassis })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices(topology: &str) -> Vec<Value> {
        topology.parse::<Topology>().unwrap().devices(&["/s/a\"b".into(), "/s/b".into()])
    }

    #[test]
    fn cards_on_the_root_bus_have_fixed_slots_in_their_order() {
        let devices = devices("root-bus");
        assert_eq!(devices[0]["socket"]["path"], "/s/a\"b");
        assert_eq!((&devices[0]["addr"], &devices[1]["addr"]), (&json!("10.0"), &json!("11.0")));
    }

    #[test]
    fn cards_behind_ports_are_each_behind_their_own() {
        let ports = devices("root-ports");
        assert_eq!(ports.len(), 4);
        assert_eq!((&ports[3]["bus"], &ports[2]["id"]), (&json!("port1"), &json!("port1")));
        let switch = devices("switch");
        assert_eq!(switch.len(), 6);
        assert_eq!((&switch[1]["bus"], &switch[2]["bus"]), (&json!("root0"), &json!("switch")));
        assert!("ring".parse::<Topology>().is_err());
        assert_eq!(Topology::SwitchWithAcs.to_string(), "switch-acs");
    }
}
