//! The verdict of `topology` on the lab's own machine, a q35 whose NICs are on the root bus.

use std::os::unix::process::CommandExt;
use std::process::Command;

use devmem_provider::topology::Machine;
use devmem_receive::nic::Nic;
use serde_json::Value;

use crate::ensure;
use crate::guest::{Failure, NIC, Outcome, run, text};

const NOBODY: u32 = 65534;

/// What the tool says as JSON of the way from the NIC to `target`, to a user.
fn foretell(target: &str, user: u32) -> Result<Value, Failure> {
    let mut command = Command::new("/usr/bin/nic-to-gpu-copy");
    let output = run(command.args(["topology", "--json", "--nic", NIC, "--provider", target]).uid(user))?;
    ensure!(output.status.success(), "{}", text(&output));
    let mut answer: Value = serde_json::from_slice(&output.stdout)?;
    Ok(answer["pairs"][0].take())
}

pub(crate) fn the_root_bus_connects_as_the_processor_says() -> Outcome {
    let nic = Nic::open(NIC)?.identity().pci.ok_or("the NIC is no PCI function")?;
    let other = Machine::running().nics()?.into_iter().find(|&other| other != nic);
    let other = other.ok_or("there is but one NIC")?;
    let pair = foretell(&other.to_string(), 0)?;
    ensure!(pair["nic"] == nic.to_string() && pair["gpu"] == other.to_string(), "{pair}");
    ensure!(pair["common"].is_null() && pair["distance"] == 2, "{pair}");
    // The kernel trusts no q35, but every AMD processor since Zen.
    let information = std::fs::read_to_string("/proc/cpuinfo")?;
    let family = |line: &str| line.strip_prefix("cpu family\t: ")?.parse().ok();
    let zen = information.contains("AuthenticAMD")
        && information.lines().find_map(family).is_some_and(|family: u32| family >= 0x17);
    if zen {
        ensure!(pair["verdict"] == "reachable" && pair["route"] == "host-bridge", "{pair}");
    } else {
        ensure!(pair["verdict"] == "not-reachable", "{pair}");
        ensure!(pair["reason"].to_string().contains("8086:29c0"), "{pair}");
    }
    Ok(())
}

pub(crate) fn conventional_functions_hide_nothing_from_the_unprivileged() -> Outcome {
    // What lies between a function and itself is its own ACS. On the lab's root bus functions have 256 bytes of
    // configuration space, where there is none, which everybody may see although only 64 bytes can be read.
    let nic = Nic::open(NIC)?.identity().pci.ok_or("the NIC is no PCI function")?.to_string();
    let size = std::fs::metadata(format!("/sys/bus/pci/devices/{nic}/config"))?.len();
    ensure!(size == 256, "the configuration space has {size} bytes: this test is for another lab");
    let seen = foretell(&nic, 0)?;
    ensure!(seen["verdict"] == "reachable" && seen["route"] == "bus-addresses", "{seen}");
    let unprivileged = foretell(&nic, NOBODY)?;
    ensure!(unprivileged == seen, "{unprivileged}");
    Ok(())
}
